"""Writes record batches: a builder that a producer appends to, and one-shot helpers.

A builder owns one growing buffer whose first 61 bytes are kept for the header, so that sealing is
a header, a checksum and one copy. Base timestamp is that of the first record, as Kafka has it;
base offset 0 and leader epoch -1 are what a client sends, the leader stamps them.
"""

import struct

from cpython.bytes cimport (
    PyBytes_AS_STRING, PyBytes_CheckExact, PyBytes_FromStringAndSize, PyBytes_GET_SIZE,
)
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport (
    INT16_MAX, INT32_MAX, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t, uint64_t,
)
from libc.string cimport memcpy

from _fastseq.args cimport integer
from _fastseq.crc32c cimport crc32c_update
from _fastseq.layout cimport (
    ATTRIBUTE_CONTROL, CONTROL_TYPE_COLLAPSE, CONTROL_TYPE_EXPIRE, CONTROL_TYPE_FENCE, CRC_START,
    HEADER_SIZE, LENGTH_PREFIX, RECORDS_PER_BATCH, Header, store16, store32, store64,
)

cdef enum:
    FIRST_CAPACITY = 1024
    NUMBERS_BYTES = 64          # room for the fixed parts of a record, all varints at their longest


cdef inline int varint_size(int64_t number) noexcept nogil:
    cdef uint64_t raw = (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)
    cdef int size = 1
    while raw > 0x7F:
        raw >>= 7
        size += 1
    return size


cdef inline unsigned char* varint_store(unsigned char* p, int64_t number) noexcept nogil:
    cdef uint64_t raw = (<uint64_t>number << 1) ^ <uint64_t>(number >> 63)
    while raw > 0x7F:
        p[0] = <unsigned char>(raw & 0x7F | 0x80)
        raw >>= 7
        p += 1
    p[0] = <unsigned char>raw
    return p + 1


# `length` is -1 for null, and then nothing is read from `start`.
cdef inline unsigned char* sized_store(
        unsigned char* p, const char* start, Py_ssize_t length) noexcept nogil:
    p = varint_store(p, length)
    if length > 0:
        memcpy(p, start, <size_t>length)
        p += length
    return p


# Writes the client's 61 bytes before the records section that is already in place.
cdef void header_store(unsigned char* p, const Header* header) noexcept nogil:
    store64(p, <uint64_t>header.base_offset)
    store32(p + 8, <unsigned int>(header.size - LENGTH_PREFIX))
    store32(p + 12, <unsigned int>header.leader_epoch)
    p[16] = 2
    store16(p + 21, <unsigned short>header.attributes)
    store32(p + 23, <unsigned int>header.last_offset_delta)
    store64(p + 27, <uint64_t>header.base_timestamp)
    store64(p + 35, <uint64_t>header.max_timestamp)
    store64(p + 43, <uint64_t>header.producer_id)
    store16(p + 51, <unsigned short>header.producer_epoch)
    store32(p + 53, <unsigned int>header.base_sequence)
    store32(p + 57, <unsigned int>header.record_count)
    store32(p + 17, crc32c_update(0, p + CRC_START, <size_t>(header.size - CRC_START)))


# What a sealed batch says of its producer; ValueError names what is out of range.
cdef int header_identify(
        Header* header, producer_id, producer_epoch, base_sequence, attributes) except -1:
    header.base_offset = 0
    header.leader_epoch = -1
    header.producer_id = integer(producer_id, "producer_id", -1, INT64_MAX)
    header.producer_epoch = <int16_t>integer(producer_epoch, "producer_epoch", -1, 32767)
    header.base_sequence = <int32_t>integer(base_sequence, "base_sequence", -1, INT32_MAX)
    header.attributes = <int16_t>integer(attributes, "attributes", -32768, 32767)
    return 0


# The bytes of a key, value or header; anything but bytes is copied once to have them.
cdef inline bytes exact_bytes(object part, str name):
    if part is None or PyBytes_CheckExact(part):
        return part
    if isinstance(part, (bytes, bytearray, memoryview)):
        return bytes(part)
    raise TypeError(f"{name} must be bytes-like or None, not {type(part).__name__}")


cdef inline Py_ssize_t nullable_size(bytes part) noexcept:
    return -1 if part is None else PyBytes_GET_SIZE(part)


cdef inline const char* nullable_start(bytes part) noexcept:
    return NULL if part is None else PyBytes_AS_STRING(part)


cdef tuple exact_header(object pair):
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise TypeError("headers must be pairs of a name and bytes or None") from None
    if not isinstance(name, str):
        raise TypeError(f"a header's name must be a str, not {type(name).__name__}")
    return name.encode(), exact_bytes(value, "a header's value")


