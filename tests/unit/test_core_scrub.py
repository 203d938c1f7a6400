"""Damage of what was synced, on a running broker: found, handed over, fetched again (rule 7)."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core import scrub
from cluster.core.follower import Follower
from cluster.core.partition import Resting
from cluster.storage.damage import read_damage
from cluster.storage.disk import DiskError
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)
VALUE = bytes(500)
ROUND_MS = 3_000


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour is long, even here."""
    monkeypatch.setattr(scrub, "SCRUB_ROUND_MS", ROUND_MS)


@pytest.fixture
def world() -> World:
    """Ten records on three brokers."""
    world = ready()
    for _ in range(10):
        assert world.produce(batch(-1, -1, VALUE)) == ACKED
    return world


def others(world: World, node_id: int) -> list[int]:
    return [other for other in world.nodes if other != node_id]


def segment(world: World, node_id: int) -> str:
    (name,) = (n for n in world.disks[node_id].list(f"{TOPIC}-0") if n.endswith(".log"))
    return f"{TOPIC}-0/{name}"


def rot(world: World, node_id: int, position: int = 1_000) -> None:
    world.disks[node_id].rot(segment(world, node_id), position, 1)


def contents(world: World, node_id: int) -> bytes:
    return world.disks[node_id].contents(segment(world, node_id))


def next_round(world: World) -> None:
    """Let the scrubber begin anew, and come around."""
    world.run(ROUND_MS + 2_500)


def test_the_scrubber_reads_everything_round_by_round_and_finds_nothing(world: World) -> None:
    before = [node.scrubber.rounds for node in world.nodes.values()]
    next_round(world)
    for rounds, node in zip(before, world.nodes.values(), strict=True):
        scrubber = node.scrubber
        assert rounds < scrubber.rounds <= rounds + 2
        assert scrubber.found == 0
        assert scrubber.bytes >= len(contents(world, 1))


@pytest.mark.parametrize("of_leader", [True, False])
def test_a_damaged_replica_hands_over_and_fetches_again(world: World, of_leader: bool) -> None:
    leader = world.leader()
    damaged = leader if of_leader else others(world, leader)[0]
    whole = contents(world, damaged)
    rot(world, damaged)
    next_round(world)
    assert world.nodes[damaged].scrubber.found == 1
    assert (world.leader() != leader) is of_leader
    replica = world.partition(damaged).replica
    assert isinstance(world.partition(damaged).role, Follower)
    assert (replica.log.damage, replica.log.doubtful) == (None, False)
    assert read_damage(world.disks[damaged], f"{TOPIC}-0") is None
    assert contents(world, damaged)[: len(whole)] == whole
    assert world.produce(batch(-1, -1)) == ACKED
    assert replica.log.next_offset == 11
    assert sorted(world.record().isr) == [1, 2, 3]


def test_the_only_replica_waits_and_says_so() -> None:
    world = ready(1, config={"min.insync.replicas": "1"})
    for _ in range(10):
        assert world.produce(batch(-1, -1, VALUE)) == ACKED
    rot(world, 1)
    before = contents(world, 1)
    next_round(world)
    role = world.partition(1).role
    assert isinstance(role, Resting)
    assert "damaged from offset 1 on: a checksum is wrong" in role.reason
    report = world.partition(1).report()
    assert (report.damaged, report.end_offset) == (True, 10)
    assert contents(world, 1) == before
    world.kill(1)
    world.start(1)
    world.run(3_000)
    assert isinstance(world.partition(1).role, Resting)
    assert world.partition(1).replica.log.damage is not None
    assert contents(world, 1) == before


def test_a_doubtful_replica_that_holds_less_does_not_lead_instead(world: World) -> None:
    leader = world.leader()
    short, gone = others(world, leader)
    world.kill(gone)
    world.run(2_000)
    rot(world, leader)
    world.kill(short)
    world.disks[short].rot(segment(world, short), len(contents(world, short)) - 1, 1)
    world.disks[short].unlink("recovery-point-offset-checkpoint")  # a cut then, not damage
    world.run(2_000)
    next_round(world)
    world.start(short)
    world.run(3_000)
    assert world.partition(short).replica.log.doubtful
    assert world.partition(short).replica.log.next_offset < 10
    with pytest.raises(AssertionError, match="nobody leads"):
        world.leader()
    world.start(gone)  # left the in-sync set: it may hold less
    world.run(3_000)
    with pytest.raises(AssertionError, match="nobody leads"):
        world.leader()


