from libc.stdint cimport uint32_t


# `crc` is the checksum of what came before, 0 at the start.
cdef uint32_t crc32c_update(uint32_t crc, const unsigned char* data, size_t length) noexcept nogil
