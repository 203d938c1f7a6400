from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t

from _fastseq.entry cimport Batch, Table


cdef enum:
    VERDICT_NEW = 1
    VERDICT_DUPLICATE = 2
    VERDICT_GAP = 3
    VERDICT_FENCED = 4
    VERDICT_UNKNOWN_PRODUCER = 5
    VERDICT_INVALID = 6
    VERDICT_CONFLICT = 7
    VERDICT_STALE = 8
    VERDICT_ABOVE_BOUND = 9
    VERDICT_REFUSED = 10
    VERDICT_FLOORED = 11
    VERDICTS = 12


# One batch of a turn, from the frame it came in to the verdict on it.
cdef struct Item:
    Batch batch                 # base and next offset are set once it is accepted
    const unsigned char* data
    Table* table
    int64_t length
    int64_t offset              # answer: base offset, of the original for a duplicate, else -1
    int64_t end                 # answer: what the high watermark must reach before the ack, or -1
    uint32_t hash
    uint32_t found              # number of the entry, a guess
    uint32_t probe              # cell that a search for a retry comes to next
    int32_t lane
    int32_t slot
    int16_t error
    int16_t attributes          # as stored
    int16_t refuse_new          # the error for anything but a retry, 0 if new batches are taken
    uint8_t verdict             # 0 until decided
    uint8_t native
    uint8_t rewritten           # the stored header differs in more than offset and leader epoch
    uint8_t mismatched          # a duplicate by range whose checksum is another
    uint8_t control             # type of a control batch of our own, which is always accepted


# Decides every item without a verdict in order, and enters the accepted ones into their tables,
# which have room for them.
cdef void decide_all(Item* items, Py_ssize_t count, int64_t producer_id_bound) noexcept nogil
