"""Partitions on disks that fail: nothing is stuck, nothing ends the broker."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core import effects, insync, records
from cluster.core.follower import Follower
from cluster.storage.disk import DiskError
from cluster.wire import messages
from tests.sim.disk import Faults
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)
STORAGE_ERROR = (errors.KAFKA_STORAGE_ERROR.number, 0)
TORN = Faults(write_countdown=1, write_errno=5, truncate_countdown=1)


@pytest.fixture
def world() -> World:
    world = ready()
    assert world.produce(batch(-1, -1)) == ACKED
    return world


def follower_of(world: World) -> int:
    return next(node_id for node_id in world.nodes if node_id != world.leader())


def stopped(world: World) -> list[effects.Effect]:
    return [effect for _, effect in world.emitted if isinstance(effect, effects.Stopped)]


def test_leader_whose_write_tore_the_log_hands_over(world: World) -> None:
    leader = world.leader()
    world.disks[leader].faults = TORN
    assert world.produce(batch(-1, -1), wait_ms=50) == STORAGE_ERROR
    world.disks[leader].mend()
    world.run(2_000)
    assert world.leader() != leader
    assert world.produce(batch(-1, -1)) == ACKED
    assert isinstance(world.partition(leader).role, Follower)
    assert world.partition(leader).replica.log.next_offset == 2


def test_follower_whose_write_tore_the_log_follows_again(world: World) -> None:
    follower = follower_of(world)
    world.disks[follower].faults = TORN
    world.produce(batch(-1, -1), wait_ms=50)
    world.disks[follower].mend()
    world.run(2_000)
    replica = world.partition(follower).replica
    assert (replica.log.failed, replica.log.next_offset) == (False, 2)
    assert not replica.log.doubtful


def test_follower_on_a_full_disk_leaves_and_holds_nobody_up(world: World) -> None:
    follower, disk = follower_of(world), world.disks[follower_of(world)]
    disk.faults = Faults(capacity_bytes=disk.used_bytes)
    world.produce(batch(-1, -1))
    world.run(2_000)
    assert follower not in world.record().isr
    assert world.produce(batch(-1, -1)) == ACKED
    disk.mend()
    world.run(4_000)
    assert follower in world.record().isr


def test_member_that_has_to_stay_but_acknowledges_nothing_is_not_counted_on() -> None:
    world = ready(2)
    assert world.produce(batch(-1, -1)) == ACKED
    follower, leader = follower_of(world), world.leader()
    disk = world.disks[follower]
    disk.faults = Faults(capacity_bytes=disk.used_bytes)
    world.produce(batch(-1, -1))
    world.run(2_000)
    assert follower in world.record().isr
    end = world.partition(leader).replica.log.next_offset
    assert world.produce(batch(-1, -1)) == (errors.NOT_ENOUGH_REPLICAS.number, 0)
    assert world.partition(leader).replica.log.next_offset == end
    disk.mend()
    world.run(1_500)
    assert world.produce(batch(-1, -1)) == ACKED


def test_leader_on_a_full_disk_refuses_and_resumes_when_there_is_space(world: World) -> None:
    disk = world.disks[world.leader()]
    disk.faults = Faults(capacity_bytes=disk.used_bytes)
    assert world.produce(batch(-1, -1)) == STORAGE_ERROR
    disk.mend()
    assert world.produce(batch(-1, -1)) == ACKED
    assert world.partition(world.leader()).replica.log.next_offset == 2


def unreadable(world: World, node_id: int) -> None:
    """Whatever is read of the disk from now on fails."""

    def fail(handle: int, position: int, length: int) -> bytes:
        raise DiskError(5, f"{handle} at {position}, {length}", "read")

    world.disks[node_id].read = fail  # type: ignore[method-assign]
    world.partition(node_id).replica.log._tail.clear()


def test_leader_that_cannot_read_what_a_follower_lacks_ends_no_broker(world: World) -> None:
    leader, follower = world.leader(), follower_of(world)
    world.blocked.add((leader, follower))
    world.produce(batch(-1, -1), wait_ms=2_000)
    world.blocked.clear()
    unreadable(world, leader)
    world.run(2_000)
    assert world.partition(follower).replica.log.next_offset == 1
    assert world.produce(batch(-1, -1)) == ACKED
    assert not stopped(world)


def test_offset_by_time_that_cannot_be_read_is_a_storage_error(world: World) -> None:
    leader = world.leader()
    unreadable(world, leader)
    part = messages.ListOffsetsPartition(partition_index=0, timestamp=1)
    topics = [messages.ListOffsetsTopic(name=TOPIC, partitions=[part])]
    (answer,) = world.ask(leader, messages.ListOffsetsRequest(topics=topics))
    assert isinstance(answer, messages.ListOffsetsResponse)
    found = answer.topics[0].partitions[0]
    assert found.error_code == errors.KAFKA_STORAGE_ERROR.number


def test_sole_broker_leads_again_after_a_failed_sync() -> None:
    world = ready(1, config={"min.insync.replicas": "1"})
    assert world.produce(batch(-1, -1)) == ACKED
    world.disks[1].faults = Faults(sync_countdown=1)
    assert world.produce(batch(-1, -1)) == STORAGE_ERROR
    world.run(1_000)
    assert world.record().leader_epoch == 1
    assert world.produce(batch(-1, -1)) == ACKED
    assert world.partition(1).replica.log.next_offset == 2
    assert not world.partition(1).replica.log.doubtful


def test_replica_that_lost_data_after_its_report_does_not_lead_by_it(world: World) -> None:
    follower = follower_of(world)
    partition = world.partition(follower)
    reported = partition.report()
    assert (reported.end_offset, reported.doubtful) == (1, False)
    world.disks[follower].faults = Faults(sync_countdown=1)
    world.produce(batch(-1, -1), wait_ms=2)
    elected_by_that = insync.led(world.record(), follower, world.nodes[follower].incarnation, 1)
    key = records.partition_key(*partition.replica.id)
    world.tell(world.store.write({key: records.encode(elected_by_that)}))
    world.run(2_500)
    assert partition.terms_led == 0
    assert world.record().leader_epoch == 2
    assert world.produce(batch(-1, -1)) == ACKED
