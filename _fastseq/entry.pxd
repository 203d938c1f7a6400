# Producer state of one partition in C: entries, their index, the journal that undoes appends.
# Structures, look-up and the terms of the digest; the functions are in state, memory and undo.
#
# An entry is one cache line and has the newest batch in it; older ones lie in a ring of cells, one
# cell a batch, so a push touches the entry and the cell of the batch that leaves. Both live in
# slabs that never move once they are full. The index is open addressing over 64-bit slots, 32 bits
# of hash and the entry's number plus one; it grows and shrinks a little in every turn, while two
# of them exist. The journal is a ring of what each append replaced, oldest first. The digest is a
# sum and follows every change at once.
#
# Nothing here allocates: `table_reserve` has made room, so an append cannot fail half-way.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from *:
    """
    /* The empty statement keeps GCC from taking a function that only asks for memory for one
       without effect, and leaving its calls out. */
    static inline void fastseq_prefetch(const void *p) {
        __builtin_prefetch(p, 1, 3);
        __asm__ volatile("");
    }
    #define fastseq_likely(x) ((int)__builtin_expect(!!(x), 1))
    #if defined(__SIZEOF_INT128__)
    static inline uint64_t fastseq_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    #else
    #error "_fastseq needs 128-bit products"
    #endif
    """
    void prefetch "fastseq_prefetch"(const void* p) noexcept nogil
    bint likely "fastseq_likely"(bint condition) noexcept nogil
    uint64_t fold "fastseq_fold"(uint64_t a, uint64_t b) noexcept nogil


cdef enum:
    WINDOW = 5                  # batches kept per producer: what a client may have in flight
    SLAB_BITS = 15              # entries in a slab: 2 MB, a huge page
    CELL_SLAB_BITS = 18         # cells in a slab: 6 MB
    PAGE_BITS = 6               # entries that share a lower bound of their offsets
    FREE = 0                    # states of an entry: on the free list,
    LIVE = 1                    # in the index,
    KEPT = 2                    # kept for undo only
    PUSHED = 0                  # journal: one batch entered the window
    SAVED = 1                   # journal: the entry began anew, the old one was kept
    INSERTED = 2                # journal: the producer was not known before
    MARKED = 3                  # journal: transaction fields of the entry changed
    BURIED = 4                  # journal: a chain of entries became floors
    FLOOR_SET = 5               # journal: one floor changed
    COLLAPSED = 6               # journal: floors disappeared under the mark
    RETURNED = 7                # journal: a producer came back, its floor was kept

cdef enum: NOT_FOUND = 0xFFFFFFFF


# One remembered batch, 24 bytes. In an entry's ring `next` is the next newer batch, and that of
# the newest in the ring is the oldest. Used for transaction fields, see `Transaction`.
cdef packed struct Cell:
    int64_t next_offset
    int32_t last_sequence
    int32_t delta               # records - 1
    uint32_t crc                # as stored
    uint32_t next


# What few producers have, in a cell of its own.
cdef packed struct Transaction:
    int64_t first_offset        # of the open transaction, -1 without
    int32_t coordinator_epoch
    int32_t unused
    int64_t spare


# One producer, 64 bytes, with its newest batch.
# The window is contiguous: a batch that does not follow the newest one starts it anew.
cdef packed struct Entry:
    int64_t producer_id
    int64_t accepted            # records of the contiguous run of this epoch that ends the window
    int64_t last_timestamp
    int64_t next_offset         # end of the newest batch; without any, of what made the entry
    int32_t delta
    uint32_t crc
    int32_t next_sequence
    uint32_t ring               # cell of the oldest batch, NOT_FOUND if there is only one
    uint32_t transaction        # cell of the transaction fields, NOT_FOUND without
    uint32_t link               # next on the free list or in a chain of buried entries
    int16_t epoch
    uint8_t count               # batches remembered
    uint8_t by_range            # bit per age, 0 the newest: the checksum proves nothing
    uint8_t state
    uint8_t spare[3]


# What undoes one change, 64 bytes.
cdef packed struct Undo:
    int64_t base_offset
    int64_t next_offset
    int64_t last_timestamp
    Cell evicted                # or what the kind makes of these bytes
    uint32_t entry
    uint32_t saved
    uint8_t kind
    uint8_t was_full
    uint8_t by_range
    uint8_t spare[5]


# A producer's batch as it enters the table.
cdef struct Batch:
    int64_t producer_id
    int64_t base_offset
    int64_t next_offset
    int64_t max_timestamp
    int32_t first_sequence
    int32_t delta
    uint32_t crc
    int16_t epoch
    uint8_t by_range
    uint8_t transactional


