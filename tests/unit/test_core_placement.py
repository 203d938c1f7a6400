"""Which replicas a broker has: many at once are made, led and removed in short steps."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from _fastseq.batch import collapse_batch, expire_batch
from cluster.core import events, placement
from cluster.core.logs import Logs
from cluster.limits import DISK_WORK_OF_LOG, DISK_WORK_PER_STEP, OFFLINE_TRIES
from cluster.storage import checkpoint, walking
from cluster.storage.disk import DiskError
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready

MANY = 50
LOGS_PER_STEP = DISK_WORK_PER_STEP // DISK_WORK_OF_LOG


@contextmanager
def counted(world: World) -> Iterator[list[tuple[int, int]]]:
    """(replicas, partitions led) that came or went in each step of any broker."""
    steps: list[tuple[int, int]] = []
    step = world.step

    def counting(node_id: int, event: events.Event) -> None:
        before = state(world, node_id)
        step(node_id, event)
        after = state(world, node_id)
        steps.append((abs(after[0] - before[0]), after[1] - before[1]))

    def state(world: World, node_id: int) -> tuple[int, int]:
        partitions = world.nodes[node_id].partitions
        return len(partitions), sum(partition.terms_led for partition in partitions)

    world.step = counting  # type: ignore[method-assign]
    yield steps
    world.step = step  # type: ignore[method-assign]


def test_topic_of_many_partitions_is_made_a_few_logs_a_step() -> None:
    world = ready()
    with counted(world) as steps:
        assert world.create("big", partitions=MANY) == 0
        world.run(1_000)
    assert max(made for made, _ in steps) <= DISK_WORK_PER_STEP
    for node in world.nodes.values():
        assert len(node.partitions) == MANY + 1
        assert not node.replicas.behind
    assert all(len(world.record(index, "big").isr) == 3 for index in range(MANY))


def test_no_step_waits_for_the_disk_when_a_replica_is_made() -> None:
    world = ready()
    disks = world.disks.values()
    before = [disk.calls.get("sync_directory", 0) for disk in disks]
    for node_id in world.nodes:
        world.hold_syncs(node_id)
    assert world.create("big", partitions=MANY) == 0
    world.run(1_000)
    assert [disk.calls.get("sync_directory", 0) for disk in disks] == before
    for node in world.nodes.values():
        assert len(node.partitions) == 1
        assert not node.replicas.behind
    for node_id in world.nodes:
        world.release_syncs(node_id)
    world.run(1_000)
    for node in world.nodes.values():
        assert len(node.partitions) == MANY + 1


def test_a_directory_of_which_a_sync_failed_is_made_anew() -> None:
    world = ready()
    disk = world.disks[1]
    disk.faults.sync_countdown = 2
    removed: list[str] = []
    remove = disk.remove_directory

    def removing(path: str) -> None:
        removed.append(path)
        remove(path)

    disk.remove_directory = removing  # type: ignore[method-assign]
    assert world.create("big", partitions=1) == 0
    world.run(2_000)
    assert removed == ["big-0"]
    assert world.nodes[1].replicas.find("big", 0) is not None
    assert len(world.record(0, "big").isr) == 3


def test_a_directory_that_cannot_be_removed_after_a_failed_sync_is_not_opened() -> None:
    world = ready()
    disk = world.disks[1]
    disk.faults.sync_countdown = 2
    removed, disk.remove_directory = disk.remove_directory, refuse  # type: ignore[method-assign]
    assert world.create("big", partitions=1) == 0
    world.run(1_000)
    assert world.nodes[1].replicas.find("big", 0) is None
    disk.remove_directory = removed  # type: ignore[method-assign]
    world.run(2_000)
    assert world.nodes[1].replicas.find("big", 0) is not None


def refuse(path: str) -> None:
    raise DiskError(5, path, "remove")


def test_a_failed_sync_of_a_topic_that_is_gone_takes_nothing_from_the_next_of_its_name() -> None:
    world = ready()
    world.hold_syncs(1)
    assert world.create("big", partitions=1) == 0
    world.run(100)
    body = messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name="big")])
    world.ask(world.controller(), body)
    assert world.create("big", partitions=1) == 0
    world.run(100)
    assert world.nodes[1].replicas.find("big", 0) is not None
    world.disks[1].faults.sync_countdown = 1
    world.release_syncs(1)
    world.run(1_000)
    assert world.disks[1].exists("big-0")


def test_a_topic_that_goes_while_its_replicas_are_made_leaves_none() -> None:
    world = ready()
    for node_id in world.nodes:
        world.hold_syncs(node_id)
    assert world.create("big", partitions=3) == 0
    world.run(100)
    body = messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name="big")])
    world.ask(world.controller(), body)
    for node_id in world.nodes:
        world.release_syncs(node_id)
    world.run(1_000)
    for node in world.nodes.values():
        assert len(node.partitions) == 1
        assert not node.replicas.behind
    assert not any(disk.exists("big-0") for disk in world.disks.values())
    assert world.create("big", partitions=3) == 0
    world.run(1_000)
    assert all(len(world.record(index, "big").isr) == 3 for index in range(3))


def test_many_leaders_are_taken_over_a_few_a_step() -> None:
    world = ready()
    assert world.create("big", partitions=3 * MANY) == 0
    world.run(1_000)
    with counted(world) as steps:
        world.kill(world.controller())
        world.run(3_000)
    assert max(led for _, led in steps) <= DISK_WORK_PER_STEP
    assert sum(led for _, led in steps) >= MANY


def test_deleted_topic_goes_a_few_logs_a_step() -> None:
    world = ready()
    assert world.create("big", partitions=MANY) == 0
    world.run(1_000)
    with counted(world) as steps:
        body = messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name="big")])
        world.ask(world.controller(), body)
        world.run(1_000)
    assert max(gone for gone, _ in steps) == LOGS_PER_STEP
    for node in world.nodes.values():
        assert {partition.replica.topic.name for partition in node.partitions} == {TOPIC}


def delete(world: World, topic: str) -> None:
    body = messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name=topic)])
    (answer,) = world.ask(world.controller(), body)
    assert isinstance(answer, messages.DeleteTopicsResponse)
    assert [result.error_code for result in answer.responses] == [0]


def follower_of(world: World) -> int:
    return next(node_id for node_id in world.nodes if node_id != world.leader())


def test_topic_deleted_while_a_broker_was_held_for_dead_goes_when_it_is_back() -> None:
    world = ready()
    away = next(n for n in world.nodes if n != world.controller())
    for back_ms in (2_000, 2_000, 2_000, 0):  # each time it comes back later
        world.lose_session(away)
        world.run(20)
        assert not world.nodes[away].serving
        world.run(back_ms)
    delete(world, TOPIC)
    assert not world.nodes[away].serving
    world.run(3_000)
    assert world.nodes[away].serving
    assert not world.nodes[away].partitions


def test_topics_made_and_deleted_again_leave_nothing_behind() -> None:
    world = ready()
    before = [world.disks[node_id].open_handles for node_id in world.nodes]
    for _ in range(3):
        assert world.create("short") == 0
        world.run(500)
        delete(world, "short")
        world.run(500)
    for node_id, node in world.nodes.items():
        assert len(node.partitions) == 1
        assert len(node.replicas._by_token) == 1
        assert node.replicas.offline == {}
        names = world.disks[node_id].list("")
        assert [name for name in names if name.startswith("short")] == []
    assert [world.disks[node_id].open_handles for node_id in world.nodes] == before


def test_removal_that_a_crash_interrupted_is_finished_at_the_next_start() -> None:
    world = ready()
    follower = follower_of(world)
    disk = world.disks[follower]
    world.kill(follower)
    disk.make_directory("short-0.0123-delete")
    world.start(follower)
    world.run(200)
    assert "short-0.0123-delete" not in disk.list("")


@contextmanager
def refusing(method: str, node_id: int) -> Iterator[list[object]]:
    """One broker's disk refuses what this method of its logs does; the first argument of each."""
    tried: list[object] = []
    real = getattr(Logs, method)

    def refuse(logs: Logs, *arguments: object) -> object:
        if logs.node_id != node_id:
            return real(logs, *arguments)
        tried.append(arguments[:2])
        raise DiskError(28, method, "write")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Logs, method, refuse)
        yield tried


