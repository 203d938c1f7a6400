"""What Kafka is known to get wrong at a restart, each with the one answer that is right here.

Producers retry what they cannot know to be stored; files in the data directory are torn, emptied,
foreign or from the future. Nothing is stored twice, and one partition's trouble is not another's.
"""

from __future__ import annotations

from random import Random

import pytest

from _fastseq.batch import encode_batch
from cluster.core import events
from cluster.storage import checkpoint
from cluster.storage.disk import write_file
from tests.unit.core_world import World, batch, ready
from tests.unit.log_fixture import Replica

DUPLICATE = (0, 2)
NEW = (0, 1)
TWO_DAYS_MS = 2 * 86_400_000
ALONE = {"min.insync.replicas": "1"}


def alone() -> World:
    return ready(1, config=ALONE)


def restarted(world: World, *, clean: bool) -> None:
    if clean:
        world.post(1, events.StopRequested())
        world.run(3_000)
        assert world.disks[1].exists(checkpoint.CLEAN_MARKER)
        world.kill(1)
    else:
        world.kill(1)
        world.disks[1].crash(Random(5))
    world.start(1)
    world.run(3_000)


@pytest.mark.parametrize("clean", [True, False])
def test_five_batches_whose_acks_were_lost_are_recognised_after_a_restart(clean: bool) -> None:
    world = alone()
    producer = world.new_producer()
    sent = [batch(producer, sequence) for sequence in range(5)]
    assert [world.produce(one) for one in sent] == [NEW] * 5
    restarted(world, clean=clean)
    assert [world.produce(one) for one in sent] == [DUPLICATE] * 5
    assert world.partition(1).replica.log.next_offset == 5


def old(producer: int, sequence: int, age_ms: int) -> bytes:
    rows = [(None, b"v", 1_795_000_000_000 - age_ms, ())]
    return encode_batch(rows, producer_id=producer, producer_epoch=0, base_sequence=sequence)


@pytest.mark.parametrize("clean", [True, False])
def test_records_of_two_days_ago_are_recognised_after_a_restart(clean: bool) -> None:
    world = alone()
    producer = world.new_producer()
    sent = [old(producer, sequence, TWO_DAYS_MS) for sequence in range(3)]
    assert [world.produce(one) for one in sent] == [NEW] * 3
    restarted(world, clean=clean)
    assert [world.produce(one) for one in sent] == [DUPLICATE] * 3


def test_the_clean_marker_is_gone_before_the_first_log_is_read() -> None:
    world = alone()
    assert world.produce(batch(-1, -1)) == NEW
    world.post(1, events.StopRequested())
    world.run(3_000)
    world.kill(1)
    disk = world.disks[1]
    assert disk.exists(checkpoint.CLEAN_MARKER)
    world.start(1)  # nothing was read of the store yet, so no log is open
    assert not disk.exists(checkpoint.CLEAN_MARKER)
    world.nodes.pop(1)
    disk.kill()
    world.lose_session(1)
    world.start(1)
    world.run(3_000)
    assert not world.nodes[1].logs.clean_start, "the start before died while it was loading"
    assert world.partition(1).replica.log.next_offset == 1


FILES = [
    "00000000000000000000.log", "00000000000000000000.index", "00000000000000000000.timeindex",
    "00000000000000000003.windows", "00000000000000000003.snapshot", "leader-epoch-checkpoint",
    "partition.metadata", "damaged", "doubtful", "failed-sync", "what is this",
    "99999999999999999999.log", "00000000000000000900.windows", "00000000000000000900.snapshot",
]  # fmt: skip
CONTENTS = [b"", bytes(200), b"\xff" * 200, Random(3).randbytes(5_000)]


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "zeros", "ones", "random"])
@pytest.mark.parametrize("name", FILES)
def test_foreign_and_ruined_files_of_one_partition_are_no_others_trouble(
    name: str, content: bytes, clean: bool
) -> None:
    world = alone()
    assert world.create("other") == 0
    for _ in range(3):
        assert world.produce(batch(-1, -1)) == NEW
    world.run(200)
    if clean:
        world.post(1, events.StopRequested())
        world.run(3_000)
    world.kill(1)
    write_file(world.disks[1], f"other-0/{name}", content, sync=True)
    world.start(1)
    world.run(3_000)
    assert world.leader() == 1
    assert world.produce(batch(-1, -1)) == NEW
    assert world.partition(1).replica.log.next_offset == 4


@pytest.mark.parametrize(
    "name", [checkpoint.RECOVERY_POINTS, checkpoint.HIGH_WATERMARKS, checkpoint.LOG_STARTS,
             checkpoint.CLEAN_MARKER, "durability.properties"],
)  # fmt: skip
@pytest.mark.parametrize("content", CONTENTS, ids=["empty", "zeros", "ones", "random"])
def test_a_ruined_checkpoint_costs_time_and_no_record(name: str, content: bytes) -> None:
    world = alone()
    for _ in range(3):
        assert world.produce(batch(-1, -1)) == NEW
    world.kill(1)
    write_file(world.disks[1], name, content, sync=True)
    world.start(1)
    world.run(3_000)
    assert world.partition(1).replica.log.next_offset == 3
    assert world.produce(batch(-1, -1)) == NEW


@pytest.mark.parametrize("content", CONTENTS[1:], ids=["zeros", "ones", "random"])
def test_a_data_directory_whose_owner_cannot_be_read_is_refused_by_name(content: bytes) -> None:
    world = alone()
    world.kill(1)
    write_file(world.disks[1], "meta.properties", content, sync=True)
    with pytest.raises(ValueError, match=r"meta\.properties"):
        world.start(1)


def test_a_snapshot_from_the_future_is_no_state_of_this_log() -> None:
    replica = Replica()
    replica.append(5)
    replica.log.take_snapshot()
    replica.log.close(clean=False)
    data = replica.disk.contents("t-0/00000000000000000005.windows")
    write_file(replica.disk, "t-0/00000000000000000900.windows", data, sync=True)
    replica.open()
    assert replica.log.table.next_offset == 5
    assert not replica.disk.exists("t-0/00000000000000000900.windows")


def test_followers_part_from_a_leader_where_their_epochs_interleave() -> None:
    world = ready()
    first = world.leader()
    others = [node for node in world.nodes if node != first]
    world.blocked.update((first, node) for node in others)  # it appends, and nobody hears of it
    world.produce(batch(-1, -1, b"lost"), wait_ms=50)
    world.kill(first)
    world.blocked.clear()
    world.run(2_000)
    second = world.leader()
    world.kill(second)  # an epoch in which nothing was written
    world.run(2_000)
    world.start(second)
    world.run(2_000)
    assert world.produce(batch(-1, -1, b"kept")) == NEW
    world.start(first)
    world.run(3_000)
    logs = [world.partition(node).replica.log for node in world.nodes]
    contents = {bytes(log.read(0, 10_000, log.next_offset)) for log in logs}
    assert len(contents) == 1
    assert b"kept" in contents.pop()
    assert {log.table.digest for log in logs} == {logs[0].table.digest}
