"""The simulated disk loses what a real one may lose, and keeps what it must keep."""

from random import Random

import pytest

from cluster.storage.disk import DiskError, read_file, write_file
from tests.sim.disk import SimulatedDisk

SEEDS = range(60)


def crashed(seed: int) -> SimulatedDisk:
    """A synced "abc" in a durable file, then "defg" behind it and a second file, then a crash."""
    disk = SimulatedDisk()
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [b"abc"])
    disk.sync(handle)
    disk.sync_directory("")
    disk.write(handle, 3, [b"de"])
    disk.write(handle, 5, [b"fg"])
    write_file(disk, "other", b"", sync=True)
    disk.crash(Random(seed))
    return disk


def test_synced_bytes_survive_every_crash() -> None:
    for seed in SEEDS:
        assert crashed(seed).contents("file").startswith(b"abc")


def test_unsynced_bytes_are_lost_kept_torn_or_full_of_holes() -> None:
    left = {crashed(seed).contents("file") for seed in SEEDS}
    assert {b"abc", b"abcdefg", b"abcde", b"abc\0\0fg", b"abcd"} <= left


def test_names_not_synced_may_vanish() -> None:
    assert {crashed(seed).exists("other") for seed in SEEDS} == {True, False}


def test_a_failed_sync_loses_its_bytes_although_they_can_be_read() -> None:
    disk = SimulatedDisk()
    handle = disk.open("file", create=True)
    disk.sync_directory("")
    disk.write(handle, 0, [b"lost"])
    disk.faults.sync_countdown = 1
    with pytest.raises(DiskError):
        disk.sync(handle)
    assert disk.read(handle, 0, 10) == b"lost"
    disk.sync(handle)
    disk.crash(Random(1))
    assert disk.contents("file") == b""


def test_a_sync_covers_only_what_was_written_before_it_began() -> None:
    disk = SimulatedDisk()
    handle = disk.open("file", create=True)
    disk.sync_directory("")
    disk.write(handle, 0, [b"a"])
    ticket = disk.begin_sync(handle)
    disk.write(handle, 1, [b"b"])
    assert disk.finish_sync(ticket) == 0
    left = set()
    for seed in SEEDS:
        copy = SimulatedDisk()
        copy._root.durable["file"] = type(disk._file(handle))(
            durable=bytearray(disk._file(handle).durable),
            changes=list(disk._file(handle).changes),
        )
        copy.crash(Random(seed))
        left.add(copy.contents("file"))
    assert left == {b"a", b"ab"}


def test_a_sync_that_outlives_a_crash_is_void() -> None:
    disk = SimulatedDisk()
    ticket = disk.begin_sync(disk.open("file", create=True))
    disk.crash(Random(0))
    assert disk.finish_sync(ticket) != 0
    assert disk.open_handles == 0


def test_a_failing_write_stores_a_part() -> None:
    disk = SimulatedDisk()
    handle = disk.open("file", create=True)
    disk.faults.write_countdown = 2
    disk.write(handle, 0, [b"ab"])
    with pytest.raises(DiskError) as caught:
        disk.write(handle, 2, [b"cdef"])
    assert caught.value.errno == 28
    assert disk.read(handle, 0, 10) == b"abcd"


def test_a_full_disk_takes_writes_again_once_there_is_room() -> None:
    disk = SimulatedDisk()
    disk.faults.capacity_bytes = 10
    write_file(disk, "old", b"12345678", sync=True)
    with pytest.raises(DiskError):
        write_file(disk, "new", b"1234", sync=True)
    disk.unlink("old")
    write_file(disk, "new", b"1234", sync=True)
    assert read_file(disk, "new") == b"1234"


def test_a_misdirected_write_lands_elsewhere_and_says_nothing() -> None:
    disk = SimulatedDisk()
    handle = disk.open("file", create=True)
    disk.write(handle, 0, [b"a" * 100])
    disk.faults.misdirect_countdown = 1
    disk.write(handle, 100, [b"b" * 10])
    found = disk.contents("file")
    assert len(found) == 110
    assert found[100:] == bytes(10) or b"b" in found[100:]
    assert b"b" in found[:100]
