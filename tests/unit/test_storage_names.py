"""Names of segments and replica directories."""

import pytest

from cluster.storage import names


def test_segment_names_have_twenty_digits_and_parse_back() -> None:
    path = names.segment_file("orders-0", 1095, names.LOG)
    assert path == "orders-0/00000000000000001095.log"
    assert names.offset_of("00000000000000001095.log", names.LOG) == 1095


@pytest.mark.parametrize(
    "name",
    ["1095.log", "00000000000000001095.index", "0000000000000000109x.log", ".log", "doubtful"],
)
def test_other_names_are_no_segments(name: str) -> None:
    assert names.offset_of(name, names.LOG) is None


def test_a_topic_may_contain_dashes_and_digits() -> None:
    directory = names.replica_directory("a-1-b", 12)
    assert directory == "a-1-b-12"
    assert names.parse_replica_directory(directory) == ("a-1-b", 12)


@pytest.mark.parametrize(
    "name", ["orders", "orders-", "-3", "orders-03", "orders-x", "a-0.1-stray"]
)
def test_other_directories_are_no_replicas(name: str) -> None:
    assert names.parse_replica_directory(name) is None


def test_strays_of_one_replica_get_different_names() -> None:
    first, second = (names.stray_directory("a-0", bytes([255] * 16), n) for n in (0, 1))
    assert first == "a-0." + "f" * 32 + "-stray"
    assert second == "a-0." + "0" * 32 + "-stray"
    assert names.parse_replica_directory(first) is None


def test_longest_topic_name_leaves_room_for_every_suffix() -> None:
    topic = "t" * 249
    directory = names.replica_directory(topic, 9_999)
    moved = (
        names.stray_directory(directory, bytes(16), 0),
        names.deleted_directory(topic, 9_999, "f" * 32),
        names.deleted_directory(topic, 9_998, "f" * 32),
    )
    assert len(set(moved)) == 3
    for name in moved:
        assert len(name) <= 255
        assert names.parse_replica_directory(name) is None
