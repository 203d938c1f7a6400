"""Sync workers: results come back with their numbers, errors too, and closing finishes the work."""

import errno
import os
import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from _fastseq.sync import SyncWorkers

WAIT_S = 30


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    number = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield number
    os.close(number)


def collect(workers: SyncWorkers, count: int) -> list[tuple[int, int, int, int, int]]:
    """Waits for so many results as the loop does: by the eventfd."""
    results: list[tuple[int, int, int, int, int]] = []
    while len(results) < count:
        ready, _, _ = select.select([workers.fileno()], [], [], WAIT_S)
        assert ready, "no result arrived"
        results += workers.drain()
    return results


def test_result_carries_the_numbers_of_its_request(handle: int) -> None:
    with SyncWorkers(1) as workers:
        os.write(handle, b"x" * 1000)
        workers.submit(handle, -5, 3, 2**62)
        assert workers.pending == 1
        ((token, generation, end, error, nanoseconds),) = collect(workers, 1)
        assert (token, generation, end, error) == (-5, 3, 2**62, 0)
        assert nanoseconds > 0
        assert workers.pending == 0


def test_every_request_has_one_result(handle: int) -> None:
    with SyncWorkers() as workers:
        for i in range(200):
            workers.submit(handle, i, 0, i)
        assert sorted(result[0] for result in collect(workers, 200)) == list(range(200))
        assert workers.drain() == []


def test_descriptor_is_quiet_once_drained(handle: int) -> None:
    with SyncWorkers(1) as workers:
        workers.submit(handle, 1, 0, 0)
        collect(workers, 1)
        assert select.select([workers.fileno()], [], [], 0) == ([], [], [])


def test_failed_sync_reports_its_error_number() -> None:
    reading, writing = os.pipe()
    try:
        with SyncWorkers(1) as workers:
            workers.submit(writing, 1, 0, 0)
            ((_, _, _, error, _),) = collect(workers, 1)
            assert error == errno.EINVAL
    finally:
        os.close(reading)
        os.close(writing)


def test_closing_finishes_what_is_queued(handle: int) -> None:
    workers = SyncWorkers(2)
    for i in range(50):
        workers.submit(handle, i, 0, 0)
    workers.close()
    workers.close()
    assert len(workers.drain()) == 50
    assert workers.pending == 0


def test_closed_workers_refuse_requests(handle: int) -> None:
    workers = SyncWorkers(1)
    workers.close()
    with pytest.raises(ValueError, match="closed"):
        workers.submit(handle, 0, 0, 0)
    with pytest.raises(ValueError, match="closed"):
        workers.fileno()


def test_forgotten_workers_end_their_threads(handle: int) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    workers = SyncWorkers(3)
    workers.submit(handle, 0, 0, 0)
    assert threads() == before + 3
    del workers
    assert threads() == before


def test_workers_leave_signals_to_the_main_thread(handle: int) -> None:
    with SyncWorkers(2):
        caught: list[int] = []
        previous = signal.signal(signal.SIGUSR1, lambda number, _frame: caught.append(number))
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            threading.Event().wait(0)
        finally:
            signal.signal(signal.SIGUSR1, previous)
        assert caught == [signal.SIGUSR1]


def test_wrong_arguments_are_named(handle: int) -> None:
    with pytest.raises(ValueError, match="threads"):
        SyncWorkers(0)
    with SyncWorkers(1) as workers:
        with pytest.raises(ValueError, match="fd"):
            workers.submit(-1, 0, 0, 0)
        with pytest.raises(TypeError, match="token"):
            workers.submit(handle, "0", 0, 0)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="end"):
            workers.submit(handle, 0, 0, 2**63)
        assert workers.pending == 0