cdef class BatchBuilder:
    """One batch in the making, uncompressed; `reset` makes it ready for the next.

    Not thread-safe. `seal` may be called again; it leaves the records in place.
    """

    cdef unsigned char* buffer
    cdef Py_ssize_t capacity
    cdef readonly Py_ssize_t size
    cdef readonly int32_t count
    cdef readonly int64_t first_timestamp
    cdef readonly int64_t max_timestamp

    def __cinit__(self):
        self.buffer = NULL
        self.capacity = 0
        self.reset()

    def __dealloc__(self):
        PyMem_Free(self.buffer)

    cpdef reset(self):
        """Forget the records; the buffer is kept."""
        self.size = HEADER_SIZE
        self.count = 0
        self.first_timestamp = -1
        self.max_timestamp = -1

    cdef int reserve(self, Py_ssize_t more) except -1:
        cdef Py_ssize_t wanted = self.size + more
        cdef Py_ssize_t capacity = max(self.capacity, <Py_ssize_t>FIRST_CAPACITY)
        if wanted <= self.capacity:
            return 0
        if wanted > INT32_MAX:
            raise ValueError("a batch cannot exceed 2 GiB")
        while capacity < wanted:
            capacity *= 2
        grown = <unsigned char*>PyMem_Realloc(self.buffer, <size_t>capacity)
        if grown == NULL:
            raise MemoryError()
        self.buffer = grown
        self.capacity = capacity
        return 0

    def append(self, timestamp_ms, key, value, headers=()):
        """Add a record and return the size of the batch in bytes, header included."""
        cdef int64_t timestamp = integer(timestamp_ms, "timestamp_ms", INT64_MIN, INT64_MAX)
        cdef bytes key_bytes = exact_bytes(key, "key")
        cdef bytes value_bytes = exact_bytes(value, "value")
        cdef bytes tail = None
        if headers:
            tail = encode_headers(headers)
        if self.count >= RECORDS_PER_BATCH:
            raise ValueError(f"a batch holds at most {RECORDS_PER_BATCH} records")
        self.add(timestamp, key_bytes, value_bytes, tail)
        return self.size

    cdef int add(self, int64_t timestamp, bytes key, bytes value, bytes tail) except -1:
        cdef int64_t base = timestamp if self.count == 0 else self.first_timestamp
        cdef int64_t delta = <int64_t>(<uint64_t>timestamp - <uint64_t>base)
        cdef Py_ssize_t key_size = nullable_size(key)
        cdef Py_ssize_t value_size = nullable_size(value)
        cdef Py_ssize_t tail_size = 1 if tail is None else PyBytes_GET_SIZE(tail)
        cdef Py_ssize_t body = (
            1 + varint_size(delta) + varint_size(self.count)
            + varint_size(key_size) + max(key_size, <Py_ssize_t>0)
            + varint_size(value_size) + max(value_size, <Py_ssize_t>0) + tail_size)
        self.reserve(body + NUMBERS_BYTES)
        cdef unsigned char* p = varint_store(self.buffer + self.size, body)
        p[0] = 0
        p = varint_store(p + 1, delta)
        p = varint_store(p, self.count)
        p = sized_store(p, nullable_start(key), key_size)
        p = sized_store(p, nullable_start(value), value_size)
        if tail is None:
            p[0] = 0
        else:
            memcpy(p, PyBytes_AS_STRING(tail), <size_t>tail_size)
        self.size = (p - self.buffer) + tail_size
        if self.count == 0:
            self.first_timestamp = self.max_timestamp = timestamp
        elif timestamp > self.max_timestamp:
            self.max_timestamp = timestamp
        self.count += 1
        return 0

    def records(self):
        """Return the records section alone, as a compressor wants it."""
        if self.count == 0:
            return b""
        return PyBytes_FromStringAndSize(
            <const char*>self.buffer + HEADER_SIZE, self.size - HEADER_SIZE)

    def seal(self, producer_id=-1, producer_epoch=-1, base_sequence=-1, attributes=0):
        """Return the whole batch. Its bytes are what a retry must send again."""
        cdef Header header
        if self.count == 0:
            raise ValueError("a batch needs at least one record")
        header_identify(&header, producer_id, producer_epoch, base_sequence, attributes)
        header.size = self.size
        header.last_offset_delta = self.count - 1
        header.record_count = self.count
        header.base_timestamp = self.first_timestamp
        header.max_timestamp = self.max_timestamp
        header_store(self.buffer, &header)
        return PyBytes_FromStringAndSize(<const char*>self.buffer, self.size)


