"""One partition's batches at the producer, from their first record until their fate is known.

Owns: the batch being filled, the closed ones waiting, and the window of those sent, with the
identity (producer id, epoch) and the sequence numbers they carry. It chooses which batch may be
sent next; the machine in `produce` sends it and says what came of it.

Invariants:
- A batch gets its numbers and bytes when first sent and keeps both (rule 6): never renumbered.
- The window spans at most `in_flight_max` batches from the oldest unresolved one, so that the
  broker still remembers every batch that may be retried.
- While a batch is retried because it may not have arrived, only the oldest goes out. A batch that
  a later acknowledgement proves stored is sent again only to learn its offset.
- After a sent batch failed, the identity is spent: nothing new is sent under it, and the next one
  is taken only when the window is empty. A pair of id and epoch starts at 0 once per partition.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence

from _fastseq.batch import BatchBuilder
from cluster.core.batches import (
    NO_NODE,
    Batch,
    Header,
    Identity,
    KeyValue,
    Span,
    State,
    next_sequence,
)
from cluster.limits import RECORD_BYTES_LARGE, RETRANSMIT_MS_MIN


class Backlog:
    """The batches of one partition of one producer."""

    def __init__(self, topic: str, partition: int, *, batch_bytes: int, in_flight_max: int) -> None:
        self.topic = topic
        self.partition = partition
        self.leader = NO_NODE
        self.leader_fresh = False
        """Metadata said so since the last answer or event that put the leader in doubt."""
        self.identity: Identity | None = None
        self.spent = False
        self.probing = False
        """The oldest batch goes out alone until it is acknowledged."""
        self.last_code = 0
        """The latest error since an acknowledgement, told when a batch's time is up."""
        self.sent: deque[Batch] = deque()
        self._queue: deque[Batch] = deque()
        self._open: Batch | None = None
        self._next_sequence = 0
        self._round_trip_ms = -1  # smoothed; -1 before the first answer
        self._head_since_ms = 0
        self._batch_bytes = batch_bytes
        self._in_flight_max = in_flight_max

    # Filling

    def append(
        self,
        record: tuple[int, bytes | None, bytes | None, Sequence[Header]],
        token: Hashable,
        now_ms: int,
    ) -> int:
        """Adds (timestamp, key, value, headers); the bytes by which the backlog grew."""
        timestamp, key, value, headers = record
        weight = _weight(key, value)
        for name, data in headers:
            weight += 3 * len(name) + _weight(None, data)
        batch = self._room(weight, now_ms)
        assert batch.builder is not None
        before = batch.size
        batch.size = batch.builder.append(timestamp, key, value, headers)
        batch.spans.append(Span(token, batch.records, 1))
        batch.records += 1
        if batch.size >= self._batch_bytes:
            self.close_open()
        return batch.size - before

    def extend(
        self, records: Sequence[KeyValue], timestamp_ms: int, token: Hashable, now_ms: int
    ) -> int:
        """Adds many records of one caller and timestamp; the bytes by which the backlog grew."""
        grown = 0
        position = 0
        while position < len(records):
            batch = self._room(_weight(*records[position]), now_ms)
            before, first = batch.size, batch.records
            end = self._fill(batch, records, position, timestamp_ms)
            batch.records += end - position
            batch.spans.append(Span(token, first, end - position, position))
            grown += batch.size - before
            position = end
            if position < len(records) or batch.size >= self._batch_bytes:
                self.close_open()
        return grown

    def _fill(
        self, batch: Batch, records: Sequence[KeyValue], position: int, timestamp_ms: int
    ) -> int:
        """Fills the batch from `position`; where it stopped: it is full, or a large record is."""
        assert batch.builder is not None
        append = batch.builder.append
        size, limit, start = batch.size, self._batch_bytes, position
        for key, value in records[position:] if position else records:
            if (
                (value is not None and len(value) > RECORD_BYTES_LARGE)
                or (key is not None and len(key) > RECORD_BYTES_LARGE)
            ) and (position > start and size + _weight(key, value) > limit):
                break
            size = append(timestamp_ms, key, value)
            position += 1
            if size >= limit:
                break
        batch.size = size
        return position

    def _room(self, weight: int, now_ms: int) -> Batch:
        """The open batch, or a new one when `weight` more bytes would overfill it."""
        batch = self._open
        if batch is not None and batch.size + weight > self._batch_bytes:
            self.close_open()
            batch = None
        if batch is None:
            batch = self._open = Batch(BatchBuilder(), now_ms)
        return batch

    def close_open(self) -> None:
        """The batch being filled takes no more records and waits to be sent."""
        if self._open is not None:
            self._queue.append(self._open)
            self._open = None

    # Sending

    @property
    def empty(self) -> bool:
        """Every record's fate is known."""
        return self._open is None and not self._queue and not self.sent

    @property
    def unsent(self) -> bool:
        """Something was never sent."""
        return self._open is not None or bool(self._queue)

    @property
    def identified(self) -> bool:
        """New batches have an identity to go under."""
        return self.identity is not None and not self.spent

    @property
    def window_open(self) -> bool:
        """A batch that was never sent may be, once it has an identity."""
        if self.spent or self.probing or len(self.sent) >= self._in_flight_max:
            return False
        return all(batch.state is not State.DUE for batch in self.sent)

    @property
    def oldest_unsent_ms(self) -> int | None:
        """When the oldest batch that was never sent got its first record."""
        oldest = self._queue[0] if self._queue else self._open
        return None if oldest is None else oldest.created_ms

    def open_due_ms(self, linger_ms: int) -> int | None:
        """When the next unsent batch may leave: 0 when it is closed, None without one."""
        if self._queue:
            return 0
        return None if self._open is None else self._open.created_ms + linger_ms

    def next_retry(self) -> Batch | None:
        """The batch of the window that goes out next, whether or not its time has come."""
        if self.probing:
            head = self.sent[0]
            return head if head.state is State.DUE else None
        for batch in self.sent:
            if batch.state is State.DUE:
                return batch
        return None

    def take(self, now_ms: int) -> Batch:
        """Moves the oldest unsent batch into the window, with its numbers and final bytes."""
        if not self._queue:
            self.close_open()
        assert self.window_open
        assert self.identity is not None
        batch = self._queue.popleft()
        assert batch.builder is not None
        if self.identity.numbered:
            batch.base_sequence = self._next_sequence
            self._next_sequence = next_sequence(self._next_sequence, batch.records)
        batch.payload = batch.builder.seal(
            self.identity.producer_id, self.identity.epoch, batch.base_sequence
        )
        batch.builder = None
        if not self.sent:
            self._head_since_ms = now_ms
        self.sent.append(batch)
        return batch

    def adopt(self, identity: Identity) -> None:
        """Starts numbering from 0 under an identity this partition has not used."""
        assert not self.sent
        assert self.identity != identity or not identity.numbered
        self.identity = identity
        self._next_sequence = 0
        self.spent = False

    # Fates

    def retransmit_ms(self, head: Batch, longest_ms: int) -> int:
        """When the oldest batch counts as lost if it is not answered before.

        The wait is a multiple of the round trip, doubled with each attempt, at most `longest_ms`.
        It begins anew when the batch becomes the oldest: its answer may be next in line.
        """
        wait = longest_ms
        if self._round_trip_ms >= 0:
            wait = max(RETRANSMIT_MS_MIN, 4 * self._round_trip_ms) << min(head.attempts - 1, 10)
        return max(head.sent_ms, self._head_since_ms) + min(wait, longest_ms)

    def retry(self, batch: Batch, at_ms: int, *, alone: bool) -> None:
        """The batch goes out again; `alone` when nothing proves that it arrived."""
        assert batch.state is State.WAITING
        batch.state = State.DUE
        batch.retry_at_ms = at_ms
        if alone:
            self.probing = True

    def lost_before(self, batch: Batch) -> list[Batch]:
        """Older batches whose acks were lost if the latest attempt of `batch` was acknowledged.

        A connection carries a partition's acknowledgements in the order of its log.
        """
        lost = []
        for older in self.sent:
            if older is batch:
                break
            if (
                older.state is State.WAITING
                and older.node == batch.node
                and older.latest < batch.latest
            ):
                lost.append(older)
        return lost

    def proved(self, batch: Batch) -> bool:
        """A later batch was acknowledged, which a broker does only when this one is stored."""
        if self.identity is None or not self.identity.numbered:
            return False
        return any(later.state is State.DONE for later in self._after(batch))

    def _after(self, batch: Batch) -> list[Batch]:
        window = list(self.sent)
        return window[window.index(batch) + 1 :]

    def acknowledge(self, batch: Batch, now_ms: int) -> None:
        """The batch is stored; the window moves when it was the oldest."""
        if batch.attempts == 1:  # of a batch sent twice nobody knows which attempt was answered
            sample, known = now_ms - batch.sent_ms, self._round_trip_ms
            self._round_trip_ms = sample if known < 0 else (7 * known + sample + 4) // 8
        self.last_code = 0
        head = self.sent[0]
        if batch is head:
            self.probing = False
        batch.state = State.DONE
        batch.payload = b""
        self._advance(head, now_ms)

    def give_up(self, batch: Batch, now_ms: int) -> None:
        """A batch of the window has failed: its numbers leave a gap nobody may close."""
        head = self.sent[0]
        self.sent.remove(batch)
        if self.identity is not None and self.identity.numbered:
            self.spent = True
        self._advance(head, now_ms)

    def drop_unsent(self, before_ms: int | None = None) -> list[Batch]:
        """Removes the batches that were never sent, or only those begun before `before_ms`."""
        dropped = []
        while (oldest := self.oldest_unsent_ms) is not None:
            if before_ms is not None and oldest >= before_ms:
                break
            if not self._queue:
                self.close_open()
            dropped.append(self._queue.popleft())
        return dropped

    def _advance(self, head: Batch, now_ms: int) -> None:
        while self.sent and self.sent[0].state is State.DONE:
            self.sent.popleft()
        if not self.sent:
            self.probing = False
        elif self.sent[0] is not head:
            self._head_since_ms = now_ms

    def check(self) -> None:
        """The invariants that cost a few comparisons."""
        assert len(self.sent) <= self._in_flight_max
        assert self.sent or not self.probing
        assert not self.sent or self.sent[0].state is not State.DONE


def _weight(key: bytes | None, value: bytes | None) -> int:
    """Bytes a record takes at most, without headers."""
    return 32 + (0 if key is None else len(key)) + (0 if value is None else len(value))
