"""What must hold in every run: one small class per guarantee, and the hub that tells them.

Owns the hub, `Watch`: it looks at a broker after each of its steps, works out what changed, keeps
what is committed, and calls the hook of every checker that concerns it. A checker raises
`Violation` the moment its guarantee is broken, so a trace ends where the harm was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from _fastseq.batch import decode_batch, read_header
from cluster.core import events, records
from cluster.core.leader import Leader
from cluster.core.partition import Partition
from cluster.core.records import PartitionRecord
from cluster.errors import Outcome
from cluster.storage.log import Log
from cluster.wire import messages
from cluster.wire.schema import Message
from tests.sim.broker import Broker
from tests.sim.committed import Committed, Stored, batches_of, stored_between, values_between
from tests.sim.store import Session

if TYPE_CHECKING:
    from tests.sim.world import World


class Violation(AssertionError):
    """A guarantee was broken."""


class At(NamedTuple):
    """One replica of one partition, in one process."""

    broker: Broker
    partition: Partition

    @property
    def node_id(self) -> int:
        return self.broker.node_id

    @property
    def number(self) -> int:
        return self.partition.replica.index

    @property
    def log(self) -> Log:
        return self.partition.replica.log

    @property
    def high_watermark(self) -> int:
        return self.partition.replica.high_watermark

    def __str__(self) -> str:
        return f"partition {self.number} on {self.node_id}"


class Answer(NamedTuple):
    """A batch that a broker called stored, at the moment it did."""

    at: At
    acks: int
    sent: Stored
    """As the producer sent it, its base offset 0."""
    base_offset: int
    duplicate: bool
    batch: bytes


class Checker:
    """Hooks that do nothing; a checker overrides those that concern its guarantee."""

    world: World

    def opened(self, at: At, dropped: list[Stored]) -> None:
        """A process has opened a replica's log, which has lost these since the last one."""

    def cut(self, at: At, dropped: list[Stored]) -> None:
        """A log was cut while it was open."""

    def grown(self, at: At, added: list[Stored]) -> None:
        """A log has grown; after opening and cutting, too."""

    def led(self, at: At, leader: Leader) -> None:
        """A term began."""

    def watermark(self, at: At, before: int, leader: Leader | None) -> None:
        """A high watermark moved, in a term if the replica led."""

    def committed(self, at: At, batches: list[Stored]) -> None:
        """More than ever before is below a leader's high watermark."""

    def began(self, at: At, before: int) -> None:
        """A log start moved while the log was open."""

    def answered(self, answer: Answer) -> None:
        """A broker called a batch stored."""

    def skipped(self, index: int, offset: int) -> None:
        """A consumer was told that the log begins here."""

    def consumed(self, index: int, batches: list[Stored]) -> None:
        """A consumer has read these."""

    def wrote(
        self, writer: Session, number: int, before: PartitionRecord | None, after: PartitionRecord
    ) -> None:
        """A partition's record changed in the store."""

    def resolved(self, number: int, outcome: Outcome, content: tuple[str, int]) -> None:
        """A producer told its application what became of a batch."""

    def finished(self) -> None:
        """The run is over and everything has settled."""

    def truth(self, index: int) -> Committed:
        """What is committed of a partition."""
        return self.world.watch.truth[index]


@dataclass
class Seen:
    """A replica as it was after the latest step of its broker."""

    process: int
    generation: int
    high_watermark: int
    leader: Leader | None
    start: int


