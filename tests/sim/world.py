"""A cluster of three brokers with its clients, in one virtual world.

Owns the wiring: what one part does, the others and the checkers hear of. Nothing here decides
anything by itself; `faults` and scenarios do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cluster.core import records
from cluster.core.defaults import TopicDefaults
from cluster.core.group_state import GroupSettings
from cluster.core.leader import Leader
from cluster.core.partition import Partition
from cluster.core.records import PartitionRecord
from cluster.limits import PEER_CREDIT_BYTES, PRODUCER_EXPIRATION_MS, RETENTION_MS
from cluster.storage.log import Log
from cluster.wire import messages
from tests.sim.broker import Broker, Hands
from tests.sim.checkers import Checker, Watch
from tests.sim.consumer import Consumer
from tests.sim.network import Ends, Network, Weather
from tests.sim.producer import TOPIC, Habits, Producer
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.store import SimulatedStore
from tests.sim.wire import Loss, Wire

NODES = (1, 2, 3)
MIN_INSYNC = 2
SETTLED_EVERY = 50 * MS
SUPERVISED_EVERY = 200 * MS


@dataclass(frozen=True)
class Shape:
    """What kind of cluster a run has."""

    partitions: int = 2
    replicas: int = 3
    flush: str = "batch"
    segment_bytes: int = 1 << 20
    credit_bytes: int = PEER_CREDIT_BYTES
    """What a leader may push to a broker beyond what it acknowledged."""
    expiration_ms: int = PRODUCER_EXPIRATION_MS
    """How long an idle producer is remembered; a run is long enough for the short times only."""
    cold: float = 0.0
    """How often a read of a log has to wait for the device."""
    retention_ms: int = RETENTION_MS
    """How old records get; a run is long enough for the short times only."""
    groups: GroupSettings = field(default_factory=GroupSettings)
    producers: Sequence[Habits] = field(default_factory=lambda: (Habits("p"),))

    @property
    def config(self) -> Mapping[str, str]:
        """The topic's settings."""
        return {
            "min.insync.replicas": str(min(MIN_INSYNC, self.replicas)),
            "flush": self.flush,
            "segment.bytes": str(self.segment_bytes),
            "producer.id.expiration.ms": str(self.expiration_ms),
            "retention.ms": str(self.retention_ms),
            "file.delete.delay.ms": "500",
        }


