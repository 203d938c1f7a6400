"""A cluster of fake brokers in the test's own loop, over real sockets and a real producer table.

What a broker does in one process: validation, duplicates and offsets are `_fastseq.turn`'s, as in
a real one. Nothing is replicated: nodes share one state, and everything appended is committed.
Tests break it by stopping nodes, moving leaders, and losing or changing answers.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from _fastseq.batch import Record
from _fastseq.table import ProducerTable
from _fastseq.turn import Lane, Turn
from cluster.net.zmq import RoutedMessage, RouterEndpoint
from cluster.wire import messages as m
from cluster.wire.codec import decode_request, encode_response
from cluster.wire.records import next_offset, read_batches, read_records
from cluster.wire.schema import Message


@dataclass
class FakePartition:
    leader: int
    epoch: int = 0
    log: bytearray = field(default_factory=bytearray)
    lane: Lane = field(default_factory=lambda: Lane(ProducerTable()))
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def append(self, batch: bytes | bytearray | memoryview) -> tuple[int, int, int]:
        """Error code, base offset and verdict of one client batch."""
        turn = Turn()
        turn.begin()
        turn.add(self.lane, batch, 0, len(batch), 0)
        turn.run()
        self.log += turn.arena
        self.changed.set()
        return turn.errors[0], turn.offsets[0], turn.verdicts[0]

    def records(self) -> list[Record]:
        return read_records(bytes(self.log))


class FakeCluster:
    """Nodes 1..n on loopback, sharing topics; `await start()` and `close()` in one loop."""

    def __init__(self, nodes: int = 1) -> None:
        self.topics: dict[str, list[FakePartition]] = {}
        self.topic_ids: dict[str, bytes] = {}
        self.configs: dict[str, dict[str, str | None]] = {}
        self.nodes: dict[int, RouterEndpoint] = {}
        self.addresses: dict[int, str] = {}
        self.controller = 1
        self.next_producer_id = 1000
        self.produced = 0
        """Produce requests received."""
        self.lose_answer: Callable[[Message], bool] = lambda body: False
        """Whether the answer to this request is lost."""
        self.refuse: Callable[[Message], int] = lambda body: 0
        """An error code that answers a produce, fetch or change instead of doing it."""
        self.faults: list[m.FaultRequest] = []
        self._names = list(range(1, nodes + 1))
        self._parked: set[asyncio.Task[None]] = set()

    async def start(self) -> "FakeCluster":
        for node in self._names:
            self.listen(node)
        return self

    def listen(self, node: int) -> None:
        """Starts a node, at its old address if it had one."""
        self.nodes[node] = RouterEndpoint(
            asyncio.get_running_loop(),
            self.addresses.get(node, "127.0.0.1:0"),
            on_turn=lambda turn: self._on_turn(node, turn),
        )
        self.addresses[node] = self.nodes[node].endpoint

    def stop(self, node: int) -> None:
        self.nodes.pop(node).close()

    async def close(self) -> None:
        for task in self._parked:
            task.cancel()
        await asyncio.gather(*self._parked, return_exceptions=True)
        for node in list(self.nodes):
            self.stop(node)

    @property
    def bootstrap(self) -> list[str]:
        return list(self.addresses.values())

    def create(self, topic: str, partitions: int = 1) -> list[FakePartition]:
        names = self._names
        self.topics[topic] = [FakePartition(names[i % len(names)]) for i in range(partitions)]
        self.topic_ids[topic] = len(self.topic_ids).to_bytes(16)
        self.configs[topic] = {"min.insync.replicas": "2"}
        return self.topics[topic]

    def move(self, topic: str, partition: int, leader: int) -> None:
        moved = self.topics[topic][partition]
        moved.leader = leader
        moved.epoch += 1

    def values(self, topic: str, partition: int = 0) -> list[bytes | None]:
        return [record.value for record in self.topics[topic][partition].records()]

    # Requests

    def _on_turn(self, node: int, turn: list[RoutedMessage]) -> None:
        for peer, frames in turn:
            header, body = decode_request(frames[0])
            answer = self._answer(node, body)
            if answer is None:
                assert isinstance(body, m.FetchRequest)
                self._park(self._fetch_later(node, peer, header.correlation_id, body))
            else:
                self._reply(node, peer, header.correlation_id, body, answer)

    def _park(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._parked.add(task)
        task.add_done_callback(self._parked.discard)

    def _reply(
        self, node: int, peer: bytes, correlation: int, body: Message, answer: Message
    ) -> None:
        endpoint = self.nodes.get(node)
        silent = isinstance(body, m.ProduceRequest) and body.acks == 0
        if endpoint is None or silent or self.lose_answer(body):
            return
        key, version = KEYS[type(body)]
        endpoint.send(peer, [encode_response(key, version, correlation, answer)])

    def _answer(self, node: int, body: Message) -> Message | None:
        match body:
            case m.ProduceRequest():
                return self._produce(node, body)
            case m.FetchRequest():
                return self._fetch(node, body)
            case m.MetadataRequest():
                return self._metadata(body)
            case m.InitProducerIdRequest():
                return self._producer_id(body)
            case m.ListOffsetsRequest():
                return self._list_offsets(node, body)
            case m.FaultRequest():
                self.faults.append(body)
                return m.FaultResponse(status=f"{body.kind} on {node}")
            case _:
                return self._administer(node, body)

    def _administer(self, node: int, body: Message) -> Message:
        match body:
            case m.CreateTopicsRequest():
                wanted = body.topics[0]
                error = self.refuse(body) or (0 if node == self.controller else 41)
                if not error and wanted.name in self.topics:
                    error = 36
                if not error:
                    self.create(wanted.name, max(wanted.num_partitions, 1))
                    self.configs[wanted.name] = {c.name: c.value for c in wanted.configs}
                result = m.CreatableTopicResult(name=wanted.name, error_code=error)
                return m.CreateTopicsResponse(topics=[result])
            case m.DeleteTopicsRequest():
                name = body.topics[0].name or ""
                error = 0 if node == self.controller else 41
                if not error:
                    error = 0 if self.topics.pop(name, None) else 3
                gone = m.DeletableTopicResult(name=name, error_code=error)
                return m.DeleteTopicsResponse(responses=[gone])
            case m.DescribeConfigsRequest():
                name = body.resources[0].resource_name
                listed = [
                    m.DescribeConfigsResourceResult(name=key, value=value)
                    for key, value in self.configs[name].items()
                ]
                described = m.DescribeConfigsResult(
                    error_code=self.refuse(body), resource_name=name, configs=listed
                )
                return m.DescribeConfigsResponse(results=[described])
            case _:
                raise AssertionError(f"unexpected {body}")

    def _producer_id(self, body: Message) -> Message:
        error = self.refuse(body)
        if error:
            return m.InitProducerIdResponse(error_code=error)
        self.next_producer_id += 1
        return m.InitProducerIdResponse(producer_id=self.next_producer_id, producer_epoch=0)

    def _metadata(self, body: m.MetadataRequest) -> Message:
        named = None if body.topics is None else [topic.name or "" for topic in body.topics]
        topics = [self._describe(name) for name in (self.topics if named is None else named)]
        brokers = [
            m.MetadataResponseBroker(node_id=node, host="127.0.0.1", port=endpoint.port)
            for node, endpoint in self.nodes.items()
        ]
        return m.MetadataResponse(
            brokers=brokers, cluster_id="fake", controller_id=self.controller, topics=topics
        )

    def _describe(self, name: str) -> m.MetadataResponseTopic:
        if name not in self.topics:
            return m.MetadataResponseTopic(error_code=3, name=name)
        partitions = [
            m.MetadataResponsePartition(
                partition_index=index, leader_id=partition.leader, leader_epoch=partition.epoch,
                replica_nodes=self._names, isr_nodes=self._names,
            )
            for index, partition in enumerate(self.topics[name])
        ]  # fmt: skip
        return m.MetadataResponseTopic(
            name=name, topic_id=self.topic_ids[name], partitions=partitions
        )

    def _led(self, node: int, topic: str, index: int) -> tuple[int, FakePartition | None]:
        partitions = self.topics.get(topic)
        if partitions is None or index >= len(partitions):
            return 3, None
        if partitions[index].leader != node:
            return 6, None
        return 0, partitions[index]

    def _produce(self, node: int, body: m.ProduceRequest) -> Message:
        self.produced += 1
        (topic,) = body.topic_data
        (data,) = topic.partition_data
        error, partition = self._led(node, topic.name, data.index)
        error = error or self.refuse(body)
        offset, verdict = -1, 0
        if partition is not None and not error:
            assert data.records is not None
            error, offset, verdict = partition.append(data.records)
        answer = m.PartitionProduceResponse(
            index=data.index, error_code=error, base_offset=offset, verdict=verdict
        )
        named = m.TopicProduceResponse(name=topic.name, partition_responses=[answer])
        return m.ProduceResponse(responses=[named])

    def _fetch(self, node: int, body: m.FetchRequest, last: bool = False) -> Message | None:
        """The answer, or None to wait for records."""
        ready = last or body.max_wait_ms == 0
        topics = []
        for topic in body.topics:
            answers = []
            for asked in topic.partitions:
                answer = self._read(node, topic.topic, asked)
                ready = ready or bool(answer.records) or answer.error_code != 0
                answers.append(answer)
            topics.append(m.FetchableTopicResponse(topic=topic.topic, partitions=answers))
        return m.FetchResponse(responses=topics) if ready else None

    def _read(self, node: int, topic: str, asked: m.FetchPartition) -> m.PartitionData:
        error, partition = self._led(node, topic, asked.partition)
        end = 0 if partition is None else partition.lane.next_offset
        if partition is not None and not 0 <= asked.fetch_offset <= end:
            error = 1
        if partition is None or error:
            return m.PartitionData(
                partition_index=asked.partition, error_code=error, records=b"", high_watermark=end
            )
        log = bytes(partition.log)
        wanted = [
            (at, at + batch.size)
            for at, batch in read_batches(log)
            if batch.next_offset > asked.fetch_offset
        ]
        start = wanted[0][0] if wanted else 0
        fitting = [stop for _, stop in wanted if stop - start <= asked.partition_max_bytes]
        stop = max(fitting, default=wanted[0][1] if wanted else 0)
        return m.PartitionData(
            partition_index=asked.partition, high_watermark=end, records=log[start:stop]
        )

    async def _fetch_later(
        self, node: int, peer: bytes, correlation: int, body: m.FetchRequest
    ) -> None:
        changes = [
            self.topics[topic.topic][asked.partition].changed
            for topic in body.topics
            for asked in topic.partitions
        ]
        for changed in changes:
            changed.clear()
        answer = self._fetch(node, body)
        waits = [asyncio.get_running_loop().create_task(changed.wait()) for changed in changes]
        try:
            if answer is None:
                await asyncio.wait(
                    waits, timeout=body.max_wait_ms / 1000, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        answer = self._fetch(node, body, last=True)
        assert answer is not None
        self._reply(node, peer, correlation, body, answer)

    def _list_offsets(self, node: int, body: m.ListOffsetsRequest) -> Message:
        topics = []
        for topic in body.topics:
            answers = []
            for asked in topic.partitions:
                error, partition = self._led(node, topic.name, asked.partition_index)
                offset = -1
                if partition is not None:
                    offset = _find(partition, asked.timestamp)
                answers.append(
                    m.ListOffsetsPartitionResponse(
                        partition_index=asked.partition_index, error_code=error, offset=offset
                    )
                )
            topics.append(m.ListOffsetsTopicResponse(name=topic.name, partitions=answers))
        return m.ListOffsetsResponse(topics=topics)


KEYS: dict[type[Message], tuple[int, int]] = {
    m.ProduceRequest: (0, 11),
    m.FetchRequest: (1, 12),
    m.ListOffsetsRequest: (2, 7),
    m.MetadataRequest: (3, 12),
    m.CreateTopicsRequest: (19, 7),
    m.DeleteTopicsRequest: (20, 6),
    m.InitProducerIdRequest: (22, 4),
    m.DescribeConfigsRequest: (32, 4),
    m.FaultRequest: (1000, 0),
}


def _find(partition: FakePartition, timestamp: int) -> int:
    if timestamp == -2:
        return 0
    if timestamp == -1:
        return next_offset(bytes(partition.log), 0)
    return next((r.offset for r in partition.records() if r.timestamp >= timestamp), -1)
