"""Batches of the broker's own: committed, refused, or left behind by a term."""

from __future__ import annotations

from cluster import errors
from cluster.core import events
from cluster.core.append import Append
from cluster.core.partition import Partition
from tests.unit.core_world import World, batch, ready


def append(world: World, data: bytes, told: list[int]) -> int:
    """Hand a batch to the leader's append stage; how many partitions took one."""
    node = world.nodes[world.leader()]
    partition = node.replicas.find("t", 0)
    assert isinstance(partition, Partition)
    assert partition.leader is not None
    stage: Append = node.requests.append
    appended = stage.internal(partition.leader, data, world.now, told.append)
    for run in appended:
        run.led.appended(run.base_offset, run.next_offset, run.data)
        node.replicas.touch(run.led.replica)
    return len(appended)


def test_done_is_told_once_every_member_has_the_batch() -> None:
    world, told = ready(), list[int]()
    leader = world.leader()
    followers = [node_id for node_id in world.nodes if node_id != leader]
    for node_id in followers:
        world.hold_syncs(node_id)
    assert append(world, batch(-1, -1), told) == 1
    world.step(leader, events.Tick())
    world.run(100)
    assert told == []
    for node_id in followers:
        world.release_syncs(node_id)
    world.run(100)
    assert told == [0]
    assert world.partition(leader).replica.high_watermark == 1


def test_batch_that_is_none_is_refused_at_once_and_not_stored() -> None:
    world, told = ready(), list[int]()
    assert append(world, b"x" * 70, told) == 0
    assert told == [errors.INVALID_RECORD.number]
    assert world.partition(world.leader()).replica.log.next_offset == 0


def test_disk_that_refuses_is_told_at_once_and_leaves_nothing() -> None:
    world, told = ready(), list[int]()
    world.disks[world.leader()].faults.write_countdown = 1
    assert append(world, batch(-1, -1), told) == 0
    assert told == [errors.KAFKA_STORAGE_ERROR.number]
    assert world.partition(world.leader()).replica.log.lane.next_offset == 0


def test_too_few_members_take_nothing() -> None:
    world, told = ready(), list[int]()
    leader = world.leader()
    for node_id in [node_id for node_id in world.nodes if node_id != leader]:
        world.kill(node_id)
    world.run(3_000)
    assert append(world, batch(-1, -1), told) == 0
    assert told == [errors.NOT_ENOUGH_REPLICAS.number]


def test_end_of_the_term_leaves_the_outcome_open_and_says_so_once() -> None:
    world, told = ready(), list[int]()
    leader = world.leader()
    for node_id in [node_id for node_id in world.nodes if node_id != leader]:
        world.hold_syncs(node_id)
    assert append(world, batch(-1, -1), told) == 1
    role = world.partition(leader).leader
    assert role is not None
    role.end_term()
    role.end_term()
    assert told == [errors.NOT_LEADER_OR_FOLLOWER.number]
