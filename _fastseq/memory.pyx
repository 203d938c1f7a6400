"""The memory of a producer table: slabs of entries and cells, the index, the journal's ring.

`table_reserve` is the only function here that can fail; it returns -1 and has changed nothing that
shows. It is also where what must not take long is done a little at a time: moving the index into a
larger or smaller one, and taking back what expired.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from _fastseq.compact cimport table_compact
from _fastseq.entry cimport (
    BURIED, CELL_SLAB_BITS, FREE, MARKED, NOT_FOUND, PAGE_BITS, SAVED, SLAB_BITS,
    Cell, Entry, Floor, Index, Pool, Table, Transaction, Undo, cell_at, cell_give, cell_take,
    entry_at, index_of,
)

cdef enum:
    SLOT_BITS_MIN = 4
    SLOTS_AT_ONCE = 1 << 12     # an index up to this size moves in one go
    JOURNAL_MIN = 16
    FIRST_UNITS = 16
    MOVED_PER_BATCH = 16        # places of the index that one batch pays for
    FREED_PER_BATCH = 4
    HUGE_PAGE = 1 << 21
    MAPPED = 1 << 17            # slabs of this size and larger are mapped

cdef extern from "<sys/mman.h>" nogil:
    enum:
        MADV_HUGEPAGE
        MAP_ANONYMOUS
        MAP_PRIVATE
        MREMAP_MAYMOVE
        PROT_READ
        PROT_WRITE
    void* MAP_FAILED
    int madvise(void* memory, size_t size, int advice)
    void* mmap(void* address, size_t size, int protection, int flags, int file, long offset)
    void* mremap(void* memory, size_t old, size_t size, int flags)
    int munmap(void* memory, size_t size)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)


cdef int table_open(Table* t, int64_t next_offset, uint32_t journal_limit) noexcept nogil:
    memset(t, 0, sizeof(Table))
    pool_open(&t.entries, sizeof(Entry), SLAB_BITS)
    pool_open(&t.cells, sizeof(Cell), CELL_SLAB_BITS)
    t.garbage = NOT_FOUND
    t.journal_limit = journal_limit
    t.next_offset = t.journal_start = next_offset
    t.mark_epoch = -1
    t.budget = INT64_MAX
    if index_open(&t.index, SLOT_BITS_MIN) < 0 or journal_resize(t, JOURNAL_MIN) < 0:
        return -1
    return 0


cdef void table_close(Table* t) noexcept nogil:
    pool_close(&t.entries)
    pool_close(&t.cells)
    pool_close(&t.left_entries)
    pool_close(&t.left_cells)
    if t.left_size > 0:
        munmap(t.left_index, t.left_size)
    index_close(&t.index)
    index_close(&t.old)
    free(t.oldest)
    free(t.journal)
    free(t.floors)
    memset(t, 0, sizeof(Table))


# Forgets every producer and the journal. Memory is kept: what follows is mostly a load.
cdef void table_clear(Table* t, int64_t next_offset) noexcept nogil:
    index_close(&t.old)
    memset(t.index.slots, 0, (<size_t>t.index.mask + 1) * sizeof(uint64_t))
    pool_clear(&t.entries)
    pool_clear(&t.cells)
    t.garbage = NOT_FOUND
    t.count = t.buried = 0
    t.journal_head = t.journal_used = 0
    t.next_offset = t.journal_start = next_offset
    t.digest = 0
    t.floors_used = t.floors_alive = t.floor_undos = 0
    t.mark_id = 0
    t.mark_epoch = -1
    for page in range(t.oldest_room):
        t.oldest[page] = INT64_MAX


cdef void pool_open(Pool* pool, size_t unit, int bits) noexcept nogil:
    memset(pool, 0, sizeof(Pool))
    pool.unit = unit
    pool.bits = bits
    pool.free_head = NOT_FOUND


cdef void pool_close(Pool* pool) noexcept nogil:
    while pool_shrink(pool):
        pass
    free(pool.slabs)
    pool.slabs = NULL
    pool.slab_room = 0


cdef bint pool_shrink(Pool* pool) noexcept nogil:
    if pool.slab_count == 0:
        return False
    pool.slab_count -= 1
    slab_give(pool.slabs[pool.slab_count], pool.unit * (
        <size_t>1 << pool.bits if pool.slab_count > 0 else <size_t>pool.first_units))
    return True


cdef int64_t pool_bytes(const Pool* pool) noexcept nogil:
    return <int64_t>(0 if pool.slab_count == 0 else pool_capacity(pool)) * <int64_t>pool.unit


cdef void pool_clear(Pool* pool) noexcept nogil:
    pool.used = 0
    pool.free_head = NOT_FOUND
    pool.free_count = 0


cdef inline uint64_t pool_capacity(const Pool* pool) noexcept nogil:
    if pool.slab_count <= 1:
        return pool.first_units
    return <uint64_t>pool.slab_count << pool.bits


cdef void* mapped(size_t size) noexcept nogil:
    cdef void* memory = mmap(
        NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    return NULL if memory == MAP_FAILED else memory


# Larger slabs are mapped: then growing moves pages and copies nothing.
cdef char* slab_take(size_t size) noexcept nogil:
    cdef void* memory
    if size >= MAPPED:
        return <char*>mapped(size)
    return <char*>memory if posix_memalign(&memory, 64, size) == 0 else NULL


cdef void slab_give(char* slab, size_t size) noexcept nogil:
    if size >= MAPPED:
        munmap(slab, size)
    else:
        free(slab)


cdef char* slab_grown(char* slab, size_t old, size_t size) noexcept nogil:
    cdef void* memory
    if old >= MAPPED:
        memory = mremap(slab, old, size, MREMAP_MAYMOVE)
        return NULL if memory == MAP_FAILED else <char*>memory
    memory = slab_take(size)
    if memory != NULL:
        memcpy(memory, slab, old)
        free(slab)
    return <char*>memory


# Large arrays ask for huge pages, or most look-ups miss the TLB; but only once they are in use: the
# first touch of a huge page clears all of it, and where a hypervisor must find the memory first,
# that takes milliseconds. So small pages come one by one, and the kernel joins them later.
cdef void settle(void* memory, size_t size) noexcept nogil:
    if size >= HUGE_PAGE:
        madvise(memory, size, MADV_HUGEPAGE)


# The first slab doubles until it is as large as those that follow.
cdef int pool_grow(Pool* pool) noexcept nogil:
    cdef size_t full = pool.unit << pool.bits
    cdef uint32_t units
    cdef char* slab
    if pool.slab_count == 0 or pool.first_units == <uint32_t>1 << pool.bits:
        return slab_add(pool, full)
    units = 2 * pool.first_units
    slab = slab_grown(pool.slabs[0], pool.first_units * pool.unit, units * pool.unit)
    if slab == NULL:
        return -1
    pool.slabs[0] = slab
    pool.first_units = units
    return 0


cdef int slab_add(Pool* pool, size_t full) noexcept nogil:
    cdef char** slabs
    cdef char* slab
    if pool.slab_count == pool.slab_room:
        slabs = <char**>realloc(pool.slabs, 2 * (pool.slab_room + 1) * sizeof(char*))
        if slabs == NULL:
            return -1
        pool.slabs = slabs
        pool.slab_room = 2 * (pool.slab_room + 1)
    slab = slab_take(full if pool.slab_count > 0 else FIRST_UNITS * pool.unit)
    if slab == NULL:
        return -1
    if pool.slab_count == 0:
        pool.first_units = FIRST_UNITS
    else:
        settle(pool.slabs[pool.slab_count - 1], full)
    pool.slabs[pool.slab_count] = slab
    pool.slab_count += 1
    return 0


cdef int pool_reserve(Pool* pool, uint64_t more) noexcept nogil:
    while pool_capacity(pool) - pool.used + pool.free_count < more:
        if pool_capacity(pool) >= <uint64_t>1 << 31 or pool_grow(pool) < 0:
            return -1
    return 0


cdef int index_open(Index* index, int bits) noexcept nogil:
    cdef size_t size = sizeof(uint64_t) << bits
    cdef void* memory = calloc(1, size) if size < HUGE_PAGE else mapped(size)
    if memory == NULL:
        return -1
    index.slots = <uint64_t*>memory
    index.mask = <uint32_t>((<uint64_t>1 << bits) - 1)
    index.shift = 32 - bits
    return 0


cdef void index_close(Index* index) noexcept nogil:
    cdef size_t size = (<size_t>index.mask + 1) * sizeof(uint64_t)
    if index.slots != NULL:
        if size < HUGE_PAGE:
            free(index.slots)
        else:
            munmap(index.slots, size)
    index.slots = NULL


# A large index is given back piece by piece.
cdef void index_leave(Table* t) noexcept nogil:
    cdef size_t size = (<size_t>t.old.mask + 1) * sizeof(uint64_t)
    if size < HUGE_PAGE:
        index_close(&t.old)
        return
    if t.left_size > 0:
        munmap(t.left_index, t.left_size)
    t.left_index = <char*>t.old.slots
    t.left_size = size
    t.old.slots = NULL


cdef bint index_shrink(Table* t) noexcept nogil:
    cdef size_t piece = min(t.left_size, <size_t>HUGE_PAGE)
    if piece == 0:
        return False
    t.left_size -= piece
    munmap(t.left_index + t.left_size, piece)
    return True


# From now on the index moves, run of slots by run, into one of other size. It begins after an
# empty slot and stops at one, so no run is ever cut.
cdef int move_begin(Table* t, int bits) noexcept nogil:
    cdef Index fresh
    if index_open(&fresh, bits) < 0:
        return -1
    t.old = t.index
    t.index = fresh
    t.moved = 0
    t.move_origin = 0
    while t.old.slots[t.move_origin] != 0:
        t.move_origin += 1
    t.move_origin = (t.move_origin + 1) & t.old.mask
    return 0


cdef void move_on(Table* t, uint64_t places) noexcept nogil:
    cdef uint64_t goal = t.moved + places
    cdef uint64_t size = <uint64_t>t.old.mask + 1
    cdef uint64_t slot
    cdef uint32_t place
    cdef uint64_t* source
    while True:
        source = &t.old.slots[(t.move_origin + t.moved) & t.old.mask]
        slot = source[0]
        if slot == 0 and t.moved >= min(goal, size):
            break
        t.moved += 1
        if slot == 0:
            continue
        place = <uint32_t>(slot >> 32) >> t.index.shift
        while t.index.slots[place] != 0:
            place = (place + 1) & t.index.mask
        t.index.slots[place] = slot
        source[0] = 0
    if t.moved >= size:
        index_leave(t)
        settle(t.index.slots, (<size_t>t.index.mask + 1) * sizeof(uint64_t))


# `wanted` producers fill the index to at most three quarters.
cdef int index_reserve(Table* t, uint64_t wanted, uint64_t more) noexcept nogil:
    cdef int bits = 32 - t.index.shift
    cdef uint64_t size = <uint64_t>t.index.mask + 1
    if t.old.slots != NULL:
        move_on(t, MOVED_PER_BATCH * more + 64)
    if t.old.slots != NULL and (
            4 * wanted > 3 * size or 10 * wanted > 9 * (<uint64_t>t.old.mask + 1)):
        move_on(t, <uint64_t>t.old.mask + 1)
    if t.old.slots != NULL:
        return 0
    if 4 * wanted > 3 * size:
        while 4 * wanted > <uint64_t>3 << bits:
            bits += 1
    elif size > SLOTS_AT_ONCE and 8 * wanted < size:
        while bits > SLOT_BITS_MIN and 2 * wanted < <uint64_t>1 << (bits - 1):
            bits -= 1
    if bits == 32 - t.index.shift:
        return 0
    if bits > 31 or move_begin(t, bits) < 0:
        return -1
    if t.count == 0:
        index_leave(t)          # nothing to move
    elif size <= SLOTS_AT_ONCE:
        move_on(t, size)
    return 0


# Takes an entry out of the index: later slots of the same run move up, so that searches which
# stop at an empty slot stay right.
cdef void index_remove(Table* t, uint32_t hash, uint32_t number) noexcept nogil:
    cdef const Index* index = index_of(t, hash)
    cdef uint32_t hole = hash >> index.shift
    cdef uint32_t place
    cdef uint32_t home
    while <uint32_t>index.slots[hole] != number + 1:
        hole = (hole + 1) & index.mask
    place = hole
    while True:
        place = (place + 1) & index.mask
        if index.slots[place] == 0:
            break
        home = <uint32_t>(index.slots[place] >> 32) >> index.shift
        if ((place - home) & index.mask) >= ((place - hole) & index.mask):
            index.slots[hole] = index.slots[place]
            hole = place
    index.slots[hole] = 0
    t.count -= 1


# `capacity` is a power of two; the ring is unrolled into the new one.
cdef int journal_resize(Table* t, uint32_t capacity) noexcept nogil:
    cdef Undo* journal
    cdef uint32_t i
    if posix_memalign(<void**>&journal, 64, capacity * sizeof(Undo)) != 0:
        return -1
    for i in range(t.journal_used):
        journal[i] = t.journal[(t.journal_head + i) & t.journal_mask]
    free(t.journal)
    t.journal = journal
    t.journal_head = 0
    t.journal_mask = capacity - 1
    return 0


cdef int pages_reserve(Table* t) noexcept nogil:
    cdef uint32_t wanted = <uint32_t>(pool_capacity(&t.entries) >> PAGE_BITS) + 1
    cdef int64_t* oldest
    if wanted <= t.oldest_room:
        return 0
    oldest = <int64_t*>realloc(t.oldest, wanted * sizeof(int64_t))
    if oldest == NULL:
        return -1
    for page in range(t.oldest_room, wanted):
        oldest[page] = INT64_MAX
    t.oldest = oldest
    t.oldest_room = wanted
    return 0


# Room for `more` appends, each of a new producer or one whose entry must be kept: afterwards
# none of them needs memory.
cdef int table_reserve(Table* t, uint32_t more) noexcept nogil:
    cdef uint64_t journal = <uint64_t>t.journal_mask + 1
    cdef uint64_t wanted = min(t.journal_used + 2 * <uint64_t>more, <uint64_t>t.journal_limit)
    garbage_free(t, FREED_PER_BATCH * <uint64_t>more + 64)
    table_compact(t)
    if index_reserve(t, <uint64_t>t.count + t.buried + more, more) < 0:
        return -1
    while journal < wanted:
        journal *= 2
    if journal > <uint64_t>t.journal_mask + 1 and journal_resize(t, <uint32_t>journal) < 0:
        return -1
    if (pool_reserve(&t.entries, 2 * <uint64_t>more) < 0
            or pool_reserve(&t.cells, 2 * <uint64_t>more) < 0):
        return -1
    return pages_reserve(t)


cdef int cells_reserve(Table* t, uint64_t more) noexcept nogil:
    return pool_reserve(&t.cells, more)


cdef int64_t table_bytes(const Table* t) noexcept nogil:
    cdef int64_t slots = <int64_t>t.index.mask + 1
    if t.old.slots != NULL:
        slots += <int64_t>t.old.mask + 1
    return (
        <int64_t>(t.entries.used - t.entries.free_count) * <int64_t>sizeof(Entry)
        + <int64_t>(t.cells.used - t.cells.free_count) * <int64_t>sizeof(Cell)
        + slots * <int64_t>sizeof(uint64_t)
        + (<int64_t>t.entries.used >> PAGE_BITS) * <int64_t>sizeof(int64_t)
        + <int64_t>t.floors_room * <int64_t>sizeof(Floor))


cdef int64_t entry_size(const Entry* entry) noexcept nogil:
    cdef int cells = entry.transaction != NOT_FOUND
    if entry.count > 1:
        cells += entry.count - 1
    return <int64_t>sizeof(Entry) + cells * <int64_t>sizeof(Cell)


# The ring joins the free list as it is: the cell after its oldest leads round to the oldest.
cdef void ring_free(Table* t, const Entry* entry) noexcept nogil:
    cdef Cell* oldest
    cdef uint32_t second
    if entry.ring != NOT_FOUND:
        oldest = cell_at(t, entry.ring)
        second = oldest.next
        oldest.next = t.cells.free_head
        t.cells.free_head = second
        t.cells.free_count += entry.count - 1
    if entry.transaction != NOT_FOUND:
        cell_give(t, entry.transaction)


cdef void entry_free(Table* t, uint32_t number) noexcept nogil:
    cdef Entry* entry = entry_at(t, number)
    ring_free(t, entry)
    entry.state = FREE
    entry.link = t.entries.free_head
    t.entries.free_head = number
    t.entries.free_count += 1


cdef void garbage_free(Table* t, uint64_t most) noexcept nogil:
    cdef uint32_t number
    while t.garbage != NOT_FOUND and most > 0:
        number = t.garbage
        t.garbage = entry_at(t, number).link
        entry_free(t, number)
        most -= 1


# The transaction fields of an entry, made if there are none. Not in the digest of the caller yet.
cdef uint32_t transaction_cell(Table* t, Entry* entry) noexcept nogil:
    cdef Transaction* fields
    if entry.transaction == NOT_FOUND:
        entry.transaction = cell_take(t)
        fields = <Transaction*>cell_at(t, entry.transaction)
        memset(fields, 0, sizeof(Transaction))
        fields.first_offset = fields.coordinator_epoch = -1
    return entry.transaction


# What only this record still held.
cdef void undo_forget(Table* t, const Undo* undo) noexcept nogil:
    cdef uint32_t tail
    if undo.kind == SAVED:
        entry_free(t, undo.saved)
    elif undo.kind == BURIED:
        t.floor_undos -= 1
        t.buried -= undo.saved
        memcpy(&tail, &undo.evicted, sizeof(tail))
        entry_at(t, tail).link = t.garbage
        t.garbage = undo.entry
    elif undo.kind != MARKED:
        t.floor_undos -= 1
