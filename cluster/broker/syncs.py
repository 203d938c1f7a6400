"""Syncs under way: what the machine asked of the sync workers, until they answer.

Owns: the workers (threads in C that never take the GIL), their descriptor in the loop, and what
each request was for. Everything that finished by one turn of the loop becomes one event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from _fastseq.sync import SyncWorkers
from cluster.core.effects import Sync
from cluster.core.events import SyncDone, Synced

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Syncs:
    """The sync workers of one broker."""

    def __init__(
        self, loop: AbstractEventLoop, threads: int, deliver: Callable[[Synced], None]
    ) -> None:
        self._loop = loop
        self._deliver = deliver
        self._workers = SyncWorkers(threads)
        self._asked: dict[int, Sync] = {}
        self._number = 0
        loop.add_reader(self._workers.fileno(), self._readable)

    def submit(self, sync: Sync) -> None:
        """Hand one file to the workers."""
        self._number += 1
        self._asked[self._number] = sync
        self._workers.submit(sync.handle, self._number, sync.generation, sync.end)

    @property
    def pending(self) -> int:
        """Requests without a result."""
        return len(self._asked)

    def close(self) -> None:
        """Wait for what is under way and end the threads; results are dropped."""
        self._loop.remove_reader(self._workers.fileno())
        self._workers.close()

    def _readable(self) -> None:
        done = []
        for number, generation, end, errno, nanoseconds in self._workers.drain():
            sync = self._asked.pop(number)
            done.append(
                SyncDone(sync.token, sync.segment_base, generation, end, errno, nanoseconds)
            )
        if done:
            self._deliver(Synced(done))
