"""The file of leader epochs: written behind, made whole by the batches, never older than a cut."""

import pytest

from cluster.storage import names
from cluster.storage.checkpoint import parse_epochs
from cluster.storage.disk import DiskError
from cluster.storage.syncing import EPOCH_FILE, SyncRequest
from tests.unit.log_fixture import Replica

PATH = f"t-0/{names.EPOCHS}"


@pytest.fixture
def replica() -> Replica:
    return Replica()


def stored(replica: Replica) -> list[tuple[int, int]]:
    return parse_epochs(replica.disk.contents(PATH)) if replica.disk.exists(PATH) else []


def begin_epoch(replica: Replica, epoch: int) -> None:
    replica.log.lane.leader_epoch = epoch
    replica.log.assign_epoch(epoch, replica.log.next_offset)


def epoch_sync(replica: Replica) -> SyncRequest:
    request = replica.log.epoch_sync()
    assert request is not None
    assert request.segment_base == EPOCH_FILE
    return request


def done(replica: Replica, request: SyncRequest, errno: int = 0) -> None:
    if not errno:
        replica.disk.sync(request.handle)
    replica.log.synced(request.segment_base, request.generation, request.end, errno)


def test_an_epoch_is_in_the_file_once_its_sync_came_back(replica: Replica) -> None:
    syncs = replica.disk.calls["sync"]
    begin_epoch(replica, 3)
    replica.append(1)
    assert replica.disk.calls["sync"] == syncs
    assert stored(replica) == []
    request = epoch_sync(replica)
    done(replica, request)
    assert stored(replica) == [(3, 0)]


def test_an_epoch_without_a_record_is_in_no_file_and_taken_back_without_one(
    replica: Replica,
) -> None:
    replica.append(2)
    done(replica, epoch_sync(replica))
    calls = sum(replica.disk.calls.values())
    begin_epoch(replica, 3)
    assert replica.log.epoch_sync() is None
    replica.log.truncate(2, 0)
    begin_epoch(replica, 4)
    replica.log.truncate(2, 0)
    assert replica.log.epochs == [(0, 0)]
    assert sum(replica.disk.calls.values()) == calls
    begin_epoch(replica, 5)
    replica.append(1)
    done(replica, epoch_sync(replica))
    assert stored(replica) == [(0, 0), (5, 2)]


def test_the_recovery_point_is_not_beyond_an_epoch_that_the_file_lacks(replica: Replica) -> None:
    replica.append(2)
    replica.sync()
    begin_epoch(replica, 3)
    replica.append(2)
    for request in replica.log.next_syncs():
        done(replica, request)
    assert (replica.log.synced_end, replica.log.recovery_point) == (4, 2)
    done(replica, epoch_sync(replica))
    assert replica.log.recovery_point == 4


def test_an_epoch_that_the_file_shows_is_taken_back_durably(replica: Replica) -> None:
    replica.append(2)
    begin_epoch(replica, 3)
    replica.append(2)
    done(replica, epoch_sync(replica))
    assert stored(replica) == [(0, 0), (3, 2)]
    replica.log.truncate(2, 0)
    replica.crash(recovery_point=2)
    assert stored(replica) == [(0, 0)]


def test_epochs_that_begin_meanwhile_are_written_with_the_next_sync(replica: Replica) -> None:
    replica.append(2)
    begin_epoch(replica, 1)
    request = epoch_sync(replica)
    replica.append(2)
    begin_epoch(replica, 2)
    done(replica, request)
    assert stored(replica) == [(0, 0)]
    replica.append(1)
    done(replica, epoch_sync(replica))
    assert stored(replica) == [(0, 0), (1, 2), (2, 4)]


@pytest.mark.parametrize("lost", ["the last epochs", "all of the file"])
def test_what_a_crash_kept_out_of_the_file_is_found_in_the_batches(
    replica: Replica, lost: str
) -> None:
    replica.append(1)
    done(replica, epoch_sync(replica))
    assert stored(replica) == [(0, 0)]
    for epoch in (1, 2, 5):
        for _ in range(12):  # over several segments
            replica.append(3)
        begin_epoch(replica, epoch)
    replica.append(3)
    before = replica.log.epochs
    for request in replica.log.next_syncs():
        done(replica, request)
    if lost == "all of the file":
        replica.disk.unlink(PATH)
    assert len([name for name in replica.disk.list("t-0") if name.endswith(".log")]) > 3
    replica.crash(recovery_point=replica.log.next_offset)
    assert replica.log.epochs == before
    assert stored(replica) == before


def test_what_was_cut_does_not_come_back_with_a_sync_of_before(replica: Replica) -> None:
    replica.append(2)
    begin_epoch(replica, 3)
    replica.append(2)
    request = epoch_sync(replica)
    replica.log.truncate(2, 0)
    done(replica, request)
    assert stored(replica) == []
    done(replica, epoch_sync(replica))
    assert stored(replica) == [(0, 0)]


def test_a_failed_sync_of_the_file_leaves_the_one_there_was(replica: Replica) -> None:
    begin_epoch(replica, 3)
    replica.append(1)
    done(replica, epoch_sync(replica), errno=5)
    assert stored(replica) == []
    assert replica.log.recovery_point == 0
    assert not replica.log.failed
    replica.log.close(clean=True)
    assert stored(replica) == [(3, 0)]


def test_a_full_disk_keeps_no_epoch_from_beginning(replica: Replica) -> None:
    begin_epoch(replica, 3)
    replica.append(1)
    replica.disk.faults.write_countdown = 1
    assert replica.log.epoch_sync() is None
    assert replica.log.last_epoch == 3
    replica.disk.faults.write_countdown = 1
    with pytest.raises(DiskError):
        replica.append(1)


def test_a_sync_that_comes_back_after_the_close_only_lets_go_of_its_file(replica: Replica) -> None:
    begin_epoch(replica, 3)
    replica.append(1)
    request = epoch_sync(replica)
    assert replica.log.syncing
    replica.log.close(clean=False)
    assert replica.disk.open_handles == 1
    done(replica, request)
    assert replica.disk.open_handles == 0
    assert stored(replica) == []
    assert not replica.log.syncing
