"""Snapshots of the producer table, each of exactly the offset in its name.

Owns: the pairs `<offset>.windows` (ours: every remembered batch) and `<offset>.snapshot` (Apache
Kafka's: the last batch of each producer, for its tools), which of them are kept, and which one a
table is loaded from.

A file is trusted only if its checksum holds, so writing needs neither a rename nor, outside a clean
stop, a sync: what a crash tore is skipped. Invariants: none is of an offset past the end of the log
when bytes are appended there, or it would speak of other records (rule 3 of docs/protocol.md); a
log that begins above 0 keeps one of its beginning, so that a replay is always exact.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import suppress

from _fastseq.table import ProducerTable
from cluster.limits import SNAPSHOTS_KEPT
from cluster.storage.disk import Disk, read_file, write_file
from cluster.storage.names import SNAPSHOT, WINDOWS, offset_of, segment_file


class Snapshots:
    """The snapshot files of one replica's directory."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        names = disk.list(directory)
        self._windows = [at for name in names if (at := offset_of(name, WINDOWS)) is not None]
        self._kafka = [at for name in names if (at := offset_of(name, SNAPSHOT)) is not None]
        self._proved: dict[int, None] = {}
        self.lost = False
        """The last load of a log that lacks its beginning found nothing to begin with."""

    def take(self, table: ProducerTable, keep: Container[int] = (), *, sync: bool) -> None:
        """Write the pair of the table's offset.

        The oldest stays, the SNAPSHOTS_KEPT newest, and those of the offsets in `keep`.
        """
        offset = table.next_offset
        self._proved.pop(offset, None)
        # Listed before they are there: a half-written pair must be found when the log is cut.
        self._windows = sorted({*self._windows, offset})
        self._kafka = sorted({*self._kafka, offset})
        self._write(offset, WINDOWS, table.dump(), sync=sync)
        self._write(offset, SNAPSHOT, table.dump_kafka(), sync=sync)
        if sync:
            self._disk.sync_directory(self._directory)
        self._drop(
            [at for at in self._windows[1:-SNAPSHOTS_KEPT] if at not in keep],
            [at for at in self._kafka[1:-SNAPSHOTS_KEPT] if at not in keep],
        )

    def prove(self, offset: int) -> bool:
        """Whether there is a whole one of ours of this offset, made durable here. May raise
        DiskError."""
        if offset in self._proved:
            return True
        if offset not in self._windows or not self._load_windows(ProducerTable(), offset):
            return False
        handle = self._disk.open(segment_file(self._directory, offset, WINDOWS))
        try:
            self._disk.sync(handle)
        finally:
            self._disk.close(handle)
        self._disk.sync_directory(self._directory)
        self._proved[offset] = None
        return True

    def _write(self, offset: int, suffix: str, data: bytes, *, sync: bool) -> None:
        write_file(self._disk, segment_file(self._directory, offset, suffix), data, sync=sync)

    def load(self, table: ProducerTable, start_offset: int, end: int) -> int:
        """Load the best snapshot not past `end` and answer its offset; replay goes on from there.

        Newest of ours first. Without any, a log that still has its beginning is replayed whole,
        because Kafka's file has forgotten four of five batches; a log that lost its beginning
        starts from Kafka's oldest, which leaves the most to be learnt from the log itself.
        """
        self.lost = False
        for offset in reversed(self._windows):
            if start_offset <= offset <= end and self._load_windows(table, offset):
                return offset
        if start_offset > 0:
            for offset in self._kafka:
                if start_offset <= offset <= end and self._load_kafka(table, offset):
                    return offset
        table.clear(start_offset)
        self.lost = start_offset > 0
        return start_offset

    def _load_windows(self, table: ProducerTable, offset: int) -> bool:
        data = read_file(self._disk, segment_file(self._directory, offset, WINDOWS))
        with suppress(ValueError):
            table.load(data or b"")
            return table.next_offset == offset
        return False

    def _load_kafka(self, table: ProducerTable, offset: int) -> bool:
        data = read_file(self._disk, segment_file(self._directory, offset, SNAPSHOT))
        with suppress(ValueError):
            table.load_kafka(data or b"", offset)
            return True
        return False

    def drop_after(self, end: int) -> bool:
        """Remove those past the end of the log; True if there were any: sync the directory."""
        return self._drop(
            [offset for offset in self._windows if offset > end],
            [offset for offset in self._kafka if offset > end],
        )

    def forget_before(self, offset: int) -> list[str]:
        """Own those below an offset no more: their paths, which the caller removes."""
        paths = []
        for suffix, held in ((WINDOWS, self._windows), (SNAPSHOT, self._kafka)):
            gone = [at for at in held if at < offset]
            paths += [segment_file(self._directory, at, suffix) for at in gone]
            del held[: len(gone)]
        return paths

    def drop_all(self) -> bool:
        """Remove every one; True if there were any: sync the directory."""
        return self.drop_after(-1)

    def _drop(self, windows: list[int], kafka: list[int]) -> bool:
        for offset in windows:
            self._proved.pop(offset, None)
            self._remove(segment_file(self._directory, offset, WINDOWS))
            self._windows.remove(offset)
        for offset in kafka:
            self._remove(segment_file(self._directory, offset, SNAPSHOT))
            self._kafka.remove(offset)
        return bool(windows or kafka)

    def _remove(self, path: str) -> None:
        if self._disk.exists(path):
            self._disk.unlink(path)