# The header section of a record, its count included.
cdef bytes encode_headers(object headers):
    cdef list pairs = [exact_header(pair) for pair in headers]
    cdef Py_ssize_t size = varint_size(len(pairs))
    for name, value in pairs:
        size += varint_size(len(name)) + len(name)
        size += varint_size(nullable_size(value)) + max(nullable_size(value), <Py_ssize_t>0)
    cdef bytes section = PyBytes_FromStringAndSize(NULL, size)
    cdef unsigned char* p = <unsigned char*>PyBytes_AS_STRING(section)
    p = varint_store(p, len(pairs))
    for name, value in pairs:
        p = sized_store(p, nullable_start(name), nullable_size(name))
        p = sized_store(p, nullable_start(value), nullable_size(value))
    return section


def encode_batch(records, *, producer_id=-1, producer_epoch=-1, base_sequence=-1, attributes=0):
    """Return one uncompressed batch of `records`: (key, value, timestamp_ms, headers) each."""
    cdef BatchBuilder builder = BatchBuilder()
    for record in records:
        try:
            key, value, timestamp_ms, headers = record
        except (TypeError, ValueError):
            raise TypeError("records must be (key, value, timestamp_ms, headers) each") from None
        builder.append(timestamp_ms, key, value, headers)
    return builder.seal(producer_id, producer_epoch, base_sequence, attributes)


def seal_batch(blob, *, record_count, base_timestamp, max_timestamp, attributes=0,
               producer_id=-1, producer_epoch=-1, base_sequence=-1):
    """Return a batch around `blob`, a records section as `attributes` says it is compressed."""
    cdef Header header
    if blob is None:
        raise TypeError("blob must be bytes-like, not NoneType")
    cdef bytes section = exact_bytes(blob, "blob")
    cdef Py_ssize_t size = nullable_size(section)
    if size > INT32_MAX - HEADER_SIZE:
        raise ValueError("blob must be below 2 GiB")
    header_identify(&header, producer_id, producer_epoch, base_sequence, attributes)
    header.size = HEADER_SIZE + size
    header.record_count = <int32_t>integer(record_count, "record_count", 1, RECORDS_PER_BATCH)
    header.last_offset_delta = header.record_count - 1
    header.base_timestamp = integer(base_timestamp, "base_timestamp", INT64_MIN, INT64_MAX)
    header.max_timestamp = integer(max_timestamp, "max_timestamp", INT64_MIN, INT64_MAX)
    cdef bytes batch = PyBytes_FromStringAndSize(NULL, HEADER_SIZE + size)
    cdef unsigned char* p = <unsigned char*>PyBytes_AS_STRING(batch)
    memcpy(p + HEADER_SIZE, PyBytes_AS_STRING(section), <size_t>size)
    header_store(p, &header)
    return batch


# A control batch of our own, for a leader to stamp; see control.pyx for the values.
cdef bytes control_batch(int kind, bytes value, object timestamp_ms):
    cdef bytes key = struct.pack(">hh", 0, kind)
    return encode_batch([(key, value, timestamp_ms, ())], attributes=ATTRIBUTE_CONTROL)


def expire_batch(cutoff, timestamp_ms=0):
    """Return an EXPIRE control batch: producers whose last offset is below `cutoff` expire."""
    cdef int64_t offset = integer(cutoff, "cutoff", 0, INT64_MAX)
    return control_batch(CONTROL_TYPE_EXPIRE, struct.pack(">hq", 0, offset), timestamp_ms)


def collapse_batch(id_bound, epoch_bound, timestamp_ms=0):
    """Return a COLLAPSE control batch: floors of ids below, with epochs up to, go into the mark.

    Bounds below those of the present mark count as these.
    """
    cdef int64_t bound = integer(id_bound, "id_bound", 1, INT64_MAX)
    cdef int64_t epoch = integer(epoch_bound, "epoch_bound", 0, INT16_MAX)
    value = struct.pack(">hqh", 0, bound, epoch)
    return control_batch(CONTROL_TYPE_COLLAPSE, value, timestamp_ms)


def fence_batch(producer_id, producer_epoch=INT16_MAX, timestamp_ms=0):
    """Return a FENCE control batch: the producer goes on in this epoch, after its last sequence.

    In the last epoch, 32,767, it never goes on. A producer of a higher epoch is left alone.
    """
    cdef int64_t number = integer(producer_id, "producer_id", 0, INT64_MAX)
    cdef int64_t epoch = integer(producer_epoch, "producer_epoch", 0, INT16_MAX)
    value = struct.pack(">hqh", 0, number, epoch)
    return control_batch(CONTROL_TYPE_FENCE, value, timestamp_ms)
