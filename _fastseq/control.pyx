"""Control batches of our own: how they are laid out, and which change of the table each is.

Attributes 0x20, producer id -1, one record; its key is version i16 0 and type i16, as Kafka's
control records have, so that clients skip types they do not know. Values, big-endian, begin with
version i16 0: EXPIRE (100) cutoff i64; COLLAPSE (101) id bound i64, epoch bound i16; FENCE (102)
producer id i64, epoch i16. Bytes after these are left to later versions.
"""

from libc.stdint cimport int16_t, int64_t

from _fastseq.entry cimport Batch, Table
from _fastseq.layout cimport (
    ATTRIBUTE_CODEC, ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, CONTROL_TYPE_COLLAPSE,
    CONTROL_TYPE_EXPIRE, CONTROL_TYPE_FENCE, HEADER_SIZE, Header, header_load, load16, load64,
)
from _fastseq.records cimport control_value
from _fastseq.sweep cimport table_collapse, table_expire, table_fence

cdef enum:
    EXPIRE_SIZE = 10
    COLLAPSE_SIZE = 12
    FENCE_SIZE = 12


# The value of a control record, its type and size; NULL if it is none of ours.
cdef const unsigned char* value_of(
        const unsigned char* p, const unsigned char* end, int* kind) noexcept nogil:
    cdef const unsigned char* value
    cdef int64_t size = 0
    value = control_value(p + HEADER_SIZE, end, kind, &size)
    if value == NULL or size < EXPIRE_SIZE or load16(value) != 0:
        return NULL
    if kind[0] == CONTROL_TYPE_EXPIRE:
        return value if <int64_t>load64(value + 2) >= 0 else NULL
    if kind[0] != CONTROL_TYPE_COLLAPSE and kind[0] != CONTROL_TYPE_FENCE:
        return NULL
    if size < COLLAPSE_SIZE or <int64_t>load64(value + 2) < 0 or <int16_t>load16(value + 10) < 0:
        return NULL
    return value


cdef bint control_ours(const unsigned char* p, const Header* header) noexcept nogil:
    cdef int kind = -1
    if (header.attributes & (ATTRIBUTE_CONTROL | ATTRIBUTE_CODEC | ATTRIBUTE_TRANSACTIONAL)
            != ATTRIBUTE_CONTROL or header.producer_id >= 0 or header.record_count != 1
            or header.last_offset_delta != 0):
        return False
    return value_of(p, p + header.size, &kind) != NULL


cdef void control_run(
        Table* t, const unsigned char* p, const unsigned char* end,
        const Batch* at) noexcept nogil:
    cdef Header header
    cdef const unsigned char* value
    cdef int kind = -1
    header_load(p, &header)
    t.next_offset = at.next_offset
    if not control_ours(p, &header):
        return
    value = value_of(p, end, &kind)
    if kind == CONTROL_TYPE_EXPIRE:
        table_expire(t, at, <int64_t>load64(value + 2))
    elif kind == CONTROL_TYPE_COLLAPSE:
        table_collapse(t, at, <int64_t>load64(value + 2), <int16_t>load16(value + 10))
    else:
        table_fence(t, at, <int64_t>load64(value + 2), <int16_t>load16(value + 10))
