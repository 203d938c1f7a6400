"""One segment of a log: a `.log` file and its sparse index.

Owns: the bytes of the file and where batches lie in it.

Invariants: the file is `size` bytes of whole batches from `base_offset` up to `next_offset`; after
a failed write it is cut back to that, or the segment is `torn`. An index entry is a hint: the batch
it points to proves it, or the index is rebuilt.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import suppress

from _fastseq.batch import HEADER_BYTES, Scan, batch_at, read_header, whole_batches
from cluster.limits import READ_MEMORY_BYTES, SCAN_WINDOW_BYTES
from cluster.storage.budget import Budget
from cluster.storage.disk import (
    EIO,
    PARSE,
    Buffer,
    Disk,
    DiskError,
    read_end,
    read_file,
    write_file,
)
from cluster.storage.index import TIME, SparseIndex
from cluster.storage.names import INDEX, LOG, SEGMENT_SUFFIXES, TIME_INDEX, segment_file
from cluster.storage.pinned import PinnedFile
from cluster.storage.reader import SegmentReader
from cluster.storage.reading import Missing, Parts, first_record
from cluster.storage.settings import LogConfig
from cluster.storage.walking import finish, walk_batches

ANY_OFFSET = 2**63 - 1
BLOCK_BYTES = 4096  # what the page cache holds and the disk writes at once
RELATIVE_OFFSET_MAX = 2**31 - 1  # index entries hold offsets relative to the base as int32


class DamagedLog(DiskError):
    """Stored batches that cannot be read, where they had been trusted."""

    def __init__(self, path: str) -> None:
        super().__init__(EIO, path, PARSE)


class Segment:
    """A segment file that is appended to (the active one) or only read."""

    def __init__(self, disk: Disk, directory: str, base_offset: int, config: LogConfig) -> None:
        self.base_offset = base_offset
        self.next_offset = base_offset
        self.size = 0
        self._sized = False
        self.torn = False
        self.created_ms = 0
        self.first_timestamp = -1
        self._disk = disk
        self._directory = directory
        self._config = config
        self.file = PinnedFile(disk, segment_file(directory, base_offset, LOG))
        self._index: SparseIndex | None = None
        self._max_timestamp: int | None = None  # while the index is not in memory
        self.budget: Budget | None = None
        """For what readers keep in memory, where the logs of a broker share one."""
        self._reader: SegmentReader | None = None

    @property
    def reader(self) -> SegmentReader:
        """Who reads this segment without waiting for the device."""
        if self._reader is None:
            budget = self.budget or Budget(READ_MEMORY_BYTES)
            self._reader = SegmentReader(self, self._disk, self._directory, budget)
        return self._reader

    def _forget_readers(self) -> None:
        if self._reader is not None:
            self._reader.forget()

    def open(self, *, create: bool = False) -> int:
        """The handle; opening the file for the first time tells its size."""
        handle = self.file.open(create=create)
        if not self._sized:
            self.size, self._sized = self._disk.size(handle), True
        return handle

    def create(self, now_ms: int) -> None:
        """Make the file, or empty one that an earlier attempt left behind."""
        self.open(create=True)
        if self.size:
            self._disk.truncate(self.open(), 0)
            self.size = 0
        self._index = SparseIndex(self.base_offset)
        self.created_ms = now_ms

    def retire(self) -> None:
        """Close what is open; what is in use closes when it is let go."""
        self.file.retire()
        if self._reader is not None:
            self._reader.forget()
            self._reader.index_file.retire()

    def unlink(self) -> None:
        """Remove the files of the segment."""
        self.retire()
        self.remove_files(*SEGMENT_SUFFIXES)

    def set_aside(self, path: str) -> None:
        """Give the file a name under which it is no segment; its indexes go."""
        self.retire()
        self._disk.rename(self.file.path, path)
        self.remove_files(*SEGMENT_SUFFIXES)

    def hide(self, position: int, next_offset: int) -> None:
        """Act as if the file ended at `position`, where `next_offset` would begin."""
        self.index.truncate(next_offset)
        self.size, self.next_offset = position, next_offset
        if self._reader is not None:
            self._reader.forget()
        if not self.settle():
            raise DamagedLog(self.file.path)

    def remove_files(self, *suffixes: str) -> None:
        """Remove files beside the segment, or the segment."""
        for suffix in suffixes:
            path = segment_file(self._directory, self.base_offset, suffix)
            if self._disk.exists(path):
                self._disk.unlink(path)

    def sync(self) -> None:
        """Block until every byte is durable."""
        self._disk.sync(self.open())

    # -- index

    @property
    def index(self) -> SparseIndex:
        """The sparse index, read from its files or rebuilt at first use."""
        if self._index is None:
            self._load_index()
        assert self._index is not None
        return self._index

    @property
    def indexed(self) -> bool:
        """Whether the index is in memory."""
        return self._index is not None

    @property
    def index_interval(self) -> int:
        """Bytes between two entries of the index, about."""
        return self._config.index_interval_bytes

    @property
    def max_timestamp(self) -> int:
        """The largest timestamp in the segment, -1 if there is none."""
        if self._index is not None:
            return self._index.max_timestamp
        if self._max_timestamp is None:
            self._max_timestamp = self._last_time()
        return self._max_timestamp

    def _last_time(self) -> int:
        """The last entry of the time index, which is small to read, or else the whole index."""
        path = segment_file(self._directory, self.base_offset, TIME_INDEX)
        if self._disk.exists(path):
            entry = read_end(self._disk, path, TIME.size)
            if len(entry) == TIME.size and any(entry):
                return int(TIME.unpack(entry)[0])
        return self.index.max_timestamp

    def is_covered(self, last_position: int) -> bool:
        """Whether an index whose last entry points here can be the whole one."""
        unindexed = self._config.index_interval_bytes + 2 * self._config.max_message_bytes
        return 0 <= self.size - last_position <= unindexed

    def _load_index(self) -> None:
        self.open()
        paths = [segment_file(self._directory, self.base_offset, x) for x in (INDEX, TIME_INDEX)]
        points, times = (read_file(self._disk, path) for path in paths)
        if points is not None and times is not None:
            index = SparseIndex.load(self.base_offset, points, times)
            if self.is_covered(index.last_position):
                self._index = index
                return
        self.rebuild_index()

    def rebuild_index(self) -> None:
        """Index a trusted segment anew from its batches."""
        if finish(self.rescan(check_crc=False))[1]:
            raise DamagedLog(self.file.path)

    def write_index(self) -> None:
        """Write both index files, a last time entry included; their names are not yet durable.

        Synced, and the one that proves itself last: a time index cut short would look whole.
        """
        self.index.finish()
        points, times = self.index.dump()
        for suffix, data in ((TIME_INDEX, times), (INDEX, points)):
            path = segment_file(self._directory, self.base_offset, suffix)
            write_file(self._disk, path, data, sync=True)

    def seal(self) -> None:
        """Write the index and keep it no longer in memory: nothing will be appended."""
        self.write_index()
        self._max_timestamp = self.index.max_timestamp
        self._index = None

    def remove_index(self) -> None:
        """Remove the files of an index that only memory will keep up with the segment."""
        assert self.index is self._index, "it was read before"
        self.remove_files(INDEX, TIME_INDEX)

    @property
    def first_epoch(self) -> int:
        """Leader epoch of the first batch, -1 if there is none."""
        data = self._disk.read(self.open(), 0, HEADER_BYTES)
        return read_header(data).leader_epoch if len(data) == HEADER_BYTES else -1

    # -- scanning

    def walk(
        self, position: int, expected_offset: int, *, check_crc: bool, contiguous: bool = False
    ) -> Iterator[tuple[bytes, int, Scan]]:
        """Windows of the file from `position`, as `walk_batches` yields them."""
        return walk_batches(
            self._disk,
            self.open(),
            position,
            expected_offset,
            size=self.size,
            check_crc=check_crc,
            contiguous=contiguous,
        )

    def _enter(self, data: Buffer, end: int, position: int, found: Scan) -> None:
        self.index.enter(data, end, position, self._config.index_interval_bytes)
        self.index.saw(found)

    def rescan(
        self,
        *,
        check_crc: bool,
        contiguous: bool = False,
        observe: Callable[[bytes, int], object] = lambda _data, _end: None,
    ) -> Generator[int, None, tuple[int, int]]:
        """Walk the whole file and index it anew: (end of what is sound, reason for ending there).

        A piece at a time: yields how many bytes were read since.
        `next_offset` is then what was found; `size` is left alone, what lies beyond the end is the
        caller's to cut. `observe` sees the bytes of each window and where whole batches end in it.
        """
        self._forget_readers()
        self._index = SparseIndex(self.base_offset)
        self.next_offset = self.base_offset
        end, reason = 0, 0
        for data, position, found in self.walk(
            0, self.base_offset, check_crc=check_crc, contiguous=contiguous
        ):
            reason = found.reason
            if found.end_position:
                self._enter(data, found.end_position, position, found)
                observe(data, found.end_position)
                self.next_offset = found.next_offset
                end = position + found.end_position
            yield len(data)
        self._read_first_timestamp(end)
        return end, reason if end < self.size else 0

    def settle(self) -> bool:
        """Find the end of the log from the last index entry on. False if the tail is damaged."""
        hint, position = self.index.floor(ANY_OFFSET)
        self.next_offset, end = self.base_offset, position
        for data, at, found in self.walk(position, self.base_offset, check_crc=False):
            if at == position and not self.proves(data, hint, position):
                break
            if found.end_position:
                self.next_offset, end = found.next_offset, at + found.end_position
                self.index.saw(found)
        self.index.since_point = self.size - position
        self._read_first_timestamp(end)
        return end == self.size

    def _read_first_timestamp(self, end: int) -> None:
        if end:
            data = self._disk.read(self.open(), 0, HEADER_BYTES)
            self.first_timestamp = read_header(data).max_timestamp

    @staticmethod
    def proves(data: Buffer, hint: int, position: int) -> bool:
        """Whether the batch an index entry points to is the one it speaks of."""
        if position == 0:
            return True
        if len(data) < HEADER_BYTES:
            return False
        header = read_header(data)
        return (header.magic, header.next_offset) == (2, hint + 1)

    # -- writing

    def is_full(self, length: int, found: Scan, now_ms: int) -> bool:
        """Whether a run of `length` bytes belongs into a new segment."""
        if self.size == 0:
            return False
        if self.size + length > self._config.segment_bytes:
            return True
        if found.next_offset - 1 - self.base_offset > RELATIVE_OFFSET_MAX or self.index.full:
            return True
        first = self.first_timestamp
        waited_ms = found.max_timestamp - first if first >= 0 else now_ms - self.created_ms
        return waited_ms > self._config.segment_ms

    def append(self, data: memoryview, found: Scan) -> None:
        """Write whole batches at the end. On DiskError the file is cut back durably, or `torn`."""
        assert not self.torn, "a torn file must not be appended to"
        position = self.size
        try:
            self._disk.write(self.open(), position, [data])
        except DiskError:
            # Synced, because bytes that came back after a crash could pass for a batch that was
            # refused, between others that were not.
            self.torn = True
            with suppress(DiskError):
                self._disk.truncate(self.open(), position)
                self._disk.sync(self.open())
                self.torn = False
            raise
        if position == 0:
            self.first_timestamp = read_header(data).max_timestamp
        self.size = position + len(data)
        self.next_offset = found.next_offset
        self._enter(data, len(data), position, found)

    def cut(self, position: int, next_offset: int) -> None:
        """Cut the file to `position`, durably, where the log then ends at `next_offset`."""
        index = self.index
        self._forget_readers()
        self.remove_index()
        self._disk.truncate(self.open(), position)
        self.size = position  # whether or not the sync fails: a cut that failed is tried again
        index.truncate(next_offset)
        if not self.settle():
            raise DamagedLog(self.file.path)
        self.next_offset = next_offset
        self._disk.sync(self.open())
        self.torn = False

    def rewrite_end(self) -> None:
        """Write the last block again: a failed sync may have left it clean in memory only."""
        start = max(self.size - 1, 0) // BLOCK_BYTES * BLOCK_BYTES
        data = self._disk.read(self.open(), start, self.size - start)
        if data:
            self._disk.write(self.open(), start, [data])
            self._disk.sync(self.open())

    # -- reading

    def locate(self, offset: int, length: int = SCAN_WINDOW_BYTES) -> tuple[int, bytes, int]:
        """(position, whole batches from there on, start within of the batch holding `offset`).

        Empty bytes at the end of the file if no batch reaches `offset`. `length` is how much to
        read at a time.
        """
        hint, position = self.index.floor(offset)
        hinted = position
        while position < self.size:
            data = self._window(position, length)
            if position == hinted and not self.proves(data, hint, position):
                self.rebuild_index()
                return self.locate(offset, length)
            at = batch_at(data, 0, len(data), offset)
            if at < len(data):
                return position, data, at
            if not data:
                raise DamagedLog(self.file.path)
            position += len(data)
        return self.size, b"", 0

    def boundary(self, offset: int) -> tuple[int, int]:
        """(position, end offset) for a log that must end at `offset`, where a batch ends."""
        position, data, start = self.locate(offset)
        if not data:
            return self.size, min(offset, self.next_offset)
        return position + start, min(offset, read_header(data, start).base_offset)

    def claimed_end(self, position: int) -> int:
        """Where a batch at `position` says that it ends, damaged or not; -1 if it says nonsense."""
        data = self._disk.read(self.open(), position, HEADER_BYTES)
        if len(data) < HEADER_BYTES:
            return -1
        header = read_header(data)
        sensible = header.magic == 2 and header.base_offset >= self.next_offset
        return header.next_offset if sensible and header.last_offset_delta >= 0 else -1

    def _window(self, position: int, length: int) -> bytes:
        """Whole batches from `position`, at least one; empty if there is none."""
        data = self._disk.read(self.open(), position, min(length, self.size - position))
        end, _ = whole_batches(data, 0, len(data), ANY_OFFSET)
        if end == 0 and len(data) >= HEADER_BYTES:
            needed = read_header(data).size
            if len(data) < needed <= self.size - position:
                data = self._disk.read(self.open(), position, needed)
                end, _ = whole_batches(data, 0, len(data), ANY_OFFSET)
        return data[:end]

    def read(self, offset: int, max_bytes: int, limit_offset: int) -> Parts | None:
        """What `reader.read` answers, waiting for the device where that has to be."""
        found = self.reader.read(offset, max_bytes, limit_offset)
        while isinstance(found, Missing):
            handle = self.reader.index_file.open() if found.index else self.open()
            data = self._disk.read(handle, found.position, found.length)
            if len(data) < found.length:
                raise DamagedLog(self.file.path)
            found = self.reader.read(offset, max_bytes, limit_offset, (found, data))
        return found

    def find_timestamp(self, timestamp: int, from_offset: int = 0) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record from an offset on not older than `timestamp`."""
        position, data, at = self.locate(max(self.index.offset_before(timestamp), from_offset))
        while data:
            while at < len(data):
                header = read_header(data, at)
                found = None
                if header.max_timestamp >= timestamp:
                    found = first_record(data, at, timestamp, from_offset)
                if found is not None:
                    return found
                at += header.size
            position, at = position + len(data), 0
            data = self._window(position, SCAN_WINDOW_BYTES) if position < self.size else b""
        return None
