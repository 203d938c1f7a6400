"""One consumer group: who joins when, whose answers wait, who leads, who is fenced."""

from __future__ import annotations

import dataclasses

import pytest

from cluster import errors
from cluster.core.group_state import State
from tests.unit.group_bench import RANGE, SETTINGS, Bench

UNKNOWN = errors.UNKNOWN_MEMBER_ID.number
REBALANCE = errors.REBALANCE_IN_PROGRESS.number
ILLEGAL = errors.ILLEGAL_GENERATION.number
ROUNDROBIN = (("roundrobin", b"rr"),)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- joining ---------------------------------------------------------------------------------------


def test_new_member_is_given_an_id_and_joins_with_it(bench: Bench) -> None:
    member_id, asked = bench.known()
    assert member_id == "c-1"
    assert asked.error == 0
    assert asked.joined.generation_id == 1
    assert asked.joined.leader == member_id == asked.joined.member_id


def test_join_before_version_4_is_added_at_once(bench: Bench) -> None:
    asked = bench.join(version=3)
    assert asked.error == 0
    assert asked.joined.member_id == "c-1"


def test_static_member_needs_no_second_join(bench: Bench) -> None:
    asked = bench.join(instance="i")
    assert asked.error == 0
    assert asked.joined.member_id == "i-1"


def test_id_that_was_handed_out_is_forgotten_after_the_session(bench: Bench) -> None:
    first = bench.join(session_ms=6_000)
    bench.pass_ms(6_000)
    assert bench.join(first.joined.member_id).error == UNKNOWN


def test_unknown_member_id_is_refused(bench: Bench) -> None:
    bench.stable()
    assert bench.join("nobody").error == UNKNOWN


def test_another_protocol_type_is_refused(bench: Bench) -> None:
    bench.stable()
    asked = bench.join(protocol_type="connect")
    assert asked.error == errors.INCONSISTENT_GROUP_PROTOCOL.number


def test_member_without_a_common_assignor_is_refused(bench: Bench) -> None:
    bench.stable()
    assert bench.join(protocols=ROUNDROBIN).error == errors.INCONSISTENT_GROUP_PROTOCOL.number


def test_first_join_without_an_assignor_or_a_type_is_refused(bench: Bench) -> None:
    assert bench.join(protocols=()).error == errors.INCONSISTENT_GROUP_PROTOCOL.number
    assert bench.join(protocol_type="").error == errors.INCONSISTENT_GROUP_PROTOCOL.number


def test_full_group_takes_nobody_in(bench: Bench) -> None:
    bench.stable(3)
    member_id = bench.join().joined.member_id
    assert bench.join(member_id).error == errors.GROUP_MAX_SIZE_REACHED.number


def test_full_group_takes_a_static_member_back(bench: Bench) -> None:
    bench.join(instance="i")
    others = [bench.known()[0] for _ in range(2)]
    bench.join("i-1", instance="i")
    bench.join(others[0])
    assert bench.group.state is State.COMPLETING
    assert bench.join(instance="i").error is None  # parked, for the group joins anew


def test_first_generation_waits_for_others_as_long_as_they_keep_coming() -> None:
    bench = Bench(dataclasses.replace(SETTINGS, initial_rebalance_delay_ms=3_000))
    _, first = bench.known()
    bench.pass_ms(2_000)
    _, second = bench.known()
    bench.pass_ms(1_500)
    assert first.answer is None
    bench.pass_ms(2_500)
    assert first.joined.generation_id == second.joined.generation_id == 1


def test_first_generation_waits_no_longer_than_a_rebalance_may_take() -> None:
    bench = Bench(dataclasses.replace(SETTINGS, initial_rebalance_delay_ms=3_000, max_size=50))
    _, first = bench.known(rebalance_ms=5_000)
    for _ in range(4):
        bench.pass_ms(1_200)
        bench.known(rebalance_ms=5_000)
    bench.pass_ms(200)
    assert first.joined.generation_id == 1


def test_leader_alone_is_told_the_members(bench: Bench) -> None:
    first, _ = bench.known()
    _, asked = bench.known()
    leader = bench.join(first)
    assert [one.member_id for one in leader.joined.members] == [first, asked.joined.member_id]
    assert {one.metadata for one in leader.joined.members} == {b"r"}
    assert asked.joined.members == []
    assert asked.joined.leader == first


