# cython: linetrace=False
# A traced line takes the GIL, which the worker threads never may.
"""Read workers: C threads that read what is not in the page cache, and never take the GIL."""

from cpython.buffer cimport PyBUF_WRITABLE, PyObject_GetBuffer
from libc.errno cimport EINTR, errno
from libc.stdint cimport INT64_MAX, int64_t

from _fastseq.args cimport integer
from _fastseq.workers cimport Job, Queue, Workers, job_free, queue_free, queue_take

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int fd, void* buffer, size_t count, long offset)


cdef void read_run(Job* job) noexcept nogil:
    cdef ssize_t count
    while job.done < job.view.len:
        count = pread(job.fd, <char*>job.view.buf + job.done,
                      <size_t>(job.view.len - job.done), job.position + job.done)
        if count > 0:
            job.done += count
        elif count == 0:
            break
        elif errno != EINTR:
            job.error = errno
            break


cdef class ReadWorkers(Workers):
    """Workers that fill buffers from files."""

    def submit(self, fd, token, position, buffer):
        """Ask for the bytes of `fd` from `position` on, as many as the buffer holds.

        The buffer is the workers' until the result was drained.
        """
        cdef int64_t place = integer(position, "position", 0, INT64_MAX)
        cdef Job* job = self.new_job(fd, token)
        try:
            PyObject_GetBuffer(buffer, &job.view, PyBUF_WRITABLE)
        except BaseException:
            job_free(job)
            raise
        job.held = True
        job.run = &read_run
        job.position = place
        self.put(job)

    def drain(self):
        """Return the results so far: (token, bytes read, errno, nanoseconds) each.

        Fewer bytes than were asked for, without an error, are all there were.
        """
        cdef Queue done = self.take_results()
        cdef Job* job
        cdef list results = []
        try:
            job = queue_take(&done)
            while job != NULL:
                results.append((job.token, job.done, job.error, job.nanoseconds))
                job_free(job)
                self.pending -= 1
                job = queue_take(&done)
        finally:
            queue_free(&done)
        return results
