"""Memory to receive into, shared by whoever receives one after another.

A `Memory` is bytes that are not touched before something is received into them: a large one costs
nothing until then. It knows how many views of it are held. `Slabs` hands out room in one slab until
it is used up, and goes back to its beginning, or to another slab, once nobody holds a view of it.

Invariant: bytes that somebody holds a view of are never received into again.
"""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport free, malloc

cdef enum:
    SLABS_KEPT = 8      # slabs kept for reuse; more are in use only while views are held


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
