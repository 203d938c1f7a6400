"""Responses to produce requests, packed: versions 3 to 11 of Kafka's ProduceResponse.

Every frame is written twice, the first time only to be counted, so that it takes exactly the
memory it needs. From version 9 on lengths are varints of one more than the length, 0 for null,
and structs end with tagged fields. Ours is tag 1000 of a partition, the verdict as one byte.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from _fastseq.answers cimport Answer, Slot, Topic
from _fastseq.layout cimport store16, store32, store64

cdef enum:
    FLEXIBLE = 9                # first versions with
    LOG_START = 5
    RECORD_ERRORS = 8
    LEADERS = 10
    TAG_LEADER = 0
    TAG_VERDICT = 1000
    TAG_ENDPOINTS = 0
    NOT_LEADER_OR_FOLLOWER = 6
    ENDPOINTS_MAX = 64          # a request that names more leaders asks for Metadata anyway


# Where the next byte goes; NULL while bytes are only counted.
cdef struct Out:
    unsigned char* p
    int64_t size


cdef inline void put8(Out* out, unsigned int value) noexcept nogil:
    if out.p != NULL:
        out.p[out.size] = <unsigned char>value
    out.size += 1


cdef inline void put16(Out* out, int value) noexcept nogil:
    if out.p != NULL:
        store16(out.p + out.size, <unsigned short>value)
    out.size += 2


cdef inline void put32(Out* out, int32_t value) noexcept nogil:
    if out.p != NULL:
        store32(out.p + out.size, <uint32_t>value)
    out.size += 4


cdef inline void put64(Out* out, int64_t value) noexcept nogil:
    if out.p != NULL:
        store64(out.p + out.size, <uint64_t>value)
    out.size += 8


cdef inline void put_varint(Out* out, uint32_t value) noexcept nogil:
    while value >= 0x80:
        put8(out, (value & 0x7F) | 0x80)
        value >>= 7
    put8(out, value)


cdef inline void put_bytes(Out* out, const unsigned char* p, uint32_t size) noexcept nogil:
    if out.p != NULL:
        memcpy(out.p + out.size, p, size)
    out.size += size


cdef inline void put_count(Out* out, uint32_t count, bint flexible) noexcept nogil:
    if flexible:
        put_varint(out, count + 1)
    else:
        put32(out, <int32_t>count)


cdef inline void put_string(
        Out* out, const unsigned char* p, uint32_t size, bint flexible) noexcept nogil:
    if flexible:
        put_varint(out, size + 1)
    else:
        put16(out, <int>size)
    put_bytes(out, p, size)


cdef void put_tags(Out* out, const Slot* slot, int version) noexcept nogil:
    cdef bint leader = version >= LEADERS and slot.leader >= 0
    put_varint(out, <uint32_t>leader + (slot.verdict != 0))
    if leader:
        put_varint(out, TAG_LEADER)
        put_varint(out, 9)
        put32(out, slot.leader)
        put32(out, slot.leader_epoch)
        put8(out, 0)
    if slot.verdict != 0:
        put_varint(out, TAG_VERDICT)
        put_varint(out, 1)
        put8(out, slot.verdict)


cdef void put_slot(Out* out, const Slot* slot, int version) noexcept nogil:
    put32(out, slot.partition)
    put16(out, slot.error)
    put64(out, slot.base_offset)
    put64(out, slot.append_time)
    if version >= LOG_START:
        put64(out, slot.start_offset)
    if version >= FLEXIBLE:
        put8(out, 1)            # no record errors
        put8(out, 0)            # no message
        put_tags(out, slot, version)
    elif version >= RECORD_ERRORS:
        put32(out, 0)
        put16(out, -1)


cdef void put_answer(Out* out, const Answer* answer) noexcept nogil:
    cdef bint flexible = answer.version >= FLEXIBLE
    cdef const Topic* topic
    cdef int32_t at = 0
    cdef int32_t i
    cdef int32_t j
    put32(out, answer.correlation_id)
    if flexible:
        put8(out, 0)
    put_count(out, <uint32_t>answer.topic_count, flexible)
    for i in range(answer.topic_count):
        topic = &answer.topics[i]
        put_string(out, answer.names + topic.name_at, topic.name_size, flexible)
        put_count(out, <uint32_t>topic.slots, flexible)
        for j in range(topic.slots):
            put_slot(out, &answer.slots[at + j], answer.version)
        at += topic.slots
        if flexible:
            put8(out, 0)
    put32(out, 0)               # no throttling


# The tagged fields after everything else: where the leaders listen, encoded already, or nothing.
cdef void put_end(Out* out, const Answer* answer, bytes endpoints) noexcept:
    cdef uint32_t size
    if answer.version < FLEXIBLE:
        return
    if endpoints is None:
        put8(out, 0)
        return
    size = <uint32_t>PyBytes_GET_SIZE(endpoints)
    put8(out, 1)
    put_varint(out, TAG_ENDPOINTS)
    put_varint(out, size)
    put_bytes(out, <const unsigned char*>PyBytes_AS_STRING(endpoints), size)


cdef bytes reply_frame(const Answer* answer, object endpoint):
    cdef Out out
    cdef bytes endpoints = None
    cdef bytes frame
    if answer.version >= LEADERS and endpoint is not None:
        endpoints = leaders_of(answer, endpoint)
    out.p = NULL
    out.size = 0
    put_answer(&out, answer)
    put_end(&out, answer, endpoints)
    frame = PyBytes_FromStringAndSize(NULL, out.size)
    out.p = <unsigned char*>PyBytes_AS_STRING(frame)
    out.size = 0
    put_answer(&out, answer)
    put_end(&out, answer, endpoints)
    return frame


# The array of brokers to go to for the partitions that are led elsewhere, None if there are none.
cdef bytes leaders_of(const Answer* answer, object endpoint):
    cdef dict found = {}
    cdef const Slot* slot
    cdef int32_t i
    for i in range(answer.slot_count):
        slot = &answer.slots[i]
        if slot.error == NOT_LEADER_OR_FOLLOWER and slot.leader >= 0:
            if slot.leader not in found and len(found) < ENDPOINTS_MAX:
                found[slot.leader] = endpoint(slot.leader, answer.native != 0)
    parts = [endpoint_bytes(node, at) for node, at in found.items() if at is not None]
    return bytes([len(parts) + 1]) + b"".join(parts) if parts else None


cdef bytes endpoint_bytes(int32_t node_id, object at):
    host, port, rack = at
    return b"".join([
        node_id.to_bytes(4, "big", signed=True), compact_string(host),
        port.to_bytes(4, "big", signed=True), compact_string(rack), b"\0"])


cdef bytes compact_string(object text):
    cdef bytes encoded
    cdef Out out
    cdef unsigned char length[5]
    if text is None:
        return b"\0"
    encoded = text.encode()
    out.p = length
    out.size = 0
    put_varint(&out, <uint32_t>PyBytes_GET_SIZE(encoded) + 1)
    return length[:out.size] + encoded
