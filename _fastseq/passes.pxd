from libc.stdint cimport int32_t, int64_t

from _fastseq.decide cimport VERDICTS, Item
from _fastseq.entry cimport Table


# What the pass needs of a lane, and what it found.
cdef struct Place:
    Table* table
    int64_t base_offset
    int64_t start               # in the arena
    int64_t filled
    int64_t bytes
    int64_t records
    int64_t mismatched
    int64_t verdicts[VERDICTS]
    int64_t bytes_max
    int64_t append_time         # what batches are stamped with, -1 for the clients' own times
    int32_t leader_epoch
    int32_t waiting             # items of this turn
    int32_t controls            # control batches among them


# Checks every item that has no verdict yet; returns how many bytes the arena needs at most.
cdef int64_t prepare_all(Item* items, Py_ssize_t count, const Place* places) noexcept nogil

# Counts the verdicts of each lane and lays the lanes out one after another; returns the size.
cdef int64_t lay_out(
    const Item* items, Py_ssize_t count, Place* places, Py_ssize_t lanes) noexcept nogil

# Copies what was accepted to its place, stamped.
cdef void fill(
    unsigned char* arena, const Item* items, Py_ssize_t count, Place* places) noexcept nogil
