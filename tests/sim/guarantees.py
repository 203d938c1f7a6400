"""The checkers: G1 to G7, and the rules that keep leaders and in-sync sets single and legal."""

from __future__ import annotations

import struct
from collections import Counter
from itertools import pairwise

from _fastseq.table import CachedBatch, Floor, ProducerEntry
from cluster.core.follower import Follower
from cluster.core.leader import Leader
from cluster.core.records import PartitionRecord
from cluster.errors import Outcome
from tests.sim.checkers import Answer, At, Checker, Violation, same_batch
from tests.sim.committed import Stored
from tests.sim.producer import Fate, Producer
from tests.sim.store import Session
from tests.sim.traced import AllowedByTheModel

WINDOW = 5
SEQUENCES = 2**31
EXPIRE, FENCE = 100, 102
FLOORS_READ = 1_000_000
TABLE_EVERY = 16


class WatermarkOnlyRises(Checker):
    """G4: a high watermark never moves back in one life of a process, nor past a leader's.

    But a failed sync takes what a replica had written, and with it what it knew of that (rule 14).
    """

    def __init__(self) -> None:
        self._recovered: set[tuple[int, int]] = set()

    def cut(self, at: At, dropped: list[Stored]) -> None:
        if at.log.doubtful:
            self._recovered.add((at.node_id, at.number))

    def watermark(self, at: At, before: int, leader: Leader | None) -> None:
        recovered = (at.node_id, at.number) in self._recovered
        self._recovered.discard((at.node_id, at.number))
        if at.high_watermark < before and not (recovered and leader is None):
            raise Violation(f"G4: {at}: high watermark from {before} to {at.high_watermark}")
        if leader is None and at.high_watermark > self.truth(at.number).end:
            raise Violation(
                f"G4: {at}: high watermark {at.high_watermark}, but no leader has committed it"
            )


class CommittedStays(Checker):
    """G1, G4: what was ever below a leader's high watermark is in every later leader's log."""

    def watermark(self, at: At, before: int, leader: Leader | None) -> None:
        end = min(at.high_watermark, self.truth(at.number).end)
        self._compare(at, before, end)

    def led(self, at: At, leader: Leader) -> None:
        self._compare(at, 0, self.truth(at.number).end)

    def _compare(self, at: At, start: int, end: int) -> None:
        mine = self.world.watch.between(at, start, min(end, at.log.next_offset))
        truth = self.truth(at.number).between(start, end)
        if mine != truth:
            first = next(
                (b for a, b in zip(mine, truth, strict=False) if a != b), truth[len(mine) :][:1]
            )
            raise Violation(f"G1, G4: {at}: log ends at {at.log.next_offset}, lacks {first}")


class NothingCommittedIsCut(Checker):
    """G1: no in-sync replica ever loses what is committed, and none has to cut it to agree.

    But a damaged disk loses it, and a failed sync takes it from one that is not in sync.
    """

    def opened(self, at: At, dropped: list[Stored]) -> None:
        if self._in_sync(at):
            self._check(at, dropped)

    def cut(self, at: At, dropped: list[Stored]) -> None:
        if self._in_sync(at) or not at.log.doubtful:
            self._check(at, dropped)

    def _in_sync(self, at: At) -> bool:
        record = self.world.record(at.number)
        member = at.node_id in record.isr and at.node_id not in record.doubtful
        return member and not at.broker.lost_data

    def _check(self, at: At, dropped: list[Stored]) -> None:
        truth = self.truth(at.number)
        for batch in dropped:
            if truth.at(batch.base_offset) == batch:
                raise Violation(f"G1: {at}: {batch} was lost, the log ends at {at.log.next_offset}")


