from __future__ import annotations

import msgspec
import pytest

from cluster.control import records
from cluster.control.records import (
    ClusterRecord,
    ControllerRecord,
    Liveness,
    PartitionRecord,
    ProducerIds,
    Record,
    RecordError,
    Registration,
    Session,
    TopicRecord,
    decode,
    encode,
)
from cluster.control.store import Condition, Put, Stored
from cluster.limits import STORE_KEY_LENGTH_MAX, TOPIC_NAME_LENGTH_MAX

ID = "00112233445566778899aabbccddeeff"
REGISTRATION = Registration(
    node_id=2,
    directory_id=ID,
    boot_id="boot",
    clean=True,
    highest_epoch=-1,
    highest_producer_id=4_000,
    zmq="127.0.0.1:5550",
    lease=9,
)
PARTITION = PartitionRecord(
    leader=1, leader_incarnation=17, leader_epoch=3, replicas=(1, 2, 3), isr=(2, 1), doubtful=(2,)
)
ALL = [
    ClusterRecord(cluster_id=ID),
    REGISTRATION,
    Session(node_id=2),
    Liveness(incarnation=17, alive=False, reason="two brokers lost it"),
    ControllerRecord(node_id=1, incarnation=17, epoch=4, lease=9),
    TopicRecord(topic_id=ID, partitions=6, replicas=3, config={"flush": "os"}),
    PARTITION,
    ProducerIds(next=2**40),
]


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_every_record_survives_its_bytes(record: Record) -> None:
    assert decode(type(record), Stored("key", encode(record), 1)) == record


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_fields_of_later_versions_are_tolerated_until_the_format_says_no(record: Record) -> None:
    fields = msgspec.json.decode(encode(record))
    fields["added_later"] = [1]
    assert decode(type(record), Stored("key", msgspec.json.encode(fields), 1)) == record
    fields["v"] = 2
    with pytest.raises(RecordError, match="key in the metadata store: format 2"):
        decode(type(record), Stored("key", msgspec.json.encode(fields), 1))


@pytest.mark.parametrize("value", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"leader": "one"}'])
def test_a_damaged_value_names_its_key(value: bytes) -> None:
    with pytest.raises(RecordError, match="partitions/x/0 in the metadata store"):
        decode(PartitionRecord, Stored("partitions/x/0", value, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"isr": (1, 4)},
        {"isr": (1, 1)},
        {"doubtful": (3,)},
        {"leader": 3},
        {"leader": -2},
        {"leader_epoch": -1},
        {"replicas": (1, 2, -3)},
    ],
)
def test_a_partition_that_contradicts_itself_is_not_read(change: dict[str, object]) -> None:
    fields = msgspec.to_builtins(PARTITION) | change
    with pytest.raises(RecordError):
        decode(PartitionRecord, Stored("partitions/x/0", msgspec.json.encode(fields), 1))


def test_a_partition_without_leader_keeps_its_members() -> None:
    assert msgspec.structs.replace(PARTITION, leader=records.NO_LEADER).isr == (2, 1)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ä", "a b", "a\n", "x" * 250])
def test_names_that_are_no_directory_names_are_not_topics(name: str) -> None:
    assert not records.valid_topic_name(name)


def test_the_longest_topic_name_fits_into_a_key() -> None:
    name = "x" * TOPIC_NAME_LENGTH_MAX
    assert records.valid_topic_name(name)
    assert len(records.topic_key(name)) <= STORE_KEY_LENGTH_MAX


def test_keys_are_read_as_they_are_written() -> None:
    assert records.parse_partition_key(records.partition_key(ID, 12)) == (ID, 12)
    for key in (records.broker_key, records.session_key, records.liveness_key):
        assert records.node_of(key(7)) == 7


def test_registering_opens_the_session_in_the_same_transaction() -> None:
    conditions, writes = records.register(REGISTRATION, before=5)
    assert conditions == [Condition("brokers/2", 5)]
    assert writes == [
        Put("brokers/2", encode(REGISTRATION)),
        Put("sessions/2", encode(Session(node_id=2)), lease=9),
    ]
