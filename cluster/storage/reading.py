"""Taking whole batches out of a buffer of batches.

Owns: the rule of every read of the log: whole batches only, none past the reader's limit, and at
least one even if it alone is larger than asked for.
"""

from __future__ import annotations

from contextlib import suppress

from _fastseq.batch import HEADER_BYTES, read_header, whole_batches
from cluster.storage.disk import Buffer
from cluster.wire.primitives import WireError
from cluster.wire.records import read_records


def take_batches(
    data: Buffer, start: int, max_bytes: int, limit_offset: int, *, at_least_one: bool
) -> int:
    """End of the batches to hand out from `start`; `start` itself if there is none to give."""
    stop = min(len(data), start + max(max_bytes, 0))
    end, _ = whole_batches(data, start, stop, limit_offset)
    if end == start and at_least_one and start + HEADER_BYTES <= len(data):
        whole = start + read_header(data, start).size
        if stop < whole <= len(data):
            end, _ = whole_batches(data, start, whole, limit_offset)
    return end


def first_record(data: Buffer, position: int, timestamp: int) -> tuple[int, int]:
    """(offset, timestamp) of the first record of a batch that is not older than `timestamp`.

    The batch's largest timestamp must not be older. A batch without records that a reader would see
    answers with its first offset and largest timestamp.
    """
    header = read_header(data, position)
    with suppress(WireError):
        batch = memoryview(data)[position : position + header.size]
        for record in read_records(batch, check_crc=False):
            if record.timestamp >= timestamp:
                return record.offset, record.timestamp
    return header.base_offset, header.max_timestamp
