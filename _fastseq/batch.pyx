"""Record batches by their headers: check what a client sent, walk what a log holds.

Nothing here owns data. Every walk goes from one whole batch to the next inside the window it was
given and stops at the first header that is not plausible, so arbitrary bytes are safe input.
Positions count from the start of the buffer; offsets and ranges are half-open.
What concerns single records is in `records`, writing is in `builder`; both are re-exported here.
"""

from collections import namedtuple

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from _fastseq.args cimport acquire, integer, window_end
from _fastseq.crc32c cimport crc32c_update
from _fastseq.layout cimport (
    ATTRIBUTE_CODEC, ATTRIBUTE_CONTROL, ATTRIBUTES_STORED, CODEC_LAST, CONTROL_TYPE_COLLAPSE,
    CONTROL_TYPE_EXPIRE, CONTROL_TYPE_FENCE, CRC_START, FAULT_CRC,
    FAULT_HEADER, FAULT_LENGTH, FAULT_MAGIC, FAULT_ORDER, FAULT_SHORT, HEADER_SIZE,
    LENGTH_PREFIX, RECORDS_PER_BATCH, Header, header_fault, header_load, header_next_offset,
    load32, store16, store64,
)
from _fastseq.records cimport control_type, records_sound

from _fastseq.builder import (
    BatchBuilder, collapse_batch, encode_batch, expire_batch, fence_batch, seal_batch,
)
from _fastseq.records import Record, check_records, decode_batch, decode_records

__all__ = [
    "CONTROL_COLLAPSE", "CONTROL_EXPIRE", "CONTROL_FENCE", "HEADER_BYTES", "SCAN_CRC", "SCAN_END",
    "SCAN_HEADER", "SCAN_LENGTH", "SCAN_MAGIC", "SCAN_ORDER", "SCAN_SHORT", "BatchBuilder",
    "BatchHeader", "Record", "Scan", "batch_at", "check_batch", "check_records",
    "collapse_batch", "control_key",
    "decode_batch", "decode_records", "encode_batch", "epoch_starts", "expire_batch",
    "fence_batch", "index_points", "read_header", "scan", "seal_batch", "whole_batches",
]

CONTROL_EXPIRE = CONTROL_TYPE_EXPIRE
CONTROL_COLLAPSE = CONTROL_TYPE_COLLAPSE
CONTROL_FENCE = CONTROL_TYPE_FENCE

HEADER_BYTES = HEADER_SIZE

SCAN_END = 0
SCAN_SHORT = FAULT_SHORT
SCAN_MAGIC = FAULT_MAGIC
SCAN_LENGTH = FAULT_LENGTH
SCAN_CRC = FAULT_CRC
SCAN_ORDER = FAULT_ORDER
SCAN_HEADER = FAULT_HEADER

cdef enum:
    MAX_BATCH_BYTES = 1_048_588         # Kafka's default max.message.bytes
    MAGIC_END = 17                      # bytes needed to see length and magic
    CORRUPT_MESSAGE = 2
    MESSAGE_TOO_LARGE = 10
    INVALID_RECORD = 87


