from libc.stdint cimport int16_t, int32_t, int64_t, uint32_t, uint64_t

from _fastseq.answers cimport Answer, Answers
from _fastseq.turn cimport Lane


# A slot that may be answered once `end` is reached.
cdef struct Wait:
    int64_t end
    Answer* answer
    int32_t slot


# In order of their ends, and of their coming where those are equal.
cdef struct Ring:
    Wait* waits
    uint32_t head
    uint32_t used
    uint32_t capacity           # a power of two, or 0
    int64_t soonest_ms          # no deadline in it is before this


cdef class Term:
    cdef readonly Lane lane
    cdef public object owner
    cdef public object look
    cdef Answers answers
    cdef Ring committed
    cdef Ring durable
    cdef Ring asked
    cdef int64_t committed_end
    cdef int64_t durable_end
    cdef int64_t question
    cdef uint64_t stamp         # of the last turn that used it
    cdef int64_t start_offset
    cdef int16_t refuse_new
    cdef bint deep

    cdef int wait_committed(self, int64_t end, Answer* answer, int32_t slot) except -1
    cdef int wait_durable(self, int64_t end, Answer* answer, int32_t slot) except -1
    cdef int ask(self, Answer* answer, int32_t slot) except -1
