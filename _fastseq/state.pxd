# Producer state of one partition in C: entries, their index and the journal that undoes appends.
#
# Entries lie in chunks that double in size and never move, so growing copies nothing and a pointer
# holds for as long as its entry lives. The index is open addressing over 64-bit slots, 32 bits of
# hash and the entry's number plus one, at most half full: a look-up touches one line of it and
# then the entry's own. The journal is a ring of what each append replaced, oldest first.
#
# What is inline here is what every batch passes; the rest is in state.pyx. Nothing here allocates:
# `table_reserve` has made room before, so an append cannot fail half-way.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t


cdef extern from *:
    """
    #define fastseq_prefetch(p) __builtin_prefetch((p), 1, 3)
    #define fastseq_bit_length(v) (32 - __builtin_clz(v))
    """
    void prefetch "fastseq_prefetch"(const void* p) noexcept nogil
    int bit_length "fastseq_bit_length"(uint32_t positive) noexcept nogil


cdef enum:
    WINDOW = 5                  # batches kept per producer: what a client may have in flight
    CHUNK_BITS = 4              # the first chunk has 16 entries
    CHUNKS_MAX = 27             # as many as 31-bit entry numbers need
    PUSHED = 0                  # journal: one batch entered the window
    SAVED = 1                   # journal: the entry changed otherwise, a copy was kept
    INSERTED = 2                # journal: the producer was not known before

cdef enum: NOT_FOUND = 0xFFFFFFFF


# One remembered batch, 28 bytes.
cdef packed struct Cached:
    int64_t next_offset
    int64_t max_timestamp
    int32_t last_sequence
    int32_t delta               # records - 1
    uint32_t crc                # as stored


# One producer, 192 bytes: three cache lines, of which a push touches two or three.
# The window is contiguous: a batch that does not follow the newest one starts it anew.
cdef packed struct Entry:
    int64_t producer_id
    int64_t accepted            # records of the contiguous run of this epoch that ends the window
    int64_t last_timestamp
    int64_t txn_first_offset    # of the open transaction, -1 without
    int32_t next_sequence
    int32_t coordinator_epoch
    int16_t epoch
    uint8_t count               # batches remembered
    uint8_t newest              # place of the newest in `batches`, a ring
    uint8_t by_range            # bit per place: its checksum proves nothing, the range decides
    uint8_t spare[3]
    Cached batches[WINDOW]
    uint32_t reserved


# What undoes one append, 64 bytes.
cdef packed struct Undo:
    int64_t base_offset
    int64_t next_offset
    int64_t last_timestamp
    Cached evicted
    uint32_t entry
    uint32_t saved
    uint8_t kind
    uint8_t was_full
    uint8_t by_range
    uint8_t spare


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


cdef struct Table:
    Entry* chunks[CHUNKS_MAX]
    int chunk_count
    uint32_t entries_used       # entry numbers below were handed out at least once
    uint32_t free_head          # list of numbers given back, linked through producer_id
    uint32_t free_count
    uint64_t* slots
    uint32_t slot_mask
    int slot_shift
    uint32_t count
    Undo* journal
    uint32_t journal_mask
    uint32_t journal_head
    uint32_t journal_used
    uint32_t journal_limit
    int64_t journal_start
    int64_t next_offset


cdef inline uint32_t producer_hash(int64_t producer_id) noexcept nogil:
    return <uint32_t>((<uint64_t>producer_id * <uint64_t>0x9E3779B97F4A7C15ULL) >> 32)


cdef inline Entry* entry_at(const Table* t, uint32_t number) noexcept nogil:
    cdef uint32_t place = number + (1 << CHUNK_BITS)
    cdef int chunk = bit_length(place) - 1
    return t.chunks[chunk - CHUNK_BITS] + (place - (<uint32_t>1 << chunk))


cdef inline void prefetch_slot(const Table* t, uint32_t hash) noexcept nogil:
    prefetch(t.slots + (hash >> t.slot_shift))


