"""The directory of a local cluster: what lies where, and who may run it.

    DIR/cluster.json          where the running brokers serve; absent while none runs
    DIR/metadata.db           the metadata store
    DIR/supervisor.lock       held by the process that runs the cluster, whose pid is in it
    DIR/broker-N/broker.toml  configuration of broker N, N from 1
    DIR/broker-N/broker.log   what it logged
    DIR/broker-N/data         its partitions

Owns: those names, the addresses given to brokers, and the lock. Configuration files are written
once; later settings change only the keys they name, so that an operator's own lines stay.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.config import (
    IN_SYNC_DEFAULT,
    KAFKA_PORT,
    METRICS_PORT,
    REPLICAS_DEFAULT,
    ZMQ_PORT,
    broker_config,
)
from cluster.errors import ConfigError, OncelogError
from cluster.testing.process import CONFIG_NAME

MEMBERS_NAME = "cluster.json"
STORE_NAME = "metadata.db"
LOCK_NAME = "supervisor.lock"

BROKERS_DEFAULT = 3
BROKERS_MAX = 99  # below KAFKA_STEP, so that the three ranges of ports do not meet
KAFKA_STEP, METRICS_STEP = 100, 200
"""With a base port: ZeroMQ from it on, Kafka's clients and metrics this much higher."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `oncelog up` may be told; None keeps what the directory has, or takes the default."""

    brokers: int | None = None
    base_port: int | None = None
    """First of all ports; 0 lets every broker take free ones."""
    allow_faults: bool | None = None
    flush: str | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """One running broker: addresses as host:port, metrics as a URL; None where it has none."""

    id: int
    pid: int
    zmq: str
    kafka: str | None
    metrics: str | None


class AlreadyRunning(OncelogError):
    """Another process runs the cluster of this directory."""


def broker_directories(directory: Path) -> list[Path]:
    """The directories of the brokers that DIR was made with, in order of their ids."""
    found = [path for path in directory.glob("broker-*") if (path / CONFIG_NAME).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("broker-")))


def prepare(directory: Path, settings: Settings) -> list[Path]:
    """Make DIR, or update it: the broker directories, each with its configuration file.

    Raises ConfigError if DIR was made with another number of brokers.
    """
    existing = broker_directories(directory)
    count = settings.brokers or len(existing) or BROKERS_DEFAULT
    if existing and count != len(existing):
        allowed = f"{len(existing)}, the number this cluster was made with, not {count}"
        raise ConfigError(str(directory), "--brokers", allowed)
    if count > BROKERS_MAX:
        raise ConfigError(str(directory), "--brokers", f"at most {BROKERS_MAX}, not {count}")
    for node_id in range(1, count + 1):
        keys = _keys(node_id, settings, new=not existing)
        if not existing:
            keys |= _capped(count)
        # Directories from before there was this listener must not all get its default port.
        added = {"listen_kafka": _ports(None, node_id)["listen_kafka"]}
        _configure(directory / f"broker-{node_id}" / CONFIG_NAME, keys, added)
    return broker_directories(directory)


def _keys(node_id: int, settings: Settings, *, new: bool) -> dict[str, object]:
    """What the configuration file of a broker must say, given these settings."""
    keys: dict[str, object] = {}
    if new:
        # Relative to the file, so that DIR may be moved as a whole.
        keys = {"node_id": node_id, "data_dir": "data", "store_path": f"../{STORE_NAME}"}
        # Whoever tries consumer groups here starts one and waits for it.
        keys |= {"group_initial_rebalance_delay_ms": 0, "group_min_session_timeout_ms": 1_000}
    if new or settings.base_port is not None:
        keys |= _ports(settings.base_port, node_id)
    if new or settings.allow_faults is not None:
        keys["allow_faults"] = bool(settings.allow_faults)
    if new or settings.flush is not None:
        keys["flush"] = settings.flush or "batch"
    return keys


def _capped(brokers: int) -> dict[str, object]:
    """Replicas and minimum in sync of new topics, as far as `brokers` brokers allow."""
    return {
        "default_replicas": min(brokers, REPLICAS_DEFAULT),
        "min_insync_replicas": min(brokers, IN_SYNC_DEFAULT),
    }


