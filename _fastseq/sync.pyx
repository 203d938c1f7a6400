# cython: linetrace=False
# A traced line takes the GIL, which the worker threads never may.
"""Sync workers: C threads that call fdatasync and never take the GIL.

Several files sync at once; requests of one file may too, which is harmless.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t
from posix.unistd cimport fdatasync

from _fastseq.args cimport integer
from _fastseq.workers cimport Job, Queue, Workers, job_free, queue_free, queue_take


# EINTR means that nothing was decided; any other error is for the caller, who must not retry.
cdef void sync_run(Job* job) noexcept nogil:
    while fdatasync(job.fd) != 0:
        if errno != EINTR:
            job.error = errno
            break


cdef class SyncWorkers(Workers):
    """Workers that make files durable."""

    def submit(self, fd, token, generation, end):
        """Ask for fdatasync of `fd`; the other numbers come back with the result."""
        cdef int64_t generation_number = integer(generation, "generation", INT64_MIN, INT64_MAX)
        cdef int64_t end_number = integer(end, "end", INT64_MIN, INT64_MAX)
        cdef Job* job = self.new_job(fd, token)
        job.run = &sync_run
        job.generation = generation_number
        job.end = end_number
        self.put(job)

    def drain(self):
        """Return the results so far: (token, generation, end, errno, nanoseconds) each."""
        cdef Queue done = self.take_results()
        cdef Job* job
        cdef list results = []
        try:
            job = queue_take(&done)
            while job != NULL:
                results.append(
                    (job.token, job.generation, job.end, job.error, job.nanoseconds))
                job_free(job)
                self.pending -= 1
                job = queue_take(&done)
        finally:
            queue_free(&done)
        return results