class HeldByAll(Checker):
    """G1: what a leader commits, every in-sync replica holds as durably as the topic asks.

    But one that lost its data since it acknowledged counts until its leader hears of that.
    """

    def committed(self, at: At, batches: list[Stored]) -> None:
        for node_id in self.world.record(at.number).isr:
            partition = self.world.replica(node_id, at.number)
            if partition is None or partition.replica.log.failed or self._lost(at, node_id):
                continue
            log = partition.replica.log
            if log.synced_end < at.high_watermark:
                raise Violation(
                    f"G1: {at} commits {at.high_watermark}, {node_id} holds {log.synced_end}"
                )
            other = At(self.world.brokers[node_id], partition)
            start = batches[0].base_offset
            if self.world.watch.between(other, start, at.high_watermark) != batches:
                raise Violation(f"G1: {at} commits {batches}, {node_id} holds something else")

    def _lost(self, at: At, node_id: int) -> bool:
        """Whether the member lost data since it opened the stream that its leader counts."""
        broker, leader = self.world.brokers[node_id], at.partition.leader
        stream = None if leader is None else leader.followers.get(node_id)
        partition = self.world.replica(node_id, at.number)
        role = None if partition is None else partition.role
        known = (
            stream is not None
            and isinstance(role, Follower)
            and (broker.running.incarnation, role._stream) == (stream.incarnation, stream.number)
        )
        return broker.lost_data and not known


class AckedIsCommitted(Checker):
    """G7, G1: an acknowledgement, of a duplicate too, leaves only when its batch is committed."""

    def answered(self, answer: Answer) -> None:
        if answer.base_offset < 0:
            return
        at, end = answer.at, answer.base_offset + answer.sent.next_offset
        if answer.acks == 1:
            if at.log.synced_end < end:
                raise Violation(f"G1: {at} acks {answer.sent} at {answer.base_offset} unsynced")
            return
        stored = self.truth(at.number).at(answer.base_offset)
        if at.high_watermark < end or stored is None:
            raise Violation(
                f"G7: {at} acks {answer.sent} at {answer.base_offset}; "
                f"high watermark {at.high_watermark}, committed {self.truth(at.number).end}"
            )
        if not same_batch(stored, answer.sent):
            raise Violation(f"G1: {at} acks {answer.sent} where {stored} is committed")


class DuplicatesAreProved(Checker):
    """G3: DUPLICATE is said only of what the log holds, with the place of the original."""

    def answered(self, answer: Answer) -> None:
        if not answer.duplicate:
            return
        batches = self.truth(answer.at.number).batches
        if answer.acks == 1:
            batches = self.world.watch.whole(answer.at)
        original = next((batch for batch in batches if same_batch(batch, answer.sent)), None)
        if original is None:
            raise Violation(f"G3: {answer.at} calls {answer.sent} a duplicate of nothing")
        if answer.base_offset not in (-1, original.base_offset):
            raise Violation(f"G3: {answer.at} places {original} at {answer.base_offset}")


class SequencesInOrder(Checker):
    """G2: per producer id, epoch and partition, the log holds the sequences without gap."""

    def __init__(self) -> None:
        self._next: dict[tuple[int, int, int], int] = {}

    def committed(self, at: At, batches: list[Stored]) -> None:
        for batch in batches:
            if batch.producer_id < 0:
                continue
            key = (at.number, batch.producer_id, batch.producer_epoch)
            expected = self._next.get(key, 0)
            if batch.base_sequence != expected:
                raise Violation(f"G2: {at}: {batch}, the sequence expected was {expected}")
            count = batch.next_offset - batch.base_offset
            self._next[key] = (expected + count) % SEQUENCES


