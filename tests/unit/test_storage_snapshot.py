"""Producer snapshots: the newest sound pair wins, and damage only costs replay."""

import pytest

from _fastseq.table import ProducerTable
from cluster.limits import SNAPSHOTS_KEPT
from cluster.storage import names
from cluster.storage.disk import DiskError, write_file
from cluster.storage.snapshot import Snapshots
from tests.batches import make_batch
from tests.sim.disk import SimulatedDisk


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory("t-0")
    return disk


def table_of(batches: int) -> ProducerTable:
    """A table after so many batches of one record each."""
    table = ProducerTable()
    for number in range(batches):
        table.apply(make_batch(number, producer_id=7, sequence=number))
    return table


def loaded(disk: SimulatedDisk, start_offset: int, end: int) -> tuple[int, ProducerTable]:
    table = ProducerTable()
    return Snapshots(disk, "t-0").load(table, start_offset, end), table


def path(offset: int, suffix: str = names.WINDOWS) -> str:
    return names.segment_file("t-0", offset, suffix)


def test_a_pair_comes_back_with_every_remembered_batch(disk: SimulatedDisk) -> None:
    Snapshots(disk, "t-0").take(table_of(6), sync=True)
    assert disk.list("t-0") == ["00000000000000000006.snapshot", "00000000000000000006.windows"]
    offset, table = loaded(disk, 0, 6)
    assert (offset, table.next_offset) == (6, 6)
    assert table.entries() == table_of(6).entries()
    assert len(table.entries()[0].batches) == 5


def test_the_newest_not_past_the_end_is_taken(disk: SimulatedDisk) -> None:
    snapshots = Snapshots(disk, "t-0")
    for batches in (2, 4, 6):
        snapshots.take(table_of(batches), sync=False)
    assert loaded(disk, 0, 5)[0] == 4
    assert loaded(disk, 0, 1)[0] == 0
    assert loaded(disk, 5, 5)[0] == 5


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"short"])
def test_a_torn_file_falls_back_to_the_one_before(disk: SimulatedDisk, content: bytes) -> None:
    snapshots = Snapshots(disk, "t-0")
    snapshots.take(table_of(4), sync=False)
    snapshots.take(table_of(6), sync=False)
    write_file(disk, path(6), content, sync=True)
    assert loaded(disk, 0, 6)[0] == 4


def test_a_file_under_the_wrong_name_is_not_believed(disk: SimulatedDisk) -> None:
    Snapshots(disk, "t-0").take(table_of(4), sync=False)
    disk.rename(path(4), path(5))
    offset, table = loaded(disk, 0, 6)
    assert (offset, len(table)) == (0, 0)


def test_without_ours_a_whole_log_is_replayed_and_a_shortened_one_starts_from_kafkas(
    disk: SimulatedDisk,
) -> None:
    Snapshots(disk, "t-0").take(table_of(6), sync=False)
    disk.unlink(path(6))
    assert loaded(disk, 0, 6)[0] == 0
    offset, table = loaded(disk, 3, 6)
    assert offset == 6
    assert [batch.base_offset for batch in table.entries()[0].batches] == [5]


def test_the_oldest_and_a_few_of_the_newest_are_kept(disk: SimulatedDisk) -> None:
    snapshots = Snapshots(disk, "t-0")
    for batches in range(1, 9):
        snapshots.take(table_of(batches), sync=False)
    kept = [1, *range(9 - SNAPSHOTS_KEPT, 9)]
    assert [name for name in disk.list("t-0") if name.endswith(names.WINDOWS)] == [
        path(offset).removeprefix("t-0/") for offset in kept
    ]
    assert len(disk.list("t-0")) == 2 * len(kept)


def test_those_past_a_cut_are_removed_even_if_half_written(disk: SimulatedDisk) -> None:
    snapshots = Snapshots(disk, "t-0")
    snapshots.take(table_of(4), sync=False)
    disk.faults.write_countdown = 2
    with pytest.raises(DiskError):
        snapshots.take(table_of(6), sync=False)
    assert disk.exists(path(6))
    assert snapshots.drop_after(5)
    assert disk.list("t-0") == ["00000000000000000004.snapshot", "00000000000000000004.windows"]
    assert not snapshots.drop_after(5)
    assert snapshots.drop_all()
    assert disk.list("t-0") == []
