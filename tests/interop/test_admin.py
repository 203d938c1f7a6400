"""The admin classes of the clients: topics, settings, records, groups."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.interop.clients import Admin, Client, Sent
from tests.interop.running import Brokers, until


@pytest.fixture
def admin(brokers: Brokers, client: Client) -> Iterator[Admin]:
    made = client.admin(brokers.kafka)
    yield made
    made.close()


def test_topic_is_created_grown_and_deleted(admin: Admin, client: Client) -> None:
    name = f"{client.name}.made"
    admin.create_topic(name, 3, {"min.insync.replicas": "1"})
    until(lambda: name in admin.topics(), "listing a new topic")
    assert admin.partitions(name) == 3
    with pytest.raises(Exception, match=r"(?i)exists"):
        admin.create_topic(name, 3, {})
    admin.create_partitions(name, 5)
    until(lambda: admin.partitions(name) == 5, "growing a topic")
    admin.delete_topic(name)
    until(lambda: name not in admin.topics(), "deleting a topic")


def test_wrong_topics_are_refused(admin: Admin) -> None:
    for name, partitions, config in (
        ("a/b", 1, {}),
        ("x" * 250, 1, {}),
        ("zero", 0, {}),
        ("unknown", 1, {"no.such.key": "1"}),
        ("wrong", 1, {"min.insync.replicas": "many"}),
    ):
        with pytest.raises(Exception, match=r"(?i)invalid|config|partition|topic"):
            admin.create_topic(name, partitions, config)


def test_settings_are_told_and_changed(brokers: Brokers, admin: Admin) -> None:
    topic = brokers.topic()
    until(lambda: topic in admin.topics(), "hearing of the topic")
    assert admin.config(topic)["min.insync.replicas"] == "2"
    admin.set_config(topic, "min.insync.replicas", "1")
    until(lambda: admin.config(topic)["min.insync.replicas"] == "1", "a changed setting")


def test_deleted_records_are_gone_for_every_reader(
    brokers: Brokers, client: Client, admin: Admin
) -> None:
    topic = brokers.topic()
    producer = client.producer(brokers.kafka)
    for number in range(10):
        producer.send(topic, Sent(0, b"%d" % number))
    producer.close()
    assert admin.delete_records(topic, 0, 4) == 4
    consumer = client.member(brokers.kafka, f"{client.name}.deleted", topic)
    found: list[int] = []

    def read() -> bool:
        found.extend(one.offset for one in consumer.poll())
        return len(found) >= 6

    try:
        until(read, "reading what is left")
        assert found == list(range(4, 10))
        consumer.commit()
        assert f"{client.name}.deleted" in admin.groups()
        assert admin.committed(f"{client.name}.deleted", topic) == {0: 10}
    finally:
        consumer.close()
