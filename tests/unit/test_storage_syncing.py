"""Group commit: what counts as synced, and what a late or failed result must not change."""

import pytest

from _fastseq.batch import scan
from cluster.storage.segment import Segment
from cluster.storage.settings import LogConfig
from cluster.storage.syncing import SyncBook
from tests.batches import make_run
from tests.sim.disk import SimulatedDisk


class Written:
    """A book over real segments, five records a write."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.disk.make_directory("t-0")
        self.active = self.segment(0)
        self.book = SyncBook(self.active, 0)

    def segment(self, base_offset: int) -> Segment:
        segment = Segment(self.disk, "t-0", base_offset, LogConfig())
        segment.create(0)
        return segment

    def write(self) -> None:
        data = make_run(self.active.next_offset, [5])
        self.active.append(memoryview(data), scan(data, 0, len(data), 0))
        self.book.wrote(self.active.next_offset)

    def roll(self) -> None:
        self.active = self.segment(self.active.next_offset)
        self.book.add(self.active, self.active.base_offset)

    def done(self, base: int, end: int, generation: int = 0) -> bool:
        self.book.completed(base, generation)
        return self.book.synced(base, generation, end)


@pytest.fixture
def log() -> Written:
    return Written()


def requested(log: Written, *, active: bool = True) -> list[tuple[int, int]]:
    return [(request.segment_base, request.end) for request in log.book.requests(active=active)]


def test_one_request_a_file_is_out_and_covers_what_was_written_before_it(log: Written) -> None:
    assert requested(log) == []
    log.write()
    assert requested(log) == [(0, 5)]
    log.write()
    assert requested(log) == []
    assert log.done(0, 5)
    assert log.book.synced_end == 5
    assert requested(log) == [(0, 10)]


def test_the_synced_end_waits_for_the_segments_before(log: Written) -> None:
    log.write()
    log.roll()
    log.write()
    log.roll()
    log.write()
    assert requested(log) == [(0, 5), (5, 10), (10, 15)]
    assert not log.done(10, 15)
    assert not log.done(5, 10)
    assert log.book.synced_end == 0
    assert log.done(0, 5)
    assert log.book.synced_end == 15


def test_a_result_of_an_older_generation_moves_nothing(log: Written) -> None:
    log.write()
    requested(log)
    log.book.restart(log.active, 3)
    log.write()
    assert not log.done(0, 5, generation=0)
    assert log.book.synced_end == 3
    assert requested(log) == [(0, 10)]
    assert log.done(0, 10, generation=1)


def test_a_result_that_nobody_asked_for_is_not_ours(log: Written) -> None:
    assert not log.book.completed(0, 0)
    log.write()
    requested(log)
    assert log.book.completed(0, 0)
    assert not log.book.completed(0, 0)


def test_without_the_active_segment_only_rolled_ones_are_synced(log: Written) -> None:
    log.write()
    log.roll()
    log.write()
    assert requested(log, active=False) == [(0, 5)]
    assert log.done(0, 5)
    assert log.book.synced_end == 5


def test_syncing_here_and_now_includes_what_is_in_flight(log: Written) -> None:
    log.write()
    log.roll()
    log.write()
    requested(log)
    log.book.sync_through(log.active)
    assert log.book.synced_end == 10
    assert not log.done(0, 5)


def test_files_close_when_neither_book_nor_worker_needs_them(log: Written) -> None:
    old = log.active
    log.write()
    log.roll()
    requested(log)
    old.file.retire()
    assert log.disk.open_handles == 2
    log.done(0, 5)
    assert log.disk.open_handles == 1
    log.write()
    requested(log)
    log.book.close()
    log.active.file.retire()
    assert log.disk.open_handles == 1
    log.done(5, 10)
    assert log.disk.open_handles == 0
