"""Records inside a batch: varints, the walk that checks them, and decoding into values.

A record is `length, attributes, timestamp delta, offset delta, key, value, headers`; lengths and
deltas are zig-zag varints, -1 stands for null. Every read is bounded by the end of the records
section, and a record by its own length, which it must use up exactly.
"""

from collections import namedtuple

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport (
    INT32_MAX, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t, uint64_t,
)

from _fastseq.args cimport acquire, integer, window_end
from _fastseq.layout cimport (
    ATTRIBUTE_APPEND_TIME, ATTRIBUTE_CODEC, FAULT_SHORT, HEADER_SIZE, MARKER_ABORT, MARKER_COMMIT,
    Header, header_fault, load16, load32,
)

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_alloc)(PyTypeObject*, Py_ssize_t)


class Record(namedtuple("Record", ["offset", "timestamp", "key", "value", "headers"])):
    """One record as a reader sees it.

    `timestamp` is in milliseconds: the record's own, or the batch's largest where the broker
    stamps the time of the append. `headers` are pairs of a name and bytes or None.
    """

    __slots__ = ()


cdef PyTypeObject* record_type = <PyTypeObject*>Record
cdef tuple NO_HEADERS = ()

cdef enum:
    VARINT_BYTES = 5
    VARLONG_BYTES = 10


# Where a record's parts lie; the lengths are -1 for null.
cdef struct Fields:
    const unsigned char* end
    const unsigned char* key
    const unsigned char* value
    const unsigned char* headers
    int64_t timestamp_delta
    int64_t offset_delta
    int64_t key_length
    int64_t value_length
    int64_t header_count


# Returns the byte after the number, or NULL if it is cut off or too long.
cdef inline const unsigned char* varint_long(
        const unsigned char* p, const unsigned char* end, int limit,
        int64_t* number) noexcept nogil:
    cdef uint64_t raw = 0
    cdef int shift = 0
    cdef int _byte
    for _byte in range(limit):
        if p >= end:
            return NULL
        if shift == 63 and p[0] > 1:
            return NULL
        raw |= <uint64_t>(p[0] & 0x7F) << shift
        shift += 7
        p += 1
        if p[-1] < 0x80:
            if limit == VARINT_BYTES and raw >> 32 != 0:
                return NULL
            number[0] = <int64_t>(raw >> 1) ^ -<int64_t>(raw & 1)
            return p
    return NULL


cdef inline const unsigned char* varint(
        const unsigned char* p, const unsigned char* end, int limit,
        int64_t* number) noexcept nogil:
    if p < end and p[0] < 0x80:
        number[0] = <int64_t>(p[0] >> 1) ^ -<int64_t>(p[0] & 1)
        return p + 1
    return varint_long(p, end, limit, number)


# A length of at least `low` and that many bytes (none for null): returns the byte after them.
cdef inline const unsigned char* sized(
        const unsigned char* p, const unsigned char* end, int64_t low,
        const unsigned char** start, int64_t* length) noexcept nogil:
    p = varint(p, end, VARINT_BYTES, length)
    if p == NULL or length[0] < low or length[0] > end - p:
        return NULL
    start[0] = p
    return p + length[0] if length[0] > 0 else p


# Names are never null; values may be. Returns 1 if the headers end exactly at `end`.
cdef bint headers_sound(
        const unsigned char* p, const unsigned char* end, int64_t count) noexcept nogil:
    cdef const unsigned char* start
    cdef int64_t length
    cdef int64_t _pair
    for _pair in range(count):
        p = sized(p, end, 0, &start, &length)
        if p == NULL:
            return False
        p = sized(p, end, -1, &start, &length)
        if p == NULL:
            return False
    return p == end


# Finds the parts of the record at `p`; 0 if it is malformed. Headers are checked as well.
cdef inline bint record_load(
        const unsigned char* p, const unsigned char* end, Fields* fields) noexcept nogil:
    cdef int64_t length
    p = varint(p, end, VARINT_BYTES, &length)
    if p == NULL or length < 1 or length > end - p:
        return False
    fields.end = end = p + length
    p = varint(p + 1, end, VARLONG_BYTES, &fields.timestamp_delta)
    if p == NULL:
        return False
    p = varint(p, end, VARINT_BYTES, &fields.offset_delta)
    if p == NULL:
        return False
    p = sized(p, end, -1, &fields.key, &fields.key_length)
    if p == NULL:
        return False
    p = sized(p, end, -1, &fields.value, &fields.value_length)
    if p == NULL:
        return False
    p = varint(p, end, VARINT_BYTES, &fields.header_count)
    if p == NULL or fields.header_count < 0:
        return False
    fields.headers = p
    if fields.header_count == 0:
        return p == end
    return headers_sound(p, end, fields.header_count)


# Sums wrap, as in Java: a nonsensical delta of a foreign client must not be undefined here.
cdef inline int64_t moved(int64_t base, int64_t delta) noexcept nogil:
    return <int64_t>(<uint64_t>base + <uint64_t>delta)


cdef bint records_sound(
        const unsigned char* p, const unsigned char* end, int32_t count, int64_t base_timestamp,
        int64_t* max_timestamp) noexcept nogil:
    cdef Fields fields
    cdef int64_t timestamp
    cdef int64_t largest = INT64_MIN
    cdef int32_t i
    for i in range(count):
        if not record_load(p, end, &fields) or fields.offset_delta != i:
            return False
        timestamp = moved(base_timestamp, fields.timestamp_delta)
        if timestamp > largest:
            largest = timestamp
        p = fields.end
    max_timestamp[0] = largest
    return p == end


