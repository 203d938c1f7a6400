"""Walking through the batches of a segment file, a window at a time.

Owns: how much of a file is in memory while it is checked, indexed or replayed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TypeVar

from _fastseq.batch import (
    HEADER_BYTES,
    SCAN_CRC,
    SCAN_HEADER,
    SCAN_LENGTH,
    SCAN_MAGIC,
    SCAN_ORDER,
    SCAN_SHORT,
    Scan,
    read_header,
    scan,
)
from cluster.limits import SCAN_WINDOW_BYTES
from cluster.storage.disk import Buffer, Disk

Result = TypeVar("Result")

SCAN_GAP = 100  # beside the reasons of a scan: offsets are missing

REASONS = {
    SCAN_SHORT: "a batch is cut off",
    SCAN_MAGIC: "bytes that are no batch",
    SCAN_LENGTH: "an impossible batch length",
    SCAN_CRC: "a checksum is wrong",
    SCAN_ORDER: "offsets go backwards",
    SCAN_HEADER: "an impossible batch header",
    SCAN_GAP: "offsets are missing",
}


def walk_batches(
    disk: Disk,
    handle: int,
    position: int,
    expected_offset: int,
    *,
    size: int,
    check_crc: bool,
    contiguous: bool = False,
) -> Iterator[tuple[bytes, int, Scan]]:
    """Windows of the file [position, size): (bytes, their position, what a scan found in them).

    Each window begins with a batch and holds whole ones up to `scan.end_position`. The last one has
    `reason` set if something other than the end of the file stopped the walk. With `contiguous` an
    offset that is missing stops it too: base offsets lie outside of checksums, and a broker's own
    logs have no gaps, while those that Apache Kafka has compacted do.
    """
    length = SCAN_WINDOW_BYTES
    while position < size:
        asked = min(length, size - position)
        data = disk.read(handle, position, asked)
        found = scan(data, 0, len(data), expected_offset, check_crc=check_crc)
        if contiguous and found.next_offset - expected_offset != found.records:
            found = _before_gap(data, expected_offset, check_crc=check_crc)
        gone = len(data) < asked  # the file is shorter than it was: there is no more to read
        if gone and not found.reason:
            found = found._replace(reason=SCAN_SHORT)
        more = not gone and position + len(data) < size and found.reason == SCAN_SHORT
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


def check_window(data: Buffer, expected_offset: int) -> Scan:
    """A scan of a broker's own batches by all that can be wrong: checksums and missing offsets."""
    found = scan(data, 0, len(data), expected_offset)
    if found.next_offset - expected_offset != found.records:
        return _before_gap(data, expected_offset, check_crc=True)
    return found


def _before_gap(data: Buffer, expected_offset: int, *, check_crc: bool) -> Scan:
    """A scan of the batches before the first that leaves offsets out."""
    position, offset = 0, expected_offset
    while True:
        header = read_header(data, position)
        if header.base_offset != offset or header.record_count != header.last_offset_delta + 1:
            break
        position, offset = position + header.size, header.next_offset
    before = scan(data, 0, position, expected_offset, check_crc=check_crc)
    return before._replace(reason=SCAN_GAP)


def finish(work: Generator[int, None, Result]) -> Result:
    """Do in one go what could be done a piece at a time."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            result: Result = done.value
            return result
