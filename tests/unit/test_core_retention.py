"""Old records go on every replica; whoever comes later begins with the state of where they end."""

from __future__ import annotations

import pytest

from cluster.core.leader import Leader
from cluster.limits import LOOK_MS
from tests.sim.disk import SimulatedDisk
from tests.unit.core_world import World, batch, ready

ACKED, DUPLICATE = (0, 1), (0, 2)
SMALL = {"segment.bytes": "4096", "file.delete.delay.ms": "1000"}
VALUE = bytes(1_000)


def filled(brokers: int = 3, *, batches: int = 20) -> tuple[World, int]:
    """Several segments of one producer."""
    world = ready(brokers, config=SMALL)
    producer_id = world.new_producer()
    produce(world, producer_id, range(batches))
    return world, producer_id


def produce(world: World, producer_id: int, sequences: range) -> None:
    for sequence in sequences:
        assert world.produce(batch(producer_id, sequence, VALUE), wait_ms=50) == ACKED


def delete(world: World, offset: int) -> None:
    led = world.partition(world.leader()).leader
    assert isinstance(led, Leader)
    led.delete_records(offset, lambda _error, _low: None, world.now + 1_000)
    world.run(20 * LOOK_MS)


def others(world: World) -> list[int]:
    return [node_id for node_id in sorted(world.nodes) if node_id != world.leader()]


def logs(world: World) -> list[tuple[int, int, int]]:
    """(first offset, next offset, digest) of every replica."""
    found = [world.partition(node_id).replica.log for node_id in sorted(world.nodes)]
    return [(log.first_offset, log.next_offset, log.table.digest) for log in found]


def test_segments_below_the_log_start_go_on_every_replica_and_their_bytes_later() -> None:
    world, _ = filled()
    delete(world, 15)
    assert all(first > 8 for first, _, _ in logs(world))
    world.run(10_000)
    for disk in world.disks.values():
        assert not [name for name in disk.list("t-0") if name.endswith(".deleted")]
        assert len([name for name in disk.list("t-0") if name.endswith(".log")]) <= 3


def test_leader_deletes_what_is_more_than_the_allowed_bytes() -> None:
    world = ready(3, config={**SMALL, "retention.bytes": "8192"}, retention_check_ms=500)
    produce(world, world.new_producer(), range(20))
    world.run(5_000)
    for node_id in world.nodes:
        log = world.partition(node_id).replica.log
        assert 8_192 <= log.size <= 8_192 + 4_096
        assert log.start_offset == log.first_offset > 0


def test_old_records_go_though_nobody_writes_any_more() -> None:
    world = ready(3, config={**SMALL, "retention.ms": "60000"}, retention_check_ms=500)
    producer_id = world.new_producer()
    produce(world, producer_id, range(3))
    world.run(70_000)
    assert [log[:2] for log in logs(world)] == [(3, 3)] * 3
    assert world.produce(batch(producer_id, 2, VALUE)) == DUPLICATE
    produce(world, producer_id, range(3, 5))


@pytest.mark.parametrize("wiped", [False, True])
def test_follower_from_before_the_log_start_begins_with_the_leaders_state(wiped: bool) -> None:
    world, producer_id = filled()
    late = others(world)[0]
    world.kill(late)
    world.run(1_000)
    produce(world, producer_id, range(20, 40))
    delete(world, 35)
    if wiped:
        world.disks[late] = SimulatedDisk()
    world.start(late)
    world.run(5_000)
    assert len({digest for _, _, digest in logs(world)}) == 1
    assert {end for _, end, _ in logs(world)} == {40}
    replica = world.partition(late).replica
    assert replica.log.first_offset > 20
    assert (replica.log.start_offset, replica.log.doubtful) == (35, False)
    assert set(world.record().isr) == {1, 2, 3}
    for node_id in others(world):
        if node_id != late:
            world.kill(node_id)
    world.kill(world.leader())
    world.run(5_000)


def test_retry_is_recognised_by_a_leader_that_never_had_the_record() -> None:
    world, producer_id = filled(2)
    late = others(world)[0]
    world.kill(late)
    world.run(1_000)
    world.disks[late] = SimulatedDisk()
    delete(world, -1)
    world.run(2_000)
    world.start(late)
    world.run(5_000)
    assert set(world.record().isr) == {1, 2}
    world.kill(next(node_id for node_id in world.nodes if node_id != late))
    world.start(next(node_id for node_id in world.disks if node_id != late))
    world.run(5_000)
    assert world.produce(batch(producer_id, 19, VALUE)) == DUPLICATE
    produce(world, producer_id, range(20, 22))


def test_state_larger_than_a_part_arrives_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.core.replicate.PUSH_BYTES_MAX", 50)
    world, producer_id = filled()
    late = others(world)[0]
    world.kill(late)
    world.disks[late] = SimulatedDisk()
    world.run(1_000)
    delete(world, 18)
    world.start(late)
    world.run(8_000)
    assert len({digest for _, _, digest in logs(world)}) == 1
    produce(world, producer_id, range(20, 21))


def test_parts_that_are_lost_are_asked_for_again() -> None:
    world, _ = filled()
    late, leader = others(world)[0], world.leader()
    world.kill(late)
    world.disks[late] = SimulatedDisk()
    world.run(1_000)
    delete(world, 18)
    world.start(late)
    for _ in range(40):
        world.blocked = set() if world.blocked else {(leader, late)}
        world.run(37)
    world.blocked = set()
    world.run(5_000)
    assert len({digest for _, _, digest in logs(world)}) == 1


def test_follower_killed_at_any_moment_of_beginning_anew_comes_back() -> None:
    for moment in range(5, 60, 3):
        world, producer_id = filled(batches=4)
        late = others(world)[0]
        world.kill(late)
        world.run(1_000)
        produce(world, producer_id, range(4, 20))
        delete(world, 18)
        world.start(late)
        world.run(moment)
        world.kill(late)
        world.start(late)
        world.run(6_000)
        assert len({digest for _, _, digest in logs(world)}) == 1
        assert not world.partition(late).replica.log.doubtful
