"""The sparse index of one segment: offsets to file positions, timestamps to offsets.

Owns: `.index` and `.timeindex` as Apache Kafka lays them out (entries of 8 and 12 bytes, offsets
relative to the segment's base), when an entry is due, and the lookups. Entries are hints: the
reader checks the batch an entry points to, and damaged files are rebuilt from the log.

Invariant: offsets, positions and timestamps grow from entry to entry.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from itertools import islice
from operator import lt

from _fastseq.batch import Scan, index_points
from cluster.limits import INDEX_BYTES_MAX
from cluster.storage.disk import Buffer

POINT = struct.Struct(">ii")  # last offset of a batch - base, position where that batch starts
TIME = struct.Struct(">qi")  # largest timestamp so far, last offset of its batch - base
SAMPLE = 10_000  # entries looked at of a loaded file: below, every one
POINTS_MAX = INDEX_BYTES_MAX // POINT.size
TIMES_MAX = INDEX_BYTES_MAX // TIME.size


class SparseIndex:
    """Both indexes of a segment in memory, in the numbers of their files.

    `max_timestamp` is the largest in the segment, -1 if there is none; `since_point` counts the
    bytes since the last entry.
    """

    def __init__(self, base_offset: int) -> None:
        self.max_timestamp = -1
        self.since_point = 0
        self._max_timestamp_offset = base_offset
        self._base = base_offset
        self._offsets = array("i")  # relative to the base, as in the files
        self._positions = array("i")
        self._timestamps = array("q")
        self._timestamp_offsets = array("i")

    @property
    def full(self) -> bool:
        """Whether a file of it has reached the size that Kafka gives it; one time entry stays."""
        return len(self._offsets) >= POINTS_MAX or len(self._timestamps) >= TIMES_MAX - 1

    @property
    def points(self) -> list[tuple[int, int]]:
        """(last offset of a batch, its position) in order."""
        return [(self._base + o, at) for o, at in zip(self._offsets, self._positions, strict=True)]

    @property
    def times(self) -> list[tuple[int, int]]:
        """(largest timestamp so far, last offset of its batch) in order."""
        rows = zip(self._timestamps, self._timestamp_offsets, strict=True)
        return [(timestamp, self._base + offset) for timestamp, offset in rows]

    @property
    def last_position(self) -> int:
        """Position of the last batch entered, 0 before the first."""
        return self._positions[-1] if self._positions else 0

    def enter(self, data: Buffer, end: int, position: int, interval_bytes: int) -> None:
        """Add the entries due for the batches data[:end], which lie at `position` of the file."""
        if self.since_point + end <= interval_bytes:
            self.since_point += end
            return
        points, self.since_point = index_points(
            data,
            0,
            end,
            interval_bytes,
            self.since_point,
            max_timestamp=self.max_timestamp,
            max_timestamp_offset=self._max_timestamp_offset,
        )
        for last_offset, start, timestamp, timestamp_offset in points:
            self._offsets.append(last_offset - self._base)
            self._positions.append(position + start)
            self._add_time(timestamp, timestamp_offset)

    def saw(self, found: Scan) -> None:
        """Note the largest timestamp of batches that follow those seen before."""
        if found.max_timestamp > self.max_timestamp:
            self.max_timestamp = found.max_timestamp
            self._max_timestamp_offset = found.max_timestamp_offset

    def finish(self) -> None:
        """Add the last time entry, which every file ends with after a roll or a clean stop."""
        self._add_time(self.max_timestamp, self._max_timestamp_offset)

    def _add_time(self, timestamp: int, offset: int) -> None:
        if timestamp > (self._timestamps[-1] if self._timestamps else -1):
            self._timestamps.append(timestamp)
            self._timestamp_offsets.append(offset - self._base)

    def _recall(self) -> None:
        """Take the largest timestamp from the last entry."""
        self.max_timestamp, self._max_timestamp_offset = -1, self._base
        if self._timestamps:
            self.max_timestamp = self._timestamps[-1]
            self._max_timestamp_offset = self._base + self._timestamp_offsets[-1]

    def floor(self, offset: int) -> tuple[int, int]:
        """(its last offset, its position) of the last entry not above `offset`; (-1, 0) if none."""
        after = bisect_right(self._offsets, offset - self._base)
        if not after:
            return (-1, 0)
        return self._base + self._offsets[after - 1], self._positions[after - 1]

    def offset_before(self, timestamp: int) -> int:
        """An offset below which every timestamp is smaller than `timestamp`."""
        after = bisect_left(self._timestamps, timestamp)
        return self._base + (self._timestamp_offsets[after - 1] if after else 0)

    def truncate(self, next_offset: int) -> None:
        """Forget entries at and above `next_offset`; `saw` must follow for what has none."""
        points = bisect_left(self._offsets, next_offset - self._base)
        del self._offsets[points:], self._positions[points:]
        times = bisect_left(self._timestamp_offsets, next_offset - self._base)
        del self._timestamps[times:], self._timestamp_offsets[times:]
        self._recall()

    def dump(self) -> tuple[bytes, bytes]:
        """Bytes of `.index` and `.timeindex`."""
        points = b"".join(map(POINT.pack, self._offsets, self._positions))
        times = b"".join(map(TIME.pack, self._timestamps, self._timestamp_offsets))
        return points, times

    @classmethod
    def load(cls, base_offset: int, points: bytes, times: bytes) -> SparseIndex:
        """Read both files; a zero tail (preallocated) and whatever is out of order is left out."""
        index = cls(base_offset)
        index._offsets, index._positions = _columns(POINT, points)
        index._timestamps, index._timestamp_offsets = _columns(TIME, times)
        index._recall()
        return index


class StoredPoints:
    """An `.index` file as it lies on the disk, searched in place."""

    def __init__(self, base_offset: int, data: Buffer) -> None:
        self._base = base_offset
        self._data = bytes(data)
        # A preallocated file ends in zeros; no entry but an impossible first one is all zero.
        filled = -(-len(self._data.rstrip(b"\0")) // POINT.size)
        self._count = min(filled, len(self._data) // POINT.size)  # the last may be torn

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return len(self._data)

    @property
    def last_position(self) -> int:
        """Position of the last batch entered, 0 before the first."""
        return self._entry(self._count - 1)[1] if self._count else 0

    def floor(self, offset: int) -> tuple[int, int]:
        """As `SparseIndex.floor`."""
        relative = offset - self._base
        after = bisect_right(range(self._count), relative, key=lambda at: self._entry(at)[0])
        if not after:
            return (-1, 0)
        last_offset, position = self._entry(after - 1)
        if min(last_offset, position) < 0:  # nobody wrote that
            return (-1, 0)
        return self._base + last_offset, position

    def _entry(self, number: int) -> tuple[int, int]:
        last_offset, position = POINT.unpack_from(self._data, number * POINT.size)
        return last_offset, position


def _columns(layout: struct.Struct, data: bytes) -> tuple[array[int], array[int]]:
    """Both columns without the zeros of a preallocated file, up to where either stops growing.

    A gigabyte of small batches has a quarter of a million entries, and an opening has 20 ms: what
    is done to each of them here is done in C.
    """
    filled = -(-len(data.rstrip(b"\0")) // layout.size)
    count = min(filled, len(data) // layout.size)
    codes = layout.format[1:]
    values = struct.unpack(">" + codes * count, data[: count * layout.size])
    left, right = array(codes[0], values[::2]), array(codes[1], values[1::2])
    zeros = next((at for at, pair in enumerate(zip(left, right, strict=True)) if any(pair)), count)
    if zeros:
        left, right = left[zeros:], right[zeros:]
    if left and min(left[0], right[0]) < 0:
        return array(codes[0]), array(codes[1])
    if _grow(left) and _grow(right):
        return left, right
    for at in range(1, len(left)):
        if left[at] <= left[at - 1] or right[at] <= right[at - 1]:
            return left[:at], right[:at]
    return left, right


def _grow(values: array[int]) -> bool:
    """Whether the numbers grow, by a sample of many: an entry proves itself when it is used."""
    sample = values[:: -(-len(values) // SAMPLE) or 1]
    return all(map(lt, sample, islice(sample, 1, None)))
