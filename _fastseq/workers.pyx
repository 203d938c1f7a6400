# cython: linetrace=False
# A traced line takes the GIL, which the worker threads below never may.
"""Workers: C threads that do what blocks, and never take the GIL.

Requests go in through a list, results come back through another, and an eventfd tells the loop
that there are some. Why not Python threads: beside a busy loop they wait for the GIL longer than
for the disk. `sync` and `read` say what the threads do.

Owns the threads, both lists and the eventfd. The caller owns the files and keeps each open until
its results have been drained; a buffer that is read into belongs to its job until then. Signals
stay with the main thread.

The mutex is held for a few instructions and over no system call: whoever is woken may take the
processor at once, and the loop would wait for the mutex with the GIL in hand.
"""

from cpython.buffer cimport PyBuffer_Release
from libc.errno cimport errno
from libc.stdint cimport INT32_MAX, INT64_MAX, INT64_MIN, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close, read, write

from _fastseq.args cimport integer

cdef extern from "<sys/eventfd.h>" nogil:
    enum:
        EFD_CLOEXEC
        EFD_NONBLOCK
    int eventfd(unsigned int count, int flags)

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    enum:
        SIG_SETMASK
    int sigfillset(sigset_t* set)
    int pthread_sigmask(int how, const sigset_t* set, sigset_t* old)

cdef extern from "<pthread.h>" nogil:
    int pthread_create(pthread_t*, void*, void* (*)(void*) noexcept nogil, void*)
    int pthread_join(pthread_t, void**)
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_destroy(pthread_mutex_t*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    int pthread_cond_init(pthread_cond_t*, void*)
    int pthread_cond_destroy(pthread_cond_t*)
    int pthread_cond_signal(pthread_cond_t*)
    int pthread_cond_broadcast(pthread_cond_t*)
    int pthread_cond_wait(pthread_cond_t*, pthread_mutex_t*)


cdef void queue_put(Queue* queue, Job* job) noexcept nogil:
    job.next = NULL
    if queue.last == NULL:
        queue.first = job
    else:
        queue.last.next = job
    queue.last = job


cdef Job* queue_take(Queue* queue) noexcept nogil:
    cdef Job* job = queue.first
    if job != NULL:
        queue.first = job.next
        if queue.first == NULL:
            queue.last = NULL
    return job


cdef void job_free(Job* job) noexcept:
    if job.held:
        PyBuffer_Release(&job.view)
    free(job)


cdef void queue_free(Queue* queue) noexcept:
    cdef Job* job = queue_take(queue)
    while job != NULL:
        job_free(job)
        job = queue_take(queue)


cdef int64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_MONOTONIC, &time)
    return <int64_t>time.tv_sec * 1_000_000_000 + time.tv_nsec


cdef void job_run(Job* job) noexcept nogil:
    cdef int64_t started = now_ns()
    job.error = 0
    job.run(job)
    job.nanoseconds = now_ns() - started


# The loop is woken once per batch of results: the eventfd is written when the list was empty.
# It may have drained the result by then, and finds nothing when it looks again.
cdef void job_deliver(Shared* shared, Job* job) noexcept nogil:
    cdef uint64_t one = 1
    cdef bint first
    pthread_mutex_lock(&shared.mutex)
    first = shared.results.first == NULL
    queue_put(&shared.results, job)
    pthread_mutex_unlock(&shared.mutex)
    if first:
        write(shared.wake, &one, sizeof(one))


# A worker that leaves requests behind wakes the next one, so that the loop wakes one for a whole
# turn: each wake-up may cost it its processor.
cdef void* work(void* argument) noexcept nogil:
    cdef Shared* shared = <Shared*>argument
    cdef bint more
    cdef Job* job
    pthread_mutex_lock(&shared.mutex)
    while True:
        job = queue_take(&shared.requests)
        if job == NULL:
            if shared.closing:
                break
            pthread_cond_wait(&shared.wanted, &shared.mutex)
            continue
        more = shared.requests.first != NULL
        pthread_mutex_unlock(&shared.mutex)
        if more:
            pthread_cond_signal(&shared.wanted)
        job_run(job)
        job_deliver(shared, job)
        pthread_mutex_lock(&shared.mutex)
    pthread_mutex_unlock(&shared.mutex)
    return NULL


