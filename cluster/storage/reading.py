"""Taking whole batches out of a buffer of batches.

Owns: the rule of every read of the log: whole batches only, none past the reader's limit, and at
least one even if it alone is larger than asked for.
"""

from __future__ import annotations

from _fastseq.batch import HEADER_BYTES, decode_batch, read_header, whole_batches
from cluster.storage.disk import Buffer

CODEC = 0x07  # attribute bits: how the records are compressed
LOG_APPEND_TIME = 0x08  # attribute bit: every record carries the batch's largest timestamp


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

    The batch's largest timestamp must not be older. A batch stamped as a whole on append, or with
    records that cannot be seen, answers with its first offset and largest timestamp.
    """
    header = read_header(data, position)
    if not header.attributes & (CODEC | LOG_APPEND_TIME):
        for record in decode_batch(data, position):
            if record.timestamp >= timestamp:
                return record.offset, record.timestamp
    return header.base_offset, header.max_timestamp
