# The record batch header (format v2, magic 2) as C sees it: big-endian fields at fixed places.
#
#  0 base offset i64       16 magic i8            27 base timestamp i64    51 producer epoch i16
#  8 length i32            17 crc u32             35 max timestamp i64     53 base sequence i32
# 12 leader epoch i32      21 attributes i16      43 producer id i64       57 record count i32
#                          23 last offset delta i32                        61 records
#
# `length` counts the bytes after itself; the checksum covers everything from the attributes on.
# All arithmetic on foreign numbers is done on values that `header_fault` has bounded.

from libc.stdint cimport (
    int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t,
)


cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint16_t fastseq_load16(const unsigned char *p) {
        uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v);
    }
    static inline uint32_t fastseq_load32(const unsigned char *p) {
        uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v);
    }
    static inline uint64_t fastseq_load64(const unsigned char *p) {
        uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v);
    }
    static inline void fastseq_store16(unsigned char *p, uint16_t v) {
        v = __builtin_bswap16(v); memcpy(p, &v, 2);
    }
    static inline void fastseq_store32(unsigned char *p, uint32_t v) {
        v = __builtin_bswap32(v); memcpy(p, &v, 4);
    }
    static inline void fastseq_store64(unsigned char *p, uint64_t v) {
        v = __builtin_bswap64(v); memcpy(p, &v, 8);
    }
    #if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "_fastseq is written for little-endian machines"
    #endif
    """
    uint16_t load16 "fastseq_load16"(const unsigned char* p) noexcept nogil
    uint32_t load32 "fastseq_load32"(const unsigned char* p) noexcept nogil
    uint64_t load64 "fastseq_load64"(const unsigned char* p) noexcept nogil
    void store16 "fastseq_store16"(unsigned char* p, uint16_t v) noexcept nogil
    void store32 "fastseq_store32"(unsigned char* p, uint32_t v) noexcept nogil
    void store64 "fastseq_store64"(unsigned char* p, uint64_t v) noexcept nogil


cdef enum:
    HEADER_SIZE = 61
    LENGTH_PREFIX = 12          # bytes that the length field does not count
    CRC_START = 21              # the checksum covers the batch from here on
    RECORDS_PER_BATCH = 1 << 28  # more is refused: five batches stay below the sequence space
    ATTRIBUTE_CODEC = 0x07
    ATTRIBUTE_APPEND_TIME = 0x08
    ATTRIBUTE_TRANSACTIONAL = 0x10
    ATTRIBUTE_CONTROL = 0x20
    ATTRIBUTES_STORED = 0x77    # what the leader of a CreateTime topic keeps of a client's bits
    CODEC_LAST = 4
    MARKER_ABORT = 0            # types of control records
    MARKER_COMMIT = 1
    CONTROL_TYPE_EXPIRE = 100   # of our own
    CONTROL_TYPE_COLLAPSE = 101
    CONTROL_TYPE_FENCE = 102
    FAULT_SHORT = 1
    FAULT_MAGIC = 2
    FAULT_LENGTH = 3
    FAULT_CRC = 4
    FAULT_ORDER = 5
    FAULT_HEADER = 6


cdef struct Header:
    int64_t base_offset
    int64_t size                # of the whole batch
    int64_t base_timestamp
    int64_t max_timestamp
    int64_t producer_id
    uint32_t crc
    int32_t leader_epoch
    int32_t last_offset_delta
    int32_t base_sequence
    int32_t record_count
    int16_t attributes
    int16_t producer_epoch
    int8_t magic


# `p` has at least HEADER_SIZE bytes.
cdef inline void header_load(const unsigned char* p, Header* header) noexcept nogil:
    header.base_offset = <int64_t>load64(p)
    header.size = <int64_t><int32_t>load32(p + 8) + LENGTH_PREFIX
    header.leader_epoch = <int32_t>load32(p + 12)
    header.magic = <int8_t>p[16]
    header.crc = load32(p + 17)
    header.attributes = <int16_t>load16(p + 21)
    header.last_offset_delta = <int32_t>load32(p + 23)
    header.base_timestamp = <int64_t>load64(p + 27)
    header.max_timestamp = <int64_t>load64(p + 35)
    header.producer_id = <int64_t>load64(p + 43)
    header.producer_epoch = <int16_t>load16(p + 51)
    header.base_sequence = <int32_t>load32(p + 53)
    header.record_count = <int32_t>load32(p + 57)


# A compacted batch may have lost records, never its last offset: the count is an upper bound.
# An offset beyond 2^62 is no offset; bounding it here keeps every later sum in range.
cdef inline bint numbers_plausible(const Header* header) noexcept nogil:
    return (
        0 <= header.last_offset_delta < RECORDS_PER_BATCH
        and 0 <= header.record_count <= header.last_offset_delta + 1
        and 0 <= header.base_offset < (<int64_t>1 << 62)
    )


# Loads the batch at `p` and says what is wrong with its header; 0 means that the whole batch,
# header.size bytes, lies within `available` bytes.
cdef inline int header_fault(
        const unsigned char* p, int64_t available, Header* header) noexcept nogil:
    if available < HEADER_SIZE:
        return FAULT_SHORT
    header_load(p, header)
    if header.magic != 2:
        return FAULT_MAGIC
    if header.size < HEADER_SIZE:
        return FAULT_LENGTH
    if header.size > available:
        return FAULT_SHORT
    if not numbers_plausible(header):
        return FAULT_HEADER
    return 0


cdef inline int64_t header_next_offset(const Header* header) noexcept nogil:
    return header.base_offset + header.last_offset_delta + 1
