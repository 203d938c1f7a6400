"""Memory that a mass expiry leaves is given back, without a pause that anybody would notice.

Entries and cells are told by their numbers, so a slab can only be given back when nothing in it is
in use. Once few producers are left of many, and nothing waits to be undone, they are copied
into pools of their size, all at once: they are few. What they leave behind goes back to the system
slab by slab, one in every turn. While more are left than that, free places wait to be used again.
"""

from libc.stdint cimport INT64_MAX, uint32_t, uint64_t

from _fastseq.entry cimport (
    CELL_SLAB_BITS, NOT_FOUND, PAGE_BITS, SLAB_BITS, Cell, Entry, Pool, Table, cell_at, entry_at,
)
from _fastseq.memory cimport index_shrink, pool_close, pool_open, pool_reserve, pool_shrink

cdef enum:
    MOVED_AT_ONCE = 2_048       # producers: each costs a few lines from memory, together < 1 ms
    CELLS_EACH = 5              # four older batches, and the fields of a transaction
    SPARE = 64
    SLOTS_MAX = 1 << 14         # of an index that is looked through at once


cdef inline bint worth_it(const Table* t) noexcept nogil:
    return (
        t.entries.slab_count > 1 and t.count <= MOVED_AT_ONCE and t.journal_used == 0
        and t.buried == 0 and t.garbage == NOT_FOUND
        and t.old.slots == NULL and t.index.mask < SLOTS_MAX
        and t.left_entries.slab_count == 0 and t.left_cells.slab_count == 0)


cdef inline char* unit_at(const Pool* pool, uint32_t number) noexcept nogil:
    return pool.slabs[number >> pool.bits] + (
        <size_t>(number & ((<uint32_t>1 << pool.bits) - 1)) * pool.unit)


cdef inline uint32_t cell_copy(Pool* cells, const Cell* cell) noexcept nogil:
    (<Cell*>unit_at(cells, cells.used))[0] = cell[0]
    cells.used += 1
    return cells.used - 1


# Copies the cells of an entry, whose copy is told where they are.
cdef void cells_move(const Table* t, Entry* entry, Pool* cells) noexcept nogil:
    cdef uint32_t from_ = entry.ring
    cdef uint32_t first = cells.used
    if entry.transaction != NOT_FOUND:
        entry.transaction = cell_copy(cells, cell_at(t, entry.transaction))
        first = cells.used
    if entry.ring == NOT_FOUND:
        return
    while cells.used - first < <uint32_t>entry.count - 1:
        cell_copy(cells, cell_at(t, from_))
        from_ = cell_at(t, from_).next
        (<Cell*>unit_at(cells, cells.used - 1)).next = cells.used
    (<Cell*>unit_at(cells, cells.used - 1)).next = first
    entry.ring = first


cdef void move_all(Table* t, Pool* entries, Pool* cells) noexcept nogil:
    cdef uint64_t place
    cdef uint64_t slot
    cdef Entry* entry
    for place in range(<uint64_t>t.index.mask + 1):
        slot = t.index.slots[place]
        if slot != 0:
            entry = <Entry*>unit_at(entries, entries.used)
            entry[0] = entry_at(t, <uint32_t>slot - 1)[0]
            cells_move(t, entry, cells)
            entries.used += 1
            t.index.slots[place] = slot >> 32 << 32 | entries.used


cdef void pages_anew(Table* t) noexcept nogil:
    cdef uint32_t number
    for number in range(t.oldest_room):
        t.oldest[number] = INT64_MAX
    for number in range(t.entries.used):
        t.oldest[number >> PAGE_BITS] = min(
            t.oldest[number >> PAGE_BITS], entry_at(t, number).next_offset)


cdef void table_compact(Table* t) noexcept nogil:
    cdef Pool entries
    cdef Pool cells
    if index_shrink(t) or pool_shrink(&t.left_entries) or pool_shrink(&t.left_cells):
        return
    if not worth_it(t):
        return
    pool_close(&t.left_entries)
    pool_close(&t.left_cells)
    pool_open(&entries, sizeof(Entry), SLAB_BITS)
    pool_open(&cells, sizeof(Cell), CELL_SLAB_BITS)
    if (pool_reserve(&entries, <uint64_t>t.count + SPARE) < 0
            or pool_reserve(&cells, CELLS_EACH * <uint64_t>t.count + SPARE) < 0):
        pool_close(&entries)
        pool_close(&cells)
        return
    move_all(t, &entries, &cells)
    t.left_entries = t.entries
    t.left_cells = t.cells
    t.entries = entries
    t.cells = cells
    pages_anew(t)
