"""aiokafka, on an event loop of its own thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import aiokafka
from aiokafka import admin, errors

from tests.interop.clients import (
    HEARTBEAT_MS,
    SESSION_MS,
    WITHIN_S,
    Client,
    Outcome,
    Read,
    Sent,
)

POLL_MS = 200

T = TypeVar("T")


class Loop:
    """Runs coroutines for threads that have no loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN_S)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Producer:
    def __init__(self, bootstrap: str, codec: str, timeout_ms: int) -> None:
        self._loop = Loop()
        self._futures: list[Any] = []
        self._acked = 0
        self._loop.run(self._start(bootstrap, None if codec == "none" else codec, timeout_ms))

    async def _start(self, bootstrap: str, codec: str | None, timeout_ms: int) -> None:
        self._producer = aiokafka.AIOKafkaProducer(
            bootstrap_servers=bootstrap,
            enable_idempotence=True,
            compression_type=codec,
            linger_ms=2,
            request_timeout_ms=timeout_ms,
        )
        await self._producer.start()

    def send(self, topic: str, record: Sent) -> None:
        self._loop.run(self._send(topic, record))

    async def _send(self, topic: str, record: Sent) -> None:
        future = await self._producer.send(
            topic,
            value=record.value,
            key=record.key,
            partition=record.partition,
            timestamp_ms=record.timestamp_ms,
            headers=list(record.headers),
        )
        future.add_done_callback(self._done)
        self._futures.append(future)

    def acked(self) -> int:
        return self._acked

    def close(self) -> list[Outcome]:
        try:
            return self._loop.run(self._close())
        finally:
            self._loop.close()

    async def _close(self) -> list[Outcome]:
        outcomes = []
        for future in self._futures:
            try:
                outcomes.append(Outcome((await future).offset))
            except errors.KafkaError as error:
                outcomes.append(Outcome(error=repr(error)))
        await self._producer.stop()
        return outcomes

    def _done(self, _: object) -> None:
        self._acked += 1


class Consumer:
    def __init__(self, bootstrap: str, topic: str, group: str | None) -> None:
        self._topic = topic
        self._loop = Loop()
        self._loop.run(self._start(bootstrap, group))

    async def _start(self, bootstrap: str, group: str | None) -> None:
        self._consumer = aiokafka.AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            fetch_max_wait_ms=100,
        )
        await self._consumer.start()

    def assign(self, positions: dict[int, int]) -> None:
        self._loop.run(self._assign(positions))

    async def _assign(self, positions: dict[int, int]) -> None:
        at = {aiokafka.TopicPartition(self._topic, number): at for number, at in positions.items()}
        self._consumer.assign(list(at))
        for partition, offset in at.items():
            self._consumer.seek(partition, offset)

    def subscribe(self) -> None:
        self._loop.run(self._subscribe())

    async def _subscribe(self) -> None:
        self._consumer.subscribe([self._topic])

    def poll(self) -> list[Read]:
        found = self._loop.run(self._consumer.getmany(timeout_ms=POLL_MS))
        return [
            Read(one.partition, one.offset, one.value, one.key, tuple(one.headers), one.timestamp)
            for records in found.values()
            for one in records
        ]

    def assignment(self) -> set[int]:
        return {one.partition for one in self._consumer.assignment()}

    def commit(self) -> None:
        self._loop.run(self._consumer.commit())

    def offsets_for_times(self, wanted: dict[int, int]) -> dict[int, int | None]:
        asked = {aiokafka.TopicPartition(self._topic, number): at for number, at in wanted.items()}
        found = self._loop.run(self._consumer.offsets_for_times(asked))
        return {where.partition: at and at.offset for where, at in found.items()}

    def close(self) -> None:
        try:
            self._loop.run(self._consumer.stop())
        finally:
            self._loop.close()


class Admin:
    def __init__(self, bootstrap: str) -> None:
        self._loop = Loop()
        self._loop.run(self._start(bootstrap))

    async def _start(self, bootstrap: str) -> None:
        self._admin = admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await self._admin.start()

    def create_topic(self, name: str, partitions: int, config: dict[str, str]) -> None:
        topic = admin.NewTopic(name, partitions, 3, topic_configs=config)
        answer = self._loop.run(self._admin.create_topics([topic]))
        for _, code, text in answer.topic_errors:
            if code:
                raise errors.for_code(code)(text)

    def create_partitions(self, name: str, total: int) -> None:
        self._loop.run(self._admin.create_partitions({name: admin.NewPartitions(total)}))

    def topics(self) -> set[str]:
        return {name for name in self._loop.run(self._admin.list_topics()) if name[0] != "_"}

    def partitions(self, name: str) -> int:
        (described,) = self._loop.run(self._admin.describe_topics([name]))
        return len(described["partitions"])

    def config(self, name: str) -> dict[str, str]:
        asked = admin.config_resource.ConfigResource(
            admin.config_resource.ConfigResourceType.TOPIC, name
        )
        (answer,) = self._loop.run(self._admin.describe_configs([asked]))
        ((code, text, _, _, entries),) = answer.resources
        assert not code, text
        return {entry[0]: entry[1] for entry in entries}

    def set_config(self, name: str, key: str, value: str) -> None:
        asked = admin.config_resource.ConfigResource(
            admin.config_resource.ConfigResourceType.TOPIC, name, {key: value}
        )
        for answer in self._loop.run(self._admin.alter_configs([asked])):
            for code, text, *_ in answer.resources:
                assert not code, text

    def delete_records(self, name: str, partition: int, offset: int) -> int:
        where = aiokafka.TopicPartition(name, partition)
        asked = {where: admin.RecordsToDelete(offset)}
        return int(self._loop.run(self._admin.delete_records(asked))[where])

    def delete_topic(self, name: str) -> None:
        self._loop.run(self._admin.delete_topics([name]))

    def groups(self) -> set[str]:
        return {name for name, _ in self._loop.run(self._admin.list_consumer_groups())}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        listed = self._loop.run(self._admin.list_consumer_group_offsets(group))
        return {one.partition: at.offset for one, at in listed.items() if one.topic == topic}

    def close(self) -> None:
        try:
            self._loop.run(self._admin.close())
        finally:
            self._loop.close()


def offsets_for_time(
    bootstrap: str, topic: str, partitions: Sequence[int], timestamp_ms: int
) -> dict[int, int | None]:
    consumer = Consumer(bootstrap, topic, None)
    found = consumer.offsets_for_times(dict.fromkeys(partitions, timestamp_ms))
    consumer.close()
    return found


AIOKAFKA = Client(
    "aiokafka",
    null_headers=True,
    in_flight=1,
    producers=Producer,
    consumers=Consumer,
    admin=Admin,
    offsets_for_time=offsets_for_time,
)
