"""The segments of one log in offset order.

Owns: which segment holds an offset, rolling to a new one, dropping the newest ones, and how many
files that are only read stay open.

Invariants: there is always an active segment, the last; each segment begins where the one before
ends; names are removed from the end of the log, so that a crash leaves a prefix.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

from cluster.limits import OPEN_SEGMENTS_MAX
from cluster.storage.budget import Budget
from cluster.storage.disk import Disk, DiskError
from cluster.storage.names import LOG, offset_of
from cluster.storage.pinned import OpenFiles
from cluster.storage.segment import Segment
from cluster.storage.settings import LogConfig


class Segments:
    """All segments of a replica's directory."""

    def __init__(self, disk: Disk, directory: str, config: LogConfig) -> None:
        self._disk = disk
        self._directory = directory
        self._config = config
        self._segments: list[Segment] = []
        self._hidden: list[Segment] = []
        self._idle: dict[int, Segment] = {}  # read before, oldest use first
        self._budget: Budget | None = None
        self._files: OpenFiles | None = None

    def load(self) -> None:
        """Find the files; each segment but the last ends where the next begins."""
        names = self._disk.list(self._directory)
        bases = [base for name in names if (base := offset_of(name, LOG)) is not None]
        self._segments, self._hidden = [self._segment(base) for base in bases], []
        for segment, after in pairwise(self._segments):
            segment.next_offset = after.base_offset

    def _segment(self, base_offset: int) -> Segment:
        segment = Segment(self._disk, self._directory, base_offset, self._config)
        segment.budget = self._budget
        if self._files is not None:
            segment.file.share(self._files)
        return segment

    def share(self, budget: Budget, files: OpenFiles | None) -> None:
        """What readers keep in memory of these segments counts in this budget, what is open here
        among these files."""
        self._budget, self._files = budget, files
        for segment in self._segments:
            segment.budget = budget
            if files is not None:
                segment.file.share(files)

    def __len__(self) -> int:
        return len(self._segments)

    def __bool__(self) -> bool:
        return bool(self._segments)

    @property
    def active(self) -> Segment:
        """The segment that is appended to."""
        return self._segments[-1]

    @property
    def oldest(self) -> Segment:
        """The segment that the log begins with."""
        return self._segments[0]

    @property
    def bases(self) -> list[int]:
        """First offset of each segment."""
        return [segment.base_offset for segment in self._segments]

    @property
    def size(self) -> int:
        """Bytes of all segments; a file that was never opened is, to see its size."""
        for segment in self._segments:
            if segment.size == 0 and segment is not self.active:
                segment.open()
                self.use(segment)
        return sum(segment.size for segment in self._segments)

    @property
    def start_offset(self) -> int:
        """Base of the oldest segment; 0 if none could be made after all were removed."""
        return self._segments[0].base_offset if self._segments else 0

    @property
    def next_offset(self) -> int:
        """One past the last offset of the log."""
        return self._segments[-1].next_offset if self._segments else 0

    def holding(self, offset: int) -> Segment:
        """The segment in which `offset` lies or would lie; the oldest if it is below all."""
        return self._segments[self._index(offset)]

    def since(self, offset: int) -> list[Segment]:
        """The segments from the one holding `offset` to the last."""
        return self._segments[self._index(offset) :]

    def _index(self, offset: int) -> int:
        return max(bisect_right(self._segments, offset, key=lambda s: s.base_offset) - 1, 0)

    def use(self, segment: Segment) -> None:
        """Note a read; beyond OPEN_SEGMENTS_MAX the longest unused files are closed."""
        if segment is self.active:
            return
        self._idle.pop(segment.base_offset, None)
        self._idle[segment.base_offset] = segment
        for base_offset, oldest in list(self._idle.items())[:-1]:
            if len(self._idle) <= OPEN_SEGMENTS_MAX:
                break
            if oldest.file.release():
                del self._idle[base_offset]

    def create(self, base_offset: int, now_ms: int) -> Segment:
        """Make an empty segment the active one; its name is durable on return."""
        segment = self._segment(base_offset)
        try:
            segment.create(now_ms)
            self._disk.sync_directory(self._directory)
        except DiskError:
            self._take_back(segment)
            raise
        self._segments.append(segment)
        return segment

    def _take_back(self, segment: Segment) -> None:
        """Remove a segment that was not wanted: the one before must not grow past its base."""
        try:
            segment.unlink()
        except DiskError:
            if self._segments:
                self.active.torn = True

    def roll(self, now_ms: int) -> Segment:
        """Begin a new segment at the end of the log."""
        old = self.active
        with suppress(DiskError):  # an index is a hint: missing or short, it is rebuilt
            old.seal()
        active = self.create(old.next_offset, now_ms)
        self.use(old)
        return active

    def drop_after(
        self, segment: Segment, drop: Callable[[Segment], object] = Segment.unlink
    ) -> bool:
        """Remove the segments behind one, newest first; True if there were any.

        Hidden ones are behind all others.
        """
        self._idle.pop(segment.base_offset, None)
        return self._drop(self._segments.index(segment) + 1, drop)

    def drop_all(self) -> None:
        """Remove every segment; `create` must follow."""
        self._drop(0)

    def _drop(self, kept: int, drop: Callable[[Segment], object] = Segment.unlink) -> bool:
        dropped = len(self._segments) > kept or bool(self._hidden)
        while self._hidden:
            drop(self._hidden[-1])
            self._hidden.pop()
        while len(self._segments) > kept:
            segment = self._segments.pop()
            self._idle.pop(segment.base_offset, None)
            drop(segment)
        return dropped

    def hide_after(self, segment: Segment, position: int, next_offset: int) -> None:
        """Act as if the log ended at a position of a segment; no file is touched."""
        kept = self._segments.index(segment) + 1
        self._hidden = [*self._segments[kept:], *self._hidden]
        del self._segments[kept:]
        for other in [segment, *self._hidden]:
            self._idle.pop(other.base_offset, None)
        segment.hide(position, next_offset)

    def forget_oldest(self) -> None:
        """The oldest segment's files are gone from their names: close them, begin with the next."""
        assert len(self._segments) > 1, "there is always an active segment"
        oldest = self._segments.pop(0)
        self._idle.pop(oldest.base_offset, None)
        oldest.retire()

    def find_timestamp(self, timestamp: int, from_offset: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record from an offset on not older than `timestamp`."""
        for segment in self.since(from_offset):
            newest = segment.max_timestamp
            self.use(segment)
            found = segment.find_timestamp(timestamp, from_offset) if newest >= timestamp else None
            if found is not None:
                return found
        return None

    @property
    def last_timestamp(self) -> int:
        """The largest timestamp in the log, -1 if there is none."""
        return max(segment.max_timestamp for segment in self._segments)

    def close(self) -> None:
        """Close every file that no sync worker holds; the rest follow when it lets go."""
        for segment in [*self._segments, *self._hidden]:
            segment.retire()
