from libc.stdint cimport int64_t, uint32_t, uint64_t

from _fastseq.entry cimport Entry, Pool, Table, Undo


cdef int table_open(Table* t, int64_t next_offset, uint32_t journal_limit) noexcept nogil
cdef void table_close(Table* t) noexcept nogil
cdef void table_clear(Table* t, int64_t next_offset) noexcept nogil

# Room for `more` batches; -1 if memory ran out.
cdef int table_reserve(Table* t, uint32_t more) noexcept nogil

# Room for as many cells: one for each batch of a window but the newest.
cdef int cells_reserve(Table* t, uint64_t more) noexcept nogil

# An empty pool, room for `more` units of it (-1 without memory), and the end of it.
cdef void pool_open(Pool* pool, size_t unit, int bits) noexcept nogil
cdef int pool_reserve(Pool* pool, uint64_t more) noexcept nogil
cdef void pool_close(Pool* pool) noexcept nogil
# Gives back its last slab; False if it has none.
cdef bint pool_shrink(Pool* pool) noexcept nogil
# Bytes that were asked of the system.
cdef int64_t pool_bytes(const Pool* pool) noexcept nogil

# Bytes in use for producers: entries, cells, index, floors; the journal is bounded by itself.
cdef int64_t table_bytes(const Table* t) noexcept nogil

# Gives back a piece of an index of the past; False if there is none.
cdef bint index_shrink(Table* t) noexcept nogil

# Lets the index grow or shrink as `wanted` producers need, as far as `more` batches pay for.
cdef int index_reserve(Table* t, uint64_t wanted, uint64_t more) noexcept nogil

# Takes back at most so many producers that are gone for good.
cdef void garbage_free(Table* t, uint64_t most) noexcept nogil

cdef int64_t entry_size(const Entry* entry) noexcept nogil
cdef void entry_free(Table* t, uint32_t number) noexcept nogil
cdef void ring_free(Table* t, const Entry* entry) noexcept nogil
cdef void index_remove(Table* t, uint32_t hash, uint32_t number) noexcept nogil

# The cell of an entry's transaction fields, made if there is none.
cdef uint32_t transaction_cell(Table* t, Entry* entry) noexcept nogil

# A record leaves the journal: what only it still held is given back.
cdef void undo_forget(Table* t, const Undo* undo) noexcept nogil
