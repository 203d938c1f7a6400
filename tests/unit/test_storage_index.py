"""The sparse index against the ones Apache Kafka wrote, and against damage."""

from pathlib import Path

import pytest

from _fastseq.batch import encode_batch, scan
from cluster.storage.index import POINT, TIME, SparseIndex

GOLDEN = Path(__file__).parent.parent / "golden"
SEGMENTS = sorted((GOLDEN / "log").glob("golden.*/*.index"))


def load(path: Path) -> SparseIndex:
    times = path.with_suffix(".timeindex").read_bytes()
    return SparseIndex.load(int(path.stem), path.read_bytes(), times)


def dumped(path: Path) -> list[tuple[int, int]]:
    """Entries as Kafka's own tool printed them."""
    topic = path.parent.name.removeprefix("golden.").removesuffix("-0")
    lines = (GOLDEN / "dump" / f"{topic}-{path.name}.txt").read_text().splitlines()
    fields = [line.split() for line in lines if line.startswith("offset:")]
    return [(int(offset), int(position)) for _, offset, _, position in fields]


@pytest.mark.parametrize("path", SEGMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_entries_agree_with_kafkas_dump_and_come_back_byte_for_byte(path: Path) -> None:
    index = load(path)
    assert index.points == dumped(path)
    points, times = index.dump()
    assert points == path.read_bytes()
    assert times == path.with_suffix(".timeindex").read_bytes()


@pytest.mark.parametrize("path", SEGMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_kafkas_entries_are_those_due_for_its_batches(path: Path) -> None:
    data = path.with_suffix(".log").read_bytes()
    index = SparseIndex(int(path.stem))
    index.enter(data, len(data), 0, 4096)
    index.saw(scan(data, 0, len(data), int(path.stem)))
    index.finish()
    assert index.points == load(path).points
    assert index.times == load(path).times


def built(batches: int = 6) -> tuple[SparseIndex, int]:
    """Batches of two records from offset 100, one a second, all indexed but the first."""
    index, position = SparseIndex(100), 0
    for number in range(batches):
        batch = encode_batch([(None, b"v", 1000 * number, ()), (None, b"v", 1000 * number, ())])
        batch = (100 + 2 * number).to_bytes(8) + batch[8:]
        index.enter(batch, len(batch), position, 0)
        index.saw(scan(batch, 0, len(batch), 0))
        position += len(batch)
    return index, position // batches


def test_lookup_finds_the_last_entry_not_above() -> None:
    index, size = built()
    assert index.floor(100) == (-1, 0)
    assert index.floor(102) == (-1, 0)
    assert index.floor(103) == (103, size)
    assert index.floor(104) == (103, size)
    assert index.floor(10**6) == (111, 5 * size)
    assert index.last_position == 5 * size


def test_time_lookup_answers_an_offset_below_which_everything_is_older() -> None:
    index, _ = built()
    assert index.offset_before(0) == 100
    assert index.offset_before(1001) == 103
    assert index.offset_before(2000) == 103
    assert index.offset_before(10**6) == 111


def test_cutting_forgets_entries_and_the_timestamps_that_went_with_them() -> None:
    index, size = built()
    index.truncate(107)
    assert index.floor(10**6) == (105, 2 * size)
    assert index.max_timestamp == 2000


def test_a_dump_is_loaded_back() -> None:
    index, _ = built()
    index.finish()
    again = SparseIndex.load(100, *index.dump())
    assert again.points == index.points
    assert again.times == index.times
    assert again.max_timestamp == 5000


def test_a_preallocated_tail_a_torn_entry_and_disorder_are_left_out() -> None:
    points = POINT.pack(3, 100) + POINT.pack(7, 300)
    times = TIME.pack(1000, 3)
    for tail in (bytes(80), b"\1\2\3", POINT.pack(7, 200), POINT.pack(6, 400)):
        index = SparseIndex.load(0, points + tail, times + TIME.pack(900, 5))
        assert index.points == [(3, 100), (7, 300)]
        assert index.times == [(1000, 3)]


def test_a_file_of_zeros_is_an_empty_index() -> None:
    index = SparseIndex.load(5, bytes(160), bytes(240))
    assert index.points == []
    assert index.max_timestamp == -1
