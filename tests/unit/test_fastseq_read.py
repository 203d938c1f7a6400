"""Read workers: buffers are filled off the loop, errors and the end of the file are told."""

import errno
import gc
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from _fastseq.read import ReadWorkers

WAIT_S = 30
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    number = os.open(path, os.O_RDONLY)
    yield number
    os.close(number)


def collect(workers: ReadWorkers, count: int) -> list[tuple[int, int, int, int]]:
    results: list[tuple[int, int, int, int]] = []
    while len(results) < count:
        ready, _, _ = select.select([workers.fileno()], [], [], WAIT_S)
        assert ready, "no result arrived"
        results += workers.drain()
    return results


def test_a_buffer_is_filled_from_its_position(handle: int) -> None:
    buffer = bytearray(1000)
    with ReadWorkers(2) as workers:
        workers.submit(handle, 7, 300, buffer)
        assert workers.pending == 1
        ((token, count, error, nanoseconds),) = collect(workers, 1)
    assert (token, count, error) == (7, 1000, 0)
    assert nanoseconds > 0
    assert buffer == CONTENT[300:1300]


def test_the_end_of_the_file_is_a_short_answer(handle: int) -> None:
    buffer = bytearray(1000)
    with ReadWorkers(1) as workers:
        workers.submit(handle, 1, len(CONTENT) - 10, buffer)
        workers.submit(handle, 2, len(CONTENT) + 10, buffer)
        counts = {token: count for token, count, _, _ in collect(workers, 2)}
    assert counts == {1: 10, 2: 0}


def test_a_part_of_a_buffer_can_be_filled(handle: int) -> None:
    buffer = bytearray(100)
    with ReadWorkers(1) as workers:
        workers.submit(handle, 1, 0, memoryview(buffer)[10:20])
        collect(workers, 1)
    assert bytes(buffer) == bytes(10) + CONTENT[:10] + bytes(80)


def test_a_failed_read_reports_its_error_number(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        with ReadWorkers(1) as workers:
            workers.submit(directory, 1, 0, bytearray(10))
            ((_, count, error, _),) = collect(workers, 1)
        assert (count, error) == (0, errno.EISDIR)
    finally:
        os.close(directory)


def test_a_buffer_belongs_to_its_read_until_it_was_drained(handle: int) -> None:
    buffer = bytearray(10)
    before = sys.getrefcount(buffer)
    workers = ReadWorkers(1)
    workers.submit(handle, 1, 0, buffer)
    assert sys.getrefcount(buffer) == before + 1
    with pytest.raises(BufferError):
        buffer.append(1)
    collect(workers, 1)
    assert sys.getrefcount(buffer) == before
    workers.submit(handle, 1, 0, buffer)
    workers.close()
    del workers
    gc.collect()
    assert sys.getrefcount(buffer) == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((-1, 0, 0, bytearray(1)), ValueError),
        ((3, 0, -1, bytearray(1)), ValueError),
        ((3, 0, 0, b"read only"), BufferError),
        ((3, 0, 0, 5), TypeError),
        (("3", 0, 0, bytearray(1)), TypeError),
    ],
)
def test_bad_arguments_are_refused(
    arguments: tuple[int, int, int, bytearray], error: type[Exception]
) -> None:
    with ReadWorkers(1) as workers:
        with pytest.raises(error):
            workers.submit(*arguments)
        assert workers.pending == 0
