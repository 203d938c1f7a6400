from cpython.buffer cimport Py_buffer
from libc.stdint cimport int32_t, int64_t, uint64_t

from _fastseq.decide cimport Item
from _fastseq.passes cimport Place
from _fastseq.table cimport ProducerTable


cdef class Lane:
    cdef readonly ProducerTable table
    cdef public bint append_time
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


# Moves an array into twice the room when it is full.
cdef void* grown(void* memory, Py_ssize_t used, Py_ssize_t* capacity, size_t size) except NULL


cdef class Turn:
    cdef Item* items
    cdef Place* places
    cdef Py_buffer* views
    cdef Py_ssize_t item_capacity
    cdef Py_ssize_t place_capacity
    cdef Py_ssize_t view_capacity
    cdef Py_ssize_t view_count
    cdef Py_ssize_t used
    cdef int64_t bytes              # of all entries
    cdef int64_t wall_ms
    cdef uint64_t stamp_now
    cdef bint done
    cdef object last_frame
    cdef list lanes
    cdef readonly bytes arena
    cdef readonly list runs

    cpdef begin(self)
    cdef void release(self)
    cdef Item* item(
        self, Lane lane, object frame, int64_t start, int64_t size, object slot) except NULL
    cdef Item* item_at(
        self, Lane lane, const unsigned char* data, int64_t size, int32_t number) except NULL
    cdef const unsigned char* keep(self, object frame, int64_t start, int64_t size) except NULL
    cdef Py_ssize_t place_of(self, Lane lane) except -1
    cdef int64_t decide(
        self, unsigned char* filled, Py_ssize_t lanes, int64_t bound) noexcept nogil
    cdef int reserve(self, Py_ssize_t lanes) except -1
    cdef int report(self, Py_ssize_t lanes) except -1
    cdef object column(self, str code, size_t width, size_t field)