def test_assignor_with_most_votes_among_those_that_all_know_is_chosen(bench: Bench) -> None:
    both, other = (*RANGE, *ROUNDROBIN), (*ROUNDROBIN, *RANGE)
    first, _ = bench.known(protocols=both)
    second, _ = bench.known(protocols=other)
    bench.join(first, protocols=both)
    third, asked = bench.known(protocols=(("sticky", b""), *other))
    bench.join(first, protocols=both)
    bench.join(second, protocols=other)
    assert asked.joined.protocol_name == "roundrobin"
    assert asked.joined.generation_id == 3
    assert third != second


def test_leader_stays_if_it_joins_again_and_else_who_joined_first_leads(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.join(second, protocols=(("range", b"new"),))
    assert bench.join(first).joined.leader == first
    bench.leave(first)
    assert bench.join(second).joined.leader == second


def test_join_waits_until_everybody_has_joined(bench: Bench) -> None:
    first, second = bench.stable(2)
    asked = bench.join(first)
    assert asked.answer is None
    bench.join(second)
    assert asked.joined.generation_id == 3


def test_join_waits_for_whoever_was_given_an_id(bench: Bench) -> None:
    (first,) = bench.stable()
    pending = bench.join().joined.member_id
    asked = bench.join(first)
    assert asked.answer is None
    bench.leave(pending)
    assert asked.joined.generation_id == 2


def test_members_that_do_not_join_in_time_are_dropped_and_static_ones_stay(bench: Bench) -> None:
    bench.join(instance="i", rebalance_ms=20_000, session_ms=60_000)
    second, _ = bench.known(rebalance_ms=20_000, session_ms=60_000)
    bench.join("i-1", instance="i", rebalance_ms=20_000, session_ms=60_000)
    _, third = bench.known(rebalance_ms=20_000, session_ms=60_000)
    bench.pass_ms(20_000)
    assert third.joined.generation_id == 3
    assert bench.beat(second, 3) == UNKNOWN
    assert bench.beat("i-1", 3, "i") == 0


def test_parked_first_join_ends_after_five_minutes(bench: Bench) -> None:
    (first,) = bench.stable(session_ms=600_000, rebalance_ms=900_000)
    _, asked = bench.known(session_ms=600_000, rebalance_ms=900_000)
    bench.pass_ms(299_999)
    assert asked.answer is None
    bench.pass_ms(1)
    assert asked.error == UNKNOWN
    assert bench.beat(first, 1) in (REBALANCE, 0)


def test_follower_that_joins_again_unchanged_is_told_the_present_generation(bench: Bench) -> None:
    _, second = bench.stable(2)
    assert bench.join(second).joined.generation_id == 2
    assert bench.group.state is State.STABLE


def test_leader_that_joins_again_begins_a_new_generation(bench: Bench) -> None:
    (first,) = bench.stable()
    assert bench.join(first).joined.generation_id == 2


def test_member_that_changes_its_mind_begins_a_new_generation(bench: Bench) -> None:
    first, second = bench.stable(2)
    asked = bench.join(second, protocols=(("range", b"new"),))
    assert asked.answer is None
    assert bench.beat(first, 2) == REBALANCE


def test_join_that_is_sent_again_is_answered_once_and_the_earlier_one_too(bench: Bench) -> None:
    first, second = bench.stable(2)
    early, late = bench.join(first), bench.join(first)
    bench.join(second)
    assert early.error == REBALANCE
    assert (early.answers, late.answers) == (1, 1)
    assert late.joined.generation_id == 3


# -- durability ------------------------------------------------------------------------------------


def test_nobody_hears_of_a_generation_before_it_is_committed(bench: Bench) -> None:
    bench.hold = True
    _, asked = bench.known()
    assert asked.answer is None
    bench.release()
    assert asked.joined.generation_id == 1


def test_generation_that_could_not_be_stored_is_none_and_the_next_is_another(bench: Bench) -> None:
    bench.hold = True
    member_id, asked = bench.known()
    bench.release(errors.NOT_COORDINATOR)
    assert asked.error == errors.NOT_COORDINATOR.number
    bench.hold = False
    assert bench.join(member_id).joined.generation_id == 2


def test_no_assignment_is_told_before_it_is_committed(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.join(second, protocols=(("range", b"n"),))
    generation = bench.join(first).joined.generation_id
    follower = bench.sync(second, generation)
    bench.hold = True
    leader = bench.sync(first, generation, {first: b"1", second: b"2"})
    assert (leader.answer, follower.answer) == (None, None)
    bench.release()
    assert (leader.assignment, follower.assignment) == (b"1", b"2")


def test_assignments_that_could_not_be_stored_begin_a_new_generation(bench: Bench) -> None:
    first, _ = bench.known()
    bench.hold = True
    asked = bench.sync(first, 1, {first: b"1"})
    bench.release(errors.COORDINATOR_NOT_AVAILABLE)
    assert asked.error == errors.COORDINATOR_NOT_AVAILABLE.number
    assert bench.beat(first, 1) == REBALANCE


def test_group_becomes_what_the_log_says_of_it(bench: Bench) -> None:
    first, second = bench.stable(2)
    later = Bench()
    later.group.restore(bench.stored[-1], later.now_ms)
    assert later.group.state is State.STABLE
    assert later.beat(first, 2) == 0
    assert later.sync(second, 2).assignment == second.encode()
    assert later.group.members.leader == first
    later.pass_ms(10_001)
    assert later.group.state.value == "Empty"  # nobody was heard of for a session


def test_generation_whose_assignments_were_not_stored_is_joined_anew(bench: Bench) -> None:
    first, _ = bench.known()
    later = Bench()
    later.group.restore(bench.stored[-1], later.now_ms)
    assert later.beat(first, 1) == REBALANCE
    assert later.join(first).joined.generation_id == 2


def test_leaderless_generation_ends_like_any_other_if_nobody_joins(bench: Bench) -> None:
    bench.known(session_ms=60_000, rebalance_ms=5_000)
    later = Bench()
    later.group.restore(bench.stored[-1], later.now_ms)
    later.pass_ms(5_000)
    assert later.group.state is State.EMPTY


# -- syncing ---------------------------------------------------------------------------------------


def test_sync_waits_for_the_leader_and_who_was_forgotten_gets_nothing(bench: Bench) -> None:
    first, _ = bench.known()
    second, _ = bench.known()
    bench.join(first)
    follower = bench.sync(second, 2)
    assert follower.answer is None
    bench.sync(first, 2, {first: b"all"})
    assert follower.assignment == b""
    assert bench.group.state is State.STABLE


def test_sync_is_refused_by_whatever_is_wrong_with_it(bench: Bench) -> None:
    (first,) = bench.stable()
    assert bench.sync("nobody", 1).error == UNKNOWN
    assert bench.sync(first, 2).error == ILLEGAL
    inconsistent = errors.INCONSISTENT_GROUP_PROTOCOL.number
    assert bench.sync(first, 1, protocol_type="connect").error == inconsistent
    assert bench.sync(first, 1, protocol_name="sticky").error == inconsistent
    assert bench.sync(first, 1, protocol_type="consumer", protocol_name="range").error == 0


def test_sync_in_a_join_phase_asks_to_join_again(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.join(first)
    assert bench.sync(second, 2).error == REBALANCE


def test_join_phase_ends_parked_syncs(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.join(second, protocols=(("range", b"n"),))
    bench.join(first)
    parked = bench.sync(second, 3)
    bench.join(first, protocols=(("range", b"again"),))
    assert parked.error == REBALANCE


def test_members_that_do_not_sync_in_time_are_removed(bench: Bench) -> None:
    first, _ = bench.known(session_ms=600_000, rebalance_ms=8_000)
    second, _ = bench.known(session_ms=600_000, rebalance_ms=8_000)
    bench.join(first, session_ms=600_000, rebalance_ms=8_000)
    bench.sync(first, 2, {first: b"1", second: b"2"})
    bench.pass_ms(8_000)
    assert bench.beat(second, 2) == UNKNOWN
    assert bench.beat(first, 2) == REBALANCE


# -- heartbeats, leaving, silence ------------------------------------------------------------------


def test_heartbeat_says_what_the_group_is_about(bench: Bench) -> None:
    assert bench.beat("nobody", 0) == UNKNOWN
    first, _ = bench.known()
    assert bench.beat(first, 1) == 0  # completing
    bench.sync(first, 1, {first: b"1"})
    assert bench.beat(first, 1) == 0
    assert bench.beat(first, 0) == ILLEGAL
    bench.known()
    assert bench.beat(first, 1) == REBALANCE


def test_silent_member_is_removed_and_one_that_is_heard_of_stays(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.pass_ms(9_000)
    assert bench.beat(first, 2) == 0
    bench.pass_ms(2_000)
    assert bench.beat(second, 2) == UNKNOWN
    assert bench.beat(first, 2) == REBALANCE


def test_heartbeat_in_a_join_phase_keeps_a_member(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.join(first)
    for _ in range(4):
        bench.pass_ms(8_000)
        assert bench.beat(second, 2) == REBALANCE
    assert bench.join(second).joined.generation_id == 3


def test_member_that_waits_for_an_answer_is_not_silent(bench: Bench) -> None:
    first, second = bench.stable(2, session_ms=6_000)
    bench.join(second, protocols=(("range", b"n"),), session_ms=6_000)
    bench.join(first, session_ms=6_000)
    parked = bench.sync(second, 3)
    for _ in range(3):
        bench.pass_ms(5_000)
        assert bench.beat(first, 3) == 0
    assert parked.answer is None
    bench.sync(first, 3, {second: b"2"})
    assert parked.assignment == b"2"


def test_leaving_begins_a_new_generation_and_the_last_one_leaves_an_empty_group(
    bench: Bench,
) -> None:
    first, second = bench.stable(2)
    assert bench.leave(second) == 0
    assert bench.leave(second) == UNKNOWN
    assert bench.join(first).joined.generation_id == 3
    bench.leave(first)
    assert bench.group.state is State.EMPTY
    assert bench.group.generation == 4
    assert bench.stored[-1].members == []


def test_member_is_removed_by_its_instance_id_alone(bench: Bench) -> None:
    bench.join(instance="i")
    assert bench.leave("", "j") == UNKNOWN
    assert bench.leave("", "i") == 0
    assert bench.group.state is State.EMPTY


def test_leave_answers_what_the_member_waits_for(bench: Bench) -> None:
    first, _ = bench.stable(2)
    asked = bench.join(first)
    bench.leave(first)
    assert asked.error == UNKNOWN


# -- committing offsets ----------------------------------------------------------------------------


def test_anybody_commits_in_an_empty_group_and_nobodys_offsets_are_taken_else(
    bench: Bench,
) -> None:
    assert bench.commits() == 0
    bench.stable()
    assert bench.commits() == UNKNOWN


def test_commit_needs_a_member_of_this_generation(bench: Bench) -> None:
    (first,) = bench.stable()
    assert bench.commits(first, 1) == 0
    assert bench.commits("nobody", 1) == UNKNOWN
    assert bench.commits(first, 0) == ILLEGAL
    assert bench.commits(first, 2) == ILLEGAL


def test_commit_with_the_old_generation_is_taken_in_the_join_phase_only(bench: Bench) -> None:
    first, second = bench.stable(2)
    bench.join(first)
    assert bench.commits(second, 2) == 0
    bench.join(second)
    assert bench.commits(second, 2) == ILLEGAL
    assert bench.commits(second, 3) == REBALANCE


def test_commit_keeps_a_member(bench: Bench) -> None:
    (first,) = bench.stable()
    for _ in range(3):
        bench.pass_ms(9_000)
        assert bench.commits(first, 1) == 0
    assert bench.group.state is State.STABLE


def test_group_that_ended_answers_everybody(bench: Bench) -> None:
    first, _ = bench.stable(2)
    asked = bench.join(first)
    bench.group.end(errors.NOT_COORDINATOR)
    assert asked.error == errors.NOT_COORDINATOR.number
    assert bench.commits(first, 2) == errors.COORDINATOR_NOT_AVAILABLE.number
