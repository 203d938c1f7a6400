"""The log: bytes, table, index and epochs move together, also when the disk fails."""

import pytest

from _fastseq.table import ProducerTable
from _fastseq.turn import DUPLICATE, NEW
from cluster.storage.disk import DiskError
from cluster.storage.settings import LogConfig
from tests.batches import make_batch, make_run
from tests.unit.log_fixture import ANY, CONFIG, TOPIC, Replica


@pytest.fixture
def replica() -> Replica:
    return Replica()


def test_a_turn_is_one_write(replica: Replica) -> None:
    writes = replica.disk.calls["write"]
    replica.append(5)
    assert replica.disk.calls["write"] == writes + 1
    replica.append(5)
    assert replica.disk.calls["write"] == writes + 2
    assert replica.log.next_offset == replica.log.table.next_offset == 10


def test_reads_agree_whether_from_memory_or_from_segments(replica: Replica) -> None:
    for _ in range(40):
        replica.append(3)
    log = replica.log
    assert len([n for n in replica.disk.list("t-0") if n.endswith(".log")]) > 3
    whole = replica.contents()
    for offset in range(0, 120, 7):
        assert whole.find(bytes(log.read(offset, 1, ANY))) == offset * len(whole) // 120
    assert log.read(120, 100, ANY) == b""
    assert log.read(5, 100, 5) == b""
    for outside in (-1, 121):
        with pytest.raises(ValueError):
            log.read(outside, 100, ANY)


def test_few_files_stay_open_however_many_segments_are_read(replica: Replica) -> None:
    for _ in range(60):
        replica.append(3)
    replica.sync()
    replica.contents()
    assert replica.disk.open_handles <= 6


def test_a_failed_write_takes_the_producer_back_too(replica: Replica) -> None:
    replica.append(3)
    before = replica.contents()
    refused = replica.batch()
    replica.disk.faults.write_countdown = 1
    with pytest.raises(DiskError):
        replica.take(refused)
    assert (replica.log.next_offset, replica.log.table.next_offset) == (3, 3)
    assert replica.contents() == before
    assert not replica.log.failed
    assert replica.take(refused) == [NEW]
    assert replica.take(refused) == [DUPLICATE]


@pytest.mark.parametrize(
    ("call", "countdown"),
    [("name", 3), ("name", 4), ("write", 5)],
    ids=["the new file", "its name", "the run"],
)
def test_a_failed_roll_takes_the_producer_back_and_can_be_tried_again(
    replica: Replica, call: str, countdown: int
) -> None:
    replica.append(3)
    refused = replica.batch(bytes(CONFIG.segment_bytes))
    setattr(replica.disk.faults, f"{call}_countdown", countdown)
    with pytest.raises(DiskError):
        replica.take(refused)
    assert not replica.log.failed
    assert replica.log.table.next_offset == replica.log.next_offset == 3
    assert replica.take(refused) == [NEW]
    assert replica.log.next_offset == 4
    replica.sync()
    assert replica.crash().next_offset == 4


def test_a_segment_that_could_not_be_begun_is_not_in_the_way_later(replica: Replica) -> None:
    replica.append(3)
    replica.disk.faults.name_countdown = 4
    with pytest.raises(DiskError):
        replica.append(1, bytes(CONFIG.segment_bytes))
    replica.sequence = 3
    replica.append(5)
    entries = replica.log.table.entries()
    replica.reopen()
    assert (replica.log.next_offset, replica.log.doubtful) == (8, False)
    assert replica.log.table.entries() == entries


def test_a_roll_without_room_for_its_index_and_snapshot_goes_on(replica: Replica) -> None:
    replica.append(3)
    replica.disk.faults.name_countdown = 1
    replica.append(1, bytes(CONFIG.segment_bytes))
    entries = replica.log.table.entries()
    assert len(replica.contents()) > CONFIG.segment_bytes
    replica.sync()
    assert replica.crash().table.entries() == entries


def test_a_write_that_cannot_be_taken_back_fences_the_log(replica: Replica) -> None:
    replica.append(3)
    replica.disk.faults.write_countdown = replica.disk.faults.truncate_countdown = 1
    refused = replica.batch()
    for _ in range(2):
        with pytest.raises(DiskError):
            replica.take(refused)
        assert replica.log.failed
        assert replica.log.table.next_offset == 3
    replica.open()
    assert replica.log.table.next_offset == replica.log.next_offset


