"""An orderly stop: leaders handed over, logs closed, and nothing taken up again."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core import effects, events
from cluster.limits import CLOSED_PER_STEP, HANDOVER_MS
from cluster.storage import checkpoint
from cluster.wire import messages
from tests.sim.disk import Faults
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)


@pytest.fixture
def world() -> World:
    world = ready()
    assert world.produce(batch(-1, -1)) == ACKED
    return world


def stop(world: World, node_id: int, wait_ms: int = 600) -> None:
    world.post(node_id, events.StopRequested())
    world.run(wait_ms)


def stopped(world: World) -> list[tuple[int, str | None]]:
    return [(n, e.failure) for n, e in world.emitted if isinstance(e, effects.Stopped)]


def clean(world: World, node_id: int) -> bool:
    return world.disks[node_id].exists(checkpoint.CLEAN_MARKER)


def test_leader_hands_over_and_stops_clean(world: World) -> None:
    leader = world.leader()
    stop(world, leader)
    assert stopped(world) == [(leader, None)]
    assert clean(world, leader)
    assert f"sessions/{leader}" not in world.store.values
    assert world.record().leader_epoch == 1
    assert world.leader() != leader
    assert world.disks[leader].open_handles == 0


def test_stop_of_a_follower_changes_no_leader(world: World) -> None:
    leader = world.leader()
    follower = next(node_id for node_id in world.nodes if node_id != leader)
    stop(world, follower)
    assert stopped(world) == [(follower, None)]
    assert (world.leader(), world.record().leader_epoch) == (leader, 0)


def test_stop_of_everybody_waits_for_nobody_longer_than_it_may(world: World) -> None:
    for node_id in world.nodes:
        world.post(node_id, events.StopRequested())
    world.run(HANDOVER_MS + 300)
    assert sorted(stopped(world)) == [(node_id, None) for node_id in world.nodes]
    assert all(clean(world, node_id) for node_id in world.nodes)


def test_leader_that_nobody_can_replace_stops_all_the_same(world: World) -> None:
    leader = world.leader()
    for node_id in [node_id for node_id in world.nodes if node_id != leader]:
        world.kill(node_id)
    stop(world, leader, HANDOVER_MS + 300)
    assert stopped(world) == [(leader, None)]
    assert clean(world, leader)


def test_what_waits_is_answered_before_the_end(world: World) -> None:
    leader = world.leader()
    for node_id in world.nodes:
        world.blocked.add((node_id, leader))
    part = messages.PartitionProduceData(index=0, records=batch(-1, -1))
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    world.post(leader, events.StopRequested(), 5)
    body = messages.ProduceRequest(acks=-1, timeout_ms=60_000, topic_data=topics)
    (answer,) = world.ask(leader, body, wait_ms=HANDOVER_MS + 300)
    assert isinstance(answer, messages.ProduceResponse)
    code = answer.responses[0].partition_responses[0].error_code
    assert code == errors.NOT_LEADER_OR_FOLLOWER.number
    assert stopped(world) == [(leader, None)]


def test_nothing_is_taken_up_again_once_the_logs_are_closed(world: World) -> None:
    stopping = next(node_id for node_id in world.nodes if node_id != world.controller())
    stop(world, stopping)
    assert clean(world, stopping)
    assert world.create("late") in (0, errors.INVALID_REPLICATION_FACTOR.number)
    world.run(1_000)
    assert not [name for name in world.disks[stopping].list("") if name.startswith("late")]
    assert world.disks[stopping].open_handles == 0


def test_stop_that_cannot_close_a_log_is_not_called_clean(world: World) -> None:
    leader = world.leader()
    disk = world.disks[leader]
    disk.faults = Faults(sync_probability=1.0)
    stop(world, leader, HANDOVER_MS + 300)
    assert stopped(world) == [(leader, None)]
    assert not clean(world, leader)


def test_stop_before_the_store_was_read_ends_at_once() -> None:
    world = World(1)
    world.step(1, events.StopRequested())
    assert stopped(world) == [(1, None)]


def test_stop_before_the_broker_serves_ends_too() -> None:
    world = World(1)
    world.run(2)
    assert not world.nodes[1].serving
    stop(world, 1)
    assert stopped(world) == [(1, None)]


def test_stop_asked_for_twice_is_one_stop(world: World) -> None:
    leader = world.leader()
    world.post(leader, events.StopRequested())
    stop(world, leader)
    assert stopped(world) == [(leader, None)]


def test_many_logs_are_closed_in_many_steps() -> None:
    world = World(1, config={"min.insync.replicas": "1"})
    world.run(1_000)
    assert world.create(partitions=3 * CLOSED_PER_STEP) == 0
    world.run(2_000)
    syncs = world.disks[1].calls.get("sync", 0)
    world.step(1, events.StopRequested())
    assert 0 < world.disks[1].calls["sync"] - syncs < 6 * CLOSED_PER_STEP
    assert stopped(world) == []
    world.run(500)
    assert stopped(world) == [(1, None)]
    assert clean(world, 1)
