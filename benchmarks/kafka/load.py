"""The client of the comparison: `load.c`, compiled against the librdkafka of confluent-kafka.

A loop in Python would measure itself: at a million records a second it, not the brokers, would be
the limit. So records are made and counted in C, and the client's own CPU is told with each figure.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import NamedTuple

import confluent_kafka

from cluster.testing.process import die_with_parent

HERE = Path(__file__).parent
BUILD = HERE.parents[1] / "build" / "kafka"
WITHIN_S = 300  # s until a load is given up
IDEMPOTENT = {"enable.idempotence": "true", "acks": "all", "log_level": "2"}
BULK = {"linger.ms": "5", "queue.buffering.max.messages": "500000"}
SINGLES = {"linger.ms": "0", "batch.num.messages": "1"}
AT_ONCE = {"linger.ms": "0"}


class LoadFailed(RuntimeError):
    """A load ended early, or some of its records failed."""


class Loaded(NamedTuple):
    """What one load came to; milliseconds and CPU seconds as the client saw them."""

    records: int
    failed: int
    error: str
    seconds: float
    cpu_s: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    gap_ms: float = 0.0

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds


@cache
def program() -> Path:
    """The compiled client; built again only when its source or the library is newer."""
    (library,) = (Path(confluent_kafka.__file__).parents[1] / "confluent_kafka.libs").glob(
        "librdkafka*.so*"
    )
    sources = [HERE / "load.c", HERE / "librdkafka.h", library]
    built = BUILD / "load"
    if built.exists() and built.stat().st_mtime > max(s.stat().st_mtime for s in sources):
        return built
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = (sysconfig.get_config_var("CC") or "cc").split()
    command = [*compiler, "-O2", "-Wall", "-Wextra", "-o", built, HERE / "load.c", library]
    subprocess.run([*command, "-lpthread", f"-Wl,-rpath,{library.parent}"], check=True)
    return built


async def produce(
    bootstrap: str, topic: str, shape: tuple[int, int, int, int], **settings: dict[str, str]
) -> Loaded:
    """Records acknowledged; `shape` is partitions, records, bytes of a value, records a second.

    Each of `settings` is a group of librdkafka's settings; a later one replaces an earlier one's.
    Raises LoadFailed if a record failed.
    """
    merged = {
        key: value for group in (IDEMPOTENT, *settings.values()) for key, value in group.items()
    }
    return await _run("produce", bootstrap, topic, *map(str, shape), *_told(merged))


async def consume(bootstrap: str, topic: str, partitions: int, records: int) -> Loaded:
    """`records` records read from the beginning of all partitions; the first starts the clock."""
    settings = {"log_level": "2"}
    return await _run("consume", bootstrap, topic, str(partitions), str(records), *_told(settings))


def _told(settings: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


async def _run(*arguments: str) -> Loaded:
    process = await asyncio.create_subprocess_exec(
        program(),
        *arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=die_with_parent(signal.SIGKILL),
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), WITHIN_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadFailed(f"{' '.join(arguments[:3])}: {err.decode().strip()}")
    loaded = Loaded(**json.loads(out))
    if loaded.failed:
        raise LoadFailed(f"{' '.join(arguments[:3])}: {loaded.failed} failed with {loaded.error}")
    return loaded