def test_a_cut_below_the_journal_is_taken_back_by_replay(replica: Replica) -> None:
    for _ in range(30):
        replica.append(3)
    replica.log.advance_high_watermark(90)
    assert replica.log.table.journal_start == 90
    replica.log.truncate(47, 0)
    pieces = 0
    while replica.log.rebuild(1):
        pieces += 1
    assert pieces > 0
    expected = ProducerTable()
    whole = replica.contents()
    expected.apply_run(whole, 0, len(whole))
    assert replica.log.table.entries() == expected.entries()
    assert replica.log.table.next_offset == 47


def test_a_full_disk_refuses_and_serves_again_when_there_is_room(replica: Replica) -> None:
    replica.append(3)
    refused = replica.batch()
    replica.disk.faults.capacity_bytes = replica.disk.used_bytes + 10
    for _ in range(3):
        with pytest.raises(DiskError):
            replica.take(refused)
    assert len(replica.contents()) == len(refused) * 3
    replica.disk.faults.capacity_bytes = 0
    assert replica.take(refused) == [NEW]
    assert replica.log.next_offset == 4


def test_a_follower_applies_what_follows_and_nothing_else(replica: Replica) -> None:
    log = replica.log
    log.lane.leader_epoch = 3
    run = make_run(0, [2, 3])
    assert log.apply(run, 0, len(run), 0) == 0
    assert (log.next_offset, log.table.next_offset) == (5, 5)
    assert log.apply(run, 0, len(run), 0) != 0
    bad = bytearray(make_batch(5))
    bad[-1] ^= 1
    assert log.apply(bad, 0, len(bad), 0) == 2
    assert log.apply(b"", 0, 0, 0) == 0
    assert replica.contents() == run


def test_a_follower_learns_epochs_from_batches(replica: Replica) -> None:
    replica.log.lane.leader_epoch = 9
    run = b"".join(make_batch(at, leader_epoch=epoch) for at, epoch in enumerate([1, 1, 4, 9]))
    assert replica.log.apply(run, 0, len(run), 0) == 0
    assert replica.log.epochs == [(1, 0), (4, 2), (9, 3)]
    assert replica.log.epoch_end(4) == (4, 3)
    assert replica.log.epoch_end(9) == (9, 4)


def test_a_push_that_cannot_be_written_changes_nothing(replica: Replica) -> None:
    replica.append()
    replica.disk.faults.write_countdown = 1
    run = make_run(1, [2])
    with pytest.raises(DiskError):
        replica.log.apply(run, 0, len(run), 0)
    assert (replica.log.next_offset, replica.log.table.next_offset) == (1, 1)
    assert replica.log.apply(run, 0, len(run), 0) == 0


