"""An operator's ways out when nobody else has what a replica cannot read any more.

Owns: `cut`, which ends a log before its first bad batch, and `skip`, which puts batches that say
nothing into the place of bad ones, so that everything else keeps its offset. Both give data up that
may have been acknowledged; the replica is doubtful after either (rule 7 of docs/protocol.md).

The caller has made a copy of the directory, and holds it against brokers.
"""

from __future__ import annotations

from typing import NamedTuple

from _fastseq.batch import HEADER_BYTES, expire_batch, read_header
from cluster.limits import SCAN_WINDOW_BYTES
from cluster.storage import names
from cluster.storage.checkpoint import parse_topic_id
from cluster.storage.claim import mark, unmark
from cluster.storage.damage import find_damage
from cluster.storage.disk import Disk, read_file
from cluster.storage.recover import Recovery, open_log
from cluster.storage.segment import Segment
from cluster.storage.segments import Segments
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots
from cluster.storage.walking import check_window

NOTHING = expire_batch(0)  # a sweep that lets nobody expire: an offset, and no more


class Skipped(NamedTuple):
    """Offsets [offset, next_offset) that were lost in a segment's file."""

    path: str
    offset: int
    next_offset: int


class CannotSkip(Exception):
    """Behind the damage nothing tells how many offsets are lost; the text says where."""


def cut(disk: Disk, directory: str) -> Recovery:
    """End the log before its first bad batch; ValueError if it is not known whose log this is."""
    topic_id = parse_topic_id(read_file(disk, f"{directory}/{names.METADATA}") or b"")
    mark(disk, directory, names.DOUBTFUL)
    unmark(disk, directory, names.DAMAGED)
    log, recovery = open_log(disk, directory, topic_id=topic_id, config=LogConfig(), now_ms=0)
    log.close(clean=True)
    return recovery


def skip(disk: Disk, directory: str) -> list[Skipped]:
    """Replace every bad batch; CannotSkip, with what came before it replaced, where that fails.

    Snapshots of producers past the first loss go: they speak of batches that are no more.
    """
    segments = Segments(disk, directory, LogConfig())
    segments.load()
    mark(disk, directory, names.DOUBTFUL)
    skipped: list[Skipped] = []
    try:
        bases = [segment.base_offset for segment in segments.since(0)]
        for base, after in zip(bases, [*bases[1:], -1], strict=True):
            while (lost := _mended(disk, directory, base, after)) is not None:
                skipped.append(lost)
                Snapshots(disk, directory).drop_after(lost.offset)
    finally:
        segments.close()
    unmark(disk, directory, names.DAMAGED)
    return skipped


def _mended(disk: Disk, directory: str, base: int, after: int) -> Skipped | None:
    """Replace the first bad batch of a segment; None if there is none."""
    segment = Segment(disk, directory, base, LogConfig())
    try:
        segment.open()
        place = find_damage(segment)
        if place is None:
            return None
        position, offset = _beyond(disk, segment, place.position, place.offset, after)
        _rewrite(disk, segment, place.position, place.offset, (position, offset))
    finally:
        segment.retire()
    return Skipped(segment.file.path, place.offset, offset)


def _beyond(
    disk: Disk, segment: Segment, position: int, offset: int, after: int
) -> tuple[int, int]:
    """(position, base offset) of the next sound batch behind a bad one."""
    handle = segment.open()
    head = disk.read(handle, position, HEADER_BYTES)
    while len(head) == HEADER_BYTES:
        header = read_header(head)
        if header.magic != 2 or not HEADER_BYTES <= header.size <= segment.size - position:
            break
        position += header.size
        head = disk.read(handle, position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            end = after if after > offset else max(header.next_offset, offset + 1)
            return position, end
        following = read_header(head)
        data = disk.read(handle, position, following.size)
        if following.base_offset > offset and check_window(data, following.base_offset).batches:
            return position, following.base_offset
    raise CannotSkip(f"{segment.file.path}: no batch can be told from byte {position} on")


def _rewrite(
    disk: Disk, segment: Segment, position: int, offset: int, beyond: tuple[int, int]
) -> None:
    """The segment's file anew, with [offset, beyond) said by batches that hold nothing."""
    source, temporary = segment.open(), segment.file.path + ".tmp"
    epoch = 0
    if position:
        epoch = _epoch_before(disk, segment, position)
    target = disk.open(temporary, create=True)
    try:
        at = _copy(disk, source, target, (0, position, 0))
        filler = b"".join(_nothing(lost, epoch) for lost in range(offset, beyond[1]))
        disk.write(target, at, [filler])
        _copy(disk, source, target, (beyond[0], segment.size, at + len(filler)))
        disk.sync(target)
    finally:
        disk.close(target)
    segment.remove_files(names.INDEX, names.TIME_INDEX)
    disk.rename(temporary, segment.file.path)
    disk.sync_directory(segment.file.path.rpartition("/")[0])


def _epoch_before(disk: Disk, segment: Segment, position: int) -> int:
    """Leader epoch of the last batch before a position."""
    epoch = 0
    for data, at, found in segment.walk(0, segment.base_offset, check_crc=False):
        start = 0
        while start < found.end_position and at + start < position:
            header = read_header(data, start)
            epoch, start = header.leader_epoch, start + header.size
    return epoch


def _copy(disk: Disk, source: int, target: int, ranges: tuple[int, int, int]) -> int:
    """Copy [start, end) of one file to a position of another: where that ends."""
    start, end, to = ranges
    while start < end:
        data = disk.read(source, start, min(SCAN_WINDOW_BYTES, end - start))
        disk.write(target, to, [data])
        start, to = start + len(data), to + len(data)
    return to


def _nothing(offset: int, epoch: int) -> bytes:
    """A batch of one offset that changes nothing, stamped."""
    stamped = epoch.to_bytes(4, signed=True)
    return offset.to_bytes(8) + NOTHING[8:12] + stamped + NOTHING[16:]
