from libc.stdint cimport uint8_t


cdef class Memory:
    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t views


cdef class Slabs:
    cdef Memory slab
    cdef Py_ssize_t used
    cdef Py_ssize_t size
    cdef list others

    cdef int make_room(self, Py_ssize_t room) except -1


cdef class Reserve:
    cdef Py_ssize_t size
    cdef Py_ssize_t[3] taken
    cdef list waiting

    cdef bint take(self, Py_ssize_t size, object waiter) except -1
    cdef list give(self, Py_ssize_t size)
