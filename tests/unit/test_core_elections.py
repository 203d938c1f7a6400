"""Choosing among answers (rule 7), and placing the replicas of a new topic."""

from __future__ import annotations

from cluster.core.elections import choose, place
from cluster.core.records import PartitionRecord
from cluster.wire.stream import ReplicaState


def record(isr: tuple[int, ...] = (1, 2, 3), doubtful: tuple[int, ...] = ()) -> PartitionRecord:
    return PartitionRecord(1, 10, 4, (1, 2, 3), isr, doubtful, ("a", "b", "c"))


def state(epoch: int, end: int, *, doubtful: bool = False, taken_up: int = 4) -> ReplicaState:
    return ReplicaState(bytes(16), 0, taken_up, epoch, end, doubtful)


def test_who_has_not_taken_up_the_epoch_has_not_answered() -> None:
    behind = state(3, 50, doubtful=True, taken_up=3)
    answers = {1: state(4, 60, doubtful=True), 2: behind}
    assert choose(record(isr=(1, 2)), answers, {}) is None
    assert choose(record(), {3: state(4, 60, taken_up=3)}, {}) is None


def test_the_longest_log_of_the_latest_epoch_leads() -> None:
    assert choose(record(), {2: state(3, 50), 3: state(4, 20)}, {}) == 3
    assert choose(record(), {2: state(4, 50), 3: state(4, 20)}, {}) == 2


def test_between_equals_the_broker_with_fewer_leaders_is_chosen() -> None:
    assert choose(record(), {2: state(4, 50), 3: state(4, 50)}, {2: 5, 3: 1}) == 3


def test_nobody_outside_the_in_sync_set_leads() -> None:
    assert choose(record(isr=(1, 2)), {3: state(9, 99)}, {}) is None


def test_a_doubtful_replica_waits_for_every_member_to_answer() -> None:
    answers = {2: state(4, 50, doubtful=True)}
    assert choose(record(isr=(1, 2)), answers, {}) is None
    answers[1] = state(4, 60, doubtful=True)
    assert choose(record(isr=(1, 2)), answers, {}) == 1


def test_doubt_in_the_record_counts_like_doubt_on_the_disk() -> None:
    answers = {2: state(4, 50)}
    assert choose(record(isr=(1, 2), doubtful=(2,)), answers, {}) is None


def test_a_whole_member_is_preferred_to_a_longer_doubtful_one() -> None:
    answers = {1: state(4, 70, doubtful=True), 2: state(4, 50), 3: state(4, 40)}
    assert choose(record(), answers, {}) == 2


def test_a_replica_that_cannot_serve_is_no_answer() -> None:
    assert choose(record(isr=(1, 2)), {2: state(-1, -1)}, {}) is None


def test_leaders_of_a_new_topic_go_round() -> None:
    placed = place(6, 3, [1, 2, 3], {})
    assert [replicas[0] for replicas in placed] == [1, 2, 3, 1, 2, 3]
    assert all(len(set(replicas)) == 3 for replicas in placed)


def test_the_emptiest_broker_leads_first() -> None:
    assert place(1, 2, [1, 2, 3], {1: 4, 2: 4, 3: 0}) == [(3, 1)]
