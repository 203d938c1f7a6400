"""What the producer table and the decision table mean, in plain Python: slow, short, obvious."""

from copy import deepcopy
from dataclasses import dataclass, field

from _fastseq import turn
from _fastseq.table import FENCED_EPOCH, CachedBatch, Floor, ProducerEntry

SEQUENCES = 2**31
WINDOW = 5
BEHIND_MAX = 2**30


@dataclass(frozen=True)
class Sent:
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
    end: int
    accepted: int = 0
    last_timestamp: int = -1
    marked: bool = False
    batches: list[CachedBatch] = field(default_factory=list)


@dataclass
class State:
    producers: dict[int, Producer] = field(default_factory=dict)
    floors: dict[int, Floor] = field(default_factory=dict)
    mark: tuple[int, int] = (0, -1)


class Oracle:
    def __init__(self, next_offset: int, journal_entries: int) -> None:
        self.next_offset = self.journal_start = next_offset
        self.journal_entries = journal_entries
        self.state = State()
        self.journal: list[tuple[int, int, State]] = []

    @property
    def producers(self) -> dict[int, Producer]:
        return self.state.producers

    def decide(self, sent: Sent, bound: int = 2**63 - 1) -> Answer:
        """The answer to a client, with everything that follows from it done."""
        if sent.producer_id < 0:
            return self.append(sent)
        known = self.producers.get(sent.producer_id)
        if known is not None and (answer := self._duplicate(sent, known)):
            return answer
        if sent.producer_id >= bound:
            return Answer(turn.ABOVE_BOUND, 19)
        if known is None:
            return self._unknown(sent)
        if sent.epoch < known.epoch:
            return Answer(turn.FENCED, 47)
        expected = 0 if sent.epoch > known.epoch else known.next_sequence
        if sent.first == expected:
            return self.append(sent)
        if sent.epoch == known.epoch and self._below_window(sent, known):
            if not sent.native:
                return Answer(turn.STALE, 7)
            return Answer(turn.DUPLICATE, end=known.batches[0].next_offset)
        return Answer(turn.GAP, 45)

    def _unknown(self, sent: Sent) -> Answer:
        floor, mark = self.state.floors.get(sent.producer_id), self.state.mark
        if floor is None and sent.producer_id < mark[0] and sent.epoch <= mark[1]:
            return Answer(turn.FLOORED, 47)
        if floor is None:
            return self.append(sent) if sent.first == 0 else Answer(turn.UNKNOWN_PRODUCER, 45)
        if sent.epoch < floor.producer_epoch or floor.producer_epoch == FENCED_EPOCH:
            return Answer(turn.FENCED, 47)
        above = sent.epoch > floor.producer_epoch
        ahead = (sent.first - (0 if above else floor.next_sequence)) % SEQUENCES
        if ahead == 0:
            return self.append(sent)
        return Answer(turn.GAP, 45) if above or ahead < BEHIND_MAX else Answer(turn.FLOORED, 47)

    def _duplicate(self, sent: Sent, known: Producer) -> Answer | None:
        whole = (sent.epoch, sent.first, (sent.first + sent.count - 1) % SEQUENCES)
        for cached in known.batches:
            if whole != (known.epoch, *cached[:2]):
                continue
            if cached.crc != sent.crc and sent.native:
                return Answer(turn.CONFLICT, 87)
            return Answer(turn.DUPLICATE, 0, cached.base_offset, cached.next_offset)
        return None

    def _below_window(self, sent: Sent, known: Producer) -> bool:
        behind = (known.next_sequence - sent.first) % SEQUENCES
        if not known.batches or behind > min(known.accepted, BEHIND_MAX):
            return False
        return behind - sent.count >= sum(each.next_offset - each[2] for each in known.batches)

    def _advance(self, count: int, *, changes: bool = True) -> int:
        """Step over `count` offsets; what is about to change is kept."""
        base, self.next_offset = self.next_offset, self.next_offset + count
        if changes:
            self.journal.append((base, self.next_offset, deepcopy(self.state)))
        if len(self.journal) > self.journal_entries:
            self.journal_start = max(self.journal_start, self.journal.pop(0)[1])
        return base

    def append(self, sent: Sent) -> Answer:
        """A batch of the log, whatever its epoch and sequence."""
        base, end = self._advance(sent.count, changes=sent.producer_id >= 0), self.next_offset
        if sent.producer_id < 0:
            return Answer(turn.NEW, 0, base, end)
        now = self._entry(sent.producer_id, sent.epoch, sent.first)
        if (now.epoch, now.next_sequence) != (sent.epoch, sent.first):
            now = Producer(sent.epoch, sent.first, end, marked=now.marked)
            self.producers[sent.producer_id] = now
        last = (sent.first + sent.count - 1) % SEQUENCES
        now.batches = [*now.batches, CachedBatch(sent.first, last, base, end, sent.crc)][-WINDOW:]
        now.next_sequence = (last + 1) % SEQUENCES
        now.accepted += sent.count
        now.last_timestamp, now.end = sent.timestamp, end
        return Answer(turn.NEW, 0, base, end)

    def _entry(self, producer_id: int, epoch: int, first: int) -> Producer:
        """The entry about to change; a producer that comes back leaves its floor."""
        floor = self.state.floors.pop(producer_id, None)
        now = self.producers.setdefault(producer_id, Producer(epoch, first, self.next_offset))
        if floor and floor.whole and floor[1:3] == (epoch, first):
            now.accepted = first
        return now

    def mark(self, producer_id: int, epoch: int, timestamp: int) -> None:
        self._advance(1)
        now = self._entry(producer_id, epoch, 0)
        if now.epoch != epoch:
            now = self.producers[producer_id] = Producer(epoch, 0, self.next_offset)
        now.last_timestamp, now.marked = timestamp, True
        if not now.batches:
            now.end = self.next_offset

    def expire(self, cutoff: int) -> None:
        idle = [number for number, known in self.producers.items() if known.end <= cutoff]
        self._advance(1, changes=bool(idle))
        for number in idle:
            known = self.producers.pop(number)
            whole = known.accepted >= known.next_sequence
            self.state.floors[number] = Floor(number, known.epoch, known.next_sequence, whole)

    def collapse(self, id_bound: int, epoch_bound: int) -> None:
        self._advance(1)
        below, up_to = self.state.mark
        self.state.mark = mark = max(below, id_bound), max(up_to, epoch_bound)
        for number, floor in list(self.state.floors.items()):
            if number < mark[0] and floor.producer_epoch <= mark[1]:
                del self.state.floors[number]

    def fence(self, producer_id: int, epoch: int) -> None:
        known, floor = self.producers.get(producer_id), self.state.floors.get(producer_id)
        now = known.epoch if known else floor.producer_epoch if floor else -1
        changes = epoch > now or (known is not None and epoch == FENCED_EPOCH)
        self._advance(1, changes=changes)
        if changes:
            sequence = known.next_sequence if known else floor.next_sequence if floor else 0
            self.producers.pop(producer_id, None)
            self.state.floors[producer_id] = Floor(producer_id, epoch, sequence, False)

    def rollback(self, offset: int) -> bool:
        if offset < self.journal_start:
            return False
        while self.journal and self.journal[-1][1] > offset:
            base_offset, _, self.state = self.journal.pop()
            self.next_offset = min(self.next_offset, base_offset)
        self.next_offset = min(self.next_offset, offset)
        return True

    def trim(self, offset: int) -> None:
        offset = min(offset, self.next_offset)
        self.journal = [undo for undo in self.journal if undo[1] > offset]
        self.journal_start = max(self.journal_start, offset)

    def entries(self) -> list[ProducerEntry]:
        return [
            ProducerEntry(number, now.epoch, now.accepted, now.last_timestamp, tuple(now.batches))
            for number, now in sorted(self.producers.items())
        ]
