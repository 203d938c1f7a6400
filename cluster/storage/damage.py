"""Damage below what was known to be synced: the marker of it, and what lies behind it.

Owns: the file `damaged`, and the two questions asked of bytes that cannot be trusted: where does
the first bad batch of a segment begin, and how far did the log reach that it is in.

Invariant (rule 7 of docs/protocol.md): the marker is durable from the moment the damage is known
until the log was cut at it, behind a leader that has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from _fastseq.batch import HEADER_BYTES, read_header
from cluster.limits import OFFSET_MAX
from cluster.storage import names
from cluster.storage.claim import mark
from cluster.storage.disk import Disk, read_file
from cluster.storage.segment import Segment
from cluster.storage.walking import REASONS

FORMAT = "0"
LONGEST = 2**31 - 1  # bytes of a batch that a length field can state


@dataclass(frozen=True, slots=True)
class Damage:
    """Where a log stops being readable: the first offset lost, and what it once reached.

    `claimed_end` and `claimed_epoch` are the end and the epoch of the last batch as far as the
    bytes behind the damage tell; OFFSET_MAX where they tell nothing.
    """

    offset: int
    claimed_end: int
    claimed_epoch: int
    reason: str

    def __str__(self) -> str:
        return f"from offset {self.offset} on: {self.reason}"


class Place(NamedTuple):
    """A bad batch: in which segment, at which position, what offset it should begin with."""

    segment: Segment
    position: int
    offset: int
    reason: str


def read_damage(disk: Disk, directory: str) -> Damage | None:
    """The marker of a log; one that cannot be read stands for damage from the start on."""
    data = read_file(disk, f"{directory}/{names.DAMAGED}")
    if data is None:
        return None
    try:
        version, numbers, reason = data.decode().split("\n")[:3]
        offset, end, epoch = map(int, numbers.split(" "))
        if version != FORMAT or offset < 0:
            raise ValueError("another format")
    except ValueError:
        return Damage(0, OFFSET_MAX, -1, "the marker of an earlier damage is damaged itself")
    return Damage(offset, end, epoch, reason)


def mark_damage(disk: Disk, directory: str, damage: Damage) -> None:
    """Write the marker, durably."""
    numbers = f"{damage.offset} {damage.claimed_end} {damage.claimed_epoch}"
    mark(disk, directory, names.DAMAGED, f"{FORMAT}\n{numbers}\n{damage.reason}\n".encode())


def find_damage(segment: Segment) -> Place | None:
    """The first bad batch of a segment, by checksums; None if all are sound."""
    position, offset = 0, segment.base_offset
    for _, at, found in segment.walk(0, offset, check_crc=True, contiguous=True):
        if found.end_position:
            position, offset = at + found.end_position, found.next_offset
        if found.reason and position < segment.size:
            return Place(segment, position, offset, REASONS[found.reason])
    return None


def claimed_end(disk: Disk, place: Place, behind: Sequence[Segment]) -> int:
    """One past the last offset that the bytes from `place` on claim; OFFSET_MAX if they do not say.

    `behind` are the segments after the damaged one; only the last of them says where the log ends.
    """
    segment, position, offset = place.segment, place.position, place.offset
    if behind:
        segment, position, offset = behind[-1], 0, behind[-1].base_offset
    handle = segment.open()
    size = disk.size(handle)
    while position < size:
        head = disk.read(handle, position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            break  # torn: it was never synced
        header = read_header(head)
        if header.magic != 2 or not HEADER_BYTES <= header.size <= LONGEST:
            return OFFSET_MAX
        records = max(header.last_offset_delta + 1, header.record_count)
        offset = max(offset, header.base_offset + records)
        position += header.size
    return min(offset, OFFSET_MAX)
