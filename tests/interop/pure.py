"""kafka-python."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it reads its schemas the old way
    import kafka
    from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
    from kafka.admin import KafkaAdminClient as AdminClient

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


class Producer:
    def __init__(self, bootstrap: str, codec: str, timeout_ms: int) -> None:
        self._producer = kafka.KafkaProducer(
            bootstrap_servers=bootstrap.split(","),
            enable_idempotence=True,
            acks="all",
            compression_type=None if codec == "none" else codec,
            linger_ms=2,
            request_timeout_ms=min(30_000, timeout_ms - 2),  # less than a record may take in all
            delivery_timeout_ms=timeout_ms,
        )
        self._futures: list[Any] = []
        self._acked = 0

    def send(self, topic: str, record: Sent) -> None:
        future = self._producer.send(
            topic,
            value=record.value,
            key=record.key,
            headers=list(record.headers),
            partition=record.partition,
            timestamp_ms=record.timestamp_ms,
        )
        future.add_both(self._done)
        self._futures.append(future)

    def acked(self) -> int:
        return self._acked

    def close(self) -> list[Outcome]:
        outcomes = []
        for future in self._futures:
            try:
                outcomes.append(Outcome(future.get(timeout=WITHIN_S).offset))
            except kafka.errors.KafkaError as error:
                outcomes.append(Outcome(error=repr(error)))
        self._producer.close()
        return outcomes

    def _done(self, _: object) -> None:
        self._acked += 1


class Consumer:
    def __init__(self, bootstrap: str, topic: str, group: str | None) -> None:
        self._topic = topic
        self._consumer = kafka.KafkaConsumer(
            bootstrap_servers=bootstrap.split(","),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            fetch_max_wait_ms=100,
            max_poll_records=10_000,
        )

    def assign(self, positions: dict[int, int]) -> None:
        at = {kafka.TopicPartition(self._topic, number): at for number, at in positions.items()}
        self._consumer.assign(list(at))
        for partition, offset in at.items():
            self._consumer.seek(partition, offset)

    def subscribe(self) -> None:
        self._consumer.subscribe([self._topic])

    def poll(self) -> list[Read]:
        return [
            Read(one.partition, one.offset, one.value, one.key, tuple(one.headers), one.timestamp)
            for records in self._consumer.poll(POLL_MS).values()
            for one in records
        ]

    def assignment(self) -> set[int]:
        return {one.partition for one in self._consumer.assignment()}

    def commit(self) -> None:
        self._consumer.commit()

    def close(self) -> None:
        self._consumer.close(autocommit=False)


class Admin:
    def __init__(self, bootstrap: str) -> None:
        self._admin = AdminClient(bootstrap_servers=bootstrap.split(","))

    def create_topic(self, name: str, partitions: int, config: dict[str, str]) -> None:
        self._admin.create_topics([NewTopic(name, partitions, 3, topic_configs=config)])

    def create_partitions(self, name: str, total: int) -> None:
        self._admin.create_partitions({name: total})

    def topics(self) -> set[str]:
        return {name for name in self._admin.list_topics() if name[0] != "_"}

    def partitions(self, name: str) -> int:
        (described,) = self._admin.describe_topics([name])
        return len(described["partitions"])

    def config(self, name: str) -> dict[str, str]:
        asked = ConfigResource(ConfigResourceType.TOPIC, name)
        described = self._admin.describe_configs([asked], config_filter="all")["topic"][name]
        return {key: entry["value"] for key, entry in described.items()}

    def set_config(self, name: str, key: str, value: str) -> None:
        self._admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {key: value})])

    def delete_records(self, name: str, partition: int, offset: int) -> int:
        where = kafka.TopicPartition(name, partition)
        return int(self._admin.delete_records({where: offset})[where]["low_watermark"])

    def delete_topic(self, name: str) -> None:
        self._admin.delete_topics([name])

    def groups(self) -> set[str]:
        return {one["group_id"] for one in self._admin.list_groups()}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        listed = self._admin.list_group_offsets({group: None})[group]
        return {one.partition: at.offset for one, at in listed.items() if one.topic == topic}

    def close(self) -> None:
        self._admin.close()


def offsets_for_time(
    bootstrap: str, topic: str, partitions: Sequence[int], timestamp_ms: int
) -> dict[int, int | None]:
    consumer = kafka.KafkaConsumer(bootstrap_servers=bootstrap.split(","))
    asked = {kafka.TopicPartition(topic, number): timestamp_ms for number in partitions}
    found = consumer.offsets_for_times(asked)
    consumer.close()
    return {where.partition: at and at.offset for where, at in found.items()}


KAFKA_PYTHON = Client(
    "kafka-python",
    null_headers=False,
    in_flight=1,
    producers=Producer,
    consumers=Consumer,
    admin=Admin,
    offsets_for_time=offsets_for_time,
)
