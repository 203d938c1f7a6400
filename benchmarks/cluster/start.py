"""How long three brokers take from nothing to ready, and what memory each holds.

The time is that of `oncelog up` on a directory that does not exist, from the start of its process
until it says that every partition takes acks=all: interpreters, imports, election and first syncs
included. Memory is that of each broker while idle, and again after a load of small batches.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE, STDOUT

from benchmarks.cluster.brokers import directory, pids, run, three_brokers
from benchmarks.cluster.load import create_topic, settle_many
from benchmarks.cluster.processes import resident_megabytes
from benchmarks.targets import Target, judge
from cluster.testing.process import environment

READY_S = 1.5
IDLE_MB = 60.0
LOADED_MB = 100.0
LOAD_RECORDS = 1_000_000


def start_seconds(path: Path) -> float:
    """Seconds from starting the command until the line that says ready; ends the cluster again."""
    command = [sys.executable, "-P", "-m", "cluster.cli", "up", "--dir", str(path)]
    began = time.monotonic()
    with subprocess.Popen(
        [*command, "--base-port", "0"], stdout=PIPE, stderr=STDOUT, text=True, env=environment()
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            if line.startswith("ready in"):
                seconds = time.monotonic() - began
                process.terminate()
                break
            lines.append(line)
        else:
            raise RuntimeError(f"the cluster did not start: {''.join(lines)}")
        process.stdout.read()
    return seconds


async def memory(records: int, idle_s: float) -> tuple[float, float]:
    """MB of the largest broker: idle, and after `records` records of 100 bytes."""
    async with three_brokers() as cluster:
        await asyncio.sleep(idle_s)
        idle = max(resident_megabytes(pid) for pid in pids(cluster))
        await create_topic(cluster, "load", flush="batch")
        await settle_many(cluster, "load", records, 100)
        return idle, max(resident_megabytes(pid) for pid in pids(cluster))


def main(smoke: bool) -> int:
    """Print times and memory; 1 if a target is missed."""
    runs = []
    for _ in range(1 if smoke else 10):
        with directory() as path:
            runs.append(start_seconds(path / "cluster"))
    median, worst = statistics.median(runs), max(runs)
    print(f"three brokers from nothing, {len(runs)} runs: {' '.join(f'{s:.2f}' for s in runs)} s")
    print(f"  best {min(runs):.2f} s, median {median:.2f} s, worst {worst:.2f} s")
    idle, loaded = run(memory(2_000 if smoke else LOAD_RECORDS, 0.1 if smoke else 3.0))
    print(f"resident per broker: idle {idle:.1f} MB, after load {loaded:.1f} MB")
    if smoke:
        return 0
    return judge(
        Target("three brokers ready, median", median, READY_S, "s", at_most=True),
        Target("resident memory of an idle broker", idle, IDLE_MB, "MB", at_most=True),
        Target("resident memory after load", loaded, LOADED_MB, "MB", at_most=True),
    )


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
