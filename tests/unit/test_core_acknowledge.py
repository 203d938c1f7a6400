"""Acknowledgements that wait: for an offset, for their time, or for the end of the term."""

from __future__ import annotations

from cluster import errors
from cluster.core.acknowledge import Waiters
from cluster.core.answer import ProduceAnswer

TIMED_OUT = errors.REQUEST_TIMED_OUT.number
DEPOSED = errors.NOT_LEADER_OR_FOLLOWER.number


def answer(deadline_ms: int = 100, slots: int = 1) -> ProduceAnswer:
    made = ProduceAnswer(b"c", 1, 11, -1, deadline_ms)
    for index in range(slots):
        made.add("t", index)
    return made


def test_answers_leave_in_the_order_of_the_log() -> None:
    waiters, late, early = Waiters(), answer(), answer()
    waiters.add(20, late, 0)
    waiters.add(10, early, 0)
    assert waiters.release(9) == []
    assert waiters.release(20) == [early, late]
    assert len(waiters) == 0


def test_answer_of_several_partitions_leaves_with_the_last() -> None:
    one, other, both = Waiters(), Waiters(), answer(slots=2)
    one.add(5, both, 0)
    other.add(7, both, 1)
    assert one.release(5) == []
    assert other.release(7) == [both]


def test_end_of_the_term_fails_what_waits_and_nothing_twice() -> None:
    waiters, made = Waiters(), answer()
    waiters.add(10, made, 0)
    assert waiters.fail(DEPOSED) == [made]
    assert made.slots[0].error == DEPOSED
    assert waiters.fail(DEPOSED) == []
    assert waiters.release(10) == []


def test_what_has_timed_out_is_forgotten_though_the_watermark_stands_still() -> None:
    waiters = Waiters()
    for deadline_ms in range(1_000):
        waiters.add(10, answer(deadline_ms), 0)
    assert len(waiters.expire(499, TIMED_OUT)) == 500
    assert len(waiters) == 500
    assert len(waiters.release(10)) == 500


def test_late_release_changes_nothing_of_what_was_answered() -> None:
    one, other, made = Waiters(), Waiters(), answer(slots=2)
    one.add(5, made, 0)
    other.add(7, made, 1)
    assert one.expire(100, TIMED_OUT) == [made]
    assert other.release(7) == []
    assert [slot.error for slot in made.slots] == [TIMED_OUT, TIMED_OUT]
