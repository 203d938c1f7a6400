"""The parts of producer state that not every batch passes: memory, undo, digest.

Owns the memory of a `Table`. `table_reserve` is the only function here that can fail; it returns
-1 and has changed nothing that shows. `table_rollback` undoes appends newest first, exactly: the
evicted batch comes back into its place, a replaced entry is copied back, an inserted one is
removed from the index by shifting its successors back, so that no tombstones gather.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort
from libc.string cimport memset

cdef enum:
    SLOT_BITS_MIN = 4
    JOURNAL_MIN = 16
    HUGE_PAGE = 1 << 21         # large chunks ask for such, or most look-ups miss the TLB

cdef extern from "<sys/mman.h>" nogil:
    enum:
        MADV_HUGEPAGE
    int madvise(void* memory, size_t size, int advice)

cdef extern from "<stdlib.h>" nogil:
    int posix_memalign(void** memory, size_t alignment, size_t size)


cdef int table_open(Table* t, int64_t next_offset, uint32_t journal_limit) noexcept nogil:
    memset(t, 0, sizeof(Table))
    t.free_head = NOT_FOUND
    t.journal_limit = journal_limit
    t.next_offset = t.journal_start = next_offset
    t.slot_shift = 32
    if slots_resize(t, SLOT_BITS_MIN) < 0 or journal_resize(t, JOURNAL_MIN) < 0:
        return -1
    return 0


cdef void table_close(Table* t) noexcept nogil:
    cdef int chunk
    for chunk in range(t.chunk_count):
        free(t.chunks[chunk])
    free(t.slots)
    free(t.journal)
    memset(t, 0, sizeof(Table))


# Forgets every producer and the journal. Memory is kept: what follows is mostly a load.
cdef void table_clear(Table* t, int64_t next_offset) noexcept nogil:
    memset(t.slots, 0, (<size_t>t.slot_mask + 1) * sizeof(uint64_t))
    t.count = 0
    t.entries_used = 0
    t.free_head = NOT_FOUND
    t.free_count = 0
    t.journal_head = t.journal_used = 0
    t.next_offset = t.journal_start = next_offset


# The hash's leading bits are the place, so that moving to a larger index reads nothing else.
cdef int slots_resize(Table* t, int bits) noexcept nogil:
    cdef uint64_t* slots = <uint64_t*>calloc(<size_t>1 << bits, sizeof(uint64_t))
    cdef uint32_t mask = <uint32_t>((<uint64_t>1 << bits) - 1)
    cdef uint64_t old
    cdef uint32_t place
    cdef uint64_t slot
    if slots == NULL:
        return -1
    if t.slots != NULL:
        for old in range(<uint64_t>t.slot_mask + 1):
            slot = t.slots[old]
            if slot == 0:
                continue
            place = <uint32_t>(slot >> 32) >> (32 - bits)
            while slots[place] != 0:
                place = (place + 1) & mask
            slots[place] = slot
        free(t.slots)
    t.slots = slots
    t.slot_mask = mask
    t.slot_shift = 32 - bits
    return 0


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


cdef int chunk_add(Table* t) noexcept nogil:
    cdef size_t entries = <size_t>1 << (CHUNK_BITS + t.chunk_count)
    cdef void* memory
    if t.chunk_count == CHUNKS_MAX:
        return -1
    cdef size_t size = entries * sizeof(Entry)
    cdef bint large = size >= 2 * HUGE_PAGE
    if posix_memalign(&memory, HUGE_PAGE if large else 64, size) != 0:
        return -1
    if large:
        madvise(memory, size, MADV_HUGEPAGE)
    t.chunks[t.chunk_count] = <Entry*>memory
    t.chunk_count += 1
    return 0


# Room for `more` appends, each of a new producer or one whose entry must be kept: afterwards
# none of them needs memory.
cdef int table_reserve(Table* t, uint32_t more) noexcept nogil:
    cdef uint64_t slots = <uint64_t>t.slot_mask + 1
    cdef int bits = 32 - t.slot_shift
    cdef uint64_t journal = <uint64_t>t.journal_mask + 1
    cdef uint64_t wanted = min(<uint64_t>t.journal_used + more, <uint64_t>t.journal_limit)
    cdef uint64_t room
    while 2 * (<uint64_t>t.count + more) > slots:
        slots *= 2
        bits += 1
    if bits > 32 - t.slot_shift and (bits > 31 or slots_resize(t, bits) < 0):
        return -1
    while journal < wanted:
        journal *= 2
    if journal > <uint64_t>t.journal_mask + 1 and journal_resize(t, <uint32_t>journal) < 0:
        return -1
    while True:
        room = (<uint64_t>1 << (CHUNK_BITS + t.chunk_count)) - (1 << CHUNK_BITS)
        if room - t.entries_used + t.free_count >= 2 * <uint64_t>more:
            return 0
        if chunk_add(t) < 0:
            return -1


# A transaction marker: it ends the open transaction and sets the epoch, which empties the window
# only if it changes.
cdef void table_mark(
        Table* t, const Batch* marker, int32_t coordinator_epoch) noexcept nogil:
    cdef uint32_t number = table_find(
        t, marker.producer_id, producer_hash(marker.producer_id))
    cdef Entry* entry
    if number == NOT_FOUND:
        number = table_insert(t, marker.producer_id, marker.epoch, 0)
        journal_insert(t, number, marker.base_offset, marker.next_offset)
    else:
        journal_save(t, number, marker.base_offset, marker.next_offset)
    entry = entry_at(t, number)
    if entry.epoch != marker.epoch:
        entry_restart(entry, marker.epoch, 0)
    entry.coordinator_epoch = coordinator_epoch
    entry.last_timestamp = marker.max_timestamp
    entry.txn_first_offset = -1
    t.next_offset = marker.next_offset


# Takes an entry out of the index: later slots of the same run move up, so that searches which
# stop at an empty slot stay right.
cdef void slot_remove(Table* t, uint32_t number) noexcept nogil:
    cdef uint32_t hash = producer_hash(entry_at(t, number).producer_id)
    cdef uint32_t hole = hash >> t.slot_shift
    cdef uint32_t place
    cdef uint32_t home
    while <uint32_t>t.slots[hole] != number + 1:
        hole = (hole + 1) & t.slot_mask
    place = hole
    while True:
        place = (place + 1) & t.slot_mask
        if t.slots[place] == 0:
            break
        home = <uint32_t>(t.slots[place] >> 32) >> t.slot_shift
        if ((place - home) & t.slot_mask) >= ((place - hole) & t.slot_mask):
            t.slots[hole] = t.slots[place]
            hole = place
    t.slots[hole] = 0
    t.count -= 1


# The newest batch leaves the window; what it had pushed out comes back.
cdef void entry_pop(Entry* entry, const Undo* undo) noexcept nogil:
    cdef Cached* newest = &entry.batches[entry.newest]
    entry.next_sequence = sequence_add(newest.last_sequence, -newest.delta)
    entry.accepted -= newest.delta + 1
    entry.last_timestamp = undo.last_timestamp
    entry.by_range = undo.by_range
    if undo.was_full:
        newest[0] = undo.evicted
    else:
        entry.count -= 1
    entry.newest = <uint8_t>(WINDOW - 1 if entry.newest == 0 else entry.newest - 1)


cdef void undo_one(Table* t, const Undo* undo) noexcept nogil:
    if undo.kind == PUSHED:
        entry_pop(entry_at(t, undo.entry), undo)
    elif undo.kind == SAVED:
        entry_at(t, undo.entry)[0] = entry_at(t, undo.saved)[0]
        entry_give(t, undo.saved)
    else:
        slot_remove(t, undo.entry)
        entry_give(t, undo.entry)


cdef bint table_rollback(Table* t, int64_t offset) noexcept nogil:
    cdef Undo* undo
    if offset < t.journal_start:
        return False
    while t.journal_used > 0:
        undo = t.journal + ((t.journal_head + t.journal_used - 1) & t.journal_mask)
        if undo.next_offset <= offset:
            break
        undo_one(t, undo)
        t.journal_used -= 1
        t.next_offset = min(t.next_offset, undo.base_offset)
    t.next_offset = min(t.next_offset, offset)
    return True


cdef void table_trim(Table* t, int64_t offset) noexcept nogil:
    offset = min(offset, t.next_offset)
    while (t.journal_used > 0
            and t.journal[t.journal_head & t.journal_mask].next_offset <= offset):
        journal_drop(t)
    t.journal_start = max(t.journal_start, offset)


# Finaliser of splitmix64 (Steele, Lea and Flood, 2014).
cdef inline uint64_t mixed(uint64_t state, uint64_t value) noexcept nogil:
    state = (state ^ value) + <uint64_t>0x9E3779B97F4A7C15ULL
    state = (state ^ (state >> 30)) * <uint64_t>0xBF58476D1CE4E5B9ULL
    state = (state ^ (state >> 27)) * <uint64_t>0x94D049BB133111EBULL
    return state ^ (state >> 31)


cdef uint64_t entry_digest(const Entry* entry) noexcept nogil:
    cdef uint64_t digest = mixed(0, <uint64_t>entry.producer_id)
    cdef const Cached* cached
    cdef int age
    cdef int place
    digest = mixed(digest, <uint64_t>entry.accepted)
    digest = mixed(digest, <uint64_t>entry.last_timestamp)
    digest = mixed(digest, <uint64_t>entry.txn_first_offset)
    digest = mixed(digest, <uint64_t><uint32_t>entry.next_sequence << 32
                   | <uint32_t>entry.coordinator_epoch)
    digest = mixed(digest, <uint64_t>entry.count << 32 | <uint32_t>entry.epoch)
    for age in range(entry.count):
        place = entry_place(entry, age)
        cached = &entry.batches[place]
        digest = mixed(digest, <uint64_t>cached.next_offset)
        digest = mixed(digest, <uint64_t>cached.max_timestamp)
        digest = mixed(digest, <uint64_t><uint32_t>cached.last_sequence << 32
                       | <uint32_t>cached.delta)
        digest = mixed(digest, <uint64_t>cached.crc << 1 | (entry.by_range >> place & 1))
    return digest


# A sum, so that the order of producers in memory does not matter.
cdef uint64_t table_digest(const Table* t) noexcept nogil:
    cdef uint64_t digest = 0
    cdef uint64_t place
    for place in range(<uint64_t>t.slot_mask + 1):
        if t.slots[place] != 0:
            digest += entry_digest(entry_at(t, <uint32_t>t.slots[place] - 1))
    return digest


cdef struct Numbered:
    int64_t producer_id
    uint32_t number


cdef int by_producer(const void* left, const void* right) noexcept nogil:
    cdef int64_t a = (<const Numbered*>left).producer_id
    cdef int64_t b = (<const Numbered*>right).producer_id
    return (a > b) - (a < b)


# Writes the numbers of all entries, in order of producer id; returns 1 if memory ran out.
cdef uint32_t table_collect(const Table* t, uint32_t* numbers) noexcept nogil:
    cdef Numbered* found = <Numbered*>malloc((<size_t>t.count + 1) * sizeof(Numbered))
    cdef uint32_t used = 0
    cdef uint64_t place
    cdef uint32_t i
    if found == NULL:
        return 1
    for place in range(<uint64_t>t.slot_mask + 1):
        if t.slots[place] != 0:
            found[used].number = <uint32_t>t.slots[place] - 1
            found[used].producer_id = entry_at(t, found[used].number).producer_id
            used += 1
    qsort(found, used, sizeof(Numbered), &by_producer)
    for i in range(used):
        numbers[i] = found[i].number
    free(found)
    return 0
