"""Checking segments batch by batch, and cutting what cannot stay.

Owns: one pass over the end of a log after a stop that was not clean, and the account of what it
took away.

Invariants (docs/protocol.md, rule 7): the marker `doubtful` is durable before the first byte is
cut; snapshots past a cut are gone durably before it; what was kept is synced at the end of `scan`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from _fastseq import batch
from cluster.storage import names
from cluster.storage.claim import mark, mark_failed_sync, unmark
from cluster.storage.disk import Disk, DiskError
from cluster.storage.epochs import Epochs
from cluster.storage.segment import Segment
from cluster.storage.segments import Segments
from cluster.storage.snapshot import Snapshots

REASONS = {
    batch.SCAN_SHORT: "a batch is cut off",
    batch.SCAN_MAGIC: "bytes that are no batch",
    batch.SCAN_LENGTH: "an impossible batch length",
    batch.SCAN_CRC: "a checksum is wrong",
    batch.SCAN_ORDER: "offsets go backwards",
    batch.SCAN_HEADER: "an impossible batch header",
}
GAP = "a segment does not begin where the one before ends"
FAILED_SYNC = "a sync had failed"


class Repair:
    """A pass over one log, and what it cut: bytes, and offsets as far as headers tell (or -1)."""

    def __init__(
        self, disk: Disk, directory: str, segments: Segments, snapshots: Snapshots
    ) -> None:
        self.cut_bytes = 0
        self.cut_from_offset = -1
        self.cut_to_offset = -1
        self.reason = ""
        self._synced_end = 0
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._snapshots = snapshots

    def scan(self, recovery_point: int, epochs: Epochs) -> None:
        """Check, index and sync everything from the segment of the recovery point on.

        The first thing wrong ends the log there. `epochs` learns the leader epochs that it lacks.
        """
        self._synced_end = recovery_point
        last: Segment | None = None
        for segment in self._segments.since(recovery_point):
            if last and segment.base_offset != last.next_offset:
                self._cut(last, last.size, GAP)
                break
            end, reason = segment.rescan(
                check_crc=True, observe=lambda data, end: epochs.observe(data, 0, end)
            )
            if reason:
                self._cut(segment, end, REASONS[reason])
                break
            with self._sync_remembered():
                segment.sync()
            self._synced_end = max(self._synced_end, segment.next_offset)
            if segment is not self._segments.active:
                with suppress(DiskError):  # an index is a hint: missing, it is made again
                    segment.write_index()
                self._segments.use(segment)
            last = segment
        self._disk.sync_directory(self._directory)

    @contextmanager
    def _sync_remembered(self) -> Iterator[None]:
        """If this sync fails, the next opening must not believe what the page cache shows."""
        try:
            yield
        except DiskError:
            with suppress(DiskError):
                mark_failed_sync(self._disk, self._directory, self._synced_end)
            raise

    def cut_to(self, synced_end: int) -> None:
        """Cut what a failed sync had left open, although it may look whole (rule 14)."""
        self._synced_end = synced_end
        if synced_end < self._segments.next_offset:
            segment = self._segments.holding(synced_end)
            lost_to = self._segments.next_offset
            position, segment.next_offset = segment.boundary(synced_end)
            self._cut(segment, position, FAILED_SYNC, lost_to)
        self._segments.active.rewrite_end()
        unmark(self._disk, self._directory, names.FAILED_SYNC)

    def _cut(self, segment: Segment, position: int, reason: str, lost_to: int = -1) -> None:
        """End the log at `position` of a segment, whose `next_offset` is already that."""
        end = segment.next_offset
        self._account(segment, position, lost_to)
        self.reason = reason
        if self.cut_bytes or self.cut_to_offset > end:
            mark(self._disk, self._directory, names.DOUBTFUL)
        self._snapshots.drop_after(end)
        self._segments.drop_after(segment)
        self._disk.sync_directory(self._directory)
        with self._sync_remembered():
            segment.cut(position, end)

    def _account(self, segment: Segment, position: int, lost_to: int) -> None:
        self.cut_bytes += segment.size - position
        claimed = segment.claimed_end(position)
        for dropped in self._segments.since(segment.base_offset)[1:]:
            dropped.open()
            self.cut_bytes += dropped.size
            claimed = max(claimed, dropped.base_offset)
        end, before = segment.next_offset, self.cut_from_offset
        self.cut_from_offset = end if before < 0 else min(before, end)
        self.cut_to_offset = max(self.cut_to_offset, lost_to, claimed, end)
