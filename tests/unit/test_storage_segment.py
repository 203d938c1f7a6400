"""One segment: writing, finding batches again, cutting, and an index that is only a hint."""

from collections.abc import Iterator

import pytest

from _fastseq.batch import scan
from cluster.storage import names
from cluster.storage.disk import DiskError, read_file, write_file
from cluster.storage.index import POINT
from cluster.storage.segment import DamagedLog, Segment
from cluster.storage.settings import LogConfig
from cluster.storage.walking import finish
from tests.batches import make_batch
from tests.sim.disk import SimulatedDisk

CONFIG = LogConfig(index_interval_bytes=100, max_message_bytes=400)
ANY = 10**9


@pytest.fixture
def disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory("t-0")
    return disk


@pytest.fixture
def segment(disk: SimulatedDisk) -> Segment:
    """Twenty batches of three records from offset 100 on, one a second."""
    segment = new(disk)
    for number in range(20):
        append(segment, make_batch(100 + 3 * number, 3, timestamp_ms=1000 * number))
    return segment


def new(disk: SimulatedDisk, config: LogConfig = CONFIG) -> Segment:
    segment = Segment(disk, "t-0", 100, config)
    segment.create(now_ms=0)
    return segment


def append(segment: Segment, data: bytes) -> None:
    segment.append(memoryview(data), scan(data, 0, len(data), segment.next_offset))


def reopened(disk: SimulatedDisk) -> Segment:
    segment = Segment(disk, "t-0", 100, CONFIG)
    segment.next_offset = 160
    return segment


def batches(segment: Segment, offset: int, max_bytes: int = 1, limit: int = ANY) -> list[int]:
    """Base offsets of what one read answers."""
    data, position, bases = b"".join(segment.read(offset, max_bytes, limit) or ()), 0, []
    while position < len(data):
        bases.append(int.from_bytes(data[position : position + 8]))
        position += 12 + int.from_bytes(data[position + 8 : position + 12])
    return bases


def test_a_read_starts_with_the_batch_that_holds_the_offset(segment: Segment) -> None:
    for offset in range(100, 160):
        assert batches(segment, offset) == [offset - (offset - 100) % 3]


def test_a_read_takes_whole_batches_up_to_size_and_limit(segment: Segment) -> None:
    size = segment.size // 20
    assert batches(segment, 100, 3 * size + 5) == [100, 103, 106]
    assert batches(segment, 100, ANY, limit=106) == [100, 103]
    assert batches(segment, 101, ANY, limit=105) == [100]
    assert batches(segment, 100, ANY, limit=102) == []
    assert len(batches(segment, 100, ANY)) == 20


def test_a_batch_larger_than_asked_for_is_still_read(disk: SimulatedDisk) -> None:
    segment = new(disk)
    append(segment, make_batch(100, 1, value=bytes(300)))
    append(segment, make_batch(101, 1, value=bytes(300)))
    assert batches(segment, 100) == [100]
    assert batches(segment, 101) == [101]


def test_a_closed_segment_is_read_through_its_index_files(
    disk: SimulatedDisk, segment: Segment
) -> None:
    segment.write_index()
    again = reopened(disk)
    assert again.index.points == segment.index.points
    for offset in range(100, 160):
        assert batches(again, offset) == batches(segment, offset)
    assert again.max_timestamp == 19_000


@pytest.mark.parametrize("damage", ["missing", "empty", "lies", "short"])
def test_a_damaged_index_is_made_again(disk: SimulatedDisk, segment: Segment, damage: str) -> None:
    segment.write_index()
    path = names.segment_file("t-0", 100, names.INDEX)
    content = read_file(disk, path) or b""
    if damage == "missing":
        disk.unlink(path)
    elif damage == "lies":
        lies = b"".join(POINT.pack(3 * n, 7 * n) for n in range(1, 300))
        write_file(disk, path, lies, sync=True)
    else:
        write_file(disk, path, content[: 8 * (damage == "short")], sync=True)
    again = reopened(disk)
    assert [batches(again, offset) for offset in (100, 130, 159)] == [[100], [130], [157]]
    assert again.index.points == segment.index.points


def test_a_failed_write_leaves_nothing_behind(disk: SimulatedDisk, segment: Segment) -> None:
    before = disk.contents(segment.file.path)
    disk.faults.write_countdown = 1
    with pytest.raises(DiskError):
        append(segment, make_batch(160))
    assert not segment.torn
    assert disk.contents(segment.file.path) == before
    append(segment, make_batch(160))
    assert batches(segment, 160) == [160]