class TablesFollowTheLog(Checker):
    """G5: a producer table is what replaying its log gives, at every offset."""

    def __init__(self) -> None:
        self._grown: Counter[tuple[int, int]] = Counter()

    def opened(self, at: At, dropped: list[Stored]) -> None:
        self._compare_now(at)

    def cut(self, at: At, dropped: list[Stored]) -> None:
        self._compare_now(at)

    def _compare_now(self, at: At) -> None:
        held = self.world.watch.held(at)
        if at.log.next_offset == (held[-1].next_offset if held else 0):
            self._compare(at)
        else:
            self._grown[at.node_id, at.number] = -1  # with what was appended in the same step

    def led(self, at: At, leader: Leader) -> None:
        self._compare(at)

    def grown(self, at: At, added: list[Stored]) -> None:
        self._grown[at.node_id, at.number] += 1
        if self._grown[at.node_id, at.number] % TABLE_EVERY == 0:
            self._compare(at)

    def finished(self) -> None:
        for broker in self.world.brokers.values():
            for partition in broker.running.partitions:
                assert not partition.replica.log.rebuilding, "a rebuild ends"
                self._compare(At(broker, partition))

    def _compare(self, at: At) -> None:
        if at.log.failed or at.log.rebuilding:
            return  # a role comes only after either
        if at.log.table.next_offset != at.log.next_offset:
            raise Violation(f"G5: {at}: table at {at.log.table.next_offset}, log elsewhere")
        table = at.log.table
        expected = replayed(self.world.watch.held(at))
        found = (table.entries(), table.floors_after(-1, FLOORS_READ))
        if found != expected:
            raise Violation(f"G5: {at}: table {found}, the log says {expected}")


def replayed(batches: list[Stored]) -> tuple[list[ProducerEntry], list[Floor]]:
    """The producer table of a log, by the obvious way: entries and floors in order of id."""
    entries: dict[int, ProducerEntry] = {}
    floors: dict[int, Floor] = {}
    for batch in batches:
        if batch.control is not None:
            _decide(entries, floors, *batch.control)
        elif batch.producer_id >= 0:
            floor = floors.pop(batch.producer_id, None)
            entries[batch.producer_id] = _appended(entries.get(batch.producer_id), floor, batch)
    return [entries[n] for n in sorted(entries)], [floors[n] for n in sorted(floors)]


def _appended(known: ProducerEntry | None, floor: Floor | None, batch: Stored) -> ProducerEntry:
    number, count = batch.producer_id, batch.next_offset - batch.base_offset
    place = (batch.producer_epoch, batch.base_sequence)
    if known is None or (known.producer_epoch, _expected(known)) != place:
        comes_back = floor is not None and floor.whole and floor[1:3] == place
        accepted = batch.base_sequence if comes_back else 0
        known = ProducerEntry(number, batch.producer_epoch, accepted, -1, ())
    fields = {
        "first_sequence": batch.base_sequence,
        "last_sequence": (batch.base_sequence + count - 1) % SEQUENCES,
        "base_offset": batch.base_offset,
        "next_offset": batch.next_offset,
        "crc": batch.crc,
    }
    cached = CachedBatch._make(fields[name] for name in CachedBatch._fields)
    return ProducerEntry(
        number,
        batch.producer_epoch,
        known.accepted + count,
        batch.max_timestamp,
        (*known.batches, cached)[-WINDOW:],
    )


def _expected(entry: ProducerEntry) -> int:
    return (entry.batches[-1].last_sequence + 1) % SEQUENCES if entry.batches else -1


def _decide(
    entries: dict[int, ProducerEntry], floors: dict[int, Floor], kind: int, value: bytes
) -> None:
    """What a control batch of the leader's own does to every table (rule 4)."""
    if kind == EXPIRE:
        (cutoff,) = struct.unpack_from(">q", value, 2)
        for number, entry in list(entries.items()):
            if entry.batches[-1].next_offset <= cutoff:
                floors[number] = _floor(entry, entry.producer_epoch)
                del entries[number]
    elif kind == FENCE:
        number, epoch = struct.unpack_from(">qh", value, 2)
        if number in entries:
            floors[number] = _floor(entries.pop(number), epoch)._replace(whole=False)
        else:
            next_sequence = floors[number].next_sequence if number in floors else 0
            floors[number] = Floor(number, epoch, next_sequence, False)


