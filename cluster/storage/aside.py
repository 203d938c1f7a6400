"""What is cut from a log is kept for a while: nobody knows yet who may need it.

Owns: files `cut-<number>-<offset>.tail`, the bytes from a cut to the end of its segment (the first
CUT_BYTES_KEPT of them), and `cut-<number>-<offset>.segment`, whole segments behind it. The number
is that of the cut; the newest CUTS_KEPT cuts are kept, whole segments only until the replica has
caught up with a leader.

Keeping is a courtesy: where the disk refuses it, the cut takes place all the same and says so.
"""

from __future__ import annotations

from contextlib import suppress

from cluster.limits import CUT_BYTES_KEPT, CUTS_KEPT, SCAN_WINDOW_BYTES
from cluster.storage.disk import Disk, DiskError
from cluster.storage.names import CUT, segment_file
from cluster.storage.segment import Segment

TAIL = ".tail"
WHOLE = ".segment"


class Aside:
    """One cut of one log; `kept` names the files, without their directory."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self.kept: list[str] = []
        self._disk = disk
        self._directory = directory
        self._number = 0

    def tail(self, segment: Segment, position: int, offset: int) -> None:
        """Copy what lies behind `position` of a segment, where `offset` would begin; synced."""
        handle = segment.open()
        end = min(self._disk.size(handle), position + CUT_BYTES_KEPT)
        if position >= end:
            return
        name = self._name(offset, TAIL)
        try:
            self._copy(handle, position, end, f"{self._directory}/{name}")
            self.kept.append(name)
        except DiskError:
            with suppress(DiskError):
                self._disk.unlink(f"{self._directory}/{name}")

    def _copy(self, source: int, position: int, end: int, path: str) -> None:
        target, at = self._disk.open(path, create=True), 0
        try:
            while position + at < end:
                length = min(SCAN_WINDOW_BYTES, end - position - at)
                data = self._disk.read(source, position + at, length)
                if not data:
                    break
                self._disk.write(target, at, [data])
                at += len(data)
            self._disk.sync(target)
        finally:
            self._disk.close(target)

    def segment(self, segment: Segment) -> None:
        """Give a whole segment's file the name of a kept one; its indexes go."""
        name = self._name(segment.base_offset, WHOLE)
        segment.set_aside(f"{self._directory}/{name}")
        self.kept.append(name)

    def _name(self, offset: int, suffix: str) -> str:
        if not self._number:
            numbers = kept_cuts(self._disk, self._directory)
            self._number = max(numbers, default=0) + 1
            for number in sorted(numbers)[: -CUTS_KEPT + 1 or None]:
                _drop(self._disk, self._directory, f"{CUT}{number:04d}-")
        return segment_file(f"{CUT}{self._number:04d}-", offset, suffix).replace("/", "")


def kept_cuts(disk: Disk, directory: str) -> set[int]:
    """Numbers of the cuts of which something is kept."""
    heads = [name.split("-")[1] for name in disk.list(directory) if name.startswith(CUT)]
    return {int(head) for head in heads if head.isdigit()}


def drop_whole_segments(disk: Disk, directory: str) -> None:
    """A leader has vouched for the log: what lay behind a cut is nobody's only copy any more."""
    _drop(disk, directory, CUT, WHOLE)


def _drop(disk: Disk, directory: str, prefix: str, suffix: str = "") -> None:
    for name in disk.list(directory):
        if name.startswith(prefix) and name.endswith(suffix):
            with suppress(DiskError):
                disk.unlink(f"{directory}/{name}")
