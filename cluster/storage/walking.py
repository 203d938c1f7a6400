"""Walking through the batches of a segment file, a window at a time.

Owns: how much of a file is in memory while it is checked, indexed or replayed.
"""

from __future__ import annotations

from collections.abc import Iterator

from _fastseq.batch import HEADER_BYTES, SCAN_SHORT, Scan, read_header, scan
from cluster.limits import SCAN_WINDOW_BYTES
from cluster.storage.disk import Disk


def walk_batches(
    disk: Disk, handle: int, position: int, expected_offset: int, *, check_crc: bool
) -> Iterator[tuple[bytes, int, Scan]]:
    """Windows of the file from `position`: (bytes, their position, what a scan found in them).

    Each window begins with a batch and holds whole ones up to `scan.end_position`. The last one has
    `reason` set if something other than the end of the file stopped the walk.
    """
    size = disk.size(handle)
    length = SCAN_WINDOW_BYTES
    while position < size:
        data = disk.read(handle, position, min(length, size - position))
        found = scan(data, 0, len(data), expected_offset, check_crc=check_crc)
        more = position + len(data) < size and found.reason == SCAN_SHORT
        if more and found.end_position == 0:
            needed = read_header(data).size if len(data) >= HEADER_BYTES else HEADER_BYTES
            if len(data) < needed <= size - position:
                length = needed
                continue
        yield data, position, found
        if found.end_position == 0 or (found.reason and not more):
            return
        position += found.end_position
        expected_offset = found.next_offset
        length = SCAN_WINDOW_BYTES
