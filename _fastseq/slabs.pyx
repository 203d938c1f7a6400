"""Memory to receive into, shared by whoever receives one after another.

A `Memory` is bytes that are not touched before something is received into them: a large one costs
nothing until then. It knows how many views of it are held. `Slabs` hands out room in one slab until
it is used up, and goes back to its beginning, or to another slab, once nobody holds a view of it.
A `Reserve` says how much memory may be taken beside the slabs, by frames too large for them.

Invariants: bytes that somebody holds a view of are never received into again; frames of one class
of size never wait for those of another.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, malloc

cdef enum:
    SLABS_KEPT = 8      # slabs kept for reuse; more are in use only while views are held
    USUAL = 2 << 20     # bytes: a request with a batch of Kafka's default size, half of the reserve
    SOME = 16 << 20     # bytes: a quarter is for frames up to this; the last one for all above


cdef class Memory:
    """Bytes that are not touched before they are received into; views keep them alive."""

    def __cinit__(self, Py_ssize_t size):
        self.data = <uint8_t*>malloc(size)
        if self.data is NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.views -= 1


cdef class Slabs:
    """Room for one read after another."""

    def __cinit__(self, Py_ssize_t size):
        self.size = size
        self.others = []
        self.slab = Memory(size)

    # Sees to `room` bytes from `used` on in `slab`; at most the size of one.
    cdef int make_room(self, Py_ssize_t room) except -1:
        cdef Memory slab
        if self.slab.views == 0:
            self.used = 0
        if self.slab.size - self.used >= room:
            return 0
        if len(self.others) < SLABS_KEPT:
            self.others.append(self.slab)
        self.used = 0
        for slab in self.others:
            if slab.views == 0:
                self.others.remove(slab)
                self.slab = slab
                return 0
        self.slab = Memory(self.size)
        return 0


cdef class Reserve:
    """Bytes that large frames may take, in classes of size; who waits for some of them.

    One frame of each class may always be received, however large.
    """

    def __cinit__(self, Py_ssize_t size):
        self.size = size
        self.waiting = [[], [], []]

    # Whether a frame of this size may take its memory; `waiter`, if any, is told by `give`.
    cdef bint take(self, Py_ssize_t size, object waiter) except -1:
        cdef int kind = class_of(size)
        cdef Py_ssize_t most = self.size // (2 if kind == 0 else 4)
        if self.taken[kind] and self.taken[kind] + size > most:
            if waiter is not None:
                (<list>self.waiting[kind]).append(waiter)
            return False
        self.taken[kind] += size
        return True

    # The memory of a frame of this size is free again: whoever waits for such.
    cdef list give(self, Py_ssize_t size):
        cdef int kind = class_of(size)
        cdef list waiting = self.waiting[kind]
        self.taken[kind] -= size
        if waiting:
            self.waiting[kind] = []
        return waiting


cdef inline int class_of(Py_ssize_t size) noexcept:
    return 0 if size <= USUAL else 1 if size <= SOME else 2
