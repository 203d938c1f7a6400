"""confluent-kafka, which is librdkafka."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import admin, cimpl

from tests.interop.clients import (
    HEARTBEAT_MS,
    SESSION_MS,
    WITHIN_S,
    Client,
    Outcome,
    Read,
    Sent,
)

POLL_S = 0.2
NO_GROUP = "unused"  # it wants a name even where partitions are given by hand


class Producer:
    def __init__(self, bootstrap: str, codec: str, timeout_ms: int) -> None:
        self._producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "compression.type": codec,
                "linger.ms": 2,
                "message.timeout.ms": timeout_ms,
                "log_level": 2,
            }
        )
        self._outcomes: list[Outcome | None] = []
        self._acked = 0

    def send(self, topic: str, record: Sent) -> None:
        number = len(self._outcomes)
        self._outcomes.append(None)

        def reported(error: Any, message: Any) -> None:
            self._acked += 1
            self._outcomes[number] = (
                Outcome(error=str(error)) if error is not None else Outcome(message.offset())
            )

        self._producer.produce(
            topic,
            record.value,
            record.key,
            record.partition,
            reported,
            timestamp=record.timestamp_ms or 0,
            headers=list(record.headers),
        )
        self._producer.poll(0)

    def acked(self) -> int:
        self._producer.poll(0)
        return self._acked

    def close(self) -> list[Outcome]:
        assert self._producer.flush(WITHIN_S) == 0
        return [outcome for outcome in self._outcomes if outcome is not None]


class Consumer:
    def __init__(self, bootstrap: str, topic: str, group: str | None) -> None:
        self._topic = topic
        self._consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": group or NO_GROUP,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": HEARTBEAT_MS,
                "fetch.wait.max.ms": 100,
                "log_level": 2,
            }
        )

    def assign(self, positions: dict[int, int]) -> None:
        self._consumer.assign(
            [cimpl.TopicPartition(self._topic, number, at) for number, at in positions.items()]
        )

    def subscribe(self) -> None:
        self._consumer.subscribe([self._topic])

    def poll(self) -> list[Read]:
        found: list[Any] = self._consumer.consume(1_000, POLL_S)
        for message in found:
            assert message.error() is None, message.error()
        return [
            Read(
                message.partition(),
                message.offset(),
                message.value(),
                message.key(),
                tuple(message.headers() or ()),
                message.timestamp()[1],
            )
            for message in found
        ]

    def assignment(self) -> set[int]:
        return {one.partition for one in self._consumer.assignment()}

    def commit(self) -> None:
        self._consumer.commit(asynchronous=False)

    def close(self) -> None:
        self._consumer.close()


class Admin:
    def __init__(self, bootstrap: str) -> None:
        self._admin = admin.AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})

    def create_topic(self, name: str, partitions: int, config: dict[str, str]) -> None:
        topic = cimpl.NewTopic(name, partitions, 3, config=config)
        self._admin.create_topics([topic], operation_timeout=WITHIN_S)[name].result()

    def create_partitions(self, name: str, total: int) -> None:
        wanted = cimpl.NewPartitions(name, total)
        self._admin.create_partitions([wanted], operation_timeout=WITHIN_S)[name].result()

    def topics(self) -> set[str]:
        return {name for name in self._admin.list_topics(timeout=WITHIN_S).topics if name[0] != "_"}

    def partitions(self, name: str) -> int:
        return len(self._admin.list_topics(name, timeout=WITHIN_S).topics[name].partitions)

    def config(self, name: str) -> dict[str, str]:
        asked = admin.ConfigResource(admin.ResourceType.TOPIC, name)
        (described,) = self._admin.describe_configs([asked]).values()
        return {key: str(entry.value) for key, entry in described.result().items()}

    def set_config(self, name: str, key: str, value: str) -> None:
        change = admin.ConfigEntry(key, value, incremental_operation=admin.AlterConfigOpType.SET)
        asked = admin.ConfigResource(admin.ResourceType.TOPIC, name, incremental_configs=[change])
        (changed,) = self._admin.incremental_alter_configs([asked]).values()
        changed.result()

    def delete_records(self, name: str, partition: int, offset: int) -> int:
        asked = cimpl.TopicPartition(name, partition, offset)
        (deleted,) = self._admin.delete_records([asked]).values()
        return int(deleted.result().low_watermark)

    def delete_topic(self, name: str) -> None:
        self._admin.delete_topics([name], operation_timeout=WITHIN_S)[name].result()

    def groups(self) -> set[str]:
        return {one.group_id for one in self._admin.list_consumer_groups().result().valid}

    def committed(self, group: str, topic: str) -> dict[int, int]:
        asked = confluent_kafka.ConsumerGroupTopicPartitions(group)
        (listed,) = self._admin.list_consumer_group_offsets([asked]).values()
        found = listed.result().topic_partitions
        return {one.partition: one.offset for one in found if one.topic == topic}

    def close(self) -> None:
        pass


def offsets_for_time(
    bootstrap: str, topic: str, partitions: Sequence[int], timestamp_ms: int
) -> dict[int, int | None]:
    consumer = confluent_kafka.Consumer(
        {"bootstrap.servers": bootstrap, "group.id": NO_GROUP, "log_level": 2}
    )
    asked = [cimpl.TopicPartition(topic, number, timestamp_ms) for number in partitions]
    found = consumer.offsets_for_times(asked, timeout=WITHIN_S)
    consumer.close()
    # Its word for "none" is the end of the log.
    return {one.partition: one.offset if one.offset >= 0 else None for one in found}


CONFLUENT = Client(
    "confluent-kafka",
    null_headers=True,
    in_flight=5,
    producers=Producer,
    consumers=Consumer,
    admin=Admin,
    offsets_for_time=offsets_for_time,
)
