"""Moves on a partition's record: who may leave, join, be doubted, be trusted, lead."""

from __future__ import annotations

import pytest

from cluster.core import insync
from cluster.core.records import PartitionRecord


def record(
    isr: tuple[int, ...] = (1, 2, 3), doubtful: tuple[int, ...] = (), leader: int = 1
) -> PartitionRecord:
    return PartitionRecord(leader, 10, 4, (1, 2, 3), isr, doubtful, ("a", "b", "c"))


def test_a_lagging_member_leaves_while_enough_stay() -> None:
    smaller = insync.left(record(), 3, 2)
    assert smaller is not None
    assert smaller.isr == (1, 2)


def test_the_set_never_gets_smaller_than_the_minimum() -> None:
    assert insync.left(record(isr=(1, 2)), 2, 2) is None


def test_a_minimum_above_the_replicas_counts_as_all_of_them() -> None:
    assert insync.minimum(record(), 5) == 3
    assert insync.left(record(), 3, 5) is None


def test_a_distrusted_member_leaves_or_stays_as_doubtful() -> None:
    gone = insync.distrusted(record(), 3, 2)
    assert gone is not None
    assert (gone.isr, gone.doubtful) == ((1, 2), ())
    kept = insync.distrusted(record(isr=(1, 2)), 2, 2)
    assert kept is not None
    assert (kept.isr, kept.doubtful) == ((1, 2), (2,))
    assert insync.distrusted(kept, 2, 2) is None


def test_leaving_ends_doubt() -> None:
    smaller = insync.left(record(doubtful=(3,)), 3, 2)
    assert smaller is not None
    assert smaller.doubtful == ()


def test_only_replicas_join() -> None:
    joined = insync.joined(record(isr=(1, 2)), 3)
    assert joined is not None
    assert joined.isr == (1, 2, 3)
    assert insync.joined(record(isr=(1, 2)), 9) is None
    assert insync.joined(record(), 3) is None


def test_a_whole_member_is_trusted_again() -> None:
    trusted = insync.trusted(record(doubtful=(2,)), 2)
    assert trusted is not None
    assert trusted.doubtful == ()
    assert insync.trusted(record(), 2) is None


def test_a_new_leader_has_a_higher_epoch_and_no_doubt() -> None:
    led = insync.led(record(doubtful=(2,)), 2, 33, 5)
    assert (led.leader, led.leader_incarnation, led.leader_epoch) == (2, 33, 5)
    assert led.doubtful == ()
    with pytest.raises(AssertionError):
        insync.led(record(), 2, 33, 4)


def test_whoever_may_be_a_member_counts() -> None:
    committed = record(isr=(1, 2))
    assert insync.maximal(committed, None) == (1, 2)
    assert insync.maximal(committed, record(isr=(1, 2, 3))) == (1, 2, 3)
    assert insync.maximal(record(), committed) == (1, 2, 3)
