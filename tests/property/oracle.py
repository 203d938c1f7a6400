"""What the producer table and the decision table mean, in plain Python: slow, short, obvious.

State is copied before every append, so that undoing one is taking the old copy back.
"""

from copy import deepcopy
from dataclasses import dataclass, field, replace

from _fastseq import turn
from _fastseq.table import CachedBatch, ProducerEntry

SEQUENCES = 2**31
WINDOW = 5
BEHIND_MAX = 2**30


@dataclass(frozen=True)
class Sent:
    """A client's sound batch, as far as the table cares."""

    producer_id: int
    epoch: int
    first: int
    count: int
    crc: int
    timestamp: int
    native: bool = True


@dataclass(frozen=True)
class Answer:
    verdict: int
    error: int = 0
    offset: int = -1
    end: int = -1


@dataclass
class Producer:
    epoch: int
    next_sequence: int
    accepted: int = 0
    last_timestamp: int = -1
    batches: list[CachedBatch] = field(default_factory=list)


@dataclass
class Undo:
    base_offset: int
    next_offset: int
    producer_id: int
    before: Producer | None


class Oracle:
    def __init__(self, next_offset: int, journal_entries: int) -> None:
        self.next_offset = next_offset
        self.journal_start = next_offset
        self.journal_entries = journal_entries
        self.producers: dict[int, Producer] = {}
        self.journal: list[Undo] = []

    def decide(self, sent: Sent, bound: int = 2**63 - 1) -> Answer:
        """The answer to a client, with everything that follows from it done."""
        if sent.producer_id < 0:
            return self._accept(sent)
        known = self.producers.get(sent.producer_id)
        if known is not None and (answer := self._duplicate(sent, known)):
            return answer
        if sent.producer_id >= bound:
            return Answer(turn.ABOVE_BOUND, 19)
        if known is None:
            return self._accept(sent) if sent.first == 0 else Answer(turn.UNKNOWN_PRODUCER, 45)
        if sent.epoch < known.epoch:
            return Answer(turn.FENCED, 47)
        expected = 0 if sent.epoch > known.epoch else known.next_sequence
        if sent.first == expected:
            return self._accept(sent)
        if sent.epoch == known.epoch and self._below_window(sent, known):
            if not sent.native:
                return Answer(turn.STALE, 7)
            return Answer(turn.DUPLICATE, end=known.batches[0].next_offset)
        return Answer(turn.GAP, 45)

    def _duplicate(self, sent: Sent, known: Producer) -> Answer | None:
        last = (sent.first + sent.count - 1) % SEQUENCES
        for cached in known.batches:
            if (sent.epoch, sent.first, last) != (known.epoch, *cached[:2]):
                continue
            if cached.crc != sent.crc and sent.native:
                return Answer(turn.CONFLICT, 87)
            return Answer(turn.DUPLICATE, 0, cached.base_offset, cached.next_offset)
        return None

    def _below_window(self, sent: Sent, known: Producer) -> bool:
        behind = (known.next_sequence - sent.first) % SEQUENCES
        if not known.batches or behind > min(known.accepted, BEHIND_MAX):
            return False
        return behind - sent.count >= sum(
            batch.next_offset - batch.base_offset for batch in known.batches
        )

    def _accept(self, sent: Sent) -> Answer:
        base = self.next_offset
        self.append(sent, base)
        return Answer(turn.NEW, 0, base, self.next_offset)

    def append(self, sent: Sent, base_offset: int) -> None:
        """A batch of the log, whatever its epoch and sequence."""
        end = base_offset + sent.count
        if sent.producer_id >= 0:
            before = self.producers.get(sent.producer_id)
            self._remember(Undo(base_offset, end, sent.producer_id, deepcopy(before)))
            now = before
            if now is None or (now.epoch, now.next_sequence) != (sent.epoch, sent.first):
                now = Producer(sent.epoch, sent.first)
            self.producers[sent.producer_id] = now
            last = (sent.first + sent.count - 1) % SEQUENCES
            cached = CachedBatch(sent.first, last, base_offset, end, sent.crc)
            now.batches = [*now.batches, cached][-WINDOW:]
            now.next_sequence = (last + 1) % SEQUENCES
            now.accepted += sent.count
            now.last_timestamp = sent.timestamp
        self.next_offset = end

    def mark(self, producer_id: int, epoch: int, timestamp: int) -> None:
        """A transaction marker, one record long."""
        end = self.next_offset + 1
        before = self.producers.get(producer_id)
        self._remember(Undo(self.next_offset, end, producer_id, deepcopy(before)))
        if before is None or before.epoch != epoch:
            before = Producer(epoch, 0)
        self.producers[producer_id] = replace(before, last_timestamp=timestamp)
        self.next_offset = end

    def _remember(self, undo: Undo) -> None:
        self.journal.append(undo)
        if len(self.journal) > self.journal_entries:
            self.journal_start = max(self.journal_start, self.journal.pop(0).next_offset)

    def rollback(self, offset: int) -> bool:
        if offset < self.journal_start:
            return False
        while self.journal and self.journal[-1].next_offset > offset:
            undo = self.journal.pop()
            self.next_offset = min(self.next_offset, undo.base_offset)
            if undo.before is None:
                del self.producers[undo.producer_id]
            else:
                self.producers[undo.producer_id] = undo.before
        self.next_offset = min(self.next_offset, offset)
        return True

    def trim(self, offset: int) -> None:
        offset = min(offset, self.next_offset)
        self.journal = [undo for undo in self.journal if undo.next_offset > offset]
        self.journal_start = max(self.journal_start, offset)

    def load(self) -> None:
        """What a round trip through a side file leaves."""
        self.journal = []
        self.journal_start = self.next_offset

    def entries(self) -> list[ProducerEntry]:
        return [
            ProducerEntry(
                number, known.epoch, known.accepted, known.last_timestamp, tuple(known.batches)
            )
            for number, known in sorted(self.producers.items())
        ]
