"""CRC-32C, the checksum of record batches and of our side files (RFC 3720, appendix B.4).

Owns the tables, filled once at import, and the choice between the SSE4.2 instruction and the
portable version, both in crc32c.h. Other extension modules call `crc32c_update` without the GIL.
"""

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from libc.stdint cimport uint32_t

from _fastseq.args cimport acquire, integer

cdef extern from "crc32c.h":
    int fastseq_crc_hardware_found
    void fastseq_crc_prepare() noexcept nogil
    uint32_t fastseq_crc(uint32_t, const unsigned char*, size_t) noexcept nogil
    uint32_t fastseq_crc_portable(uint32_t, const unsigned char*, size_t) noexcept nogil

fastseq_crc_prepare()

HARDWARE = bool(fastseq_crc_hardware_found)


cdef uint32_t crc32c_update(uint32_t crc, const unsigned char* data, size_t length) noexcept nogil:
    return fastseq_crc(crc, data, length)


def crc32c(data, value=0):
    """Return the checksum of `data`, going on from `value`, the checksum of what came before."""
    cdef Py_buffer view
    cdef uint32_t crc = <uint32_t>integer(value, "value", 0, 0xFFFFFFFF)
    acquire(data, &view, "data")
    with nogil:
        crc = fastseq_crc(crc, <const unsigned char*>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return crc


def crc32c_portable(data, value=0):
    """Return what `crc32c` returns, without the processor's help: the reference for its tests."""
    cdef Py_buffer view
    cdef uint32_t crc = <uint32_t>integer(value, "value", 0, 0xFFFFFFFF)
    acquire(data, &view, "data")
    with nogil:
        crc = fastseq_crc_portable(crc, <const unsigned char*>view.buf, <size_t>view.len)
    PyBuffer_Release(&view)
    return crc
