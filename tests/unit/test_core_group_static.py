"""Static members of a group: back after a restart without a rebalance, and their old ids fenced."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core.group_state import State
from tests.unit.group_bench import RANGE, Bench

REBALANCE = errors.REBALANCE_IN_PROGRESS.number
FENCED = errors.FENCED_INSTANCE_ID.number
ROUNDROBIN = (("roundrobin", b"rr"),)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def static(bench: Bench) -> tuple[str, str]:
    """A stable group of a dynamic leader and a static follower; their ids."""
    leader, _ = bench.known()
    asked = bench.join(instance="i")
    bench.join(leader)
    follower = asked.joined.member_id
    bench.sync(leader, 2, {leader: b"1", follower: b"2"})
    assert bench.sync(follower, 2, instance="i").assignment == b"2"
    return leader, follower


def test_static_member_comes_back_without_a_rebalance(bench: Bench) -> None:
    leader, old = static(bench)
    asked = bench.join(instance="i")
    new = asked.joined.member_id
    assert (asked.error, asked.joined.generation_id) == (0, 2)
    assert new != old
    assert asked.joined.leader == leader
    assert bench.group.state is State.STABLE
    assert bench.sync(new, 2, instance="i").assignment == b"2"


def test_static_member_hears_of_its_new_id_once_that_is_committed(bench: Bench) -> None:
    static(bench)
    bench.hold = True
    asked = bench.join(instance="i")
    assert asked.answer is None
    bench.release()
    assert asked.error == 0


def test_old_id_of_a_static_member_is_fenced(bench: Bench) -> None:
    _, old = static(bench)
    bench.join(instance="i")
    assert bench.beat(old, 2, "i") == FENCED
    assert bench.sync(old, 2, instance="i").error == FENCED
    assert bench.commits(old, 2, "i") == FENCED
    assert bench.join(old, instance="i").error == FENCED
    assert bench.leave(old, "i") == FENCED


@pytest.mark.parametrize(("version", "skips"), [(8, False), (9, True)])
def test_static_leader_is_told_to_skip_the_assignment(version: int, skips: bool) -> None:
    bench = Bench()
    old = bench.join(instance="i").joined.member_id
    bench.sync(old, 1, {old: b"1"}, instance="i")
    answer = bench.join(instance="i", version=version).joined
    assert answer.skip_assignment is skips
    assert answer.leader == (answer.member_id if skips else old)
    assert bool(answer.members) is skips


def test_static_member_back_with_another_assignor_begins_a_new_generation(bench: Bench) -> None:
    leader, _ = bench.known(protocols=(*RANGE, *ROUNDROBIN))
    asked = bench.join(instance="i", protocols=(*RANGE, *ROUNDROBIN))
    bench.join(leader, protocols=(*RANGE, *ROUNDROBIN))
    bench.sync(leader, 2, {leader: b"1"})
    bench.sync(asked.joined.member_id, 2, instance="i")
    assert bench.join(instance="i", protocols=ROUNDROBIN).answer is None
    assert bench.beat(leader, 2) == REBALANCE


def test_static_member_back_while_assignments_are_awaited_begins_anew(bench: Bench) -> None:
    leader, _ = bench.known()
    bench.join(instance="i")
    bench.join(leader)
    assert bench.group.state is State.COMPLETING
    assert bench.join(instance="i").answer is None
    assert bench.beat(leader, 2) == REBALANCE
