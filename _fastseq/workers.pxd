# What kinds of workers share: a job's way from the loop to a C thread and back.

from cpython.buffer cimport Py_buffer
from libc.stdint cimport int64_t


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_t:
        pass
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass


cdef enum:
    THREADS_MAX = 64


# A request, and then its result: it moves from one list to the other.
cdef struct Job:
    Job* next
    void (*run)(Job* job) noexcept nogil
    int64_t token
    int64_t generation      # of a sync
    int64_t end             # of a sync, comes back as it is
    int64_t position        # of a read
    int64_t done            # bytes read
    int64_t nanoseconds
    Py_buffer view          # where a read goes, if it is `held`
    bint held
    int fd
    int error


cdef struct Queue:
    Job* first
    Job* last


cdef struct Shared:
    pthread_mutex_t mutex
    pthread_cond_t wanted
    Queue requests
    Queue results
    int wake                    # the eventfd
    bint closing


cdef class Workers:
    cdef Shared* shared
    cdef pthread_t workers[THREADS_MAX]
    cdef int running
    cdef readonly int64_t pending

    cdef int start(self, int threads) except -1
    cdef void stop(self) noexcept
    cdef Job* new_job(self, object fd, object token) except NULL
    cdef void put(self, Job* job) noexcept
    cdef Queue take_results(self) noexcept


cdef Job* queue_take(Queue* queue) noexcept nogil
cdef void job_free(Job* job) noexcept
cdef void queue_free(Queue* queue) noexcept
