"""Old segments go whole, oldest first, and never take what a producer's retry needs with them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest

from _fastseq.batch import encode_batch
from _fastseq.table import ProducerTable
from cluster.storage.disk import DiskError
from cluster.storage.names import WINDOWS, segment_file
from tests.unit.log_fixture import CONFIG, Replica

DUPLICATE = 2
WEEK_MS = CONFIG.retention_ms


def filled(batches: int = 60, **settings: int) -> Replica:
    """Several segments of one producer, one record a second."""
    replica = Replica(replace(CONFIG, **settings))  # type: ignore[arg-type]
    for _ in range(batches):
        replica.append()
        replica.now_ms += 1_000
    return replica


def synced(replica: Replica) -> None:
    for request in replica.log.next_syncs():
        replica.disk.sync(request.handle)
        replica.log.synced(request.segment_base, request.generation, request.end, 0)


def dropped(replica: Replica) -> int:
    """How many segments go now."""
    count = 0
    while True:
        moved = replica.log.retain(replica.log.next_offset, replica.now_ms, replica.now_ms)
        paths = replica.log.drop_oldest()
        if not moved and not paths:
            return count
        count += bool(paths)


def files(replica: Replica, suffix: str) -> list[str]:
    return [name for name in replica.disk.list("t-0") if name.endswith(suffix)]


def test_segments_whose_newest_record_is_too_old_go() -> None:
    replica = filled()
    synced(replica)
    replica.now_ms += WEEK_MS - 30_000
    assert dropped(replica) > 0
    assert 0 < replica.log.start_offset <= 31
    assert replica.log.first_offset == replica.log.start_offset


def test_nothing_goes_before_its_time() -> None:
    replica = filled()
    synced(replica)
    assert dropped(replica) == 0


def test_the_oldest_go_while_more_than_the_allowed_bytes_stay() -> None:
    replica = filled(150, retention_bytes=3_000)
    synced(replica)
    assert dropped(replica) > 0
    assert 3_000 <= replica.log.size < 3_000 + CONFIG.segment_bytes


def test_what_is_not_committed_stays() -> None:
    replica = filled()
    synced(replica)
    replica.now_ms += 2 * WEEK_MS
    assert not replica.log.retain(5, replica.now_ms, replica.now_ms)
    assert replica.log.start_offset == 0


def test_what_is_not_synced_keeps_its_file() -> None:
    replica = filled()
    replica.now_ms += 2 * WEEK_MS
    assert replica.log.retain(replica.log.next_offset, replica.now_ms, replica.now_ms)
    assert replica.log.drop_oldest() == []
    synced(replica)
    assert replica.log.drop_oldest()


def test_when_all_is_too_old_the_active_segment_is_rolled_and_goes_too() -> None:
    replica = filled()
    synced(replica)
    replica.now_ms += 2 * WEEK_MS
    dropped(replica)
    synced(replica)
    dropped(replica)
    end = replica.log.next_offset
    assert (replica.log.start_offset, replica.log.first_offset, end) == (60, 60, 60)
    assert replica.log.size == 0


@pytest.mark.parametrize("clean", [True, False])
def test_producers_outlive_every_record_they_wrote(clean: bool) -> None:
    replica = filled()
    synced(replica)
    last = [replica.batch() for _ in range(5)]
    replica.take(*last)
    synced(replica)
    replica.now_ms += 2 * WEEK_MS
    dropped(replica)
    synced(replica)
    dropped(replica)
    assert replica.log.size == 0
    replica.reopen(clean=clean)
    assert (replica.log.start_offset, replica.log.next_offset) == (65, 65)
    assert replica.take(*last) == [DUPLICATE] * 5


def test_a_segment_stays_while_the_next_cannot_stand_at_the_beginning() -> None:
    replica = filled(150)
    synced(replica)
    second = replica.log._segments.bases[1]
    third = replica.log._segments.bases[2]
    for base in (second, third):
        path = segment_file("t-0", base, WINDOWS)
        handle = replica.disk.open(path)
        replica.disk.truncate(handle, 10)
        replica.disk.close(handle)
    replica.log.advance_start(third)
    assert replica.log.drop_oldest() == []
    fourth = replica.log._segments.bases[3]
    replica.log.advance_start(fourth)
    assert replica.log.drop_oldest()


def test_snapshots_before_the_beginning_go_with_the_segment() -> None:
    replica = filled()
    synced(replica)
    replica.now_ms += WEEK_MS - 30_000
    dropped(replica)
    first = min(files(replica, WINDOWS))
    assert first == f"{replica.log.first_offset:020d}{WINDOWS}"


@pytest.mark.parametrize("seed", range(6))
def test_no_crash_while_segments_go_leaves_a_hole(seed: int) -> None:
    for calls in range(1, 200):
        replica = filled()
        synced(replica)
        replica.now_ms += WEEK_MS - 20_000
        expected = replica.log.table.digest
        replica.disk.faults.name_countdown = calls
        with suppress(DiskError):
            dropped(replica)
        done = replica.disk.faults.name_countdown > 0
        replica.disk.mend()
        replica.crash(seed=seed * 1_000 + calls, recovery_point=60)
        assert replica.log.next_offset == 60, f"crash at call {calls}"
        assert replica.log.table.digest == expected
        assert not replica.log.doubtful
        if done:
            return
    pytest.fail("the last crash came after the last call")


def test_settings_change_while_the_log_is_open() -> None:
    replica = filled(150)
    synced(replica)
    assert dropped(replica) == 0
    replica.log.config.take(replace(CONFIG, retention_bytes=3_000))
    assert dropped(replica) > 0


def test_deleted_records_are_not_found_by_their_time() -> None:
    replica = filled()
    assert replica.log.offset_for_timestamp(1_000 + 4_500) == (5, 6_000)
    replica.log.advance_start(40)
    assert replica.log.offset_for_timestamp(1_000 + 4_500) == (40, 41_000)
    replica.log.advance_start(60)
    assert replica.log.offset_for_timestamp(1_000 + 4_500) is None


def test_a_deleted_record_in_a_batch_of_several_is_not_found_by_its_time() -> None:
    replica = Replica()
    rows = [(None, b"v", at, ()) for at in (10, 20, 30)]
    replica.take(encode_batch(rows, producer_id=8, producer_epoch=0, base_sequence=0))
    replica.log.advance_start(1)
    assert replica.log.offset_for_timestamp(5) == (1, 20)


def test_a_log_anew_begins_with_the_state_of_another_replica() -> None:
    leader, follower = filled(), filled(10)
    synced(follower)
    last = [leader.batch() for _ in range(5)]
    leader.take(*last)
    synced(leader)
    leader.now_ms += 2 * WEEK_MS
    dropped(leader)
    synced(leader)
    dropped(leader)
    offset, size = leader.log.first_offset, leader.log.states.size()
    assert (offset, leader.log.states.size()) == (65, size)
    assert size
    for position in range(0, size, 50):
        follower.log.states.take(position, leader.log.states.read(position, 50))
    assert follower.log.install_state(offset, [(0, 0)], 0)
    assert (follower.log.start_offset, follower.log.next_offset) == (65, 65)
    assert follower.log.table.digest == leader.log.table.digest
    follower.reopen(clean=False)
    assert (follower.log.epochs, follower.log.doubtful) == ([(0, 0)], True)
    follower.log.lane.leader_epoch = 0
    assert follower.take(*last) == [DUPLICATE] * 5


def test_half_a_state_changes_nothing() -> None:
    leader, follower = filled(), filled(10)
    synced(follower)
    synced(leader)
    leader.now_ms += 2 * WEEK_MS
    dropped(leader)
    follower.log.states.take(0, leader.log.states.read(0, 60))
    assert not follower.log.install_state(leader.log.first_offset, [], 0)
    assert (follower.log.next_offset, follower.log.doubtful) == (10, False)


@pytest.mark.parametrize("seed", range(6))
def test_no_crash_while_a_log_begins_anew_leaves_data_without_its_state(seed: int) -> None:
    for calls in range(1, 200):
        leader, follower = filled(), filled(10)
        synced(follower)
        synced(leader)
        leader.now_ms += 2 * WEEK_MS
        dropped(leader)
        offset = leader.log.first_offset
        follower.log.states.take(0, leader.log.states.read(0, 10_000))
        follower.disk.faults.name_countdown = calls
        with suppress(DiskError):
            follower.log.install_state(offset, [(0, 0)], 0)
        done = follower.disk.faults.name_countdown > 0
        follower.disk.mend()
        follower.crash(seed=seed * 1_000 + calls)
        end = follower.log.next_offset
        assert end in {0, 10, offset} or end < 10
        if end == offset:
            assert follower.log.table.digest == leader_digest(leader, offset)
        assert not follower.log.stateless
        assert follower.log.doubtful or end == 10
        if done:
            assert end == offset
            return
    pytest.fail("the last crash came after the last call")


def leader_digest(leader: Replica, offset: int) -> int:
    table = ProducerTable(offset)
    table.load(leader.log.states.read(0, 10_000))
    return table.digest


def test_a_failure_while_beginning_anew_is_recovered_from_without_a_restart() -> None:
    leader, follower = filled(), filled(10)
    synced(follower)
    synced(leader)
    leader.now_ms += 2 * WEEK_MS
    dropped(leader)
    follower.log.states.take(0, leader.log.states.read(0, 10_000))
    follower.disk.faults.write_countdown = 2
    with pytest.raises(DiskError):
        follower.log.install_state(leader.log.first_offset, [], 0)
    follower.disk.mend()
    assert follower.log.failed
    assert follower.log.cut_to_synced(0) == 0
    assert (follower.log.next_offset, follower.log.table.next_offset) == (0, 0)
