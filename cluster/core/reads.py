"""Reads under way off the loop: what logs lack in memory, until the disk has given it.

Owns who asked for each, and the bound on bytes that are under way at once: whoever asks beyond it
waits for others to come back. A log learns of every read that returns, so that it lets go of the
file, before whoever asked does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from cluster.core.effects import Read
from cluster.core.events import ReadDone
from cluster.core.outbox import Outbox
from cluster.limits import READS_BYTES_MAX
from cluster.storage.log import Log
from cluster.storage.reading import Cold, Fetched

Then = Callable[[Fetched | None], None]
"""Takes what was read; None if the disk could not read it."""


class _Asked(msgspec.Struct, frozen=True, gc=False):
    log: Log
    cold: Cold
    then: Then


class Reads:
    """The reads of one broker."""

    def __init__(self, out: Outbox) -> None:
        """None is under way."""
        self.bytes = 0
        """Bytes that read workers were asked for and have not returned."""
        self.count = 0
        self.failed = 0
        self.nanoseconds = 0
        self._out = out
        self._asked: dict[int, _Asked] = {}
        self._queue: deque[_Asked] = deque()

    @property
    def pending(self) -> int:
        """Reads that have not come back, those that wait for their turn included."""
        return len(self._asked) + len(self._queue)

    def begin(self, log: Log, cold: Cold, then: Then) -> None:
        """Read what this log lacks; `then` follows in a later step."""
        self._queue.append(_Asked(log, cold, then))
        self._go_on()

    def done(self, results: Sequence[ReadDone]) -> None:
        """What the read workers finished; each of it goes to whoever asked."""
        landed = []
        for result in results:
            asked = self._asked.pop(result.number)
            self.bytes -= asked.cold.length
            self.nanoseconds += result.nanoseconds
            # A file that is shorter than its log says has lost what was asked for.
            failed = bool(result.errno) or len(result.data) < asked.cold.length
            self.failed += failed
            asked.log.returned(asked.cold)
            fetched = None if failed else Fetched(asked.cold, result.data)
            landed.append((asked.then, fetched))
        self._go_on()
        for then, fetched in landed:
            then(fetched)

    def _go_on(self) -> None:
        queue = self._queue
        while queue and (not self._asked or self.bytes + queue[0].cold.length <= READS_BYTES_MAX):
            asked = queue.popleft()
            self.count += 1
            self.bytes += asked.cold.length
            self._asked[self.count] = asked
            cold = asked.cold
            self._out.emit(Read(cold.handle, self.count, cold.position, cold.length))
