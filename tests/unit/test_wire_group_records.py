"""Records of groups, subscriptions and assignments, byte for byte as Kafka has them."""

from __future__ import annotations

import pytest

from cluster.wire import assignments, group_records
from cluster.wire.group_records import GroupValue, MemberValue, OffsetValue
from cluster.wire.primitives import WireError

KEY = group_records.encode_offset_key("g", "t", 3)
ASSIGNED = (
    b"\x00\x00\x00\x00\x00\x01\x00\rgolden.orders\x00\x00\x00\x02"
    b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"
)
"""What librdkafka's leader gave its member in the golden conversations."""


def test_offset_is_stored_as_kafka_does() -> None:
    value = OffsetValue(offset=5, leader_epoch=2, metadata="m", commit_timestamp=7)
    assert KEY == b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x03"
    encoded = group_records.encode_offset(value)
    assert encoded.hex() == "0003" + "0000000000000005" + "00000002" + "00016d" + "0000000000000007"
    record = group_records.decode(KEY, encoded)
    assert record is not None and record.value == value


def test_older_values_of_offsets_are_read() -> None:
    first = b"\x00\x01" + (5).to_bytes(8) + b"\x00\x01m" + (7).to_bytes(8) + (9).to_bytes(8)
    record = group_records.decode(KEY, first)
    assert record is not None and isinstance(record.value, OffsetValue)
    assert (record.value.offset, record.value.metadata) == (5, "m")


def test_group_is_read_as_it_was_stored() -> None:
    value = GroupValue(
        protocol_type="consumer", generation=3, protocol="range", leader="a",
        current_state_timestamp=4,
        members=[MemberValue(member_id="a", group_instance_id="i", assignment=b"x")],
    )  # fmt: skip
    key = group_records.encode_group_key("g")
    assert key == b"\x00\x02\x00\x01g"
    record = group_records.decode(key, group_records.encode_group(value))
    assert record is not None and record.value == value


def test_tombstone_has_no_value_and_unknown_kinds_are_passed_over() -> None:
    record = group_records.decode(KEY, None)
    assert record is not None and record.value is None
    assert group_records.decode(b"\x00\x09whatever", b"\x00\x01") is None
    assert group_records.decode(KEY, b"\x00\x09whatever") is None
    assert group_records.decode(None, b"") is None


@pytest.mark.parametrize("key", [b"", b"\x00", KEY[:-1], KEY + b"x"])
def test_malformed_key_is_an_error(key: bytes) -> None:
    with pytest.raises(WireError):
        group_records.decode(key, None)


def test_assignment_of_another_client_is_read() -> None:
    assert assignments.decode_assignment(ASSIGNED) == {"golden.orders": [0, 1]}
    assert assignments.decode_assignment(b"") == {}


def test_assignment_and_subscription_survive_the_wire() -> None:
    places = {"a": [0, 2], "b": [1]}
    assert assignments.decode_assignment(assignments.encode_assignment(places)) == places
    subscription = assignments.Subscription(("a", "b"), {"a": [1]}, b"data")
    encoded = assignments.encode_subscription(subscription)
    assert assignments.decode_subscription(encoded) == subscription
    assert assignments.decode_topics(encoded) == ("a", "b")


@pytest.mark.parametrize(
    "data", [b"\x00", b"\x00\x00\x7f\xff\xff\xff", b"\x00\x00\x00\x00\x00\x01\xff\xff"]
)
def test_malformed_subscription_is_an_error(data: bytes) -> None:
    with pytest.raises(WireError):
        assignments.decode_topics(data)