def _floor(entry: ProducerEntry, epoch: int) -> Floor:
    expected = _expected(entry)
    return Floor(entry.producer_id, epoch, expected, entry.accepted >= expected)


class OneLeaderPerEpoch(Checker):
    """Rules 9, 11: an epoch of a partition has one leader, in one process, for one term."""

    def __init__(self) -> None:
        self._leaders: dict[tuple[int, int], tuple[int, int]] = {}

    def led(self, at: At, leader: Leader) -> None:
        mine = (at.node_id, at.broker.process)
        other = self._leaders.setdefault((at.number, leader.epoch), mine)
        if other != mine:
            raise Violation(f"rule 9: {at} leads in epoch {leader.epoch}, as {other} did")
        if any(epoch > leader.epoch for index, epoch in self._leaders if index == at.number):
            return  # a deposed leader that has not heard of it
        for batch in self.world.watch.whole(at)[-1:]:
            if batch.leader_epoch >= leader.epoch:
                raise Violation(f"rule 9: {at} begins epoch {leader.epoch} over {batch}")


class RecordsAreLegal(Checker):
    """Rules 10, 11: one value, changed by who may, and never fewer in sync than the minimum."""

    def wrote(
        self, writer: Session, number: int, before: PartitionRecord | None, after: PartitionRecord
    ) -> None:
        if not set(after.doubtful) <= set(after.isr) <= set(after.replicas):
            raise Violation(f"rule 10: {after}")
        if before is None:
            return
        if len(after.isr) < min(self.minimum, len(before.isr)):
            raise Violation(f"rule 10: in sync {before.isr} became {after.isr}")
        moved = (before.leader, before.leader_incarnation) != (
            after.leader,
            after.leader_incarnation,
        )
        if after.leader_epoch < before.leader_epoch + moved:
            raise Violation(f"rule 9: {before} became {after}")
        if moved and after.leader not in before.isr:
            raise Violation(f"rule 7: {after.leader} was not in sync: {before}")
        if moved and writer.node_id != self.world.controller:
            raise Violation(f"rule 11: {writer.node_id} elected, the controller is another")
        if writer.node_id not in (before.leader, self.world.controller):
            raise Violation(f"rule 10: {writer.node_id} changed {before}, which it does not lead")

    @property
    def minimum(self) -> int:
        """The topic's min.insync.replicas."""
        return int(self.world.shape.config["min.insync.replicas"])


class ConsumersSeeTheLog(Checker):
    """G4: a consumer reads each committed batch once, in order, and nothing else."""

    def __init__(self) -> None:
        self._position: Counter[int] = Counter()

    def skipped(self, index: int, offset: int) -> None:
        truth = self.truth(index)
        if offset > truth.started:
            raise Violation(f"G4: {index} is said to begin at {offset}, it does at {truth.started}")
        holding = (b.base_offset for b in truth.batches if b.next_offset > offset)
        self._position[index] = max(self._position[index], next(holding, truth.end))

    def consumed(self, index: int, batches: list[Stored]) -> None:
        for batch in batches:
            if batch.base_offset != self._position[index]:
                raise Violation(f"G4: read {batch} of {index} at {self._position[index]}")
            if self.truth(index).at(batch.base_offset) != batch:
                raise Violation(f"G4: read {batch} of {index}, which is not committed")
            self._position[index] = batch.next_offset