def test_what_is_damaged_reaches_no_follower(world: World) -> None:
    leader = world.leader()
    late = others(world, leader)[0]
    world.kill(late)
    world.disks[late].remove_directory(f"{TOPIC}-0")
    world.disks[late].unlink("meta.properties")
    world.run(2_000)
    log = world.partition(leader).replica.log
    log._tail.clear()
    rot(world, leader)
    world.start(late)
    world.run(3_000)
    assert world.leader() != leader, "the leader noticed when it read for the follower"
    for node_id in world.nodes:
        replica = world.partition(node_id).replica
        assert (replica.log.next_offset, replica.log.damage) == (10, None)
    assert contents(world, late) == contents(world, leader)


def test_an_unreadable_piece_is_damage_at_the_second_time(world: World) -> None:
    follower = others(world, world.leader())[0]
    log = world.partition(follower).replica.log
    for expected in (None, "the disk cannot read it"):
        cold = log.scrub.next(log.generation, log.recovery_point, 600)
        assert cold is not None
        log.returned(cold)
        place = log.scrub.check(cold, None, log.generation)
        assert (None if place is None else place.reason) == expected


def test_a_piece_that_comes_back_after_a_cut_says_nothing(world: World) -> None:
    log = world.partition(others(world, world.leader())[0]).replica.log
    cold = log.scrub.next(log.generation, log.recovery_point, 600)
    assert cold is not None
    log.returned(cold)
    assert log.scrub.check(cold, None, log.generation + 1) is None


def test_a_consumer_who_meets_bytes_that_make_no_sense_has_the_leader_look(world: World) -> None:
    leader = world.leader()
    log = world.partition(leader).replica.log
    log._tail.clear()
    rot(world, leader, len(batch(-1, -1, VALUE)) + 9)  # in the length of the second batch
    wanted = messages.FetchPartition(partition=0, fetch_offset=1, partition_max_bytes=100)
    topic = messages.FetchTopic(topic=TOPIC, partitions=[wanted])
    request = messages.FetchRequest(max_wait_ms=0, min_bytes=1, max_bytes=1_000, topics=[topic])
    (answer,) = world.ask(leader, request, version=11, wait_ms=20)
    assert isinstance(answer, messages.FetchResponse)
    assert answer.responses[0].partitions[0].error_code == errors.KAFKA_STORAGE_ERROR.number
    world.run(3_000)
    assert world.leader() != leader
    assert isinstance(world.partition(leader).role, Follower)


def shorten(world: World, node_id: int) -> None:
    """The file loses its end, and the memory of it, too."""
    disk, path = world.disks[node_id], segment(world, node_id)
    handle = disk.open(path)
    disk.truncate(handle, disk.size(handle) - 700)
    disk.close(handle)
    world.partition(node_id).replica.log._tail.clear()


def test_fetch_of_what_a_file_has_lost_is_answered(world: World) -> None:
    leader = world.leader()
    shorten(world, leader)
    wanted = messages.FetchPartition(partition=0, fetch_offset=9, partition_max_bytes=10_000)
    topics = [messages.FetchTopic(topic=TOPIC, partitions=[wanted])]
    (answer,) = world.ask(leader, messages.FetchRequest(max_wait_ms=0, topics=topics), wait_ms=50)
    assert isinstance(answer, messages.FetchResponse)
    found = answer.responses[0].partitions[0]
    assert found.error_code == errors.KAFKA_STORAGE_ERROR.number
    with pytest.raises(DiskError):
        world.partition(leader).replica.log.read(9, 10_000, 10)


def test_consumer_who_misses_what_a_file_has_lost_has_the_leader_look(world: World) -> None:
    leader = world.leader()
    whole = contents(world, leader)
    shorten(world, leader)
    wanted = messages.FetchPartition(partition=0, fetch_offset=9, partition_max_bytes=10_000)
    topics = [messages.FetchTopic(topic=TOPIC, partitions=[wanted])]
    world.disks[leader].cold = 1.0
    world.ask(leader, messages.FetchRequest(max_wait_ms=0, topics=topics), wait_ms=20)
    world.run(1_500)
    assert world.leader() != leader
    assert contents(world, leader) == whole


def test_end_that_a_file_has_lost_is_found_and_fetched_again(world: World) -> None:
    leader = world.leader()
    whole = contents(world, leader)
    shorten(world, leader)
    next_round(world)
    next_round(world)
    assert contents(world, leader) == whole
    assert world.leader() != leader


def test_end_that_a_file_has_lost_is_found_when_somebody_looks(world: World) -> None:
    leader = world.leader()
    shorten(world, leader)
    place = world.partition(leader).replica.log.scrub.examine(9)
    assert place is not None
    assert place.offset == 8
