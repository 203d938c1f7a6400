"""Reads under way: what the machine asked of the read workers, until they answer.

Owns the workers (threads in C that never take the GIL), their descriptor in the loop, and the
buffer of each read. Everything that finished by one turn of the loop becomes one event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from _fastseq.read import ReadWorkers
from cluster.broker.buffers import Buffers
from cluster.core.effects import Read
from cluster.core.events import ReadDone, ReadsDone

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Reads:
    """The read workers of one broker."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        threads: int,
        buffers: Buffers,
        deliver: Callable[[ReadsDone], None],
    ) -> None:
        self._loop = loop
        self._buffers = buffers
        self._deliver = deliver
        self._workers = ReadWorkers(threads)
        self._filling: dict[int, memoryview] = {}
        loop.add_reader(self._workers.fileno(), self._readable)

    def submit(self, read: Read) -> None:
        """Hand one range of a file to the workers."""
        buffer = self._buffers.take(read.length)
        self._filling[read.number] = buffer
        self._workers.submit(read.handle, read.number, read.position, buffer)

    def close(self) -> None:
        """Wait for what is under way and end the threads; results are dropped."""
        self._loop.remove_reader(self._workers.fileno())
        self._workers.close()

    def _readable(self) -> None:
        done = []
        for number, count, errno, nanoseconds in self._workers.drain():
            data = self._filling.pop(number)[:count]
            done.append(ReadDone(number, data, errno, nanoseconds))
        if done:
            self._deliver(ReadsDone(done))
