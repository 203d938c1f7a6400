from libc.stdint cimport int32_t, int64_t, uint64_t

from _fastseq.answers cimport Answer, Answers
from _fastseq.request cimport Request
from _fastseq.turn cimport Turn
from _fastseq.waiters cimport Term


cdef class Route:
    cdef public Term term
    cdef public int32_t leader
    cdef public int32_t leader_epoch
    cdef public bint closed
    cdef uint64_t stamp         # of the last request that named it
    cdef int32_t item           # its entry there


cdef class Routes:
    cdef dict topics


# Whose batch an entry of the turn is; `term` is kept alive by the turn's list.
cdef struct Owner:
    Answer* answer
    void* term
    int32_t slot


# A request that was collected and not yet taken.
cdef struct Frame:
    const unsigned char* p
    int64_t size
    Py_ssize_t message


cdef class ProduceTurn(Turn):
    cdef Answers answers
    cdef Routes routes
    cdef Owner* owners
    cdef Frame* frames
    cdef Py_ssize_t owner_capacity
    cdef Py_ssize_t frame_capacity
    cdef Py_ssize_t owned
    cdef Py_ssize_t frame_count
    cdef readonly list terms
    cdef object messages
    cdef readonly bint deep

    cdef void forget(self) noexcept
    cdef int serve(self, const Request* request, Answer* answer) except -1
    cdef int serve_part(
        self, const Request* request, Answer* answer, int32_t slot, list routes,
        const unsigned char* data, int64_t size) except -1
    cdef int enter(
        self, const Request* request, Answer* answer, int32_t slot, Term term,
        const unsigned char* data, int64_t size) except -1
    cdef int look(self, Term term) except -1
    cdef bint tell_one(self, Py_ssize_t number) except -1
    cdef Owner* owner(self, object number) except NULL
