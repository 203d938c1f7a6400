"""Stored batches to records: what a reader sees of the bytes that a fetch brings.

Owns the reader's rules: batches are read whole, a torn last one is left for the next fetch; the
checksum is checked before anything inside is believed; control batches are passed over; offsets
before the one asked for are dropped, since a fetch brings the whole batch that holds it. Decoding
the records themselves is `_fastseq`'s, which also gives every record of a batch stamped at append
the batch's timestamp.
"""

from __future__ import annotations

from collections.abc import Iterator

from _fastseq.batch import (
    HEADER_BYTES,
    BatchHeader,
    Record,
    decode_batch,
    decode_records,
    read_header,
)
from _fastseq.crc32c import crc32c
from cluster.wire.compression import decompress
from cluster.wire.primitives import Data, WireError

_MAGIC = 2
_CODEC = 0x07
_CRC_FROM = 21  # the checksum covers everything behind itself


class CorruptBatch(WireError):
    """A stored batch is not what its header says."""


def read_batches(data: Data) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of every whole batch; stops at a torn one.

    CorruptBatch where a header cannot be one.
    """
    position = 0
    while position + HEADER_BYTES <= len(data):
        header = read_header(data, position)
        if header.magic != _MAGIC or header.size < HEADER_BYTES:
            raise CorruptBatch(f"no batch of format v2 at byte {position}")
        if position + header.size > len(data):
            return
        yield position, header
        position += header.size


def read_records(data: Data, from_offset: int = 0, *, check_crc: bool = True) -> list[Record]:
    """The records at and after `from_offset` of all whole batches in `data`.

    Timestamps are milliseconds. CorruptBatch for a wrong checksum and for records that do not
    fit their batch.
    """
    records: list[Record] = []
    for position, header in read_batches(data):
        if header.next_offset <= from_offset or header.is_control:
            continue
        found = _records_of(data, position, header, check_crc)
        if header.base_offset < from_offset:
            found = [record for record in found if record.offset >= from_offset]
        records += found
    return records


def next_offset(data: Data, from_offset: int) -> int:
    """Where the next fetch starts: past the last whole batch, whatever it holds.

    Control and emptied batches have no record, yet a reader must get past them.
    """
    offset = from_offset
    for _, header in read_batches(data):
        offset = max(offset, header.next_offset)
    return offset


def _records_of(data: Data, position: int, header: BatchHeader, check_crc: bool) -> list[Record]:
    batch = memoryview(data)[position : position + header.size]
    if check_crc and crc32c(batch[_CRC_FROM:]) != header.crc:
        raise CorruptBatch(f"batch at offset {header.base_offset}: wrong checksum")
    codec = header.attributes & _CODEC
    try:
        if codec == 0 or header.record_count == 0:
            return decode_batch(batch)
        return decode_records(decompress(codec, batch[HEADER_BYTES:]), header)
    except ValueError as error:
        raise CorruptBatch(f"batch at offset {header.base_offset}: {error}") from error
