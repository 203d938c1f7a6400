"""Rebuilding the producer table from a snapshot and the batches after it.

Owns: nothing; the table is a function of the log below its next offset (rule 3 of
docs/protocol.md), and this computes it for a log whose files are all trusted. It does so a piece at
a time: what a broker cannot do in one step it does in many.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from _fastseq.table import ProducerTable
from cluster.storage.segment import DamagedLog, Segment
from cluster.storage.segments import Segments
from cluster.storage.snapshot import Snapshots
from cluster.storage.walking import finish


class Replay(NamedTuple):
    """What a rebuild read: the offset of its snapshot (the log's start if none), and what after."""

    snapshot_offset: int
    replayed_batches: int
    replayed_bytes: int


def rebuild_table(table: ProducerTable, snapshots: Snapshots, segments: Segments) -> Replay:
    """Make the table that of the log's end; DamagedLog if the batches do not lead there."""
    return finish(rebuilding(table, snapshots, segments))


def rebuilding(
    table: ProducerTable, snapshots: Snapshots, segments: Segments
) -> Generator[int, None, Replay]:
    """The same, yielding after each piece how many bytes it read.

    The log may neither grow nor be cut before the end of it.
    """
    offset = snapshots.load(table, segments.start_offset, segments.next_offset)
    batches, size = 0, 0
    for segment in segments.since(offset):
        more_batches, more_bytes = yield from _replay(table, segment)
        batches, size = batches + more_batches, size + more_bytes
        segments.use(segment)
    if table.next_offset != segments.next_offset:
        raise DamagedLog(segments.active.file.path)
    return Replay(offset, batches, size)


class Rebuild:
    """A rebuild of one log's table as often as it is needed, each in as many pieces as it takes."""

    def __init__(self, table: ProducerTable, snapshots: Snapshots, segments: Segments) -> None:
        self._of = (table, snapshots, segments)
        self._work: Generator[int, None, Replay] | None = None

    @property
    def under_way(self) -> bool:
        """Whether the table is not that of the log's end."""
        return self._work is not None

    def begin(self) -> None:
        """Make the table anew; what was under way was for a log that is no more."""
        self._work = rebuilding(*self._of)

    def go_on(self, budget_bytes: int) -> int:
        """Do about so much more; how many bytes of the log that read. May raise DiskError."""
        read = 0
        while self._work is not None and read < budget_bytes:
            try:
                read += next(self._work)
            except StopIteration:
                self._work = None
        return read


def _replay(table: ProducerTable, segment: Segment) -> Generator[int, None, tuple[int, int]]:
    """Apply the batches of one segment from the table's offset on: (batches, bytes)."""
    if table.next_offset == segment.next_offset:
        return 0, 0
    position, _, start = segment.locate(table.next_offset)
    batches, size, end = 0, 0, position + start
    for data, at, found in segment.walk(end, table.next_offset, check_crc=False):
        try:
            table.apply_run(data, 0, found.end_position)
        except ValueError:
            raise DamagedLog(segment.file.path) from None
        batches, size = batches + found.batches, size + found.end_position
        end = at + found.end_position
        yield len(data)
    if end != segment.size:
        raise DamagedLog(segment.file.path)
    return batches, size
