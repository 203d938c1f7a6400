"""What every Disk does, the broker's and the simulator's alike, and the helpers over it."""

from pathlib import Path

import pytest

from cluster.broker.disk import FileDisk
from cluster.storage.disk import Disk, DiskError, parent, read_file, replace_file, write_file
from tests.sim.disk import SimulatedDisk


@pytest.fixture(params=["file", "simulated"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    return FileDisk(tmp_path) if request.param == "file" else SimulatedDisk()


def test_written_buffers_are_read_back_as_one(disk: Disk) -> None:
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [b"ab", b"", memoryview(b"cdef")[1:3], bytearray(b"g")])
    disk.write(handle, 2, [b"XY"])
    assert disk.read(handle, 0, 100) == b"abXYg"
    assert disk.size(handle) == 5
    disk.sync(handle)
    disk.close(handle)


def test_a_read_past_the_end_is_short(disk: Disk) -> None:
    write_file(disk, "file", b"abc", sync=False)
    handle = disk.open("file")
    assert disk.read(handle, 1, 10) == b"bc"
    assert disk.read(handle, 3, 10) == b""
    disk.close(handle)


def test_a_write_behind_the_end_leaves_zeros_between(disk: Disk) -> None:
    handle = disk.open("file", create=True)
    disk.write(handle, 2, [b"z"])
    assert disk.read(handle, 0, 10) == b"\0\0z"
    disk.truncate(handle, 1)
    assert disk.read(handle, 0, 10) == b"\0"
    disk.close(handle)


def test_opening_what_is_not_there_is_a_disk_error_with_its_number(disk: Disk) -> None:
    with pytest.raises(DiskError, match="open missing: error 2") as caught:
        disk.open("missing")
    assert (caught.value.errno, caught.value.path) == (2, "missing")
    assert caught.value.operation == "open"


def test_names_come_and_go(disk: Disk) -> None:
    disk.make_directory("orders-0")
    write_file(disk, "orders-0/b", b"1", sync=True)
    write_file(disk, "orders-0/a", b"2", sync=True)
    disk.sync_directory("orders-0")
    assert disk.list("orders-0") == ["a", "b"]
    disk.rename("orders-0/a", "orders-0/b")
    assert disk.list("orders-0") == ["b"]
    assert read_file(disk, "orders-0/b") == b"2"
    disk.unlink("orders-0/b")
    assert not disk.exists("orders-0/b")
    write_file(disk, "orders-0/c", b"", sync=False)
    disk.rename("orders-0", "moved")
    assert disk.list("") == ["moved"]
    disk.remove_directory("moved")
    disk.sync_directory("")
    assert disk.list("") == []


@pytest.mark.parametrize("call", ["list", "unlink", "remove_directory", "sync_directory"])
def test_calls_on_a_missing_name_raise_disk_errors(disk: Disk, call: str) -> None:
    with pytest.raises(DiskError):
        getattr(disk, call)("missing")


def test_a_directory_cannot_be_made_twice(disk: Disk) -> None:
    disk.make_directory("orders-0")
    with pytest.raises(DiskError):
        disk.make_directory("orders-0")


def test_replacing_a_file_leaves_no_temporary_name(disk: Disk) -> None:
    replace_file(disk, "file", b"long content")
    replace_file(disk, "file", b"new")
    assert read_file(disk, "file") == b"new"
    assert disk.list("") == ["file"]


def test_a_missing_file_reads_as_none(disk: Disk) -> None:
    assert read_file(disk, "missing") is None


def test_the_parent_of_a_top_level_name_is_the_data_directory() -> None:
    assert parent("orders-0/x") == "orders-0"
    assert parent("orders-0") == ""
