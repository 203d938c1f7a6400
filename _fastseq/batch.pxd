from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t

from _fastseq.layout cimport Header


# What a client sent and what the leader will store of it.
cdef struct Checked:
    Header header
    int64_t max_timestamp       # true maximum, of an uncompressed batch
    uint32_t crc                # as it will be stored
    int16_t attributes
    bint rewritten              # attributes, max timestamp and checksum differ from the client's


# The Kafka error code of a client's batch that should fill [p, p + length), 0 if it is sound.
cdef int client_fault(
    const unsigned char* p, int64_t length, int64_t max_bytes, Checked* checked) noexcept nogil

# True if the checksum is that of the whole batch, which lies in memory.
cdef bint crc_right(const unsigned char* p, const Header* header) noexcept nogil

# The checksum of the batch at `p` once attributes and max timestamp have been replaced.
cdef uint32_t crc_rewritten(
    const unsigned char* p, int64_t size, int16_t attributes, int64_t max_timestamp) noexcept nogil
