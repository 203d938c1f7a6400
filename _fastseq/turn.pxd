from libc.stdint cimport int32_t, int64_t

from _fastseq.table cimport ProducerTable


cdef class Lane:
    cdef readonly ProducerTable table
    cdef int32_t epoch
    cdef int64_t bytes_max
    cdef readonly int64_t batches
    cdef readonly int64_t records
    cdef readonly int64_t bytes
    cdef readonly int64_t duplicates
    cdef readonly int64_t gaps
    cdef readonly int64_t fenced
    cdef readonly int64_t unknown_producers
    cdef readonly int64_t invalid
    cdef readonly int64_t conflicts
    cdef readonly int64_t stale
    cdef readonly int64_t above_bound
    cdef readonly int64_t refused
    cdef readonly int64_t floored
