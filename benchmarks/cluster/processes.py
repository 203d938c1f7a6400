"""What a process costs, as Linux accounts for it: CPU seconds per thread, resident memory.

Threads are told apart by the names that libzmq, libuv and the broker give them. Times are those of
/proc/PID/task/TID/schedstat, which counts nanoseconds where stat counts ticks of ten milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

MAIN = "event loop"
IO = "libzmq io thread"
SYNC = "sync workers"
STORE = "store thread"
OTHER = "other threads"
KINDS = (MAIN, IO, SYNC, STORE, OTHER)


class Spent(dict[str, float]):
    """Seconds by kind of thread, 0 for a kind that there is not."""

    def __missing__(self, kind: str) -> float:
        return 0.0

    def total(self) -> float:
        """Seconds of all threads."""
        return sum(self.values())


def cpu_seconds(pids: Iterable[int]) -> Spent:
    """CPU seconds of all threads of these processes so far, by kind of thread."""
    seconds = Spent()
    for pid in pids:
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            name = (task / "comm").read_text().strip()
            spent = int((task / "schedstat").read_text().split()[0])
            seconds[_kind(name, main=task.name == str(pid))] += spent / 1e9
    return seconds


def resident_megabytes(pid: int) -> float:
    """Resident memory of a process in MB (2**20 bytes), shared libraries included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def _kind(name: str, *, main: bool) -> str:
    if main:
        return MAIN
    if name.startswith("ZMQbg/IO"):
        return IO
    if name.startswith("store"):
        return STORE
    # The workers are plain C threads: they keep the name of the process.
    return SYNC if name.startswith("python") else OTHER
