"""The range assignor gives what Kafka's clients give."""

from __future__ import annotations

from cluster.client.assignors import Reader, assign_ranges


def test_first_members_get_one_more_where_it_does_not_come_out_even() -> None:
    readers = [Reader(name, None, ["t"]) for name in ("c", "a", "b")]
    given = assign_ranges(readers, {"t": 7})
    assert given == {"a": {"t": [0, 1, 2]}, "b": {"t": [3, 4]}, "c": {"t": [5, 6]}}


def test_topics_are_shared_among_those_that_read_them() -> None:
    readers = [Reader("a", None, ["s", "t"]), Reader("b", None, ["t"])]
    given = assign_ranges(readers, {"s": 2, "t": 2})
    assert given == {"a": {"s": [0, 1], "t": [0]}, "b": {"t": [1]}}


def test_more_members_than_partitions_leaves_some_without() -> None:
    given = assign_ranges([Reader("a", None, ["t"]), Reader("b", None, ["t"])], {"t": 1})
    assert given == {"a": {"t": [0]}, "b": {}}


def test_static_members_come_first_in_order_of_their_instance_ids() -> None:
    readers = [Reader("a", None, ["t"]), Reader("z", "i2", ["t"]), Reader("y", "i1", ["t"])]
    assert assign_ranges(readers, {"t": 3}) == {"y": {"t": [0]}, "z": {"t": [1]}, "a": {"t": [2]}}


def test_topic_that_does_not_exist_is_nobodys() -> None:
    assert assign_ranges([Reader("a", None, ["none"])], {}) == {"a": {}}
