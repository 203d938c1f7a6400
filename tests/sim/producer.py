"""Producers of the simulated cluster, on the real client machine and real frames.

Owns what the outside sees: which records were given to a producer and what it was told of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.core import producer_events as told
from cluster.core.produce import ProducerMachine
from cluster.errors import Outcome
from cluster.wire import messages
from cluster.wire.schema import Message
from tests.sim.scheduler import MS
from tests.sim.wire import Wire

TOPIC = "orders"
ID_PATIENCE = 50 * MS
LULL = 0.02  # of writes are followed by a long pause
LULL_LASTS = 1_200 * MS

ResolvedTold = Callable[[int, Outcome, tuple[str, int]], None]
"""(partition, outcome, content of the batch)."""


@dataclass
class Fate:
    """What a producer was told of one record."""

    outcome: Outcome | None = None
    offset: int = -1
    verdict: int = 0


@dataclass(frozen=True)
class Habits:
    """How one producer writes."""

    name: str
    idempotent: bool = True
    acks: int = -1
    delivery_timeout_ms: int = 60_000
    pause_ms: int = 60
    """The longest pause between two of its writes."""
    burst: int = 4
    """The most records of one write."""


class Producer:
    """One producer that writes numbered records to every partition."""

    def __init__(self, habits: Habits, wire: Wire, partitions: int, resolved: ResolvedTold) -> None:
        self._told = resolved
        self.habits = habits
        self.name = habits.name
        self.wire = wire
        self.partitions = partitions
        self.machine = ProducerMachine(
            told.ProducerOptions(
                acks=habits.acks,
                idempotent=habits.idempotent,
                linger_ms=2,
                batch_bytes=300,
                request_timeout_ms=200,
                delivery_timeout_ms=habits.delivery_timeout_ms,
            )
        )
        self.fates: dict[tuple[int, int], Fate] = {}
        """By (partition, number)."""
        self._next = [0] * partitions
        self._wake_at = -1
        wire.join(habits.name, self._node_seen)

    def write_until(self, end: int) -> None:
        """Write bursts to partitions of chance until the given time."""
        rng, clock = self.wire.clock.rng, self.wire.clock
        if clock.now >= end:
            self.machine.flush()
            return
        self.write(rng.randrange(self.partitions), rng.randrange(1, self.habits.burst + 1))
        pause = rng.randrange(1, self.habits.pause_ms * MS)
        if clock.chance(LULL):
            pause += LULL_LASTS
        clock.after(pause, lambda: self.write_until(end))

    def write(self, partition: int, count: int) -> None:
        """Give the machine the next `count` records of a partition."""
        now_ms = self.wire.clock.now_ms
        for _ in range(count):
            number = self._next[partition]
            self._next[partition] += 1
            self.fates[partition, number] = Fate()
            record = (now_ms, None, self.value(partition, number), ())
            self.machine.append((TOPIC, partition), record, (partition, number), now_ms)
        self.step(told.Tick())

    def value(self, partition: int, number: int) -> bytes:
        """What a record says: nothing else in the cluster says it."""
        return f"{self.name}/{partition}/{number}".encode()

    @property
    def unresolved(self) -> int:
        """How many records it was told nothing of."""
        return sum(fate.outcome is None for fate in self.fates.values())

    def _node_seen(self, node_id: int, up: bool) -> None:
        self.step(told.Connected(node_id) if up else told.Disconnected(node_id))

    def step(self, event: told.Event) -> None:
        """One event for the machine, and what it wants done."""
        for effect in self.machine.step(event, self.wire.clock.now_ms):
            self._do(effect)
        self._arm()

    def _do(self, effect: told.Effect) -> None:
        match effect:
            case told.SendProduce():
                self._send(effect)
            case told.NeedMetadata():
                self._ask_metadata(effect)
            case told.NeedProducerId():
                self._ask_id()
            case told.Resolved():
                self._resolved(effect)

    def _send(self, effect: told.SendProduce) -> None:
        part = messages.PartitionProduceData(index=effect.partition, records=effect.batch)
        body = messages.ProduceRequest(
            acks=effect.acks,
            timeout_ms=effect.timeout_ms,
            topic_data=[messages.TopicProduceData(name=effect.topic, partition_data=[part])],
        )

        def answered(response: Message) -> None:
            assert isinstance(response, messages.ProduceResponse)
            said = response.responses[0].partition_responses[0]
            self.step(
                told.ProduceAnswered(
                    effect.request_id, said.error_code, said.base_offset, said.verdict
                )
            )

        self.wire.ask(self.name, effect.node, body, answered)

    def _ask_metadata(self, effect: told.NeedMetadata) -> None:
        node_id = self.wire.any_node()
        if node_id is None:
            return
        wanted = [messages.MetadataRequestTopic(name=name) for name in effect.topics]

        def answered(response: Message) -> None:
            assert isinstance(response, messages.MetadataResponse)
            leaders = {
                (topic.name or "", part.partition_index): part.leader_id
                for topic in response.topics
                for part in topic.partitions
            }
            self.step(told.MetadataKnown(leaders))

        self.wire.ask(self.name, node_id, messages.MetadataRequest(topics=wanted), answered)

    def _ask_id(self) -> None:
        node_id = self.wire.any_node()
        known: list[int] = []

        def answered(response: Message) -> None:
            assert isinstance(response, messages.InitProducerIdResponse)
            if response.error_code == 0 and not known:
                known.append(response.producer_id)
                self.step(told.ProducerIdKnown(response.producer_id, response.producer_epoch))

        if node_id is not None:
            body = messages.InitProducerIdRequest(transactional_id=None)
            self.wire.ask(self.name, node_id, body, answered)
        self.wire.clock.after(ID_PATIENCE, lambda: None if known else self._ask_id())

    def _resolved(self, effect: told.Resolved) -> None:
        for span in effect.spans:
            assert isinstance(span.token, tuple)
            fate = self.fates[span.token]
            assert fate.outcome is None, "a record was resolved twice"
            fate.outcome = effect.outcome
            fate.verdict = effect.verdict
            fate.offset = -1 if effect.base_offset < 0 else effect.base_offset + span.first
        assert isinstance(effect.spans[0].token, tuple)
        content = (self.value(*effect.spans[0].token).decode(), len(effect.spans))
        self.wire.clock.trace(f"{effect.outcome.value}: {content} at {effect.base_offset}")
        self._told(effect.partition, effect.outcome, content)

    def _arm(self) -> None:
        due_ms = self.machine.next_deadline_ms()
        if due_ms is None:
            return
        clock = self.wire.clock
        due = max(due_ms * MS, clock.now + MS)
        if clock.now < self._wake_at <= due:
            return
        self._wake_at = due

        def tick() -> None:
            if self._wake_at == due:
                self._wake_at = -1
                self.step(told.Tick())

        clock.after(due - clock.now, tick)
