"""Rebuilding the producer table from a snapshot and the batches after it.

Owns: nothing; the table is a function of the log below its next offset (rule 3 of
docs/protocol.md), and this computes it for a log whose files are all trusted.
"""

from __future__ import annotations

from typing import NamedTuple

from _fastseq.table import ProducerTable
from cluster.storage.segment import DamagedLog, Segment
from cluster.storage.segments import Segments
from cluster.storage.snapshot import Snapshots


class Replay(NamedTuple):
    """What a rebuild read: the offset of its snapshot (the log's start if none), and what after."""

    snapshot_offset: int
    replayed_batches: int
    replayed_bytes: int


def rebuild_table(table: ProducerTable, snapshots: Snapshots, segments: Segments) -> Replay:
    """Make the table that of the log's end; DamagedLog if the batches do not lead there."""
    offset = snapshots.load(table, segments.start_offset, segments.next_offset)
    batches, size = 0, 0
    for segment in segments.since(offset):
        more_batches, more_bytes = _replay(table, segment)
        batches, size = batches + more_batches, size + more_bytes
        segments.use(segment)
    if table.next_offset != segments.next_offset:
        raise DamagedLog(segments.active.file.path)
    return Replay(offset, batches, size)


def _replay(table: ProducerTable, segment: Segment) -> tuple[int, int]:
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
    if end != segment.size:
        raise DamagedLog(segment.file.path)
    return batches, size