class World:
    """Three brokers, a store, a network, clients, and whoever checks them."""

    def __init__(
        self, seed: int, shape: Shape, checkers: Sequence[Checker], *, keep_trace: bool = False
    ) -> None:
        """Brokers start at once; the topic and the clients come with `open`."""
        self.clock = Scheduler(seed, keep_trace=keep_trace)
        self.shape = shape
        self.watch = Watch(self, checkers)
        self.store = SimulatedStore(self.clock, self.watch.wrote)
        self.brokers: dict[int, Broker] = {}
        hands = Hands(self.watch.stepped, self._answer, self._process_seen)
        defaults = TopicDefaults(shape.partitions, shape.replicas, shape.config)
        for node_id in NODES:
            self.brokers[node_id] = Broker(
                node_id, self.clock, self.store, defaults, hands, shape.groups, cold=shape.cold
            )
        self.network = Network(self.clock, self._ends(), Weather())
        self.wire = Wire(self.clock, self.brokers, Loss(), self.watch.answered)
        self.producers: list[Producer] = []
        self.consumer: Consumer | None = None
        for broker in self.brokers.values():
            broker.network = self.network
            broker.start()

    def _ends(self) -> Ends:
        return Ends(
            reachable=lambda node_id: self.brokers[node_id].reachable,
            connected=lambda node_id, peer, incarnation: self.brokers[node_id].connected(
                peer, incarnation
            ),
            disconnected=lambda node_id, peer, incarnation: self.brokers[node_id].disconnected(
                peer, incarnation
            ),
            receive=lambda node_id, header, data: self.brokers[node_id].receive(header, data),
        )

    def _answer(self, broker: Broker, connection: bytes, frame: bytes) -> None:
        self.wire.answer(broker, connection, frame)

    def _process_seen(self, node_id: int, up: bool) -> None:
        self.wire.process_seen(node_id, up)

    # -- time ---------------------------------------------------------------------------------

    def run(self, duration: int) -> None:
        """Let this much time pass, in microseconds."""
        self.clock.run_until(self.clock.now + duration)

    def run_until(self, done: Callable[[], bool], patience: int = 10 * SECOND) -> bool:
        """Let time pass until it is done; False when patience ran out."""
        end = self.clock.now + patience
        while not done():
            if self.clock.now >= end:
                return False
            self.run(SETTLED_EVERY)
        return True

    def open(self) -> None:
        """Make the topic, and let every replica of it come into being."""
        self.wire.join("admin", lambda _node_id, _up: None)
        assert self.run_until(self._topic_made), "the topic could not be made"
        assert self.run_until(self._led), "the new partitions found no leader"

    def _topic_made(self) -> bool:
        if any(key.startswith(records.TOPICS) for key in self.store.values):
            return True
        stored = self.store.values.get(records.CONTROLLER_KEY)
        if stored is not None:
            wish = messages.CreatableTopic(
                name=TOPIC,
                num_partitions=self.shape.partitions,
                replication_factor=self.shape.replicas,
            )
            node_id = records.decode(records.ControllerRecord, stored[0]).node_id
            request = messages.CreateTopicsRequest(topics=[wish])
            self.wire.ask("admin", node_id, request, lambda _answer: None)
        return False

    def _led(self) -> bool:
        return all(self.leader(index) is not None for index in range(self.shape.partitions))

    def begin_clients(self, write_until: int) -> None:
        """Producers write until the given time, and a consumer follows them."""
        for habits in self.shape.producers:
            producer = self.add_producer(habits)
            producer.write_until(write_until)
        self.consumer = Consumer(
            self.wire, self.shape.partitions, self.watch.consumed, self.watch.skipped
        )

    def add_producer(self, habits: Habits) -> Producer:
        """One more producer."""
        producer = Producer(habits, self.wire, self.shape.partitions, self.watch.resolved)
        self.producers.append(producer)
        return producer

    # -- what there is ------------------------------------------------------------------------

    def record(self, index: int) -> PartitionRecord:
        """A partition's record as the store has it."""
        for key, (value, _) in self.store.values.items():
            if key.startswith(records.PARTITIONS) and key.endswith(f"/{index}"):
                return records.decode(PartitionRecord, value)
        raise KeyError(index)

    @property
    def controller(self) -> int | None:
        """The node that the store names as controller."""
        stored = self.store.values.get(records.CONTROLLER_KEY)
        return (
            None if stored is None else records.decode(records.ControllerRecord, stored[0]).node_id
        )

    def replica(self, node_id: int, index: int) -> Partition | None:
        """A broker's part in a partition, if its process runs and has one."""
        node = self.brokers[node_id].node
        if node is None:
            return None
        return next((p for p in node.partitions if p.replica.index == index), None)

    def log(self, node_id: int, index: int) -> Log:
        """A replica's log."""
        partition = self.replica(node_id, index)
        assert partition is not None
        return partition.replica.log

    def leader(self, index: int) -> Leader | None:
        """Whoever leads, as the store says and the broker knows."""
        record = self.record(index)
        partition = self.replica(record.leader, index) if record.leader >= 0 else None
        if partition is None or partition.leader is None:
            return None
        return partition.leader if partition.leader.epoch == record.leader_epoch else None

    # -- the end ------------------------------------------------------------------------------

    def heal(self) -> None:
        """No more faults: everything runs and everybody hears everybody."""
        self.clock.trace("healed")
        self.network.heal()
        self.store.unknown = 0.0
        self.store.hurry()
        self.wire.loss.request = self.wire.loss.answer = 0.0
        for broker in self.brokers.values():
            broker.disk.mend()
            broker.resume()
        self._supervise()

    def _supervise(self) -> None:
        for broker in self.brokers.values():
            broker.start()
        self.clock.after(SUPERVISED_EVERY, self._supervise)

    def unsettled(self) -> list[str]:
        """What has not come to rest, in words."""
        waits = [
            f"{producer.name} was not told of {producer.unresolved} records"
            for producer in self.producers
            if producer.unresolved
        ]
        for index in range(self.shape.partitions):
            waits += self._unsettled_partition(index)
        return waits

    def _unsettled_partition(self, index: int) -> list[str]:
        record = self.record(index)
        if len(record.isr) < self.shape.replicas or record.doubtful:
            return [f"partition {index}: in sync {record.isr}, doubtful {record.doubtful}"]
        leader = self.leader(index)
        if leader is None:
            return [f"partition {index} has no leader"]
        ends = {}
        for node_id in record.replicas:
            partition = self.replica(node_id, index)
            if partition is None:
                return [f"partition {index} is not open on {node_id}"]
            replica = partition.replica
            ends[node_id] = (replica.log.next_offset, replica.log.synced_end)
        end = leader.replica.log.next_offset
        if any(at != (end, end) for at in ends.values()) or leader.replica.high_watermark != end:
            mark = leader.replica.high_watermark
            return [f"partition {index}: (end, synced) are {ends}, the high watermark {mark}"]
        if self.consumer is not None and self.consumer.places[index].position != end:
            return [f"the consumer read partition {index} only to {end}"]
        return []