class DeletedStaysDeleted(Checker):
    """G4: a log start never moves back nor past what is committed; what was called deleted is gone.

    But a failed sync takes what a replica had written, and a lost disk what it had deleted.
    """

    def __init__(self) -> None:
        self._recovered: set[tuple[int, int]] = set()

    def cut(self, at: At, dropped: list[Stored]) -> None:
        if at.log.doubtful:
            self._recovered.add((at.node_id, at.number))

    def began(self, at: At, before: int) -> None:
        recovered = (at.node_id, at.number) in self._recovered
        self._recovered.discard((at.node_id, at.number))
        start = at.log.start_offset
        if start < before and not recovered:
            raise Violation(f"G4: {at}: log start from {before} to {start}")
        if start > max(at.high_watermark, self.truth(at.number).end):
            raise Violation(f"G1: {at}: log start {start}, committed is {at.high_watermark}")

    def led(self, at: At, leader: Leader) -> None:
        granted = self.truth(at.number).granted
        if at.log.start_offset < granted and not at.broker.lost_data:
            raise Violation(f"G4: {at} leads from {at.log.start_offset}, {granted} was deleted to")

    def finished(self) -> None:
        for index in range(self.world.shape.partitions):
            log = self.world.log(self.world.record(index).leader, index)
            if log.start_offset < self.truth(index).granted:
                raise Violation(f"G4: partition {index} begins at {log.start_offset} again")


class OutcomesAreTrue(Checker):
    """G6, G1, G3: what a producer was told of each record is what the log says."""

    def finished(self) -> None:
        for index in range(self.world.shape.partitions):
            values = self.world.watch.truth[index].values
            places: dict[bytes, list[int]] = {}
            for offset, value in values:
                places.setdefault(value, []).append(offset)
            for producer in self.world.producers:
                self._check(producer, index, places)

    def _check(self, producer: Producer, index: int, places: dict[bytes, list[int]]) -> None:
        order: list[int] = []
        for (partition, number), fate in producer.fates.items():
            if partition != index:
                continue
            found = places.get(producer.value(partition, number), [])
            order += found
            wrong = self._wrong(producer, fate, found)
            if wrong:
                raise Violation(
                    f"{wrong}: {producer.name}, partition {index}, record {number}: "
                    f"{fate}, in the log at {found}"
                )
        if producer.habits.idempotent and any(a >= b for a, b in pairwise(order)):
            raise Violation(f"G2: {producer.name}, partition {index}: order {order}")

    def _wrong(self, producer: Producer, fate: Fate, found: list[int]) -> str | None:
        if producer.habits.idempotent and len(found) > 1:
            return "G1, stored twice"
        if fate.outcome is Outcome.NOT_STORED and found:
            return "G6, called not stored"
        # With acks=1 a record may go with its leader, as acknowledged as it is.
        if fate.outcome is Outcome.STORED and producer.habits.acks == -1:
            if not found:
                return "G1, lost"
            if fate.offset >= 0 and fate.offset not in found:
                return "G6, elsewhere"
        return None


class ReplicasAgree(Checker):
    """G1, G5: once all is settled, every replica holds the committed log and the same table."""

    def finished(self) -> None:
        for index in range(self.world.shape.partitions):
            truth = self.world.watch.truth[index].batches
            digests = set()
            for node_id in self.world.record(index).replicas:
                log = self.world.log(node_id, index)
                partition = self.world.replica(node_id, index)
                assert partition is not None
                if self.world.watch.whole(At(self.world.brokers[node_id], partition)) != truth:
                    raise Violation(f"G1: partition {index} on {node_id} is not what was committed")
                digests.add(log.table.digest)
            if len(digests) > 1:
                raise Violation(f"G5: partition {index}: digests {sorted(digests)}")


def every_checker() -> list[Checker]:
    """One of each, for one run."""
    return [
        WatermarkOnlyRises(),
        CommittedStays(),
        NothingCommittedIsCut(),
        HeldByAll(),
        AckedIsCommitted(),
        DuplicatesAreProved(),
        SequencesInOrder(),
        TablesFollowTheLog(),
        OneLeaderPerEpoch(),
        RecordsAreLegal(),
        ConsumersSeeTheLog(),
        DeletedStaysDeleted(),
        OutcomesAreTrue(),
        ReplicasAgree(),
        AllowedByTheModel(),
    ]
