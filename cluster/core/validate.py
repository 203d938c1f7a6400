"""The second step of a record's way, where a topic asks for it: what is in a compressed batch.

Headers, checksums and the records of uncompressed batches are always checked, in `_fastseq`. A
compressed batch is believed unless the topic has `validate.records=full`: then it is decompressed,
within the bound of `cluster.wire.compression`, and its records must be as many as the header says,
with the deltas 0, 1, 2 ... A consumer would otherwise meet what its broker never looked at.
"""

from __future__ import annotations

from _fastseq.batch import HEADER_BYTES, check_records, read_header
from cluster.wire.compression import decompress
from cluster.wire.primitives import WireError

_CODEC = 0x07


def sound(batch: bytes) -> bool:
    """Whether a compressed batch holds the records that its header announces.

    Sizes and checksum are looked at elsewhere; the batch has at least a whole header.
    """
    header = read_header(batch)
    try:
        records = decompress(header.attributes & _CODEC, memoryview(batch)[HEADER_BYTES:])
    except WireError:
        return False
    return check_records(records, header.record_count)