def test_a_failed_write_that_cannot_be_cut_back_tears_the_segment(
    disk: SimulatedDisk, segment: Segment
) -> None:
    disk.faults.write_countdown = disk.faults.truncate_countdown = 1
    with pytest.raises(DiskError) as caught:
        append(segment, make_batch(160))
    assert caught.value.operation == "write"
    assert segment.torn


def test_cutting_ends_the_segment_where_a_batch_ends(segment: Segment) -> None:
    position, end = segment.boundary(131)
    segment.cut(position, end)
    assert (end, segment.next_offset, segment.size) == (130, 130, position)
    assert batches(segment, 129) == [127]
    assert segment.max_timestamp == 9_000
    append(segment, make_batch(130, 3, timestamp_ms=5))
    assert batches(segment, 130) == [130]
    assert segment.find_timestamp(9_500) is None


def test_timestamps_lead_to_the_first_record_not_older(segment: Segment) -> None:
    assert segment.find_timestamp(0) == (100, 0)
    assert segment.find_timestamp(7_001) == (124, 8_000)
    assert segment.find_timestamp(19_000) == (157, 19_000)
    assert segment.find_timestamp(19_001) is None


def test_settling_finds_the_end_from_the_last_entry(disk: SimulatedDisk, segment: Segment) -> None:
    segment.write_index()
    again = Segment(disk, "t-0", 100, CONFIG)
    assert again.settle()
    assert (again.next_offset, again.size) == (160, segment.size)
    append(segment, make_batch(160))
    append(again, make_batch(160))
    assert again.index.points == segment.index.points


def test_settling_refuses_a_damaged_tail(disk: SimulatedDisk, segment: Segment) -> None:
    segment.write_index()
    disk.write(segment.open(), segment.size, [bytes(40)])
    assert not Segment(disk, "t-0", 100, CONFIG).settle()


def test_a_rescan_finds_what_is_sound(disk: SimulatedDisk, segment: Segment) -> None:
    position, _ = segment.boundary(130)
    disk.write(segment.open(), position + 70, [b"\xff"])
    again = Segment(disk, "t-0", 100, CONFIG)
    seen: list[int] = []
    end, reason = finish(again.rescan(check_crc=True, observe=lambda _, end: seen.append(end)))
    assert (end, again.next_offset) == (position, 130)
    assert reason != 0
    assert seen == [position]
    assert again.claimed_end(position) == 133


def test_damage_in_a_trusted_segment_is_said(disk: SimulatedDisk, segment: Segment) -> None:
    disk.write(segment.open(), 0, [bytes(segment.size)])
    with pytest.raises(DamagedLog):
        reopened(disk).read(100, 1, ANY)


def full(segment: Segment, data: bytes, now_ms: int = 0) -> bool:
    return segment.is_full(len(data), scan(data, 0, len(data), 0), now_ms)


@pytest.fixture
def started(disk: SimulatedDisk) -> Iterator[Segment]:
    segment = new(disk, LogConfig(segment_bytes=1000, segment_ms=5000))
    append(segment, make_batch(100, timestamp_ms=1_000))
    yield segment


def test_an_empty_segment_takes_any_run(disk: SimulatedDisk) -> None:
    assert not full(new(disk, LogConfig(segment_bytes=10)), make_batch(100), now_ms=10**12)


def test_a_segment_is_full_by_size(started: Segment) -> None:
    room = 1000 - started.size
    assert not full(started, make_batch(101, value=bytes(room - 75)))
    assert full(started, make_batch(101, value=bytes(room)))


def test_a_segment_is_full_by_the_time_in_its_records(started: Segment) -> None:
    assert not full(started, make_batch(101, timestamp_ms=6_000), now_ms=10**12)
    assert full(started, make_batch(101, timestamp_ms=6_001))


def test_a_segment_is_full_when_offsets_outgrow_its_index(started: Segment) -> None:
    assert not full(started, make_batch(99 + 2**31))
    assert full(started, make_batch(100 + 2**31))


def test_records_without_a_time_age_by_the_clock(disk: SimulatedDisk) -> None:
    segment = new(disk, LogConfig(segment_ms=5000))
    append(segment, make_batch(100, timestamp_ms=-1))
    assert not full(segment, make_batch(101, timestamp_ms=-1), now_ms=5_000)
    assert full(segment, make_batch(101, timestamp_ms=-1), now_ms=5_001)


def test_unlinking_removes_every_file_once_the_last_pin_is_gone(
    disk: SimulatedDisk, segment: Segment
) -> None:
    segment.write_index()
    segment.file.pin()
    segment.unlink()
    assert disk.list("t-0") == []
    assert disk.open_handles == 1
    segment.file.unpin()
    assert disk.open_handles == 0
