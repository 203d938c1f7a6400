"""Produce requests, read where they lie: versions 3 to 11 of Kafka's ProduceRequest.

A request is read twice: once to the end to see that it is one, and how many topics and partitions
it names, then again by whoever serves it. So nothing is done for a request that turns out to be
malformed, and memory is asked for once. Every read is bounded by the end of the frame; an array
cannot have more elements than the frame has bytes. From version 9 on lengths are varints of one
more than the length, 0 for null, and every struct ends with tagged fields, all of them skipped.
What follows the message is left alone, as Kafka does.
"""

from libc.stdint cimport INT32_MAX, int16_t, int32_t, int64_t, uint32_t, uint64_t

from _fastseq.layout cimport load16, load32

cdef enum:
    FLEXIBLE = 9                # the first version with varints and tags
    NULL_LENGTH = -1


cdef inline const unsigned char* take(Cursor* cursor, int64_t size) noexcept nogil:
    cdef const unsigned char* p = cursor.p
    if cursor.bad or size < 0 or size > cursor.end - p:
        cursor.bad = True
        return cursor.start     # whoever asked for a few bytes reads some that are there
    cursor.p += size
    return p


cdef inline int16_t take16(Cursor* cursor) noexcept nogil:
    cdef const unsigned char* p = take(cursor, 2)
    return 0 if cursor.bad else <int16_t>load16(p)


cdef inline int32_t take32(Cursor* cursor) noexcept nogil:
    cdef const unsigned char* p = take(cursor, 4)
    return 0 if cursor.bad else <int32_t>load32(p)


cdef inline uint32_t take_varint(Cursor* cursor) noexcept nogil:
    cdef uint64_t value = 0
    cdef int shift = 0
    while cursor.p < cursor.end and not cursor.bad and shift < 35:
        value |= <uint64_t>(cursor.p[0] & 0x7F) << shift
        cursor.p += 1
        if not cursor.p[-1] & 0x80:
            if value > <uint64_t>INT32_MAX + 1:
                break
            return <uint32_t>value
        shift += 7
    cursor.bad = True
    return 0


# A length in front of bytes or elements, -1 for null; `plain` bytes wide without varints.
cdef inline int64_t take_length(Cursor* cursor, int plain) noexcept nogil:
    if cursor.flexible:
        return <int64_t>take_varint(cursor) - 1
    return take16(cursor) if plain == 2 else take32(cursor)


cdef inline int64_t take_count(Cursor* cursor) noexcept nogil:
    cdef int64_t count = take_length(cursor, 4)
    if count < 0 or count > cursor.end - cursor.p:
        cursor.bad = True
        return 0
    return count


# True if there is a string; null is none.
cdef inline bint skip_string(Cursor* cursor) noexcept nogil:
    cdef int64_t size = take_length(cursor, 2)
    if size == NULL_LENGTH:
        return False
    take(cursor, size)
    return True


cdef void skip_tags(Cursor* cursor) noexcept nogil:
    cdef uint32_t count
    if not cursor.flexible:
        return
    count = take_varint(cursor)
    while count > 0 and not cursor.bad:
        take_varint(cursor)
        take(cursor, take_varint(cursor))
        count -= 1


# How many bytes the character at `p` takes, at most `room`; 0 if it is none of UTF-8's.
cdef int character(const unsigned char* p, int64_t room) noexcept nogil:
    cdef int size = 2 if p[0] < 0xE0 else 3 if p[0] < 0xF0 else 4
    cdef uint32_t code = p[0] & (0x7F >> size)
    cdef int i
    if p[0] < 0xC2 or p[0] > 0xF4 or size > room:
        return 0
    for i in range(1, size):
        if p[i] & 0xC0 != 0x80:
            return 0
        code = code << 6 | (p[i] & 0x3F)
    if size == 3 and (code < 0x800 or 0xD800 <= code < 0xE000):
        return 0
    return 0 if size == 4 and not 0x10000 <= code < 0x110000 else size


# A name is sent back, so it must be one that its client can read.
cdef bint readable(const unsigned char* p, int64_t size) noexcept nogil:
    cdef int64_t at = 0
    cdef int step
    while at < size:
        step = 1 if p[at] < 0x80 else character(p + at, size - at)
        if step == 0:
            return False
        at += step
    return True


cdef Name topic_next(Cursor* cursor) noexcept nogil:
    cdef Name name
    cdef int64_t size = take_length(cursor, 2)
    name.p = take(cursor, size)
    name.size = 0 if cursor.bad else <uint32_t>size
    name.parts = <int32_t>take_count(cursor)
    return name


cdef Part part_next(Cursor* cursor) noexcept nogil:
    cdef Part part
    part.partition = take32(cursor)
    part.size = take_length(cursor, 4)
    part.data = NULL
    if part.size == NULL_LENGTH:
        part.size = 0
    else:
        part.data = take(cursor, part.size)
    skip_tags(cursor)
    return part


cdef void topic_end(Cursor* cursor) noexcept nogil:
    skip_tags(cursor)


cdef void check_topics(Cursor cursor, int64_t elements_max, Request* request) noexcept nogil:
    cdef Name name
    cdef int64_t elements = request.topic_count
    cdef int32_t topics = request.topic_count
    cdef int32_t parts
    while topics > 0 and not cursor.bad:
        topics -= 1
        name = topic_next(&cursor)
        elements += name.parts
        if elements > elements_max or not readable(name.p, name.size):
            cursor.bad = True
        parts = name.parts
        while parts > 0 and not cursor.bad:
            parts -= 1
            part_next(&cursor)
        topic_end(&cursor)
        request.part_count += name.parts
        request.name_bytes += name.size
    skip_tags(&cursor)
    request.topics.bad = cursor.bad


cdef int request_check(
        const unsigned char* frame, int64_t size, int64_t elements_max,
        Request* request) noexcept nogil:
    cdef Cursor* cursor = &request.topics
    cursor.start = cursor.p = frame
    cursor.end = frame + size
    cursor.bad = False
    cursor.flexible = False     # the client id is a plain string in every version
    take16(cursor)
    request.version = take16(cursor)
    request.correlation_id = take32(cursor)
    if cursor.bad:
        return REQUEST_MALFORMED
    if request.version < VERSION_MIN or request.version > VERSION_MAX:
        return REQUEST_VERSION
    skip_string(cursor)
    cursor.flexible = request.version >= FLEXIBLE
    skip_tags(cursor)
    request.transactional = skip_string(cursor)
    request.acks = take16(cursor)
    request.timeout_ms = take32(cursor)
    request.topic_count = <int32_t>take_count(cursor)
    request.part_count = 0
    request.name_bytes = 0
    if not cursor.bad:
        check_topics(cursor[0], elements_max, request)
    return REQUEST_MALFORMED if cursor.bad else REQUEST_SOUND
