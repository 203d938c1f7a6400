"""Kafka's protocol by hand, for what no client does on purpose: late copies of its own batches."""

from __future__ import annotations

import itertools
import socket
import struct
from types import TracebackType
from typing import Self, TypeVar

from cluster import errors
from cluster.wire import apis, codec, messages
from cluster.wire.schema import Message

WITHIN_S = 30
PRODUCE, FETCH, INIT = 9, 11, 4  # versions
AT_ONCE = 200  # requests under way: a broker reads no more of one connection than 256

M = TypeVar("M", bound=Message)


class Connection:
    """One TCP connection to a broker; questions one after another, or many at once."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), WITHIN_S)
        self._file = self._socket.makefile("rb")
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._socket.close()

    def send(self, key: int, version: int, *bodies: Message) -> None:
        """Send requests in one write."""
        frames = [
            codec.encode_request(key, version, next(self._numbers), "raw", body) for body in bodies
        ]
        self._socket.sendall(b"".join(struct.pack(">i", len(one)) + one for one in frames))

    def receive(self, kind: type[M], key: int, version: int) -> M:
        """The next answer; EOFError if the broker hung up."""
        size = self._file.read(4)
        if len(size) < 4:
            raise EOFError
        _, body = codec.decode_response(key, version, self._file.read(*struct.unpack(">i", size)))
        assert isinstance(body, kind)
        return body

    def ask(self, kind: type[M], key: int, version: int, body: Message) -> M:
        """One question and its answer."""
        self.send(key, version, body)
        return self.receive(kind, key, version)

    def produce(self, topic: str, batch: bytes, partition: int = 0) -> errors.Code:
        """The broker's word on one batch."""
        answer = self.ask(
            messages.ProduceResponse,
            apis.PRODUCE,
            PRODUCE,
            produce_request(topic, batch, partition),
        )
        return errors.code(answer.responses[0].partition_responses[0].error_code)

    def producers(self, topic: str) -> messages.DescribeProducersPartitionResponse:
        """Which producers the leader of partition 0 remembers, and how many floors it keeps."""
        asked = messages.DescribeProducersTopic(name=topic, partition_indexes=[0])
        answer = self.ask(
            messages.DescribeProducersResponse,
            apis.DESCRIBE_PRODUCERS,
            0,
            messages.DescribeProducersRequest(topics=[asked]),
        )
        return answer.topics[0].partitions[0]

    def producer_ids(self, count: int) -> list[int]:
        """Fresh ids."""
        body = messages.InitProducerIdRequest(transaction_timeout_ms=1_000)
        found: list[int] = []
        while len(found) < count:
            asked = [body] * min(AT_ONCE, count - len(found))
            self.send(apis.INIT_PRODUCER_ID, INIT, *asked)
            for _ in asked:
                got = self.receive(messages.InitProducerIdResponse, apis.INIT_PRODUCER_ID, INIT)
                if not got.error_code:  # a broker asks for more ids while it has none
                    found.append(got.producer_id)
        return found

    def batches(self, topic: str, partition: int = 0, offset: int = 0) -> list[bytes]:
        """Every batch from `offset` on as it is stored, control batches too."""
        found: list[bytes] = []
        while True:
            asked = messages.FetchPartition(
                partition=partition, fetch_offset=offset, partition_max_bytes=1 << 20
            )
            body = messages.FetchRequest(
                max_bytes=1 << 23, topics=[messages.FetchTopic(topic=topic, partitions=[asked])]
            )
            answer = self.ask(messages.FetchResponse, apis.FETCH, FETCH, body)
            data = answer.responses[0].partitions[0]
            assert not data.error_code
            records = bytes(data.records or b"")
            if not records:
                return found
            found += split(records)
            base, last = struct.unpack_from(">q15xi", found[-1])
            offset = base + last + 1


def produce_request(topic: str, batch: bytes, partition: int = 0) -> messages.ProduceRequest:
    """A request with acks=all."""
    data = messages.PartitionProduceData(index=partition, records=memoryview(batch))
    topics = [messages.TopicProduceData(name=topic, partition_data=[data])]
    return messages.ProduceRequest(acks=-1, timeout_ms=WITHIN_S * 1_000, topic_data=topics)


def split(records: bytes) -> list[bytes]:
    """The batches that lie one after another."""
    found, position = [], 0
    while position < len(records):
        (length,) = struct.unpack_from(">i", records, position + 8)
        found.append(records[position : position + 12 + length])
        position += 12 + length
    return found
