"""Records on their way into the log of groups: gathered per turn, told when they are committed.

Owns the writes of one coordinator's partition in one term. Everything that a turn asks for leaves
as one batch (or a few, by size). A write takes effect when it is committed and not before: then it
is applied, and whoever asked is told; in order of the log, so that what is applied last is what
the log says last. Whoever waits too long is told that it may or may not be stored; it is applied
all the same if it comes to be committed.

Invariant: a key counts as under way from `add` until its write has ended, so that nobody writes
an older value of it behind a newer one.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from _fastseq.batch import encode_batch
from cluster import errors
from cluster.limits import (
    GROUP_BATCH_BYTES,
    GROUP_COMMIT_MS,
    GROUP_RECORD_BYTES_MAX,
    GROUP_WRITES_MAX,
)

KeyValue = tuple[bytes, bytes | None]
Told = Callable[[errors.Code], None]


@dataclass(slots=True, eq=False)
class Write:
    """Records that take effect together."""

    records: Sequence[KeyValue]
    apply: Callable[[], None]
    told: Told | None
    """Nobody's any more once it was told."""
    deadline_ms: int

    def tell(self, code: errors.Code) -> None:
        """Say how it ended, once."""
        told, self.told = self.told, None
        if told is not None:
            told(code)


class Writes:
    """What one partition of the internal topic is to hold."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self.under_way: Counter[bytes] = Counter()
        self.bytes_written = 0
        """Since the counter was last set to 0."""
        self.committed = 0
        """Records that took effect."""
        self._queued: list[Write] = []
        self._waiting: deque[Write] = deque()
        self.open = 0
        """Writes that have not ended."""
        self.begun = 0
        """Writes that were ever added."""
        self.refused = 0
        """Writes that ended without taking effect."""

    def __len__(self) -> int:
        """How many writes wait to be appended."""
        return len(self._queued)

    def add(
        self, records: Sequence[KeyValue], apply: Callable[[], None], told: Told, now_ms: int
    ) -> None:
        """Write these records, with the turn's others."""
        size = sum(len(key) + len(value or b"") for key, value in records)
        if size > GROUP_RECORD_BYTES_MAX:
            told(errors.UNKNOWN_SERVER_ERROR)  # what Kafka answers for a group that is too large
            return
        if self.open >= GROUP_WRITES_MAX:
            told(errors.COORDINATOR_NOT_AVAILABLE)
            return
        write = Write(records, apply, told, now_ms + GROUP_COMMIT_MS)
        self.under_way.update(key for key, _ in records)
        self.open += 1
        self.begun += 1
        self._queued.append(write)
        self._waiting.append(write)

    def take(self, wall_ms: int) -> list[tuple[bytes, Callable[[int], None]]]:
        """Batches for the log in order, each with what must be told how it ended."""
        batches, gathered, size = [], list[Write](), 0
        for write in self._queued:
            gathered.append(write)
            size += sum(len(key) + len(value or b"") for key, value in write.records)
            if size >= GROUP_BATCH_BYTES:
                batches.append(self._batch(gathered, wall_ms))
                gathered, size = [], 0
        if gathered:
            batches.append(self._batch(gathered, wall_ms))
        self._queued = []
        return batches

    def _batch(self, writes: list[Write], wall_ms: int) -> tuple[bytes, Callable[[int], None]]:
        rows = [(key, value, wall_ms, ()) for write in writes for key, value in write.records]
        batch = encode_batch(rows)
        self.bytes_written += len(batch)
        return batch, lambda error: self._ended(writes, error)

    def _ended(self, writes: list[Write], error: int) -> None:
        code = answer_for(error)
        for write in writes:
            self.open -= 1
            self.under_way.subtract(key for key, _ in write.records)
            if code is errors.NONE:
                self.committed += len(write.records)
                write.apply()
            else:
                self.refused += 1
            write.tell(code)
        if not self.open:
            self.under_way.clear()

    @property
    def ended(self) -> int:
        """How many writes have ended; those that take effect do so in the order of `begun`."""
        return self.begun - self.open

    def next_deadline_ms(self) -> int | None:
        """When somebody has waited long enough."""
        while self._waiting and self._waiting[0].told is None:
            self._waiting.popleft()
        return self._waiting[0].deadline_ms if self._waiting else None

    def expire(self, now_ms: int) -> None:
        """Tell whoever has waited long enough; it may be stored all the same."""
        while (due_ms := self.next_deadline_ms()) is not None and due_ms <= now_ms:
            self._waiting.popleft().tell(errors.COORDINATOR_NOT_AVAILABLE)

    def end(self, code: errors.Code) -> None:
        """The term is over: what was not appended never will be, the rest nobody knows."""
        self._queued = []
        while self._waiting:
            self._waiting.popleft().tell(code)


def answer_for(error: int) -> errors.Code:
    """What a member is told when its write ended like this; Kafka's translation."""
    if error == 0:
        return errors.NONE
    if error in (errors.NOT_LEADER_OR_FOLLOWER.number, errors.KAFKA_STORAGE_ERROR.number):
        return errors.NOT_COORDINATOR
    if error in (errors.MESSAGE_TOO_LARGE.number, errors.INVALID_RECORD.number):
        return errors.UNKNOWN_SERVER_ERROR
    return errors.COORDINATOR_NOT_AVAILABLE