@pytest.mark.parametrize("offset", [0, 1, 17, 60, 119])
def test_cutting_rewinds_bytes_table_and_generation(replica: Replica, offset: int) -> None:
    for _ in range(40):
        replica.append(3)
    whole = replica.contents()
    assert replica.log.truncate(offset, 0) == offset
    log = replica.log
    assert (log.next_offset, log.table.next_offset, log.synced_end) == (offset, offset, offset)
    assert log.generation == 1
    assert replica.contents() == whole[: offset * len(whole) // 120]
    replica.sequence = offset
    replica.append(2)
    assert log.next_offset == offset + 2


def test_cutting_inside_a_batch_takes_it_whole(replica: Replica) -> None:
    run = make_run(0, [5, 5])
    replica.log.apply(run, 0, len(run), 0)
    assert replica.log.truncate(7, 0) == 5
    assert replica.contents() == run[: len(run) // 2]
    assert replica.log.truncate(2, 0) == 0


def test_cutting_at_or_past_the_end_changes_no_bytes(replica: Replica) -> None:
    replica.append(3)
    replica.log.assign_epoch(4, 3)
    assert replica.log.truncate(3, 0) == 3
    assert replica.log.epochs == [(0, 0)]
    assert replica.log.truncate(10, 0) == 3
    assert replica.log.generation == 0


def test_what_a_cut_left_is_durable(replica: Replica) -> None:
    for _ in range(30):
        replica.append(3)
    replica.log.truncate(50, 0)
    for seed in range(10):
        assert replica.crash(seed).next_offset == 50


def test_beginning_anew_forgets_everything_durably(replica: Replica) -> None:
    for _ in range(30):
        replica.append(3)
    replica.log.table.clear(1_000)
    replica.log.truncate_fully(1_000, 0)
    for _ in range(2):
        log = replica.log
        assert (log.start_offset, log.next_offset, log.table.next_offset) == (1_000,) * 3
        assert (len(log.table), log.epochs) == (0, [])
        replica.crash()
    run = make_run(1_000, [1])
    assert replica.log.apply(run, 0, len(run), 0) == 75
    replica.log.lane.leader_epoch = 0
    assert replica.log.apply(run, 0, len(run), 0) == 0


def test_synced_end_follows_the_workers(replica: Replica) -> None:
    replica.append(3)
    (request,) = replica.log.next_syncs()
    assert replica.log.next_syncs() == []
    assert replica.log.synced_end == 0
    assert replica.log.synced(request.segment_base, request.generation, request.end, 0)
    assert replica.log.synced_end == 3
    replica.sync()
    assert replica.log.recovery_point == 3


def test_with_flush_os_what_is_written_counts_and_rolled_segments_are_still_synced() -> None:
    replica = Replica(LogConfig(segment_bytes=2_000, flush="os"))
    replica.append(3)
    replica.sync()
    assert replica.log.synced_end == 3
    assert replica.log.next_syncs() == []
    while not (requests := replica.log.next_syncs()):
        replica.append(3)
    assert [request.segment_base for request in requests] == [0]
    replica.log.synced(0, 0, requests[0].end, 0)
    assert 0 < replica.log.recovery_point < replica.log.synced_end == replica.log.next_offset


def test_a_failed_sync_fences_until_the_unsynced_end_is_cut(replica: Replica) -> None:
    replica.append(3)
    replica.sync()
    replica.append(3)
    (request,) = replica.log.next_syncs()
    assert not replica.log.synced(request.segment_base, request.generation, request.end, 5)
    assert replica.log.failed
    assert replica.log.next_syncs() == []
    for refused in (replica.append, lambda: replica.log.truncate(1, 0)):
        with pytest.raises(DiskError):
            refused()
    assert replica.log.cut_to_synced(0) == 3
    assert (replica.log.failed, replica.log.doubtful) == (False, True)
    replica.sequence = 3
    replica.append(2)
    replica.sync()
    assert replica.log.synced_end == 5
    assert replica.crash().next_offset == 5


def test_a_sync_that_failed_before_a_cut_still_fences(replica: Replica) -> None:
    replica.append(3)
    (request,) = replica.log.next_syncs()
    replica.log.truncate(1, 0)
    replica.log.synced(request.segment_base, request.generation, request.end, 5)
    assert replica.log.failed


def test_a_restart_after_a_failed_sync_does_not_believe_what_it_can_read(
    replica: Replica,
) -> None:
    replica.append(3)
    replica.sync()
    replica.append(3)
    (request,) = replica.log.next_syncs()
    replica.log.synced(request.segment_base, request.generation, request.end, 5)
    replica.log.close(clean=False)
    for clean in (True, False):
        log = replica.open(clean=clean)
        assert (log.next_offset, log.doubtful) == (3, True)
        log.close(clean=False)


def test_a_log_whose_table_is_being_made_anew_does_not_close_clean(replica: Replica) -> None:
    replica.append(3)
    replica.log.rebuild_table()
    with pytest.raises(DiskError):
        replica.log.close(clean=True)
    assert replica.log.closed


def test_a_closed_log_gives_its_files_back_when_the_workers_do(replica: Replica) -> None:
    for _ in range(20):
        replica.append(3)
    requests = replica.log.next_syncs()
    replica.log.close(clean=False)
    replica.log.close(clean=False)
    assert replica.disk.open_handles == len(requests) > 1
    for request in requests:
        replica.log.synced(request.segment_base, request.generation, request.end, 0)
    assert replica.disk.open_handles == 0
    assert replica.log.next_syncs() == []
    with pytest.raises(DiskError):
        replica.append()


def test_doubt_survives_a_restart_and_ends_when_it_is_taken_back(replica: Replica) -> None:
    replica.log.mark_doubtful()
    for seed in range(5):
        assert replica.crash(seed).doubtful
    replica.log.clear_doubtful()
    for seed in range(5):
        assert not replica.crash(seed).doubtful


def test_timestamps_are_found_over_segments(replica: Replica) -> None:
    for second in range(40):
        replica.now_ms = 1_000 * second
        replica.append(3)
    assert replica.log.offset_for_timestamp(0) == (0, 1_000)
    assert replica.log.offset_for_timestamp(10_001) == (30, 11_000)
    assert replica.log.last_timestamp == 40_000
    assert replica.log.offset_for_timestamp(40_001) is None
    replica.reopen()
    assert replica.log.offset_for_timestamp(10_001) == (30, 11_000)
    assert replica.log.last_timestamp == 40_000


def test_the_topic_and_directory_are_told(replica: Replica) -> None:
    assert (replica.log.directory, replica.log.topic_id) == ("t-0", TOPIC)
    assert replica.log.lane.table is replica.log.table
    assert replica.log.last_epoch == 0
