"""The broker's data directory: short writes, the lock, and whose directory it is."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.broker.disk import DataDirectory, FileDisk
from cluster.broker.server import allow_open_files
from cluster.storage.disk import DiskError


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(
        os, "pwritev", lambda handle, buffers, at: real(handle, [buffers[0][:2]], at)
    )
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [b"abcde", b"fg"])
    assert disk.read(handle, 0, 10) == b"abcdefg"
    disk.close(handle)


def test_more_buffers_than_one_call_takes_are_all_written(tmp_path: Path) -> None:
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [b"ab"] * 3000)
    assert disk.size(handle) == 6000
    disk.close(handle)


def test_a_write_that_stores_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pwritev", lambda _handle, _buffers, _at: 0)
    disk = FileDisk(tmp_path)
    handle = disk.open("file", create=True)
    with pytest.raises(DiskError) as caught:
        disk.write(handle, 0, [b"x"])
    assert caught.value.errno == errno.EIO
    disk.close(handle)


def test_a_short_read_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"abcdefg")
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda handle, length, at: real(handle, min(length, 3), at))
    disk = FileDisk(tmp_path)
    handle = disk.open("file")
    assert disk.read(handle, 0, 6) == b"abcdef"
    disk.close(handle)


def test_a_directory_of_this_process_cannot_be_taken_by_another(tmp_path: Path) -> None:
    program = (
        "import sys; from cluster.broker.disk import DataDirectory, DirectoryRefused\n"
        "try: DataDirectory(sys.argv[1])\n"
        "except DirectoryRefused as refused: print(refused)\n"
    )
    with DataDirectory(tmp_path):
        run = [sys.executable, "-c", program, str(tmp_path)]
        other = subprocess.run(run, capture_output=True, text=True, check=True)
    assert "is in use by another process" in other.stdout


def test_a_closed_directory_can_be_taken_again(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "data") as first:
        held = first.disk.root
    with DataDirectory(tmp_path / "data") as second:
        assert second.disk.root == held


def test_name_that_cannot_be_is_an_error_of_the_disk(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as refused:
        FileDisk(tmp_path).exists("x" * 256)
    assert refused.value.errno == errno.ENAMETOOLONG


def test_broker_takes_as_many_open_files_as_it_may_have() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
