"""CPU of one replicated 300-byte batch in the machines of three brokers, stage by stage.

Three `Node`s in one process on a disk in memory, no sockets: what is measured is the machine's own
work. A turn holds `BATCHES` produce requests of one batch each, over six partitions; every stage of
the turn is timed on its own, in CPU time of the thread, and the cheapest run of several is
reported, since other load on the machine can only add.
"""

from __future__ import annotations

import sys
from collections import Counter
from time import thread_time_ns

from _fastseq.batch import encode_batch
from cluster.core import effects, events
from cluster.core.defaults import TopicDefaults
from cluster.core.logs import NewIds
from cluster.core.node import Node
from cluster.core.settings import NodeSettings
from cluster.wire import apis, codec, messages
from tests.sim.disk import SimulatedDisk

BATCHES = 20
PARTITIONS = 6
VALUE = bytes(220)
STAGES = {
    "leader: requests to arena, log and pushes": "client",
    "followers: check, table, log": "push",
    "all: syncs returned, acks out": "sync",
    "leader: acks in, watermark, replies": "ack",
}


class Cluster:
    """Three machines, everything between them delivered at once and in order."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.replies: list[bytes] = []
        self.spent: Counter[str] = Counter()
        self._values: dict[str, int] = {}
        self._revision = 0
        self._queue: list[tuple[int, events.Event]] = []
        defaults = TopicDefaults(PARTITIONS, 3, {"min.insync.replicas": "2", "flush": "batch"})
        self.nodes = {
            node_id: Node(
                NodeSettings(
                    node_id, "bench", node_id, boot_id="boot",
                    new_ids=NewIds("c" * 22, f"{node_id:022}", f"{node_id:022}"), topics=defaults,
                ),
                SimulatedDisk(),
                self.now_ms,
            )
            for node_id in (1, 2, 3)
        }  # fmt: skip
        for node_id in self.nodes:
            self._queue.append((node_id, events.StoreChanged(())))
        self.settle()

    def settle(self) -> None:
        """Deliver until nothing is under way, then let a regular look pass."""
        for _ in range(20):
            self.deliver()
            self.now_ms += 100
            self._queue += [(node_id, events.Tick()) for node_id in self.nodes]
        self.deliver()

    def deliver(self) -> None:
        """Step the machines until nothing is under way."""
        while self._queue:
            node_id, event = self._queue.pop(0)
            started = thread_time_ns()
            done = self.nodes[node_id].step(event, self.now_ms)
            self.spent[_stage(event)] += thread_time_ns() - started
            self._perform(node_id, done)

    def ask(self, node_id: int, requests: list[bytes]) -> list[bytes]:
        """One turn of client requests; the replies."""
        self.replies = []
        turn = tuple(events.ClientMessage(b"bench", frame) for frame in requests)
        self._queue.append((node_id, events.ClientTurn(turn)))
        self.deliver()
        return self.replies

    def _perform(self, node_id: int, done: list[effects.Effect]) -> None:
        syncs = []
        for effect in done:
            match effect:
                case effects.Reply():
                    self.replies.append(effect.joined())
                case effects.Send():
                    turn = ((effect.header, bytes(effect.data)),)
                    self._queue.append((effect.node_id, events.PeerTurn(turn)))
                case effects.Sync():
                    syncs.append(
                        events.SyncDone(
                            effect.token, effect.segment_base, effect.generation, effect.end, 0, 1
                        )
                    )
                case effects.Transact():
                    self._transact(node_id, effect)
                case effects.ConnectPeers():
                    self._queue += [
                        (node_id, events.PeerConnected(peer.node_id, peer.incarnation))
                        for peer in effect.peers
                    ]
                case _:
                    pass
        if syncs:
            self._queue.append((node_id, events.Synced(tuple(syncs))))

    def _transact(self, node_id: int, effect: effects.Transact) -> None:
        if any(self._values.get(key, 0) != version for key, version in effect.conditions):
            self._queue.append((node_id, events.Transacted(effect.request, events.Commit.CONFLICT)))
            return
        self._revision += 1
        for put in effect.puts:
            self._values[put.key] = self._revision
            change = events.Change(put.key, put.value, self._revision)
            self._queue += [(other, events.StoreChanged((change,))) for other in self.nodes]
        outcome = events.Transacted(effect.request, events.Commit.COMMITTED, self._revision)
        self._queue.append((node_id, outcome))


def _stage(event: events.Event) -> str:
    match event:
        case events.ClientTurn():
            return "client"
        case events.Synced():
            return "sync"
        case events.PeerTurn() if event.messages[0][1]:
            return "push"
        case events.PeerTurn():
            return "ack"
        case _:
            return "other"


def _request(partition: int, batch: bytes) -> bytes:
    part = messages.PartitionProduceData(index=partition, records=batch)
    body = messages.ProduceRequest(
        acks=-1,
        timeout_ms=1_000,
        topic_data=[messages.TopicProduceData(name="bench", partition_data=[part])],
    )
    return codec.encode_request(apis.PRODUCE, 11, 1, "bench", body)


class Load:
    """Turns of one-record batches for the partitions that one broker leads."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        wish = messages.CreatableTopic(name="bench", num_partitions=-1, replication_factor=3)
        body = messages.CreateTopicsRequest(topics=[wish])
        controller = next(n for n, node in cluster.nodes.items() if node.controller is not None)
        frame = codec.encode_request(apis.CREATE_TOPICS, 7, 1, "bench", body)
        cluster.ask(controller, [frame])
        ask_id = codec.encode_request(
            apis.INIT_PRODUCER_ID, 4, 1, "bench", messages.InitProducerIdRequest()
        )
        cluster.ask(1, [ask_id])
        cluster.settle()
        cluster.ask(1, [ask_id])
        self._sequences = [0] * PARTITIONS
        self._led = [p.replica.index for p in cluster.nodes[1].partitions if p.leader is not None]
        assert self._led

    def turn(self) -> list[bytes]:
        """The next turn's requests."""
        frames = []
        for number in range(BATCHES):
            partition = self._led[number % len(self._led)]
            sequence = self._sequences[partition]
            self._sequences[partition] += 1
            record = [(None, VALUE, 1_700_000_000_000, ())]
            batch = encode_batch(record, producer_id=0, producer_epoch=0, base_sequence=sequence)
            frames.append(_request(partition, batch))
        return frames


def measure(turns: int) -> dict[str, float]:
    """Microseconds per batch and stage of one cluster, `turns` turns after warming up."""
    cluster = Cluster()
    load = Load(cluster)
    for _ in range(max(1, turns // 10)):
        cluster.ask(1, load.turn())
    prepared = [load.turn() for _ in range(turns)]
    cluster.spent.clear()
    for frames in prepared:
        replies = cluster.ask(1, frames)
        assert len(replies) == BATCHES, "a batch was not acknowledged"
    return {stage: cluster.spent[stage] / 1_000 / turns / BATCHES for stage in STAGES.values()}


def main(smoke: bool) -> int:
    """Print the parts and their sum."""
    runs = [measure(5 if smoke else 300) for _ in range(1 if smoke else 7)]
    best = {stage: min(run[stage] for run in runs) for stage in STAGES.values()}
    print(f"CPU per replicated 300-byte batch, {BATCHES} a turn, three brokers, without sockets")
    for name, stage in STAGES.items():
        print(f"  {name:<44} {best[stage]:6.2f} us")
    print(f"  {'sum':<44} {sum(best.values()):6.2f} us")
    return 0


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv))