# What is left of an expired or fenced producer, 16 bytes.
cdef packed struct Floor:
    int64_t producer_id
    int32_t next_sequence
    int16_t epoch
    uint16_t state              # see floors.pxd


cdef struct Index:
    uint64_t* slots
    uint32_t mask
    int shift


cdef struct Pool:
    char** slabs
    size_t unit                 # bytes of one
    int bits                    # units in a slab
    uint32_t slab_count
    uint32_t slab_room          # of the directory
    uint32_t first_units        # units in the first slab while it grows
    uint32_t used               # numbers below were handed out at least once
    uint32_t free_head
    uint32_t free_count


cdef struct Table:
    Pool entries
    Pool cells
    Pool left_entries           # what a compaction left behind, given back slab by slab
    Pool left_cells
    char* left_index            # an index of the past, given back from its end
    size_t left_size
    Index index
    Index old                   # being moved into `index`; no slots when nothing moves
    uint32_t move_origin        # where that began: a place after an empty slot
    uint64_t moved              # places moved so far
    uint32_t count              # producers in the index
    uint32_t buried             # producers that an undo would bring back
    uint32_t garbage            # chain of buried entries whose cells can be taken
    int64_t* oldest             # per page of entries a lower bound of their `next_offset`
    uint32_t oldest_room
    Undo* journal
    uint32_t journal_mask
    uint32_t journal_head
    uint32_t journal_used
    uint32_t journal_limit
    int64_t journal_start
    int64_t next_offset
    uint64_t digest
    Floor* floors               # in order of id
    uint32_t floors_used
    uint32_t floors_room
    uint32_t floors_alive
    uint32_t floor_undos        # records of the journal that name a floor
    uint16_t collapses          # numbers the collapses that can be undone
    int64_t mark_id             # ids below it
    int16_t mark_epoch          # with epochs up to this one are refused
    int64_t budget


cdef inline uint32_t producer_hash(int64_t producer_id) noexcept nogil:
    return <uint32_t>((<uint64_t>producer_id * <uint64_t>0x9E3779B97F4A7C15ULL) >> 32)


cdef inline Entry* entry_at(const Table* t, uint32_t number) noexcept nogil:
    return (<Entry*>t.entries.slabs[number >> SLAB_BITS]) + (number & ((1 << SLAB_BITS) - 1))


cdef inline Cell* cell_at(const Table* t, uint32_t number) noexcept nogil:
    return (<Cell*>t.cells.slabs[number >> CELL_SLAB_BITS]) + (
        number & ((1 << CELL_SLAB_BITS) - 1))


# While the index moves, a hash is in exactly one of the two.
cdef inline const Index* index_of(const Table* t, uint32_t hash) noexcept nogil:
    if likely(t.old.slots == NULL):
        return &t.index
    if (((hash >> t.old.shift) - t.move_origin) & t.old.mask) >= t.moved:
        return &t.old
    return &t.index


cdef inline void prefetch_slot(const Table* t, uint32_t hash) noexcept nogil:
    cdef const Index* index = index_of(t, hash)
    prefetch(index.slots + (hash >> index.shift))


# The first entry whose hash matches, most likely the right one, and asks for its line.
cdef inline uint32_t table_guess(const Table* t, uint32_t hash) noexcept nogil:
    cdef const Index* index = index_of(t, hash)
    cdef uint32_t place = hash >> index.shift
    cdef uint64_t slot = index.slots[place]
    while slot != 0:
        if <uint32_t>(slot >> 32) == hash:
            prefetch(entry_at(t, <uint32_t>slot - 1))
            return <uint32_t>slot - 1
        place = (place + 1) & index.mask
        slot = index.slots[place]
    return NOT_FOUND


# Asks for the batch that a push into this entry would replace.
cdef inline void prefetch_ring(const Table* t, uint32_t number) noexcept nogil:
    cdef const char* cell
    cdef uint32_t ring
    if number != NOT_FOUND:
        ring = entry_at(t, number).ring
        if ring != NOT_FOUND:
            cell = <const char*>cell_at(t, ring)
            prefetch(cell)
            prefetch(cell + sizeof(Cell) - 1)


cdef inline uint32_t table_find(
        const Table* t, int64_t producer_id, uint32_t hash) noexcept nogil:
    cdef const Index* index = index_of(t, hash)
    cdef uint32_t place = hash >> index.shift
    cdef uint64_t slot = index.slots[place]
    while slot != 0:
        if <uint32_t>(slot >> 32) == hash:
            if entry_at(t, <uint32_t>slot - 1).producer_id == producer_id:
                return <uint32_t>slot - 1
        place = (place + 1) & index.mask
        slot = index.slots[place]
    return NOT_FOUND


