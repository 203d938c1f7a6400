"""Reading again what was synced, to find damage while somebody else still has the data.

Owns: where the walk over one log stands. It goes from the first segment to the synced end, a piece
at a time, and begins anew after that. Pieces are read off the loop like those of any cold read.

Invariant: what is checked is what was asked for. After a cut, or when a segment is gone, the walk
begins anew instead of comparing bytes with offsets that are not theirs.
"""

from __future__ import annotations

from _fastseq.batch import HEADER_BYTES, SCAN_SHORT, read_header
from cluster.storage.cold import ColdReads
from cluster.storage.damage import Place, find_damage
from cluster.storage.reading import Cold, Fetched, Missing
from cluster.storage.segments import Segments
from cluster.storage.walking import REASONS, check_window

UNREADABLE = "the disk cannot read it"
ENDS_EARLY = "a segment ends before the next begins"


class Scrub:
    """The walk over one log, again and again."""

    def __init__(self, segments: Segments, cold: ColdReads) -> None:
        self._segments = segments
        self._cold = cold
        self._generation = 0
        self._base = -1
        self._position = 0
        self._offset = 0
        self._needed = 0
        self._refused = 0

    def next(self, generation: int, until: int, length: int) -> Cold | None:
        """What to read next, about `length` bytes; None at `until`, when a pass is over.

        The answer must come back through the log's `returned`, and then through `check`.
        """
        segment = self._segments.holding(self._offset)
        if segment.base_offset != self._base or generation != self._generation:
            self._begin(segment.base_offset, generation)
        segment.open()
        if self._offset >= until or self._position >= segment.size:
            self._begin(self._segments.start_offset, generation)
            return None
        length = min(max(length, self._needed), segment.size - self._position)
        return self._cold.ask(segment, Missing(self._position, length), generation)

    def _begin(self, base_offset: int, generation: int) -> None:
        self._base = self._offset = base_offset
        self._generation, self._position = generation, 0
        self._needed = self._refused = 0

    def check(self, cold: Cold, fetched: Fetched | None, generation: int) -> Place | None:
        """Check what was read, None if the disk could not: where damage begins, if there is any."""
        same = (generation, cold.segment_base) == (self._generation, self._base)
        segment = self._segments.holding(self._offset)
        if not same or cold.position != self._position or segment.base_offset != self._base:
            return None
        if fetched is None:
            self._refused += 1
            return None if self._refused < 2 else self._place(UNREADABLE)
        data, before = fetched.data, self._position
        found = check_window(data, self._offset)
        self._position += found.end_position
        self._offset = found.next_offset
        self._needed = self._refused = 0
        at_end = before + len(data) >= segment.size
        if found.reason == SCAN_SHORT and not at_end:
            self._needed = self._rest(data, found.end_position)
        elif found.reason:
            return self._place(REASONS[found.reason])
        if self._position >= segment.size and segment is not self._segments.active:
            return self._next_segment()
        return None

    @staticmethod
    def _rest(data: bytes | bytearray | memoryview, at: int) -> int:
        """Bytes of the batch that did not fit, if it alone is more than what was read."""
        if at or len(data) < HEADER_BYTES:
            return HEADER_BYTES
        return read_header(data).size

    def examine(self, offset: int) -> Place | None:
        """Check all of the segment that holds `offset`, here and now: something was wrong in it."""
        return find_damage(self._segments.holding(offset))

    def _next_segment(self) -> Place | None:
        after = self._segments.holding(self._offset)
        if after.base_offset != self._offset:
            return self._place(ENDS_EARLY)
        self._begin(after.base_offset, self._generation)
        return None

    def _place(self, reason: str) -> Place:
        segment = self._segments.holding(self._base)
        return Place(segment, self._position, self._offset, reason)
