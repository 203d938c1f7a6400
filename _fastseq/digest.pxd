from libc.stdint cimport uint32_t, uint64_t

from _fastseq.entry cimport Cell, Entry, Table


# The sum of the terms of one entry.
cdef uint64_t entry_digest(const Table* t, const Entry* entry) noexcept nogil

# The digest that the table should have.
cdef uint64_t table_digest(const Table* t) noexcept nogil

# The batches of an entry, oldest first; returns how many.
cdef uint32_t window_cells(const Table* t, const Entry* entry, Cell* cells) noexcept nogil

# Writes the numbers of all entries, in order of producer id; returns 1 if memory ran out.
cdef uint32_t table_collect(const Table* t, uint32_t* numbers) noexcept nogil
