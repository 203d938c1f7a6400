"""Which segments of a log have outlived their use, and how they are taken away.

Owns: the arithmetic of retention.ms and retention.bytes over whole segments, and the removal of the
oldest one: its files get another name at once and are unlinked later, by whoever is told the names.

Invariants: the oldest segment goes first and its going is durable before the next one's, so that a
crash never leaves a hole; nothing goes that is not committed and synced; what the log begins with
then has a snapshot of exactly its first offset, so that recovery, a truncation and a follower
without data can start there (rule 8 of docs/protocol.md). Producers outlive their batches: only an
expiry in the log forgets them.
"""

from __future__ import annotations

from cluster.storage.disk import Disk
from cluster.storage.names import DELETED_FILE, SEGMENT_SUFFIXES, segment_file
from cluster.storage.segment import Segment
from cluster.storage.segments import Segments
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots

UNLIMITED = -1


class Retention:
    """The oldest end of one log."""

    def __init__(
        self, disk: Disk, directory: str, segments: Segments, snapshots: Snapshots
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._snapshots = snapshots

    def next_start(self, config: LogConfig, committed: int, now_ms: int, wall_ms: int) -> int:
        """Where the log should begin: behind its oldest segment if that is to go, else there."""
        oldest = self._segments.oldest
        if oldest is self._segments.active or oldest.next_offset > committed:
            return oldest.base_offset
        gone = _expired(oldest, config, now_ms, wall_ms) or self._too_much(oldest, config)
        return oldest.next_offset if gone else oldest.base_offset

    def all_expired(self, config: LogConfig, committed: int, now_ms: int, wall_ms: int) -> bool:
        """Whether the only segment is too old: a new one must follow it before it can go."""
        active = self._segments.active
        if len(self._segments) > 1 or active.size == 0 or active.next_offset > committed:
            return False
        return _expired(active, config, now_ms, wall_ms)

    def _too_much(self, oldest: Segment, config: LogConfig) -> bool:
        """Whether the log without its oldest segment still has the bytes it may keep."""
        if config.retention_bytes == UNLIMITED:
            return False
        return self._segments.size - oldest.size >= config.retention_bytes

    def drop_oldest(self, start_offset: int, synced_end: int) -> list[str]:
        """Take the oldest segment away if all of it lies below the log start and is synced.

        Answers the names that its files, and the snapshots it needed, have now. DiskError leaves
        the log as it was, or without that segment.
        """
        reach = min(start_offset, synced_end)
        bases = [segment.base_offset for segment in self._segments.since(0)[1:]]
        below = [base for base in bases if base <= reach]
        if not any(self._snapshots.prove(base) for base in below):
            return []
        files = [
            segment_file(self._directory, self._segments.oldest.base_offset, suffix)
            for suffix in SEGMENT_SUFFIXES
        ]
        # The log file first: what lacks it is removed by the next opening.
        renamed = self._set_aside(files[0])
        self._segments.forget_oldest()
        for path in [*files[1:], *self._snapshots.forget_before(below[0])]:
            renamed += self._set_aside(path)
        self._disk.sync_directory(self._directory)
        return renamed

    def _set_aside(self, path: str) -> list[str]:
        if not self._disk.exists(path):
            return []
        self._disk.rename(path, path + DELETED_FILE)
        return [path + DELETED_FILE]


def _expired(segment: Segment, config: LogConfig, now_ms: int, wall_ms: int) -> bool:
    """Whether the newest record in it is too old; without any timestamp, the segment itself."""
    if config.retention_ms == UNLIMITED:
        return False
    newest = segment.max_timestamp
    if newest >= 0:
        return wall_ms - newest > config.retention_ms
    segment.created_ms = segment.created_ms or now_ms  # not known: as young as this look
    return now_ms - segment.created_ms > config.retention_ms
