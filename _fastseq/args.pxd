# Checks of arguments at the border between Python and C: every complaint names the argument.

from cpython.buffer cimport PyBUF_SIMPLE, Py_buffer, PyObject_CheckBuffer, PyObject_GetBuffer
from libc.stdint cimport INT64_MAX, int64_t


cdef extern from "Python.h":
    int PyLong_Check(object)
    long long PyLong_AsLongLongAndOverflow(object, int*) except? -1


cdef inline int64_t integer(object value, str name, int64_t low, int64_t high) except? -1:
    cdef int overflow = 0
    cdef int64_t number
    if not PyLong_Check(value):
        raise TypeError(f"{name} must be an int, not {type(value).__name__}")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or number < low or number > high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return number


# The caller releases the view, on every path.
cdef inline int acquire(object data, Py_buffer* view, str name) except -1:
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"{name} must be bytes-like, not {type(data).__name__}")
    try:
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    except BufferError as error:
        raise ValueError(f"{name} must be contiguous bytes: {error}") from None
    return 0


# A window [start, end) of a buffer of `length` bytes; -1 for `end` means up to its end.
cdef inline int64_t window_end(int64_t start, int64_t end, int64_t length) except -1:
    if end == -1:
        end = length
    if start > length:
        raise ValueError(f"start {start} lies past the end of data ({length} bytes)")
    if end < start or end > length:
        raise ValueError(f"end must be between start {start} and {length}, not {end}")
    return end