class Watch:
    """Sees what changes and tells the checkers."""

    def __init__(self, world: World, checkers: Sequence[Checker]) -> None:
        self._world = world
        self._checkers = checkers
        self._seen: dict[tuple[int, int], Seen] = {}
        self._held: dict[tuple[int, int], list[Stored]] = {}
        self.truth = [Committed() for _ in range(world.shape.partitions)]
        for checker in checkers:
            checker.world = world

    def held(self, at: At) -> list[Stored]:
        """What a replica's log holds, as it was read when it grew."""
        return self._held[at.node_id, at.number]

    def stepped(self, broker: Broker) -> None:
        """A broker took a step."""
        for partition in broker.running.partitions:
            self._look(At(broker, partition))

    def _look(self, at: At) -> None:
        key, log = (at.node_id, at.number), at.log
        seen, held = self._seen.get(key), self._held.setdefault(key, [])
        if seen is None or seen.process != at.broker.process:
            seen = self._seen[key] = Seen(
                at.broker.process, log.generation, at.high_watermark, None, log.start_offset
            )
            dropped = _drop_other(held, self.whole(at))
            for checker in self._checkers:
                checker.opened(at, dropped)
        elif log.generation != seen.generation:
            seen.generation = log.generation
            dropped = _drop_other(held, self.whole(at))
            for checker in self._checkers:
                checker.cut(at, dropped)
        end = held[-1].next_offset if held else 0
        if log.next_offset != end:
            added = self.between(at, end, log.next_offset)
            held += added
            for checker in self._checkers:
                checker.grown(at, added)
        self._look_at_term(at, seen)
        if log.start_offset != seen.start:
            before, seen.start = seen.start, log.start_offset
            self._world.clock.trace(f"{at} log start {log.start_offset}")
            if at.partition.leader is not None:
                truth = self.truth[at.number]
                truth.started = max(truth.started, log.start_offset)
            for checker in self._checkers:
                checker.began(at, before)

    def between(self, at: At, start: int, end: int) -> list[Stored]:
        """The batches of a replica in [start, end), as if what was deleted were still there.

        Only what is committed may be deleted, so it is known what was there; and a log that begins
        with a leader's state stands for all that led to it.
        """
        first = at.log.first_offset
        deleted = self.truth[at.number].between(start, min(first, end)) if start < first else []
        if start < first and (not deleted or deleted[-1].next_offset != min(first, end)):
            raise Violation(f"G1: {at} begins at {first}, not all before that was committed")
        return deleted + stored_between(at.log, max(start, first), end)

    def whole(self, at: At) -> list[Stored]:
        """All of a replica's batches, the deleted ones too."""
        return self.between(at, 0, at.log.next_offset)

    def _look_at_term(self, at: At, seen: Seen) -> None:
        leader, led = at.partition.leader, seen.leader
        if leader is not seen.leader:
            seen.leader = leader
            if leader is not None:
                self._world.clock.trace(f"{at} leads in epoch {leader.epoch}")
                for checker in self._checkers:
                    checker.led(at, leader)
        if at.high_watermark != seen.high_watermark:
            before, seen.high_watermark = seen.high_watermark, at.high_watermark
            if at.high_watermark > before:  # moved before the term ended in the same step
                leader = leader or led
            self._world.clock.trace(f"{at} high watermark {at.high_watermark}")
            for checker in self._checkers:
                checker.watermark(at, before, leader)
            if leader is not None:
                self._commit(at)

    def _commit(self, at: At) -> None:
        truth = self.truth[at.number]
        if at.high_watermark <= truth.end:
            return
        batches = stored_between(at.log, truth.end, at.high_watermark)
        truth.values += values_between(at.log, truth.end, at.high_watermark)
        truth.grow(batches)
        for checker in self._checkers:
            checker.committed(at, batches)

    def answered(self, broker: Broker, request: Message, response: Message) -> None:
        """A broker answered a request."""
        if not isinstance(request, messages.ProduceRequest):
            return
        assert isinstance(response, messages.ProduceResponse)
        said = response.responses[0].partition_responses[0]
        batch = request.topic_data[0].partition_data[0].records
        if said.error_code:
            return
        partition = self._world.replica(broker.node_id, said.index)
        if partition is None:
            return  # the process ended in the step that answered
        assert batch is not None
        at, duplicate = At(broker, partition), said.verdict == 2
        self.stepped(broker)  # the answer leaves in the step that committed it
        answer = Answer(
            at, request.acks, batches_of(batch)[0], said.base_offset, duplicate, bytes(batch)
        )
        for checker in self._checkers:
            checker.answered(answer)

    def skipped(self, index: int, offset: int) -> None:
        """A consumer was told that the log begins here."""
        for checker in self._checkers:
            checker.skipped(index, offset)

    def granted(self, index: int, low: int) -> None:
        """A broker said that everything below is deleted."""
        self._world.clock.trace(f"partition {index} deleted to {low}")
        self.truth[index].granted = max(self.truth[index].granted, low)

    def consumed(self, index: int, batches: list[Stored]) -> None:
        """A consumer has read these."""
        for checker in self._checkers:
            checker.consumed(index, batches)

    def wrote(self, writer: Session, change: events.Change, before: bytes | None) -> None:
        """A key of the store changes."""
        self._world.clock.trace(f"store {writer.node_id} {change.key} {change.value!r}")
        if change.value is None or not change.key.startswith(records.PARTITIONS):
            return
        old = None if before is None else records.decode(PartitionRecord, before)
        number = int(change.key.rpartition("/")[2])
        for checker in self._checkers:
            checker.wrote(writer, number, old, records.decode(PartitionRecord, change.value))

    def resolved(self, number: int, outcome: Outcome, content: tuple[str, int]) -> None:
        """A producer told its application what became of a batch."""
        for checker in self._checkers:
            checker.resolved(number, outcome, content)

    def finished(self) -> None:
        """Everything has settled."""
        for checker in self._checkers:
            checker.finished()


def _drop_other(held: list[Stored], now: list[Stored]) -> list[Stored]:
    """Take from what a log held what it holds no more."""
    kept = 0
    while kept < min(len(held), len(now)) and held[kept] == now[kept]:
        kept += 1
    dropped = held[kept:]
    del held[kept:]
    return dropped


def same_batch(stored: Stored, sent: Stored) -> bool:
    """Whether a stored batch is the one that was sent."""
    return (
        stored.crc == sent.crc
        and stored.producer_id == sent.producer_id
        and stored.producer_epoch == sent.producer_epoch
        and stored.base_sequence == sent.base_sequence
        and stored.next_offset - stored.base_offset == sent.next_offset - sent.base_offset
    )


def content_of(batch: bytes) -> tuple[str, int]:
    """What a batch says, whatever number it travels under: its first value, and how many."""
    values = decode_batch(batch)
    if read_header(batch).is_control:
        return (f"control {batch.hex()}", 1)
    return (bytes(values[0].value or b"").decode(errors="backslashreplace"), len(values))
