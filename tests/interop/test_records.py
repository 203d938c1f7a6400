"""What a Kafka client writes is stored as it is, and every client reads it back the same."""

from __future__ import annotations

import os
from collections import defaultdict

import pytest

from tests.interop.clients import CODECS, Client, Consumer, Read, Sent
from tests.interop.conftest import CLIENTS
from tests.interop.running import Brokers, until

BORN_MS = 1_700_000_000_000
LARGE = 900_000

ODD = [
    Sent(0, b"plain", b"key", (), BORN_MS),
    Sent(0, None, b"a tombstone", (), BORN_MS + 1),
    Sent(0, b"no key", None, (), BORN_MS + 2),
    Sent(0, b"", b"", (), BORN_MS + 3),
    Sent(0, b"h", b"k", (("name", b"\x00\xff"), ("name", b"again"), ("none", b"")), BORN_MS + 4),
    Sent(0, "þungur".encode(), b"lykill", (("ö", b"\xf0"),), BORN_MS + 5),
]
NULL_HEADER = Sent(0, b"h", b"k", (("null", None),), BORN_MS + 6)


def produce(client: Client, bootstrap: str, topic: str, records: list[Sent], codec: str) -> None:
    producer = client.producer(bootstrap, codec)
    for record in records:
        producer.send(topic, record)
    outcomes = producer.close()
    assert [one.error for one in outcomes] == [None] * len(records)
    by_partition = defaultdict(list)
    for record, outcome in zip(records, outcomes, strict=True):
        by_partition[record.partition].append(outcome.offset)
    for offsets in by_partition.values():
        assert offsets == list(range(len(offsets)))


def read_all(consumer: Consumer, count: int) -> list[Read]:
    found: list[Read] = []

    def complete() -> bool:
        found.extend(consumer.poll())
        return len(found) >= count

    try:
        until(complete, f"reading {count} records")
        return found
    finally:
        consumer.close()


def as_read(records: list[Sent]) -> list[Read]:
    return [
        Read(one.partition, offset, one.value, one.key, one.headers, one.timestamp_ms or 0)
        for offset, one in enumerate(records)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_records_are_stored_and_read_by_every_client_as_they_were_sent(
    brokers: Brokers, client: Client, codec: str
) -> None:
    topic = brokers.topic()
    filler = [Sent(0, b"%d " % n * 20, b"k", (), BORN_MS + 10 + n) for n in range(300)]
    records = [*ODD, *[NULL_HEADER] * client.null_headers, *filler]
    produce(client, brokers.kafka, topic, records, codec)
    stored = brokers.stored(topic)[0]
    assert [(one.key, one.value) for one in stored] == [(one.key, one.value) for one in records]
    for reader in CLIENTS:
        found = read_all(reader.reader(brokers.kafka, topic, {0: 0}), len(records))
        assert found == as_read(records), reader.name


def test_large_records_pass_whole(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic()
    records = [Sent(0, os.urandom(LARGE), b"%d" % n, (), BORN_MS) for n in range(3)]
    produce(client, brokers.kafka, topic, records, "none")
    assert [one.value for one in brokers.stored(topic)[0]] == [one.value for one in records]
    assert read_all(client.reader(brokers.kafka, topic, {0: 0}), 3) == as_read(records)


def test_hundred_partitions_keep_their_own_order(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic(partitions=100)
    records = [Sent(n % 100, b"%d" % (n // 100), None, (), BORN_MS) for n in range(1_000)]
    produce(client, brokers.kafka, topic, records, "lz4")
    stored = brokers.stored(topic)
    assert all([one.value for one in stored[n]] == [b"%d" % i for i in range(10)] for n in stored)
    found = read_all(client.reader(brokers.kafka, topic, dict.fromkeys(range(100), 0)), 1_000)
    assert len(found) == len({(one.partition, one.offset) for one in found}) == 1_000


def test_reading_begins_where_it_was_told_even_inside_a_batch(
    brokers: Brokers, client: Client
) -> None:
    topic = brokers.topic()
    records = [Sent(0, b"%d" % n, None, (), BORN_MS + 1_000 * n) for n in range(100)]
    produce(client, brokers.kafka, topic, records, "zstd")
    found = read_all(client.reader(brokers.kafka, topic, {0: 37}), 63)
    assert [one.offset for one in found] == list(range(37, 100))


def test_offsets_are_found_by_time(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic(partitions=2)
    records = [Sent(n % 2, b"%d" % n, None, (), BORN_MS + 1_000 * n) for n in range(100)]
    produce(client, brokers.kafka, topic, records, "none")

    def at(timestamp_ms: int) -> dict[int, int | None]:
        return client.offsets_for_time(brokers.kafka, topic, [0, 1], timestamp_ms)

    assert at(0) == {0: 0, 1: 0}
    assert at(BORN_MS + 50_000) == {0: 25, 1: 25}
    assert at(BORN_MS + 50_001) == {0: 26, 1: 25}
    assert at(BORN_MS + 1_000_000) == {0: None, 1: None}
