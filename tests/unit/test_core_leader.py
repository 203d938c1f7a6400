"""A term: whose acknowledgements count, who waits, and what the record becomes by it."""

from __future__ import annotations

from cluster import errors
from cluster.core.leader import Leader
from cluster.limits import CHECKPOINT_MS
from cluster.wire import messages
from tests.sim.disk import SimulatedDisk
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)


def leader_of(world: World) -> Leader:
    led = world.partition(world.leader()).role
    assert isinstance(led, Leader)
    return led


def follower_of(world: World) -> int:
    return next(node_id for node_id in world.nodes if node_id != world.leader())


def test_acknowledgements_of_an_earlier_start_of_a_broker_count_no_more() -> None:
    world = ready(2)
    leader, follower = world.leader(), follower_of(world)
    world.hold_syncs(leader)
    assert world.produce(batch(-1, -1), wait_ms=50) is None
    assert leader_of(world).followers.end_of(follower) == 1
    world.kill(follower, silently=True)
    world.disks[follower] = SimulatedDisk()
    world.blocked.add((follower, leader))  # it has registered, and said nothing yet
    world.start(follower)
    world.run(50)
    assert world.nodes[follower].serving
    assert world.record().doubtful == (follower,)
    replica = world.partition(leader).replica
    world.release_syncs(leader)
    world.run(5)
    assert replica.counted_end == 1
    assert replica.high_watermark == 0
    world.blocked.clear()
    world.run(1_000)
    assert world.partition(follower).replica.log.next_offset == 1
    assert replica.high_watermark == 1
    assert world.record().doubtful == ()


def young() -> World:
    """A topic whose leader leads, and whose followers have not been heard of."""
    world = World(3)
    world.run(1_000)
    world.blocked = {(node_id, other) for node_id in world.nodes for other in world.nodes}
    wish = messages.CreatableTopic(name=TOPIC, num_partitions=1, replication_factor=3)
    world.ask(world.controller(), messages.CreateTopicsRequest(topics=[wish]), wait_ms=30)
    leader = world.leader()
    world.blocked = {(node_id, leader) for node_id in world.nodes}
    assert not leader_of(world).followers.streams()
    return world


def test_first_write_to_a_new_topic_waits_for_members_that_had_no_time_to_come() -> None:
    world = young()
    assert world.produce(batch(-1, -1), wait_ms=50) is None
    replica = world.partition(world.leader()).replica
    assert (replica.log.next_offset, replica.high_watermark) == (1, 0)
    world.blocked.clear()
    world.run(500)
    assert replica.high_watermark == 1
    assert len(world.replies) == 1


def test_members_of_a_new_topic_that_do_not_come_are_not_counted_on_for_long() -> None:
    world = young()
    world.run(world.nodes[1]._around.lag_ms + 500)
    assert len(world.record().isr) == 2, "one has to stay in the set"
    assert world.produce(batch(-1, -1)) == (errors.NOT_ENOUGH_REPLICAS.number, 0)


def test_member_of_a_new_topic_that_is_lost_is_not_counted_on() -> None:
    world = young()
    for node_id in [node_id for node_id in world.nodes if node_id != world.leader()]:
        world.kill(node_id)
    world.run(20)
    assert world.produce(batch(-1, -1)) == (errors.NOT_ENOUGH_REPLICAS.number, 0)


def test_member_whose_files_were_removed_waits_for_the_one_that_has_them() -> None:
    world = ready(2)
    leader, follower = world.leader(), follower_of(world)
    assert world.produce(batch(-1, -1)) == ACKED
    world.run(CHECKPOINT_MS + 200)
    world.kill(follower)
    world.disks[follower].remove_directory(f"{TOPIC}-0")
    world.kill(leader)
    world.start(follower)
    world.run(3_000)
    assert world.partition(follower).replica.log.doubtful
    assert world.record().leader_epoch == 0
    world.start(leader)
    world.run(3_000)
    assert world.leader() == leader
    assert world.partition(follower).replica.log.next_offset == 1
    assert not world.partition(follower).replica.log.doubtful