cdef int control_type(
        const unsigned char* p, const unsigned char* end,
        int32_t* coordinator_epoch) noexcept nogil:
    cdef Fields fields
    cdef int kind
    coordinator_epoch[0] = -1
    if not record_load(p, end, &fields) or fields.key_length < 4 or load16(fields.key) != 0:
        return -1
    kind = <int16_t>load16(fields.key + 2)
    if kind == MARKER_ABORT or kind == MARKER_COMMIT:
        if fields.value_length < 6:
            return -1
        coordinator_epoch[0] = <int32_t>load32(fields.value + 2)
    return kind


cdef const unsigned char* control_value(
        const unsigned char* p, const unsigned char* end, int* kind,
        int64_t* size) noexcept nogil:
    cdef Fields fields
    if not record_load(p, end, &fields) or fields.key_length != 4 or load16(fields.key) != 0:
        return NULL
    kind[0] = <int16_t>load16(fields.key + 2)
    size[0] = fields.value_length
    return fields.value if fields.value_length >= 0 else NULL


cdef inline object nullable(const unsigned char* start, int64_t length):
    if length < 0:
        return None
    return PyBytes_FromStringAndSize(<const char*>start, <Py_ssize_t>length)


# A name that is not UTF-8 must not stop a reader: it shows replacement characters, as in Java.
cdef tuple decode_headers(const Fields* fields):
    cdef const unsigned char* p = fields.headers
    cdef const unsigned char* start = NULL
    cdef int64_t length = 0
    cdef int64_t _pair
    cdef list pairs = []
    for _pair in range(fields.header_count):
        p = sized(p, fields.end, 0, &start, &length)
        name = PyUnicode_DecodeUTF8(<const char*>start, <Py_ssize_t>length, "replace")
        p = sized(p, fields.end, -1, &start, &length)
        pairs.append((name, nullable(start, length)))
    return tuple(pairs)


cdef inline void put(object record, Py_ssize_t place, object part):
    Py_INCREF(part)
    PyTuple_SET_ITEM(record, place, part)


# Fills a Record without the keyword machinery of its constructor, which costs five times more.
cdef object make_record(int64_t offset, int64_t timestamp, const Fields* fields):
    cdef object record = record_type.tp_alloc(record_type, 5)
    put(record, 0, offset)
    put(record, 1, timestamp)
    put(record, 2, nullable(fields.key, fields.key_length))
    put(record, 3, nullable(fields.value, fields.value_length))
    put(record, 4, decode_headers(fields) if fields.header_count > 0 else NO_HEADERS)
    return record


cdef list decode_section(
        const unsigned char* p, const unsigned char* end, const Header* header):
    cdef Fields fields
    cdef int64_t timestamp = header.max_timestamp
    cdef list records = []
    cdef int32_t i
    for i in range(header.record_count):
        if not record_load(p, end, &fields):
            raise ValueError(f"record {i} of the batch at {header.base_offset} is malformed")
        if not header.attributes & ATTRIBUTE_APPEND_TIME:
            timestamp = moved(header.base_timestamp, fields.timestamp_delta)
        records.append(make_record(
            moved(header.base_offset, fields.offset_delta), timestamp, &fields))
        p = fields.end
    if p != end:
        raise ValueError(f"bytes left after the last record of the batch at {header.base_offset}")
    return records


def decode_batch(data, position=0):
    """Return the records of the uncompressed batch at `position`; ValueError if malformed."""
    cdef Py_buffer view
    cdef Header header
    cdef int64_t start = integer(position, "position", 0, INT64_MAX)
    acquire(data, &view, "data")
    try:
        window_end(start, -1, view.len)
        batch = <const unsigned char*>view.buf + start
        fault = header_fault(batch, view.len - start, &header)
        if fault == FAULT_SHORT:
            raise ValueError(f"data ends inside the batch at position {start}")
        if fault != 0:
            raise ValueError(f"no record batch at position {start}")
        if header.attributes & ATTRIBUTE_CODEC:
            raise ValueError(f"the batch at position {start} is compressed")
        return decode_section(batch + HEADER_SIZE, batch + header.size, &header)
    finally:
        PyBuffer_Release(&view)


def decode_records(blob, header):
    """Return the records in `blob`, the (decompressed) records section that `header` describes."""
    cdef Py_buffer view
    cdef Header fields
    fields.base_offset = integer(header.base_offset, "header.base_offset", INT64_MIN, INT64_MAX)
    fields.base_timestamp = integer(
        header.base_timestamp, "header.base_timestamp", INT64_MIN, INT64_MAX)
    fields.max_timestamp = integer(
        header.max_timestamp, "header.max_timestamp", INT64_MIN, INT64_MAX)
    fields.attributes = <int16_t>integer(header.attributes, "header.attributes", -32768, 32767)
    fields.record_count = <int32_t>integer(
        header.record_count, "header.record_count", 0, INT32_MAX)
    acquire(blob, &view, "blob")
    try:
        section = <const unsigned char*>view.buf
        return decode_section(section, section + view.len, &fields)
    finally:
        PyBuffer_Release(&view)


def check_records(data, count):
    """Return whether `data` is exactly `count` records with the offset deltas 0, 1, 2 ..."""
    cdef Py_buffer view
    cdef int64_t newest
    cdef bint sound
    cdef int32_t wanted = <int32_t>integer(count, "count", 0, INT32_MAX)
    acquire(data, &view, "data")
    p = <const unsigned char*>view.buf
    sound = records_sound(p, p + view.len, wanted, 0, &newest)
    PyBuffer_Release(&view)
    return sound
