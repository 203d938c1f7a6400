"""Checking segments batch by batch, and cutting what cannot stay.

Owns: one pass over the end of a log after a stop that was not clean, and the account of what it
took away.

Invariants (docs/protocol.md, rule 7): the marker `doubtful` is durable before the first byte is
cut; snapshots past a cut are gone durably before it; what was kept is synced at the end of the
pass; below `known`, the offset up to which everything had been synced, nothing is cut: the log then
only acts as if it ended there, and the marker `damaged` says so.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress

from cluster.storage import names
from cluster.storage.aside import Aside
from cluster.storage.claim import mark, mark_failed_sync, unmark
from cluster.storage.damage import Damage, Place, claimed_end, mark_damage
from cluster.storage.disk import Disk, DiskError
from cluster.storage.epochs import Epochs
from cluster.storage.segment import Segment
from cluster.storage.segments import Segments
from cluster.storage.snapshot import Snapshots
from cluster.storage.walking import REASONS

GAP = "a segment does not begin where the one before ends"
FAILED_SYNC = "a sync had failed"


class Repair:
    """A pass over one log, and what it cut: bytes, and offsets as far as headers tell (or -1).

    `known` is the offset below which everything had been synced; `kept` names the files that hold
    what was cut; `damage` is what was found below `known` and left alone.
    """

    def __init__(
        self, disk: Disk, directory: str, segments: Segments, snapshots: Snapshots, *, known: int
    ) -> None:
        self.cut_bytes = 0
        self.cut_from_offset = -1
        self.cut_to_offset = -1
        self.reason = ""
        self.kept: tuple[str, ...] = ()
        self.damage: Damage | None = None
        self.scanned_bytes = 0
        self._known = known
        self._synced_end = 0
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._snapshots = snapshots

    def scan(self, since: int, epochs: Epochs) -> Generator[int, None, None]:
        """Check, index and sync everything from the segment that holds `since` on.

        The first thing wrong ends the log there. `epochs` learns the leader epochs that it lacks.
        Yields after each piece how many bytes were read.
        """
        self._synced_end = since
        last: Segment | None = None
        for segment in self._segments.since(since):
            if last and segment.base_offset != last.next_offset:
                self._end(Place(last, last.size, last.next_offset, GAP), epochs)
                break
            end, reason = yield from self._counted(segment, epochs)
            if reason:
                place = Place(segment, end, segment.next_offset, REASONS[reason])
                self._end(place, epochs)
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

    def _counted(self, segment: Segment, epochs: Epochs) -> Generator[int, None, tuple[int, int]]:
        def observe(data: bytes, end: int) -> None:
            epochs.observe(data, 0, end)
            self.scanned_bytes += end

        return segment.rescan(check_crc=True, contiguous=True, observe=observe)

    def _end(self, place: Place, epochs: Epochs) -> None:
        """The log ends here: by a cut, or by leaving alone what was synced once."""
        if place.offset >= self._known:
            self._cut(place.segment, place.position, place.reason)
            return
        behind = self._segments.since(place.offset)
        behind = behind[behind.index(place.segment) + 1 :]
        end = max(claimed_end(self._disk, place, behind), self._known)
        self.damage = Damage(place.offset, end, epochs.epoch_at(end - 1), place.reason)
        mark_damage(self._disk, self._directory, self.damage)
        self._segments.hide_after(place.segment, place.position, place.offset)

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
        with self._sync_remembered():
            place = Place(segment, position, end, reason)
            kept = cut_away(self._disk, self._directory, self._segments, self._snapshots, place)
        self.kept += kept

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


class Damaged:
    """What one log knows to be damaged below its synced end, and how it is given up."""

    def __init__(
        self,
        disk: Disk,
        directory: str,
        segments: Segments,
        snapshots: Snapshots,
        damage: Damage | None,
    ) -> None:
        """With `damage` the segments act already as if they ended there."""
        self.damage = damage
        self._place: Place | None = None
        self._files = (disk, directory, segments, snapshots)

    def mark(self, place: Place, end: int, epochs: Epochs) -> None:
        """Say so, durably; the log still has the `end` that it had, for whoever hands over."""
        if self.damage is None:
            epoch = epochs.epoch_at(end - 1)
            self.damage, self._place = Damage(place.offset, end, epoch, place.reason), place
            disk, directory, _, _ = self._files
            with suppress(DiskError):  # the next opening, or the next look, finds it again
                mark_damage(disk, directory, self.damage)

    def cut(self) -> int:
        """End the files where the damage begins, and answer that offset."""
        assert self.damage is not None, "there is damage"
        end = self._files[2].active
        place = self._place or Place(end, end.size, end.next_offset, self.damage.reason)
        cut_away(*self._files, place)
        place.segment.rewrite_end()
        return place.offset

    def forget(self) -> None:
        """The log ends where the damage began, durably: what a sync left open went with it."""
        disk, directory, _, _ = self._files
        for marker in (names.FAILED_SYNC, names.DAMAGED):
            unmark(disk, directory, marker)
        self.damage = self._place = None


def cut_away(
    disk: Disk, directory: str, segments: Segments, snapshots: Snapshots, place: Place
) -> tuple[str, ...]:
    """End the files of a log at a place, durably, and keep what is cut: the names it has now.

    Names first and durably: a snapshot of a cut offset must not come back after a crash, when
    other records stand there.
    """
    aside = Aside(disk, directory)
    snapshots.drop_after(place.offset)
    segments.drop_after(place.segment, aside.segment)
    disk.sync_directory(directory)
    aside.tail(place.segment, place.position, place.offset)
    place.segment.cut(place.position, place.offset)
    return tuple(aside.kept)
