"""The scrubber: a broker reads again what it stores, slowly, before somebody needs it.

Owns the rate, and whose turn it is. One piece is under way at a time, read off the loop; the pieces
that a look allows follow one another. What is found goes to the log, whose partition hands over at
its next look and fetches again (rule 7 of docs/protocol.md). A round over all logs begins at most
once an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.core.partition import Partition
from cluster.core.reads import Reads
from cluster.limits import SCRUB_LOGS_PER_LOOK, SCRUB_PIECE_BYTES, SCRUB_ROUND_MS
from cluster.storage.disk import DiskError
from cluster.storage.log import Log
from cluster.storage.reading import Cold, Fetched


class Scrubber:
    """Counts the bytes checked, the rounds over all logs, and the logs found damaged."""

    def __init__(
        self,
        reads: Reads,
        partitions: Callable[[], Sequence[Partition]],
        *,
        bytes_per_second: int,
    ) -> None:
        """`partitions` are those of a new round; a rate of 0 is off."""
        self.bytes = 0
        self.rounds = 0
        self.found = 0
        self._reads = reads
        self._partitions = partitions
        self._rate = bytes_per_second
        self._allowed = 0
        self._seen_ms: int | None = None
        self._round_ms: int | None = None
        self._turn: list[Partition] = []
        self._reading = False

    def look(self, now_ms: int) -> None:
        """Go on by what the time since the last look allows."""
        before, self._seen_ms = self._seen_ms, now_ms
        if not self._rate or before is None:
            return
        more = self._rate * (now_ms - before) // 1_000
        self._allowed = min(self._allowed + more, max(self._rate, SCRUB_PIECE_BYTES))
        if not self._turn and not self._reading:
            if self._round_ms is not None and now_ms - self._round_ms < SCRUB_ROUND_MS:
                return
            self._turn = list(reversed(self._partitions()))
            self._round_ms = now_ms if self._turn else None
        self._go_on()

    def _go_on(self) -> None:
        """Ask for the next piece, of the next log that has one."""
        for _ in range(SCRUB_LOGS_PER_LOOK):
            if self._reading or self._allowed <= 0 or not self._turn:
                return
            partition = self._turn[-1]
            log = partition.replica.log
            if log.damage is not None or log.failed or log.closed or not self._ask(partition, log):
                self._turn.pop()
                self.rounds += not self._turn

    def _ask(self, partition: Partition, log: Log) -> bool:
        """Have the next piece of this log read; False when its pass is over."""
        try:
            length = min(SCRUB_PIECE_BYTES, self._rate)
            cold = log.scrub.next(log.generation, log.recovery_point, length)
        except DiskError:
            return False  # looked at again in the next round
        if cold is None:
            return False
        self._reading = True
        self._reads.begin(log, cold, lambda fetched: self._landed(partition, cold, fetched))
        return True

    def _landed(self, partition: Partition, cold: Cold, fetched: Fetched | None) -> None:
        self._reading = False
        self._allowed -= cold.length
        log = partition.replica.log
        if log.closed:
            return
        if fetched is not None:
            self.bytes += len(fetched.data)
        place = log.scrub.check(cold, fetched, log.generation)
        if place is not None:
            log.mark_damaged(place)
            partition.stir()
            self.found += log.damage is not None
            partition.stir()
            self._turn.pop()
        self._go_on()
