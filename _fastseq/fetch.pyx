"""Fetch responses as buffers: what frames the records is packed here, the records go as they are.

Owns the layout of a Fetch response (key 1) in versions 4 to 12. An answer is a list of buffers:
headers and small records in blobs of our own, large records as the buffers they lie in, so that
nothing of them is copied before the socket takes it.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport (
    INT16_MAX,
    INT32_MAX,
    INT32_MIN,
    INT64_MAX,
    INT64_MIN,
    int64_t,
    uint8_t,
)
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from _fastseq.args cimport acquire, integer

cdef enum:
    FIRST_VERSION = 4
    LAST_VERSION = 12
    COMPACT_SINCE = 12
    # Records up to here are copied beside their header: a buffer of their own costs the socket
    # as much as copying them.
    SMALL = 2048
    HEADER_BYTES = 61
    ZSTD = 4


# Bytes that grow; what has been handed out begins anew.
cdef struct Blob:
    char* data
    Py_ssize_t used
    Py_ssize_t room


cdef char* blob_room(Blob* blob, Py_ssize_t size) except NULL:
    cdef Py_ssize_t room = blob.room
    cdef char* data
    if blob.used + size > room:
        room = 2 * room + size + 256
        data = <char*>realloc(blob.data, <size_t>room)
        if data == NULL:
            raise MemoryError()
        blob.data, blob.room = data, room
    blob.used += size
    return blob.data + blob.used - size


cdef int put_number(Blob* blob, int64_t value, int size) except -1:
    cdef char* place = blob_room(blob, size)
    cdef int at
    for at in range(size):
        place[at] = <char>((value >> (8 * (size - 1 - at))) & 0xff)
    return 0


cdef int put_uvarint(Blob* blob, int64_t value) except -1:
    while value >= 0x80:
        put_number(blob, (value & 0x7f) | 0x80, 1)
        value >>= 7
    put_number(blob, value, 1)
    return 0


# The length of an array, string or bytes: one more in a varint, or plain.
cdef int put_length(Blob* blob, int64_t length, bint compact, int size) except -1:
    if compact:
        put_uvarint(blob, length + 1)
    else:
        put_number(blob, length, size)
    return 0


cdef int put_string(Blob* blob, str value, bint compact) except -1:
    cdef bytes data = value.encode()
    if len(data) > INT16_MAX:
        raise ValueError(f"a name of {len(data)} bytes does not fit")
    put_length(blob, len(data), compact, 2)
    memcpy(blob_room(blob, len(data)), <const char*>data, <size_t>len(data))
    return 0


cdef int flush(Blob* blob, list pieces) except -1:
    if blob.used > 0:
        pieces.append(PyBytes_FromStringAndSize(blob.data, blob.used))
        blob.used = 0
    return 0


cdef int put_records(Blob* blob, list pieces, object parts, int64_t size, bint compact) except -1:
    cdef Py_buffer view
    cdef int64_t found = 0
    put_length(blob, size, compact, 4)
    for part in parts:
        acquire(part, &view, "records")
        try:
            found += view.len
            if view.len <= SMALL:
                memcpy(blob_room(blob, view.len), view.buf, <size_t>view.len)
            else:
                flush(blob, pieces)
                pieces.append(part)
        finally:
            PyBuffer_Release(&view)
    if found != size:
        raise ValueError(f"records of {found} bytes where {size} were announced")
    return 0


cdef int put_partition(
    Blob* blob, list pieces, tuple partition, int version, bint stable
) except -1:
    cdef bint compact = version >= COMPACT_SINCE
    cdef int64_t size
    index, error, high_watermark, log_start, parts, length = partition
    size = integer(length, "size", 0, INT32_MAX)
    put_number(blob, integer(index, "index", INT32_MIN, INT32_MAX), 4)
    put_number(blob, integer(error, "error", -1, INT16_MAX), 2)
    put_number(blob, integer(high_watermark, "high watermark", INT64_MIN, INT64_MAX), 8)
    # Without transactions everything committed is stable.
    put_number(blob, high_watermark, 8)
    if version >= 5:
        put_number(blob, integer(log_start, "log start", INT64_MIN, INT64_MAX), 8)
    # Aborted transactions: none, or null for who did not ask to be spared them.
    put_length(blob, 0 if stable else -1, compact, 4)
    if version >= 11:
        put_number(blob, -1, 4)         # no other replica is preferred
    put_records(blob, pieces, parts, size, compact)
    if compact:
        put_number(blob, 0, 1)          # no tagged fields
    return 0


def pack_fetch(version, correlation_id, error, topics, *, stable=False):
    """Return the frame of a response as a list of buffers.

    `topics` holds (name, partitions), each partition (index, error, high watermark, log start,
    buffers of whole batches, their bytes in all). `stable` says that only what is of no open
    transaction was asked for.
    """
    cdef int at = <int>integer(version, "version", FIRST_VERSION, LAST_VERSION)
    cdef int64_t correlation = integer(correlation_id, "correlation id", INT32_MIN, INT32_MAX)
    cdef int64_t failure = integer(error, "error", -1, INT16_MAX)
    cdef bint compact = at >= COMPACT_SINCE
    cdef bint only_stable = bool(stable)
    cdef list pieces = []
    cdef Blob blob
    blob.data, blob.used, blob.room = NULL, 0, 0
    try:
        put_number(&blob, correlation, 4)
        if compact:
            put_number(&blob, 0, 1)
        put_number(&blob, 0, 4)         # nobody is throttled
        if at >= 7:
            put_number(&blob, failure, 2)
            put_number(&blob, 0, 4)     # no session was made
        put_length(&blob, len(topics), compact, 4)
        for name, partitions in topics:
            put_string(&blob, name, compact)
            put_length(&blob, len(partitions), compact, 4)
            for partition in partitions:
                put_partition(&blob, pieces, partition, at, only_stable)
            if compact:
                put_number(&blob, 0, 1)
        if compact:
            put_number(&blob, 0, 1)
        flush(&blob, pieces)
    finally:
        free(blob.data)
    return pieces


cdef inline int64_t big_endian(const uint8_t* data, int size) noexcept nogil:
    cdef int64_t value = 0
    cdef int at
    for at in range(size):
        value = (value << 8) | data[at]
    return value


def holds_zstd(data):
    """Whether a batch of whole batches is compressed with zstd, which old readers cannot read."""
    cdef Py_buffer view
    cdef const uint8_t* bytes_
    cdef int64_t position = 0
    cdef int64_t size
    cdef bint found = False
    acquire(data, &view, "data")
    bytes_ = <const uint8_t*>view.buf
    while not found and position + HEADER_BYTES <= view.len:
        found = (bytes_[position + 22] & 7) == ZSTD
        size = 12 + big_endian(bytes_ + position + 8, 4)
        if size < HEADER_BYTES or size > view.len - position:
            break
        position += size
    PyBuffer_Release(&view)
    return found
