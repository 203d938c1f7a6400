"""Taking whole batches out of a buffer of batches, and what to do when the buffer is not there.

Owns: the rule of every read of the log (whole batches only, none past the reader's limit, and at
least one even if it alone is larger than asked for), and the shapes of a read that has to wait for
the device: what is missing, and what came back.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import msgspec

from _fastseq.batch import HEADER_BYTES, read_header, whole_batches
from cluster.storage.disk import Buffer
from cluster.wire.primitives import WireError
from cluster.wire.records import read_records

Parts = Sequence[Buffer]
"""Whole batches in order, in as many buffers as they lie in."""


class Missing(msgspec.Struct, frozen=True, gc=False):
    """A range of a segment's file that is not in memory.

    `hint` is the last offset of the batch at `position` as the index says, -1 if that is certain.
    With `index` the range is the whole offset index instead.
    """

    position: int
    length: int
    hint: int = -1
    index: bool = False


class Cold(msgspec.Struct, frozen=True, gc=False):
    """What must be read off the loop before a log can answer; its file stays open until then."""

    handle: int
    position: int
    length: int
    number: int
    segment_base: int
    generation: int
    missing: Missing


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """The bytes that a `Cold` asked for; fewer than its length only at the end of the file."""

    cold: Cold
    data: Buffer


def take_batches(
    data: Buffer, start: int, max_bytes: int, limit_offset: int, *, at_least_one: bool
) -> tuple[int, int]:
    """(end of the batches to hand out from `start`, their end offset).

    (`start`, -1) if there is none to give.
    """
    stop = min(len(data), start + max(max_bytes, 0))
    end, next_offset = whole_batches(data, start, stop, limit_offset)
    if end == start and at_least_one and start + HEADER_BYTES <= len(data):
        whole = start + read_header(data, start).size
        if stop < whole <= len(data):
            end, next_offset = whole_batches(data, start, whole, limit_offset)
    return end, next_offset


def first_record(
    data: Buffer, position: int, timestamp: int, from_offset: int = 0
) -> tuple[int, int] | None:
    """(offset, timestamp) of the first record of a batch that is not older than `timestamp`.

    Records below `from_offset` do not count: None if all that would do lie there. The batch's
    largest timestamp must not be older. A batch without records that a reader would see answers
    with its first offset and largest timestamp.
    """
    header = read_header(data, position)
    with suppress(WireError):
        batch = memoryview(data)[position : position + header.size]
        for record in read_records(batch, check_crc=False):
            if record.timestamp >= timestamp and record.offset >= from_offset:
                return record.offset, record.timestamp
    return None if header.base_offset < from_offset else (header.base_offset, header.max_timestamp)


def joined(parts: Parts) -> Buffer:
    """All of it as one buffer, copied only if it lies in several."""
    if len(parts) == 1:
        return parts[0]
    return b"".join(parts)