cdef class Workers:
    """`threads` workers; `submit` requests, wait for `fileno()`, `drain` the results.

    Not thread-safe itself: one thread submits, drains and closes. Closing finishes what is
    queued; its results can still be drained.
    """

    def __cinit__(self, threads=4):
        cdef int wanted = <int>integer(threads, "threads", 1, THREADS_MAX)
        self.shared = <Shared*>calloc(1, sizeof(Shared))
        if self.shared == NULL:
            raise MemoryError()
        pthread_mutex_init(&self.shared.mutex, NULL)
        pthread_cond_init(&self.shared.wanted, NULL)
        self.shared.wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.shared.wake < 0:
            raise OSError(errno, "eventfd")
        self.start(wanted)

    cdef int start(self, int threads) except -1:
        cdef sigset_t all_signals
        cdef sigset_t before
        cdef int error = 0
        sigfillset(&all_signals)
        pthread_sigmask(SIG_SETMASK, &all_signals, &before)
        while self.running < threads and error == 0:
            error = pthread_create(&self.workers[self.running], NULL, &work, self.shared)
            self.running += error == 0
        pthread_sigmask(SIG_SETMASK, &before, NULL)
        if error != 0:
            raise OSError(error, "pthread_create")
        return 0

    def __dealloc__(self):
        if self.shared == NULL:
            return
        self.stop()
        if self.shared.wake >= 0:
            close(self.shared.wake)
        queue_free(&self.shared.requests)
        queue_free(&self.shared.results)
        pthread_cond_destroy(&self.shared.wanted)
        pthread_mutex_destroy(&self.shared.mutex)
        free(self.shared)

    cdef void stop(self) noexcept:
        cdef int i
        with nogil:
            pthread_mutex_lock(&self.shared.mutex)
            self.shared.closing = True
            pthread_cond_broadcast(&self.shared.wanted)
            pthread_mutex_unlock(&self.shared.mutex)
            for i in range(self.running):
                pthread_join(self.workers[i], NULL)
        self.running = 0

    def fileno(self):
        """Return the eventfd, readable while results wait; ValueError once closed."""
        if self.running == 0:
            raise ValueError("the workers are closed")
        return self.shared.wake

    cdef Job* new_job(self, object fd, object token) except NULL:
        cdef int file = <int>integer(fd, "fd", 0, INT32_MAX)
        cdef int64_t token_number = integer(token, "token", INT64_MIN, INT64_MAX)
        cdef Job* job
        if self.running == 0:
            raise ValueError("the workers are closed")
        job = <Job*>calloc(1, sizeof(Job))
        if job == NULL:
            raise MemoryError()
        job.fd = file
        job.token = token_number
        return job

    cdef void put(self, Job* job) noexcept:
        cdef bint first
        pthread_mutex_lock(&self.shared.mutex)
        first = self.shared.requests.first == NULL
        queue_put(&self.shared.requests, job)
        pthread_mutex_unlock(&self.shared.mutex)
        if first:
            pthread_cond_signal(&self.shared.wanted)
        self.pending += 1

    cdef Queue take_results(self) noexcept:
        cdef Queue done
        cdef uint64_t count
        # Before the list is taken: what is put there later is announced anew.
        read(self.shared.wake, &count, sizeof(count))
        pthread_mutex_lock(&self.shared.mutex)
        done = self.shared.results
        self.shared.results.first = self.shared.results.last = NULL
        pthread_mutex_unlock(&self.shared.mutex)
        return done

    def close(self):
        """Finish what is queued and end the threads; harmless when repeated."""
        if self.running > 0:
            self.stop()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