class BatchHeader(namedtuple("BatchHeader", [
        "base_offset", "size", "leader_epoch", "magic", "crc", "attributes", "last_offset_delta",
        "base_timestamp", "max_timestamp", "producer_id", "producer_epoch", "base_sequence",
        "record_count"])):
    """The 61 bytes before the records; `size` is that of the whole batch in bytes."""

    __slots__ = ()

    @property
    def next_offset(self):
        """One past the batch's last offset, records lost to compaction included."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def is_control(self):
        """Whether the batch holds a control record, which is not for consumers."""
        return bool(self.attributes & ATTRIBUTE_CONTROL)


class Scan(namedtuple("Scan", [
        "end_position", "next_offset", "batches", "records", "max_timestamp",
        "max_timestamp_offset", "reason"])):
    """What a scan found before `end_position`, and the reason why it stopped there.

    `max_timestamp_offset` is the last offset of the first batch with that timestamp; both are -1
    if there was none.
    """

    __slots__ = ()


cdef bint crc_right(const unsigned char* p, const Header* header) noexcept nogil:
    return crc32c_update(0, p + CRC_START, <size_t>(header.size - CRC_START)) == header.crc


# The checksum of the batch at `p` once attributes and max timestamp have been replaced.
cdef uint32_t crc_rewritten(
        const unsigned char* p, int64_t size, int16_t attributes,
        int64_t max_timestamp) noexcept nogil:
    cdef unsigned char front[43 - CRC_START]
    memcpy(front, p + CRC_START, 43 - CRC_START)
    store16(front, <unsigned short>attributes)
    store64(front + 35 - CRC_START, <uint64_t>max_timestamp)
    cdef uint32_t crc = crc32c_update(0, front, 43 - CRC_START)
    return crc32c_update(crc, p + 43, <size_t>(size - 43))


# The numbers of a client's header, apart from sizes and checksum.
cdef bint client_numbers(const Header* header) noexcept nogil:
    return (
        0 < header.record_count <= RECORDS_PER_BATCH
        and header.last_offset_delta == header.record_count - 1
        and not header.attributes & ATTRIBUTE_CONTROL
        and header.attributes & ATTRIBUTE_CODEC <= CODEC_LAST
        and not (header.producer_id >= 0 and header.base_sequence < 0)
    )


cdef int client_fault(
        const unsigned char* p, int64_t length, int64_t max_bytes,
        Checked* checked) noexcept nogil:
    cdef Header* header = &checked.header
    cdef int64_t size
    if length < MAGIC_END or p[16] != 2:
        return INVALID_RECORD
    size = <int64_t><int32_t>load32(p + 8) + LENGTH_PREFIX
    if size < HEADER_SIZE:
        return CORRUPT_MESSAGE
    if size != length:
        return INVALID_RECORD
    header_load(p, header)
    if header.base_offset != 0:
        return INVALID_RECORD
    if size > max_bytes:
        return MESSAGE_TOO_LARGE
    if not crc_right(p, header):
        return CORRUPT_MESSAGE
    if not client_numbers(header):
        return INVALID_RECORD
    return client_records(p, checked)


# The inner deltas are checked because Kafka does not, and its consumers then see wrong offsets.
# A compressed batch is believed; looking inside is left to deep verification.
cdef int client_records(const unsigned char* p, Checked* checked) noexcept nogil:
    cdef Header* header = &checked.header
    checked.max_timestamp = header.max_timestamp
    if not header.attributes & ATTRIBUTE_CODEC:
        if not records_sound(p + HEADER_SIZE, p + header.size, header.record_count,
                             header.base_timestamp, &checked.max_timestamp):
            return INVALID_RECORD
    checked.attributes = header.attributes & ATTRIBUTES_STORED
    checked.crc = header.crc
    checked.rewritten = (checked.attributes != header.attributes
                         or checked.max_timestamp != header.max_timestamp)
    if checked.rewritten:
        checked.crc = crc_rewritten(p, header.size, checked.attributes, checked.max_timestamp)
    return 0


def check_batch(data, position=0, length=-1, max_bytes=MAX_BATCH_BYTES):
    """Return the Kafka error code of a batch that a client sent: 0, 2, 10 or 87.

    The batch should be exactly the `length` bytes at `position`, -1 for all that is left.
    """
    cdef Py_buffer view
    cdef Checked checked
    cdef int64_t start = integer(position, "position", 0, INT64_MAX)
    cdef int64_t wanted = integer(length, "length", -1, INT64_MAX)
    cdef int64_t limit = integer(max_bytes, "max_bytes", 0, INT64_MAX)
    acquire(data, &view, "data")
    try:
        window_end(start, -1, view.len)
        if wanted > view.len - start:
            raise ValueError(f"length {wanted} reaches past the end of data ({view.len} bytes)")
        if wanted < 0:
            wanted = view.len - start
        return client_fault(<const unsigned char*>view.buf + start, wanted, limit, &checked)
    finally:
        PyBuffer_Release(&view)


def read_header(data, position=0):
    """Return the header at `position` as it stands, unchecked; ValueError if it is cut off."""
    cdef Py_buffer view
    cdef Header header
    cdef int64_t start = integer(position, "position", 0, INT64_MAX)
    acquire(data, &view, "data")
    try:
        window_end(start, -1, view.len)
        if view.len - start < HEADER_SIZE:
            raise ValueError(f"position {start} leaves no room for a batch header in data")
        header_load(<const unsigned char*>view.buf + start, &header)
    finally:
        PyBuffer_Release(&view)
    return BatchHeader(
        header.base_offset, header.size, header.leader_epoch, header.magic, header.crc,
        header.attributes, header.last_offset_delta, header.base_timestamp,
        header.max_timestamp, header.producer_id, header.producer_epoch, header.base_sequence,
        header.record_count)


def control_key(data, position=0):
    """Return the type of the control batch at `position`, None if it is none or was emptied."""
    cdef Py_buffer view
    cdef Header header
    cdef int32_t coordinator_epoch
    cdef int kind
    cdef int64_t start = integer(position, "position", 0, INT64_MAX)
    acquire(data, &view, "data")
    try:
        window_end(start, -1, view.len)
        p = <const unsigned char*>view.buf + start
        if header_fault(p, view.len - start, &header) != 0:
            raise ValueError(f"no whole record batch at position {start} of data")
        if not header.attributes & ATTRIBUTE_CONTROL or header.record_count == 0:
            return None
        kind = control_type(p + HEADER_SIZE, p + header.size, &coordinator_epoch)
        return None if kind < 0 else kind
    finally:
        PyBuffer_Release(&view)


# A window of a buffer and how far a walk has come; `header` is the batch at `position`.
cdef struct Walk:
    const unsigned char* data
    int64_t position
    int64_t end
    Header header


cdef inline bint walk_at_batch(Walk* walk) noexcept nogil:
    return walk.position < walk.end and header_fault(
        walk.data + walk.position, walk.end - walk.position, &walk.header) == 0


cdef inline void walk_on(Walk* walk) noexcept nogil:
    walk.position += walk.header.size


# Opens a view that the caller releases.
cdef int walk_open(object data, Py_buffer* view, start, end, Walk* walk) except -1:
    walk.position = integer(start, "start", 0, INT64_MAX)
    walk.end = integer(end, "end", -1, INT64_MAX)
    acquire(data, view, "data")
    try:
        walk.end = window_end(walk.position, walk.end, view.len)
    except ValueError:
        PyBuffer_Release(view)
        raise
    walk.data = <const unsigned char*>view.buf
    return 0


cdef struct Found:
    int64_t next_offset
    int64_t batches
    int64_t records
    int64_t max_timestamp
    int64_t max_timestamp_offset


cdef int scan_run(Walk* walk, bint check_crc, Found* found) noexcept nogil:
    cdef Header* header = &walk.header
    cdef int fault
    while walk.position < walk.end:
        fault = header_fault(walk.data + walk.position, walk.end - walk.position, header)
        if fault != 0:
            return fault
        if check_crc and not crc_right(walk.data + walk.position, header):
            return FAULT_CRC
        if header.base_offset < found.next_offset:
            return FAULT_ORDER
        found.next_offset = header_next_offset(header)
        found.batches += 1
        found.records += header.record_count
        if header.max_timestamp > found.max_timestamp:
            found.max_timestamp = header.max_timestamp
            found.max_timestamp_offset = found.next_offset - 1
        walk_on(walk)
    return 0


def scan(data, start, end, expected_offset, *, check_crc=True):
    """Walk whole, sound batches from `start` and return a `Scan` of what lies before the first bad.

    A batch is sound if its header is plausible, its checksum right and its base offset not below
    the end of the one before it (`expected_offset` at first): Kafka does not ask for the last,
    and takes a stale batch at the tail for data. SCAN_SHORT means that more bytes could help.
    """
    cdef Py_buffer view
    cdef Walk walk
    cdef Found found
    cdef bint crc = check_crc
    cdef int reason
    found.next_offset = integer(expected_offset, "expected_offset", 0, INT64_MAX)
    found.batches = found.records = 0
    found.max_timestamp = found.max_timestamp_offset = -1
    walk_open(data, &view, start, end, &walk)
    with nogil:
        reason = scan_run(&walk, crc, &found)
    PyBuffer_Release(&view)
    return Scan(walk.position, found.next_offset, found.batches, found.records,
                found.max_timestamp, found.max_timestamp_offset, reason)


def index_points(data, start, end, interval_bytes, bytes_since_last, *, max_timestamp=-1,
                 max_timestamp_offset=-1):
    """Return the index entries for the batches in the window, and the bytes since the last one.

    An entry is due at a batch when more than `interval_bytes` went before it since the last entry:
    (last offset of the batch, its position from `start`, largest timestamp so far, last offset of
    the batch that holds it). The keyword arguments say what was largest before the window.
    """
    cdef Py_buffer view
    cdef Walk walk
    cdef int64_t interval = integer(interval_bytes, "interval_bytes", 0, INT64_MAX)
    cdef int64_t since = integer(bytes_since_last, "bytes_since_last", 0, INT64_MAX >> 1)
    cdef int64_t largest = integer(max_timestamp, "max_timestamp", -1, INT64_MAX)
    cdef int64_t holder = integer(max_timestamp_offset, "max_timestamp_offset", -1, INT64_MAX)
    cdef int64_t origin
    cdef list points = []
    walk_open(data, &view, start, end, &walk)
    origin = walk.position
    try:
        while walk_at_batch(&walk):
            if walk.header.max_timestamp > largest:
                largest = walk.header.max_timestamp
                holder = header_next_offset(&walk.header) - 1
            if since > interval:
                points.append((header_next_offset(&walk.header) - 1, walk.position - origin,
                               largest, holder))
                since = 0
            since += walk.header.size
            walk_on(&walk)
    finally:
        PyBuffer_Release(&view)
    return points, since


def epoch_starts(data, start, end, last_epoch=-1):
    """Return (leader epoch, base offset) of each batch whose epoch is above all before it."""
    cdef Py_buffer view
    cdef Walk walk
    cdef int64_t epoch = integer(last_epoch, "last_epoch", -1, INT64_MAX)
    cdef list starts = []
    walk_open(data, &view, start, end, &walk)
    try:
        while walk_at_batch(&walk):
            if walk.header.leader_epoch > epoch:
                epoch = walk.header.leader_epoch
                starts.append((epoch, walk.header.base_offset))
            walk_on(&walk)
    finally:
        PyBuffer_Release(&view)
    return starts


def batch_at(data, start, end, offset):
    """Return the position of the first batch that ends past `offset`, or `end` if there is none."""
    cdef Py_buffer view
    cdef Walk walk
    cdef int64_t wanted = integer(offset, "offset", 0, INT64_MAX)
    cdef int64_t found
    walk_open(data, &view, start, end, &walk)
    found = walk.end
    while walk_at_batch(&walk):
        if header_next_offset(&walk.header) > wanted:
            found = walk.position
            break
        walk_on(&walk)
    PyBuffer_Release(&view)
    return found


def whole_batches(data, start, end, offset_limit):
    """Return where the whole batches that end at or below `offset_limit` end, and their end offset.

    The position is `start` and the offset -1 if there is none.
    """
    cdef Py_buffer view
    cdef Walk walk
    cdef int64_t limit = integer(offset_limit, "offset_limit", 0, INT64_MAX)
    cdef int64_t next_offset = -1
    walk_open(data, &view, start, end, &walk)
    while walk_at_batch(&walk) and header_next_offset(&walk.header) <= limit:
        next_offset = header_next_offset(&walk.header)
        walk_on(&walk)
    PyBuffer_Release(&view)
    return walk.position, next_offset
