"""Read requests and their results, through the workers; and what the page cache answers at once."""

import asyncio
import os
from pathlib import Path

import pytest

from cluster.broker.buffers import Buffers
from cluster.broker.disk import FileDisk
from cluster.broker.reads import Reads
from cluster.core.effects import Read
from cluster.core.events import ReadDone, ReadsDone
from cluster.storage.disk import DiskError


async def test_results_carry_the_bytes_that_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(200)))
    done: list[ReadDone] = []
    all_done = asyncio.Event()

    def deliver(event: ReadsDone) -> None:
        done.extend(event.results)
        if len(done) == 3:
            all_done.set()

    reads = Reads(asyncio.get_running_loop(), 2, Buffers(), deliver)
    handle = os.open(tmp_path / "file", os.O_RDONLY)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        reads.submit(Read(handle, 1, position=10, length=20))
        reads.submit(Read(handle, 2, position=190, length=20))
        reads.submit(Read(directory, 3, position=0, length=20))
        async with asyncio.timeout(10):
            await all_done.wait()
    finally:
        reads.close()
        os.close(handle)
        os.close(directory)
    by_number = {result.number: result for result in done}
    assert bytes(by_number[1].data) == bytes(range(10, 30))
    assert bytes(by_number[2].data) == bytes(range(190, 200))
    assert (by_number[3].errno != 0, bytes(by_number[3].data)) == (True, b"")
    assert by_number[1].errno == 0
    assert by_number[1].nanoseconds > 0


def test_what_the_page_cache_has_is_read_at_once(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [bytes(range(256)) * 1000])
    assert bytes(disk.read_cached(handle, 100, 50)) == bytes(range(100, 150))
    assert bytes(disk.read_cached(handle, 256_000, 50)) == b""
    assert bytes(disk.read_cached(handle, 0, 0)) == b""
    disk.close(handle)


def test_what_is_not_in_the_page_cache_is_not_waited_for(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [bytes(1 << 20)])
    disk.sync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    found = disk.read_cached(handle, 0, 1 << 20)
    assert len(found) < 1 << 20
    disk.close(handle)


def test_a_file_system_that_cannot_tell_counts_as_cold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [b"content"])

    def refuse(*_arguments: object) -> int:
        raise OSError(95, "not supported")

    monkeypatch.setattr(os, "preadv", refuse)
    assert bytes(disk.read_cached(handle, 0, 7)) == b""
    monkeypatch.undo()
    assert bytes(disk.read_cached(handle, 0, 7)) == b""
    disk.close(handle)


def test_a_read_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)

    def refuse(*_arguments: object) -> int:
        raise OSError(5, "broken")

    monkeypatch.setattr(os, "preadv", refuse)
    with pytest.raises(DiskError):
        disk.read_cached(handle, 0, 7)
    disk.close(handle)
