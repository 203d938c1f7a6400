"""A follower compares its producer state with the leader's, and vouches for none that differs."""

from __future__ import annotations

import pytest

from cluster.core.replica import Replica
from cluster.storage import names
from tests.unit.core_world import World, batch, ready

NEW = 1
REAL = vars(Replica)["digest"].fget


def follower_of(world: World) -> int:
    return next(node_id for node_id in world.nodes if node_id != world.leader())


def wrong_until(monkeypatch: pytest.MonkeyPatch, replica: Replica, times: int) -> None:
    """The replica's state differs from the leader's the first `times` times it is looked at."""

    def digest(self: Replica) -> int:
        found: int = REAL(self)
        return found ^ 2 if self is replica and self.differed < times else found

    monkeypatch.setattr(Replica, "digest", property(digest))


def test_a_state_that_differs_is_kept_aside_and_made_anew_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ready()
    node_id = follower_of(world)
    replica = world.partition(node_id).replica
    producer = world.new_producer()
    wrong_until(monkeypatch, replica, 1)
    assert world.produce(batch(producer, 0), wait_ms=5_000) == (0, NEW)
    world.run(3_000)
    assert replica.differed == 1
    assert world.disks[node_id].exists(f"{replica.log.directory}/{names.DIFFERED}")
    assert set(world.record().isr) == set(world.nodes)
    assert replica.log.table.get(producer) is not None


def test_a_replica_that_differs_again_leaves_and_keeps_its_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ready()
    node_id = follower_of(world)
    replica = world.partition(node_id).replica
    producer = world.new_producer()
    wrong_until(monkeypatch, replica, 1_000_000)
    assert world.produce(batch(producer, 0), wait_ms=5_000) == (0, NEW)
    world.run(3_000)
    assert node_id not in world.record().isr
    assert replica.log.next_offset == 1


def test_a_follower_joins_after_an_equal_comparison_even_if_nobody_writes() -> None:
    world = ready()
    node_id = follower_of(world)
    world.kill(node_id)
    world.run(2_000)
    assert node_id not in world.record().isr
    world.start(node_id)
    world.run(4_000)
    assert node_id in world.record().isr