# The first entry whose hash matches, most likely the right one, and asks for its lines.
cdef inline uint32_t table_guess(const Table* t, uint32_t hash) noexcept nogil:
    cdef uint32_t place = hash >> t.slot_shift
    cdef uint64_t slot = t.slots[place]
    cdef const char* entry
    while slot != 0:
        if <uint32_t>(slot >> 32) == hash:
            entry = <const char*>entry_at(t, <uint32_t>slot - 1)
            prefetch(entry)
            prefetch(entry + 64)
            prefetch(entry + 128)
            return <uint32_t>slot - 1
        place = (place + 1) & t.slot_mask
        slot = t.slots[place]
    return NOT_FOUND


cdef inline uint32_t table_find(
        const Table* t, int64_t producer_id, uint32_t hash) noexcept nogil:
    cdef uint32_t place = hash >> t.slot_shift
    cdef uint64_t slot = t.slots[place]
    while slot != 0:
        if <uint32_t>(slot >> 32) == hash:
            if entry_at(t, <uint32_t>slot - 1).producer_id == producer_id:
                return <uint32_t>slot - 1
        place = (place + 1) & t.slot_mask
        slot = t.slots[place]
    return NOT_FOUND


cdef inline uint32_t entry_take(Table* t) noexcept nogil:
    cdef uint32_t number = t.free_head
    if number == NOT_FOUND:
        t.entries_used += 1
        return t.entries_used - 1
    t.free_head = <uint32_t>entry_at(t, number).producer_id
    t.free_count -= 1
    return number


cdef inline void entry_give(Table* t, uint32_t number) noexcept nogil:
    entry_at(t, number).producer_id = t.free_head
    t.free_head = number
    t.free_count += 1


# A producer never seen, with an empty window that `first_sequence` may start.
cdef inline uint32_t table_insert(
        Table* t, int64_t producer_id, int16_t epoch, int32_t first_sequence) noexcept nogil:
    cdef uint32_t hash = producer_hash(producer_id)
    cdef uint32_t place = hash >> t.slot_shift
    cdef uint32_t number = entry_take(t)
    cdef Entry* entry = entry_at(t, number)
    while t.slots[place] != 0:
        place = (place + 1) & t.slot_mask
    t.slots[place] = <uint64_t>hash << 32 | (number + 1)
    t.count += 1
    entry.producer_id = producer_id
    entry.last_timestamp = entry.txn_first_offset = entry.coordinator_epoch = -1
    entry_restart(entry, epoch, first_sequence)
    return number


cdef inline void entry_restart(
        Entry* entry, int16_t epoch, int32_t first_sequence) noexcept nogil:
    entry.epoch = epoch
    entry.next_sequence = first_sequence
    entry.accepted = 0
    entry.count = 0
    entry.newest = WINDOW - 1
    entry.by_range = 0


# Past its bound the journal forgets its oldest entry, and rollback reaches no further.
cdef inline Undo* journal_take(Table* t) noexcept nogil:
    if t.journal_used == t.journal_limit:
        journal_drop(t)
    if t.journal_used == 0:
        t.journal_head = 0      # stay in the lines that are warm
    t.journal_used += 1
    return t.journal + ((t.journal_head + t.journal_used - 1) & t.journal_mask)


cdef inline void journal_drop(Table* t) noexcept nogil:
    cdef Undo* oldest = t.journal + (t.journal_head & t.journal_mask)
    if oldest.kind == SAVED:
        entry_give(t, oldest.saved)
    if oldest.next_offset > t.journal_start:
        t.journal_start = oldest.next_offset
    t.journal_head += 1
    t.journal_used -= 1


# Where the next batch goes: the place of the oldest once the window is full.
cdef inline int next_place(const Entry* entry) noexcept nogil:
    cdef int place = <int>entry.newest + 1
    return 0 if place == WINDOW else place


# Keeps the whole entry, for changes that are rarer than one more batch.
cdef inline void journal_save(
        Table* t, uint32_t number, int64_t base_offset, int64_t next_offset) noexcept nogil:
    cdef Undo* undo = journal_take(t)
    undo.kind = SAVED
    undo.entry = number
    undo.base_offset = base_offset
    undo.next_offset = next_offset
    undo.saved = entry_take(t)
    entry_at(t, undo.saved)[0] = entry_at(t, number)[0]


