from libc.stdint cimport int16_t, int64_t

from _fastseq.entry cimport Batch, Table


# Every producer whose last offset is below `cutoff` becomes a floor, unless a transaction is open.
cdef void table_expire(Table* t, const Batch* at, int64_t cutoff) noexcept nogil

# Floors of ids below `id_bound` with epochs up to `epoch_bound` disappear under the mark.
cdef void table_collapse(
    Table* t, const Batch* at, int64_t id_bound, int16_t epoch_bound) noexcept nogil

# The producer becomes a floor of `epoch`, unless it has a higher one already.
cdef void table_fence(
    Table* t, const Batch* at, int64_t producer_id, int16_t epoch) noexcept nogil
