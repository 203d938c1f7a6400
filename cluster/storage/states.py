"""Producer states on their way from one replica to another.

Owns: the state that a log begins with, as its own replica reads it part by part, and the parts of
another replica's state in a file that nothing reads before all are there. A state is proved by its
checksum and by the offset in it, never by its length.
"""

from __future__ import annotations

from contextlib import suppress

from _fastseq.table import ProducerTable
from cluster.storage.disk import Disk, read_file
from cluster.storage.names import RECEIVED, WINDOWS, segment_file
from cluster.storage.segments import Segments
from cluster.storage.snapshot import Snapshots


class States:
    """What one log can hand over, and what it was handed. Every method may raise DiskError."""

    def __init__(
        self, disk: Disk, directory: str, segments: Segments, snapshots: Snapshots
    ) -> None:
        self._disk = disk
        self._directory = directory
        self._segments = segments
        self._snapshots = snapshots

    def size(self) -> int | None:
        """Bytes of the state that the log begins with, 0 at 0; None if there is no whole one."""
        offset = self._segments.start_offset
        if offset == 0:
            return 0
        if not self._snapshots.prove(offset):
            return None
        handle = self._disk.open(segment_file(self._directory, offset, WINDOWS))
        try:
            return self._disk.size(handle)
        finally:
            self._disk.close(handle)

    def read(self, position: int, length: int) -> bytes:
        """Part of that state."""
        path = segment_file(self._directory, self._segments.start_offset, WINDOWS)
        handle = self._disk.open(path)
        try:
            return self._disk.read(handle, position, length)
        finally:
            self._disk.close(handle)

    def take(self, position: int, data: bytes) -> None:
        """Keep part of another replica's state; the first one forgets what was kept before."""
        handle = self._disk.open(f"{self._directory}/{RECEIVED}", create=True)
        try:
            if position == 0:
                self._disk.truncate(handle, 0)
            self._disk.write(handle, position, [data])
        finally:
            self._disk.close(handle)

    def load(self, table: ProducerTable, offset: int) -> bool:
        """Load what was taken; False if it is not the whole state of this offset."""
        if offset == 0:
            table.clear(0)
            return True
        with suppress(ValueError):
            table.load(read_file(self._disk, f"{self._directory}/{RECEIVED}") or b"")
            return table.next_offset == offset
        return False