cdef inline void journal_insert(
        Table* t, uint32_t number, int64_t base_offset, int64_t next_offset) noexcept nogil:
    cdef Undo* undo = journal_take(t)
    undo.kind = INSERTED
    undo.entry = number
    undo.base_offset = base_offset
    undo.next_offset = next_offset


cdef inline void journal_push(
        Table* t, uint32_t number, const Entry* entry, const Batch* batch) noexcept nogil:
    cdef Undo* undo = journal_take(t)
    undo.kind = PUSHED
    undo.entry = number
    undo.base_offset = batch.base_offset
    undo.next_offset = batch.next_offset
    undo.last_timestamp = entry.last_timestamp
    undo.by_range = entry.by_range
    undo.was_full = entry.count == WINDOW
    if undo.was_full:
        undo.evicted = entry.batches[next_place(entry)]


cdef inline int32_t sequence_add(int32_t sequence, int32_t count) noexcept nogil:
    return <int32_t>((<uint32_t>sequence + <uint32_t>count) & 0x7FFFFFFF)


# How far `sequence` lies behind `next_sequence`, modulo 2^31.
cdef inline int32_t sequence_behind(int32_t next_sequence, int32_t sequence) noexcept nogil:
    return <int32_t>((<uint32_t>next_sequence - <uint32_t>sequence) & 0x7FFFFFFF)


cdef inline void entry_push(Entry* entry, const Batch* batch) noexcept nogil:
    cdef int place = next_place(entry)
    cdef Cached* cached = &entry.batches[place]
    cached.next_offset = batch.next_offset
    cached.max_timestamp = batch.max_timestamp
    cached.last_sequence = sequence_add(batch.first_sequence, batch.delta)
    cached.delta = batch.delta
    cached.crc = batch.crc
    entry.newest = <uint8_t>place
    if entry.count < WINDOW:
        entry.count += 1
    entry.by_range = <uint8_t>(entry.by_range & ~(1 << place) | (batch.by_range << place))
    entry.next_sequence = sequence_add(cached.last_sequence, 1)
    entry.accepted += batch.delta + 1
    entry.last_timestamp = batch.max_timestamp


# Enters a producer's data batch; `number` is its entry or NOT_FOUND. No checks: what is in the log
# counts, whatever its epoch and sequence.
cdef inline void table_append(Table* t, const Batch* batch, uint32_t number) noexcept nogil:
    cdef Entry* entry
    cdef bint opens
    if number == NOT_FOUND:
        number = table_insert(t, batch.producer_id, batch.epoch, batch.first_sequence)
        journal_insert(t, number, batch.base_offset, batch.next_offset)
        entry = entry_at(t, number)
        opens = batch.transactional
    else:
        entry = entry_at(t, number)
        opens = batch.transactional and entry.txn_first_offset < 0
        if (entry.epoch == batch.epoch and entry.next_sequence == batch.first_sequence
                and not opens):
            journal_push(t, number, entry, batch)
        else:
            journal_save(t, number, batch.base_offset, batch.next_offset)
            if entry.epoch != batch.epoch or entry.next_sequence != batch.first_sequence:
                entry_restart(entry, batch.epoch, batch.first_sequence)
    if opens:
        entry.txn_first_offset = batch.base_offset
    entry_push(entry, batch)
    t.next_offset = batch.next_offset


# The remembered batch `age` places before the newest, 0 the newest itself.
cdef inline int entry_place(const Entry* entry, int age) noexcept nogil:
    cdef int place = entry.newest - age
    return place if place >= 0 else place + WINDOW


cdef int table_open(Table* t, int64_t next_offset, uint32_t journal_limit) noexcept nogil
cdef void table_close(Table* t) noexcept nogil
cdef void table_clear(Table* t, int64_t next_offset) noexcept nogil
cdef int table_reserve(Table* t, uint32_t more) noexcept nogil
cdef void table_mark(
    Table* t, const Batch* marker, int32_t coordinator_epoch) noexcept nogil
cdef bint table_rollback(Table* t, int64_t offset) noexcept nogil
cdef void table_trim(Table* t, int64_t offset) noexcept nogil
cdef uint64_t table_digest(const Table* t) noexcept nogil
cdef uint32_t table_collect(const Table* t, uint32_t* numbers) noexcept nogil
