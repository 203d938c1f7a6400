"""The second step of a record's way, where a topic asks for it: what is in a compressed batch.

Headers, checksums and the records of uncompressed batches are always checked, in `_fastseq`. A
compressed batch is believed unless the topic has `validate.records=full`: then it is decompressed,
and its records must be as many as the header says, with the deltas 0, 1, 2 ... A consumer would
otherwise meet what its broker never looked at.

Invariants: a turn decompresses at most `LOOKED_INTO_BYTES_PER_TURN` and what one batch may hold;
what comes after that is refused so that its client sends it again, with the numbers it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from _fastseq.batch import HEADER_BYTES, check_records, read_header
from cluster import errors
from cluster.limits import (
    DECOMPRESSED_BYTES_MAX,
    LOOKED_INTO_BYTES_MIN,
    LOOKED_INTO_BYTES_PER_TURN,
    LOOKED_INTO_GROWTH,
)
from cluster.wire.compression import decompress
from cluster.wire.primitives import WireError

_CODEC = 0x07


def refused(batches: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, int]]:
    """(number, error) of those of a turn's compressed batches that must not be appended.

    INVALID_RECORD for what does not hold the records that its header announces; REQUEST_TIMED_OUT,
    which every client answers by sending the same again, once the turn's bytes are used up.
    """
    left = LOOKED_INTO_BYTES_PER_TURN
    for number, batch in batches:
        if left <= 0:
            yield number, errors.REQUEST_TIMED_OUT.number
            continue
        is_sound, size = look_into(batch)
        left -= size
        if not is_sound:
            yield number, errors.INVALID_RECORD.number


def look_into(batch: bytes) -> tuple[bool, int]:
    """Whether a compressed batch holds the records that its header announces; what that took, in
    bytes decompressed.

    Sizes and checksum are looked at elsewhere; the batch has at least a whole header.
    """
    header = read_header(batch)
    bound = max(LOOKED_INTO_BYTES_MIN, LOOKED_INTO_GROWTH * len(batch))
    bound = min(bound, DECOMPRESSED_BYTES_MAX)
    try:
        packed = memoryview(batch)[HEADER_BYTES:]
        records = decompress(header.attributes & _CODEC, packed, bound)
    except WireError:
        return False, bound  # nobody says how far it came
    return check_records(records, header.record_count), len(records)
