"""Reading one segment from memory: the tail of a read is the page cache, never the device.

Owns: where readers of this segment are, so that whoever reads on begins exactly there, and the
offset index of a segment that is not appended to any more, loaded when somebody seeks in it.

What is not in memory is answered as `Missing`; the same question is asked again with the bytes.
Invariant: a place remembered for a reader is the beginning of a batch at or before its offset.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from _fastseq.batch import HEADER_BYTES, batch_at, read_header, whole_batches
from cluster.limits import INDEX_BYTES_AT_ONCE
from cluster.storage.budget import Budget
from cluster.storage.disk import EIO, PARSE, Buffer, Disk, DiskError
from cluster.storage.index import StoredPoints
from cluster.storage.names import INDEX, segment_file
from cluster.storage.pinned import PinnedFile
from cluster.storage.reading import Missing, Parts, take_batches

if TYPE_CHECKING:
    from cluster.storage.segment import Segment

ANY_OFFSET = 2**63 - 1
PLACES_MAX = 64  # readers of one segment whose place is remembered


class SegmentReader:
    """Hands out whole batches of one segment, or says what must be read first."""

    def __init__(self, segment: Segment, disk: Disk, directory: str, budget: Budget) -> None:
        path = segment_file(directory, segment.base_offset, INDEX)
        self.index_file = PinnedFile(disk, path)
        self._segment = segment
        self._disk = disk
        self._budget = budget
        self._places: dict[int, int] = {}
        self._points: StoredPoints | None = None
        self._doubted = False

    def let_go(self) -> None:
        """Forget the loaded index: others need the memory more."""
        self._points = None

    def forget(self) -> None:
        """The segment was cut, indexed anew or removed: nothing known of it holds."""
        self._places.clear()
        self._budget.forget(self)
        self._points = None

    def read(
        self,
        offset: int,
        max_bytes: int,
        limit_offset: int,
        have: tuple[Missing, Buffer] | None = None,
    ) -> Parts | Missing | None:
        """Whole batches from the one that holds `offset`, none at or above the limit.

        `have` is what an earlier answer lacked. None if no batch of the segment reaches `offset`.
        """
        points: StoredPoints | None = None
        if have is not None and have[0].index:
            points, have = self._load(have[1]), None
        while True:
            if have is None:
                wanted = self._wanted(offset, max_bytes, points)
                if wanted.index:
                    return wanted
                data = self._disk.read_cached(self._segment.open(), wanted.position, wanted.length)
                if 2 * len(data) < wanted.length:
                    return wanted
            else:
                wanted, data = have
            found = self._take(wanted, data, offset, max_bytes, limit_offset)
            if not isinstance(found, Missing):
                return found
            have = points = None
            if found.length > 0:  # one batch, larger than what was asked for
                data = self._disk.read_cached(self._segment.open(), found.position, found.length)
                if len(data) < found.length:
                    return found
                have = found, data

    def _take(
        self, wanted: Missing, data: Buffer, offset: int, max_bytes: int, limit_offset: int
    ) -> Parts | Missing | None:
        """What to hand out of `data`; Missing of length 0: look again, a place is known now."""
        if wanted.hint >= 0 and not self._segment.proves(data, wanted.hint, wanted.position):
            self._segment.rebuild_index()
            return Missing(0, 0)
        at = batch_at(data, 0, len(data), offset)
        if at == len(data):
            whole, _ = whole_batches(data, 0, len(data), ANY_OFFSET)
            return self._beyond(wanted.position + whole, memoryview(data)[whole:], offset)
        end, next_offset = take_batches(data, at, max_bytes, limit_offset, at_least_one=True)
        if end == at:
            return []
        self._remember(next_offset, wanted.position + end)
        return [memoryview(data)[at:end]]

    def _beyond(self, position: int, rest: Buffer, offset: int) -> Missing | None:
        """The batch of `offset` begins at `position` or later; `rest` is what is known there."""
        if position >= self._segment.size:
            return None
        if len(rest) < HEADER_BYTES:
            return Missing(position, min(HEADER_BYTES, self._segment.size - position))
        header = read_header(rest)
        sound = HEADER_BYTES <= header.size <= self._segment.size - position
        if not sound and not self._doubted:  # the index may have led here
            self._doubted = True
            self._segment.rebuild_index()
            return Missing(0, 0)
        if not sound:
            raise DiskError(EIO, self._segment.file.path, PARSE)
        if header.next_offset > offset:
            return Missing(position, header.size)
        self._remember(offset, position + header.size)
        return Missing(0, 0)

    def _remember(self, offset: int, position: int) -> None:
        places = self._places
        places.pop(offset, None)
        if len(places) >= PLACES_MAX:
            del places[next(iter(places))]
        places[offset] = position

    # -- where to look

    def _wanted(self, offset: int, max_bytes: int, points: StoredPoints | None) -> Missing:
        """The range in which `offset` and what follows lie, or the index that tells."""
        segment = self._segment
        segment.open()  # which tells its size
        size, length = segment.size, max(max_bytes, HEADER_BYTES)
        place = self._places.get(offset)
        if place is not None:
            return Missing(place, min(length, size - place))
        if not segment.indexed:
            found = self._index() if points is None else points
            if isinstance(found, Missing):
                return found
            points = found
        hint, position = (segment.index if points is None else points).floor(offset)
        length += segment.index_interval
        return Missing(position, min(length, size - position), hint)

    def _index(self) -> StoredPoints | Missing | None:
        """The index of a segment that is not appended to; None if it has none of its own."""
        if self._points is None:
            length = self._index_bytes()
            if not length:
                return None
            data: Buffer = b""
            if length <= INDEX_BYTES_AT_ONCE:
                data = self._disk.read_cached(self.index_file.open(), 0, length)
            return self._load(data) if len(data) == length else Missing(0, length, index=True)
        self._budget.use(self, self._points.nbytes)
        return self._points

    def _index_bytes(self) -> int:
        """Bytes of the index file, 0 if there is none."""
        if not self.index_file.is_open and not self._disk.exists(self.index_file.path):
            return 0
        return self._disk.size(self.index_file.open())

    def _load(self, data: Buffer) -> StoredPoints | None:
        """Take the index from its file's bytes, or rebuild it if they cannot be whole."""
        self.index_file.release()
        points = StoredPoints(self._segment.base_offset, data)
        if not self._segment.is_covered(points.last_position):
            self._segment.rebuild_index()
            return None
        self._points = points
        self._budget.use(self, points.nbytes)
        return points