cdef inline uint32_t entry_take(Table* t) noexcept nogil:
    cdef uint32_t number = t.entries.free_head
    if number == NOT_FOUND:
        t.entries.used += 1
        return t.entries.used - 1
    t.entries.free_head = entry_at(t, number).link
    t.entries.free_count -= 1
    return number


cdef inline uint32_t cell_take(Table* t) noexcept nogil:
    cdef uint32_t number = t.cells.free_head
    if number == NOT_FOUND:
        t.cells.used += 1
        return t.cells.used - 1
    t.cells.free_head = cell_at(t, number).next
    t.cells.free_count -= 1
    return number


cdef inline void cell_give(Table* t, uint32_t number) noexcept nogil:
    cell_at(t, number).next = t.cells.free_head
    t.cells.free_head = number
    t.cells.free_count += 1


cdef inline uint64_t producer_term(int64_t producer_id) noexcept nogil:
    return <uint64_t>producer_id * <uint64_t>0xEB44ACCAB455D165ULL


# One term of the digest for one remembered batch. `fold` is the mixing step of wyhash (Wang Yi);
# the constants keep three of its factors from ever being 0.
cdef inline uint64_t batch_term(
        int64_t producer_id, int16_t epoch, int32_t last_sequence, int64_t next_offset,
        int32_t delta, uint32_t crc, bint by_range) noexcept nogil:
    cdef uint64_t where = fold(
        <uint64_t>next_offset ^ <uint64_t>0xA0761D6478BD642FULL,
        (<uint64_t>crc << 32 | <uint32_t>delta | <uint32_t>by_range << 31)
        ^ <uint64_t>0xE7037ED1A0B428DBULL)
    return fold(
        where ^ producer_term(producer_id),
        (<uint64_t><uint16_t>epoch << 32 | <uint32_t>last_sequence)
        ^ <uint64_t>0x589965CC75374CC3ULL)


# The term for `accepted` records; linear in it, so that a push adds its own count.
cdef inline uint64_t accepted_term(int64_t producer_id, int64_t accepted) noexcept nogil:
    cdef uint64_t scattered = producer_term(producer_id)
    return (scattered ^ scattered >> 29 | 1) * <uint64_t>accepted


# The term that stands for the window of an entry without batches.
cdef inline uint64_t empty_term(
        int64_t producer_id, int16_t epoch, int32_t next_sequence,
        int64_t next_offset) noexcept nogil:
    return batch_term(producer_id, epoch, next_sequence, next_offset, -1, 0, True)


cdef inline int32_t sequence_add(int32_t sequence, int32_t count) noexcept nogil:
    return <int32_t>((<uint32_t>sequence + <uint32_t>count) & 0x7FFFFFFF)


# How far `sequence` lies behind `next_sequence`, modulo 2^31.
cdef inline int32_t sequence_behind(int32_t next_sequence, int32_t sequence) noexcept nogil:
    return <int32_t>((<uint32_t>next_sequence - <uint32_t>sequence) & 0x7FFFFFFF)


# The newest batch of an entry as a cell of its ring would have it.
cdef inline void newest_copy(const Entry* entry, Cell* cell) noexcept nogil:
    cell.next_offset = entry.next_offset
    cell.last_sequence = sequence_add(entry.next_sequence, -1)
    cell.delta = entry.delta
    cell.crc = entry.crc


cdef inline void index_put(Table* t, uint32_t hash, uint32_t number) noexcept nogil:
    cdef const Index* index = index_of(t, hash)
    cdef uint32_t place = hash >> index.shift
    while index.slots[place] != 0:
        place = (place + 1) & index.mask
    index.slots[place] = <uint64_t>hash << 32 | (number + 1)
    t.count += 1


cdef inline void page_lower(Table* t, uint32_t number, int64_t next_offset) noexcept nogil:
    cdef int64_t* oldest = t.oldest + (number >> PAGE_BITS)
    if next_offset < oldest[0]:
        oldest[0] = next_offset


# The batches themselves are somebody else's by now.
cdef inline void entry_restart(
        Entry* entry, int16_t epoch, int32_t first_sequence, int64_t next_offset) noexcept nogil:
    entry.epoch = epoch
    entry.next_sequence = first_sequence
    entry.next_offset = next_offset
    entry.accepted = 0
    entry.delta = 0
    entry.crc = 0
    entry.ring = NOT_FOUND
    entry.count = 0
    entry.by_range = 0


cdef inline Transaction* transaction_at(const Table* t, const Entry* entry) noexcept nogil:
    return <Transaction*>cell_at(t, entry.transaction)