def test_log_that_could_not_be_opened_is_not_called_clean_by_a_stop() -> None:
    for broken in (True, False):
        world = ready()
        follower = follower_of(world)
        world.kill(follower)
        with refusing("opened", follower if broken else 99):
            world.start(follower)
            world.run(1_000)
            world.post(follower, events.StopRequested())
            world.run(50)
        assert world.disks[follower].exists(checkpoint.CLEAN_MARKER) is not broken


def test_what_cannot_be_opened_is_tried_in_turn() -> None:
    world = ready()
    replicas = 2 * OFFLINE_TRIES + 1
    assert world.create("big", partitions=2 * OFFLINE_TRIES) == 0
    follower = follower_of(world)
    world.run(500)
    world.kill(follower)
    with refusing("opened", follower) as tried:
        world.start(follower)
        node = world.nodes[follower]
        world.run(150)
        assert len(node.replicas.offline) == replicas
        tried.clear()
        world.run(400)
        assert len({str(arguments) for arguments in tried}) >= replicas
        assert len(tried) <= 5 * OFFLINE_TRIES
    world.run(1_000)
    assert not node.replicas.offline
    assert len(node.partitions) == replicas


def test_nothing_follows_a_cut_until_the_checkpoints_are_lowered() -> None:
    world = ready()
    cut = world.leader()
    world.blocked.update((cut, node_id) for node_id in world.nodes)
    world.produce(batch(-1, -1), wait_ms=50)
    world.run(5_000)  # its checkpoint says 1 by now
    world.kill(cut)
    world.blocked.clear()
    world.run(3_000)
    assert world.produce(batch(-1, -1)) == (0, 1)
    with refusing("write_checkpoints", cut):
        world.start(cut)
        world.run(2_000)
        assert world.partition(cut).replica.log.next_offset == 0
    world.run(500)
    assert world.partition(cut).replica.log.next_offset == 1