def _ports(base_port: int | None, node_id: int) -> dict[str, object]:
    """Where broker `node_id` listens."""
    firsts = (ZMQ_PORT, KAFKA_PORT, METRICS_PORT)
    if base_port is not None:
        firsts = (base_port, base_port + KAFKA_STEP, base_port + METRICS_STEP)
    ports = [0 if base_port == 0 else first + node_id - 1 for first in firsts]
    keys = ("listen_zmq", "listen_kafka", "listen_metrics")
    return {key: f"127.0.0.1:{port}" for key, port in zip(keys, ports, strict=True)}


def _configure(path: Path, keys: dict[str, object], added: dict[str, object]) -> None:
    """Set `keys` in the configuration file `path`, and `added` where it lacks them; it is written
    only if that changes anything.

    Raises ConfigError if the broker could not use the result.
    """
    known: dict[str, object] = {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            known = tomllib.loads(path.read_text(encoding="utf-8"))
        wanted = added | known | keys
        broker_config(wanted, str(path), path.parent)
        if wanted != known:
            # JSON writes strings, numbers and booleans as TOML does.
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in wanted.items()]
            path.write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), "--dir", f"a file to write: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "the file", f"TOML: {error}") from None


def write_members(directory: Path, members: Sequence[Member]) -> None:
    """Write DIR/cluster.json, so that no reader ever sees half of it."""
    brokers = [
        {"id": m.id, "pid": m.pid, "zmq": m.zmq, "kafka": m.kafka, "metrics": m.metrics}
        for m in members
    ]
    path = directory / MEMBERS_NAME
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"brokers": brokers}, indent=2) + "\n", encoding="utf-8")
    temporary.replace(path)


def remove_members(directory: Path) -> None:
    """No broker runs any more."""
    (directory / MEMBERS_NAME).unlink(missing_ok=True)


def read_members(directory: Path) -> list[Member]:
    """The running brokers by DIR/cluster.json; raises OncelogError if there is no such file."""
    path = directory / MEMBERS_NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return [Member(**broker) for broker in found["brokers"]]
    except FileNotFoundError:
        start = f"start one with: oncelog up --dir {directory}"
        raise OncelogError(f"no cluster runs in {directory}; {start}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OncelogError(f"{path} cannot be read: {error}") from None


def faults_allowed(directory: Path, node_id: int) -> bool:
    """True if the configuration of broker `node_id` lets it be broken on purpose."""
    path = directory / f"broker-{node_id}" / CONFIG_NAME
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")).get("allow_faults") is True
    except (OSError, ValueError):
        return False


def send(directory: Path, member: Member, number: signal.Signals) -> bool:
    """Signal a broker; False if its pid is no longer that of a broker of this directory."""
    config = str(directory.resolve() / f"broker-{member.id}" / CONFIG_NAME)
    try:
        command = Path(f"/proc/{member.pid}/cmdline").read_bytes().decode(errors="replace")
        if config not in command.split("\0"):
            return False
        os.kill(member.pid, number)
    except (FileNotFoundError, ProcessLookupError):
        return False
    return True


def end_leftovers(directory: Path) -> int:
    """Kill brokers whose supervisor was killed while they were paused; returns how many.

    The kernel told them to stop when it died, which a stopped process does not hear.
    """
    try:
        members = read_members(directory)
    except OncelogError:
        return 0
    remove_members(directory)
    return sum(send(directory, member, signal.SIGKILL) for member in members)


def hold(directory: Path) -> IO[str]:
    """Take the lock of DIR for as long as the returned file is open; raises AlreadyRunning."""
    file = (directory / LOCK_NAME).open("a+", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise already_running(directory, supervisor(directory)) from None
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


def already_running(directory: Path, pid: int | None) -> AlreadyRunning:
    """What to raise when process `pid` runs the cluster of DIR."""
    end = f"end it with: oncelog down --dir {directory}"
    return AlreadyRunning(f"the cluster in {directory} runs already (pid {pid}); {end}")


def supervisor(directory: Path) -> int | None:
    """Pid of the process that runs the cluster of DIR, None if none does."""
    try:
        file = (directory / LOCK_NAME).open("r+", encoding="ascii")
    except FileNotFoundError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = file.read().strip()
            return int(text) if text.isdigit() else None
        return None
