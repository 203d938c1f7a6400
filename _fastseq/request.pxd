from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t


# A reader of one frame: past the end, or at bytes that cannot be, it is `bad` for good.
cdef struct Cursor:
    const unsigned char* start
    const unsigned char* p
    const unsigned char* end
    bint bad
    bint flexible


# One partition of a request as it stands in the frame. `data` is NULL for absent records.
cdef struct Part:
    const unsigned char* data
    int64_t size
    int32_t partition


cdef struct Name:
    const unsigned char* p
    uint32_t size
    int32_t parts


# What a request says outside of its arrays, and how large those are.
cdef struct Request:
    Cursor topics               # where its topics begin
    int32_t correlation_id
    int32_t timeout_ms
    int32_t topic_count
    int32_t part_count
    uint32_t name_bytes
    int16_t version
    int16_t acks
    bint transactional


cdef enum:
    VERSION_MIN = 3
    VERSION_MAX = 11
    REQUEST_SOUND = 0
    REQUEST_MALFORMED = 1
    REQUEST_VERSION = 2         # one that is not served

# Reads all of a produce request once, without keeping anything; says what it is.
cdef int request_check(
    const unsigned char* frame, int64_t size, int64_t elements_max, Request* request) noexcept nogil

# The next topic of a request that was checked, and the next partition of a topic.
cdef Name topic_next(Cursor* cursor) noexcept nogil
cdef Part part_next(Cursor* cursor) noexcept nogil
# What follows the last partition of a topic.
cdef void topic_end(Cursor* cursor) noexcept nogil