def test_large_logs_open_over_many_steps_and_the_broker_can_be_stopped_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ready(1, config={"min.insync.replicas": "1"})
    for _ in range(5):
        assert world.produce(batch(-1, -1, bytes(500))) == (0, 1)
    monkeypatch.setattr(placement, "OPEN_BYTES_PER_STEP", 1)
    monkeypatch.setattr(walking, "SCAN_WINDOW_BYTES", 600)  # a batch
    for stops in (False, True):
        world.kill(1)
        world.start(1)
        world.step(1, world.store.everything())
        node = world.nodes[1]
        assert (node.replicas.opening, node.serving) == (1, False)
        assert node.next_deadline_ms() <= world.now, "it goes on at once"
        if stops:
            world.emitted.clear()
            world.step(1, events.StopRequested())
            assert [type(effect).__name__ for _, effect in world.emitted] == ["Stopped"]
            return
        world.run(2_000)
        assert world.leader() == 1
        assert world.partition(1).replica.log.next_offset == 5
        assert node.logs.opened_bytes > 2_500


def test_checkpoints_keep_what_they_say_of_logs_that_are_not_open_yet() -> None:
    world = ready()
    follower = follower_of(world)
    for _ in range(3):
        assert world.produce(batch(-1, -1)) == (0, 1)
    world.run(6_000)
    world.kill(follower)
    with refusing("opened", follower):
        world.start(follower)
        world.run(7_000)
        points = checkpoint.read_offsets(world.disks[follower], checkpoint.RECOVERY_POINTS)
        assert points == {("t", 0): 3}


def test_a_table_that_is_made_anew_holds_up_its_own_replica_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ready()
    follower = follower_of(world)
    for _ in range(20):
        assert world.produce(batch(-1, -1, bytes(500))) == (0, 1)
    monkeypatch.setattr(placement, "OPEN_BYTES_PER_STEP", 1)
    log = world.partition(follower).replica.log
    log.rebuild_table()
    world.nodes[follower].replicas.touch(world.partition(follower).replica)
    assert world.partition(follower).report().end_offset == -1, "its table is being made anew"
    world.run(2_000)
    assert world.partition(follower).report().end_offset == 20
    assert log.table.next_offset == log.next_offset == 20
    assert world.produce(batch(-1, -1)) == (0, 1)
    assert log.next_offset == 21


def test_ids_of_producers_that_have_expired_are_among_the_highest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement, "IDS_AT_ONCE", 1)
    world = ready()
    replicas = world.nodes[world.leader()].replicas
    table = world.partition(world.leader()).replica.log.table
    assert replicas.highest()[1] == -1
    for offset, producer_id in enumerate((7, 9, 8)):
        entry = struct.pack(">q", offset) + batch(producer_id, 0, b"v")[8:]
        table.apply(entry)
    assert replicas.highest()[1] == 9
    table.apply(struct.pack(">q", 3) + expire_batch(3)[8:])
    assert len(table) == 0
    assert replicas.highest()[1] == 9
    table.apply(struct.pack(">q", 4) + collapse_batch(12, 0)[8:])
    assert table.floor_count == 0
    assert replicas.highest()[1] == 11
