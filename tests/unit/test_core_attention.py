"""Partitions at rest cost a look nothing, and whatever happens to one puts it under watch again."""

from __future__ import annotations

from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)


def watched(world: World) -> list[int]:
    return [len(node.replicas.attention) for node in world.nodes.values()]


def test_idle_partitions_are_not_looked_at() -> None:
    world = World(3)
    world.run(1_000)
    assert world.create(partitions=20) == 0
    world.run(3_000)
    assert watched(world) == [0, 0, 0]


def test_partition_is_watched_until_everybody_holds_everything() -> None:
    world = ready()
    world.run(2_000)
    leader = world.leader()
    follower = next(node_id for node_id in world.nodes if node_id != leader)
    world.hold_syncs(follower)
    assert world.produce(batch(-1, -1), wait_ms=300) is None
    assert watched(world)[leader - 1] == 1
    world.release_syncs(follower)
    world.run(1_000)
    assert watched(world) == [0, 0, 0]


def test_follower_that_falls_silent_after_a_long_rest_gets_its_full_time() -> None:
    world = ready()
    world.run(30_000)
    leader = world.leader()
    follower = next(node_id for node_id in world.nodes if node_id != leader)
    world.blocked.add((follower, leader))
    world.produce(batch(-1, -1), wait_ms=900)
    assert follower in world.record().isr
    world.run(500)
    assert follower not in world.record().isr


def test_producers_of_a_partition_at_rest_expire_in_time() -> None:
    world = ready(config={"producer.id.expiration.ms": "2000"})
    producer_id = world.new_producer()
    assert world.produce(batch(producer_id, 0)) == ACKED
    world.run(1_000)
    assert watched(world) == [0, 0, 0]
    world.run(2_000)
    leader = world.partition(world.leader())
    assert leader.replica.log.table.get(producer_id) is None
    assert leader.replica.log.table.floor(producer_id) is not None
    world.run(5_000)
    assert watched(world) == [0, 0, 0]


def test_partition_of_a_broker_that_went_is_watched_until_it_is_back() -> None:
    world = ready()
    world.run(2_000)
    gone = next(node_id for node_id in world.nodes if node_id != world.leader())
    world.kill(gone)
    world.run(2_000)
    assert world.nodes[world.leader()].replicas.attention
    world.start(gone)
    world.run(5_000)
    assert watched(world) == [0, 0, 0]
    assert world.partition(gone, topic=TOPIC).at_rest
