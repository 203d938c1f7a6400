"""Three brokers in a directory of their own, as the benchmarks of this package use them.

The directory lies where `tempfile` puts it (TMPDIR): on a file system in memory a sync costs
nothing, and every figure with flush=batch means something else.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvloop

from cluster.testing.layout import Settings, prepare
from cluster.testing.local import LocalCluster

BROKERS = 3
PARTITIONS = 6

T = TypeVar("T")


@contextmanager
def directory() -> Iterator[Path]:
    """A new directory, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix="oncelog-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def three_brokers() -> AsyncIterator[LocalCluster]:
    """A cluster that takes acks=all, ended with the context."""
    with directory() as path:
        async with LocalCluster(path, prepare(path, Settings(BROKERS, base_port=0))) as cluster:
            yield cluster


def pids(cluster: LocalCluster) -> list[int]:
    """Process ids of the brokers, by node id."""
    return [member.pid for member in cluster.members()]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on the loop that the brokers and the command use."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
