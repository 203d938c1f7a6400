"""Nodes in one small world that obeys: each message, sync and transaction after a millisecond.

Owns what a unit test of a broker's machine needs around it: a store that commits at once, disks in
memory, links that a test may cut, and clients' frames. Nothing here is drawn by chance; what the
simulator does at random a test here does on purpose.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from itertools import count

from _fastseq.batch import encode_batch
from cluster.core import effects, events, records
from cluster.core.defaults import BrokerSetting, TopicDefaults
from cluster.core.leader import Leader
from cluster.core.logs import NewIds
from cluster.core.node import Node
from cluster.core.partition import Partition
from cluster.core.records import PartitionRecord
from cluster.core.settings import NodeSettings
from cluster.limits import RETENTION_CHECK_MS
from cluster.storage.disk import EIO
from cluster.wire import apis, codec, messages
from cluster.wire.schema import Message
from tests.sim.disk import SimulatedDisk

CLIENT = b"\x00client"
TOPIC = "t"
CONFIG = {"min.insync.replicas": "2", "flush": "batch"}


class Store:
    """Compare-and-set in memory; `unknown` makes it write and not say so."""

    def __init__(self) -> None:
        self.revision = 0
        self.values: dict[str, tuple[bytes, int]] = {}
        self.asked: list[effects.Transact] = []
        self.unknown = False
        self.refuses = False
        """Every transaction meets a conflict."""

    def everything(self) -> events.StoreChanged:
        """What a process that starts is told."""
        found = (events.Change(key, value, at) for key, (value, at) in self.values.items())
        return events.StoreChanged(tuple(found))

    def transact(self, wish: effects.Transact) -> tuple[events.Commit, tuple[events.Change, ...]]:
        """The outcome, and what changed by it."""
        self.asked.append(wish)
        if self.refuses or any(
            self.values.get(key, (b"", 0))[1] != at for key, at in wish.conditions
        ):
            return events.Commit.CONFLICT, ()
        if not wish.puts and not wish.deletes:
            return events.Commit.COMMITTED, ()
        changes = self.write({put.key: put.value for put in wish.puts}, wish.deletes)
        return events.Commit.UNKNOWN if self.unknown else events.Commit.COMMITTED, changes

    def write(
        self, puts: Mapping[str, bytes], deletes: tuple[str, ...] = ()
    ) -> tuple[events.Change, ...]:
        """Write without asking."""
        self.revision += 1
        for key, value in puts.items():
            self.values[key] = (value, self.revision)
        for key in deletes:
            self.values.pop(key, None)
        changes = [events.Change(key, value, self.revision) for key, value in puts.items()]
        return (*changes, *(events.Change(key, None, self.revision) for key in deletes))


class World:
    """Brokers 1..n; `blocked` pairs (from, to) lose what is sent."""

    def __init__(
        self, brokers: int = 3, *, config: Mapping[str, str] | None = None,
        check_config: Callable[[Mapping[str, str]], None] = lambda _config: None,
        defaults: TopicDefaults | None = None,
        retention_check_ms: int = RETENTION_CHECK_MS,
    ) -> None:  # fmt: skip
        self.now = 1_000
        self.store = Store()
        self.nodes: dict[int, Node] = {}
        self.disks = {node_id: SimulatedDisk() for node_id in range(1, brokers + 1)}
        self.blocked: set[tuple[int, int]] = set()
        self._held: dict[int, list[effects.Sync]] = {}
        self._reading: dict[int, list[effects.Read]] = {}
        self.replies: list[bytes] = []
        self.emitted: list[tuple[int, effects.Effect]] = []
        """Hangups, harms and stops, which nobody carries out."""
        self._config = {**CONFIG, **(config or {})}
        self._check = check_config
        self._defaults = defaults
        self._retention_check_ms = retention_check_ms
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = count()
        self._connected: dict[tuple[int, int], int] = {}
        self._starts = count(1)
        for node_id in self.disks:
            self.start(node_id)

    # -- processes ----------------------------------------------------------------------------

    def start(self, node_id: int) -> None:
        """A process begins on whatever the disk holds."""
        mark = f"{node_id}-{next(self._starts)}"
        ids = NewIds(*(f"{kind}{mark}".ljust(22, "x") for kind in "cdu"))
        defaults = self._defaults or TopicDefaults(1, len(self.disks), self._config)
        settings = NodeSettings(
            node_id, "127.0.0.1", 5549 + node_id, "boot", ids, topics=defaults,
            check_config=self._check, allow_faults=True, kafka=f"127.0.0.1:{9091 + node_id}",
            broker=(BrokerSetting("broker.id", str(node_id)),),
            retention_check_ms=self._retention_check_ms,
        )  # fmt: skip
        self.nodes[node_id] = Node(settings, self.disks[node_id], self.now)
        self.post(node_id, self.store.everything())

    def kill(self, node_id: int, *, silently: bool = False) -> None:
        """The process ends; what it wrote can still be read. Silently: no connection shows it."""
        gone = self.nodes.pop(node_id)
        self.disks[node_id].kill()
        self.lose_session(node_id)
        for pair, incarnation in list(self._connected.items()):
            if node_id in pair:
                del self._connected[pair]
                if pair[1] == node_id and not silently:
                    self.post(pair[0], events.PeerDisconnected(node_id, incarnation))
        assert gone.incarnation

    def lose_session(self, node_id: int) -> None:
        """The lease of a broker has ended."""
        leased = [f"sessions/{node_id}"]
        stored = self.store.values.get("controller")
        if stored is not None and f'"node_id":{node_id},'.encode() in stored[0]:
            leased.append("controller")
        self.tell(self.store.write({}, tuple(leased)))

    def tell(self, changes: tuple[events.Change, ...]) -> None:
        """Every process hears of a change of the store."""
        for node_id in self.nodes:
            self.post(node_id, events.StoreChanged(changes))

    # -- time ---------------------------------------------------------------------------------

    def post(self, node_id: int, event: events.Event, delay_ms: int = 1) -> None:
        """An event for the process that runs now."""
        node = self.nodes[node_id]

        def deliver() -> None:
            if self.nodes.get(node_id) is node:
                self.step(node_id, event)

        self._after(delay_ms, deliver)

    def _after(self, delay_ms: int, act: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (self.now + delay_ms, next(self._number), act))

    def run(self, duration_ms: int = 500) -> None:
        """Let time pass."""
        end = self.now + duration_ms
        while True:
            due_ms, node_id = min((n.next_deadline_ms(), i) for i, n in self.nodes.items())
            if self._queue and self._queue[0][0] <= min(due_ms, end):
                self.now, _, act = heapq.heappop(self._queue)
                act()
            elif due_ms <= end:
                self.now = max(due_ms, self.now)
                self.step(node_id, events.Tick())
            else:
                self.now = end
                return

    def step(self, node_id: int, event: events.Event) -> None:
        """One event now, and what is wanted by it."""
        for effect in self.nodes[node_id].step(event, self.now):
            self._do(node_id, effect)

    def _do(self, node_id: int, effect: effects.Effect) -> None:
        match effect:
            case effects.Transact():
                self._after(1, lambda: self._transact(node_id, effect))
            case effects.Send():
                if (node_id, effect.node_id) not in self.blocked and effect.node_id in self.nodes:
                    turn = events.PeerTurn([(effect.header, bytes(effect.data))])
                    self.post(effect.node_id, turn)
            case effects.Sync():
                self._sync(node_id, effect)
            case effects.Read():
                self._read(node_id, effect)
            case effects.ConnectPeers():
                self._connect(node_id, effect)
            case effects.Reply():
                self.replies.append(effect.joined())
            case effects.LookAtStore():
                pass
            case _:
                self.emitted.append((node_id, effect))

    def _transact(self, node_id: int, wish: effects.Transact) -> None:
        commit, changes = self.store.transact(wish)
        if changes:
            self.tell(changes)
        if node_id in self.nodes:
            self.post(node_id, events.Transacted(wish.request, commit, self.store.revision), 2)

    def hold_syncs(self, node_id: int) -> None:
        """Syncs that a broker asks for from now on do not end."""
        self._held[node_id] = []

    def release_syncs(self, node_id: int) -> None:
        """What was held ends now."""
        for sync in self._held.pop(node_id):
            self._sync(node_id, sync)

    def _sync(self, node_id: int, sync: effects.Sync) -> None:
        if node_id in self._held:
            self._held[node_id].append(sync)
            return
        disk = self.disks[node_id]
        errno = disk.finish_sync(disk.begin_sync(sync.handle))
        done = events.SyncDone(
            sync.token, sync.segment_base, sync.generation, sync.end, errno, 1_000
        )
        self.post(node_id, events.Synced([done]))

    def hold_reads(self, node_id: int) -> None:
        """Reads of the disk that a broker asks for from now on do not end."""
        self._reading[node_id] = []

    def release_reads(self, node_id: int) -> None:
        """What was held ends now."""
        for read in self._reading.pop(node_id):
            self._read(node_id, read)

    def fail_reads(self, node_id: int) -> list[Message]:
        """What was held fails now; the fetch responses that follow."""
        self.replies.clear()
        for read in self._reading.pop(node_id):
            self.post(node_id, events.ReadsDone([events.ReadDone(read.number, b"", EIO, 1_000)]))
        self.run(10)
        version = apis.SUPPORTED[apis.FETCH][1]
        return [codec.decode_response(apis.FETCH, version, frame)[1] for frame in self.replies]

    def _read(self, node_id: int, read: effects.Read) -> None:
        if node_id in self._reading:
            self._reading[node_id].append(read)
            return
        data = self.disks[node_id].read(read.handle, read.position, read.length)
        self.post(node_id, events.ReadsDone([events.ReadDone(read.number, data, 0, 1_000)]))

    def _connect(self, node_id: int, effect: effects.ConnectPeers) -> None:
        for peer in effect.peers:
            pair = (node_id, peer.node_id)
            running = self.nodes.get(peer.node_id)
            if running is not None and self._connected.get(pair) != peer.incarnation:
                self._connected[pair] = peer.incarnation
                self.post(node_id, events.PeerConnected(peer.node_id, peer.incarnation), 2)

    # -- clients ------------------------------------------------------------------------------

    def send(self, node_id: int, *frames: bytes, native: bool = True) -> None:
        """Frames of a client, in one turn."""
        asked = [events.ClientMessage(CLIENT, frame, native) for frame in frames]
        self.post(node_id, events.ClientTurn(asked))

    def ask(
        self, node_id: int, body: Message, *, version: int | None = None, wait_ms: int = 300,
        native: bool = True,
    ) -> list[Message]:  # fmt: skip
        """Ask and let time pass; what was answered to this."""
        key = next(key for key, api in apis.APIS.items() if api.request is type(body))
        chosen = apis.SUPPORTED[key][1] if version is None else version
        correlation_id = next(self._number)
        self.replies.clear()
        frame = codec.encode_request(key, chosen, correlation_id, "test", body)
        self.send(node_id, frame, native=native)
        self.run(wait_ms)
        mine = correlation_id.to_bytes(4)
        return [
            codec.decode_response(key, chosen, frame)[1]
            for frame in self.replies
            if frame.startswith(mine)
        ]

    def produce(
        self, batch: bytes, *, acks: int = -1, wait_ms: int = 300
    ) -> tuple[int, int] | None:
        """(error, verdict) of one batch sent to the leader of partition 0; None without answer."""
        part = messages.PartitionProduceData(index=0, records=batch)
        topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
        body = messages.ProduceRequest(acks=acks, timeout_ms=1_000, topic_data=topics)
        answers = self.ask(self.leader(), body, wait_ms=wait_ms)
        if not answers:
            return None
        (answer,) = answers
        assert isinstance(answer, messages.ProduceResponse)
        found = answer.responses[0].partition_responses[0]
        return found.error_code, found.verdict

    def create(self, topic: str = TOPIC, *, partitions: int = 1) -> int:
        """Make a topic with a replica on every broker; the error."""
        wish = messages.CreatableTopic(
            name=topic, num_partitions=partitions, replication_factor=len(self.disks)
        )
        (answer,) = self.ask(self.controller(), messages.CreateTopicsRequest(topics=[wish]))
        assert isinstance(answer, messages.CreateTopicsResponse)
        return answer.topics[0].error_code

    def new_producer(self, node_id: int = 1) -> int:
        """A producer id that was handed out."""
        (answer,) = self.ask(node_id, messages.InitProducerIdRequest())
        assert isinstance(answer, messages.InitProducerIdResponse)
        assert answer.error_code == 0
        return answer.producer_id

    # -- what there is ------------------------------------------------------------------------

    def controller(self) -> int:
        """Who is the controller."""
        (node_id,) = (i for i, node in self.nodes.items() if node.controller is not None)
        return node_id

    def partition(self, node_id: int, index: int = 0, topic: str = TOPIC) -> Partition:
        """A broker's replica."""
        found = self.nodes[node_id].replicas.find(topic, index)
        assert isinstance(found, Partition)
        return found

    def leader(self, index: int = 0, topic: str = TOPIC) -> int:
        """Who leads in the newest epoch."""
        leading = {
            led.epoch: node_id
            for node_id, node in self.nodes.items()
            if (found := node.replicas.find(topic, index)) is not None
            and isinstance(led := found.leader, Leader)
        }
        assert leading, "nobody leads"
        return leading[max(leading)]

    def record(self, index: int = 0, topic: str = TOPIC) -> PartitionRecord:
        """A partition's record as the store has it."""
        described = records.decode(records.TopicRecord, self.store.values[f"topics/{topic}"][0])
        key = records.partition_key(described.topic_id, index)
        return records.decode(PartitionRecord, self.store.values[key][0])


def batch(producer_id: int, sequence: int, *values: bytes, epoch: int = 0) -> bytes:
    """A batch of a producer, one record a value."""
    rows = [(None, value, 5, ()) for value in values or (b"v",)]
    return encode_batch(rows, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)


def ready(brokers: int = 3, **options: object) -> World:
    """A world with one topic of one partition, everybody in sync and serving."""
    world = World(brokers, **options)  # type: ignore[arg-type]
    world.run(1_000)
    assert world.create() == 0
    world.run(500)
    return world
