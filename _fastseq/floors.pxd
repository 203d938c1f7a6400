from libc.stdint cimport int16_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

from _fastseq.entry cimport Floor, Table, fold

cdef enum:
    FLOOR_ALIVE = 0
    FLOOR_DEAD = 1              # its producer came back; larger numbers: gone in that collapse
    FLOOR_FATE = 0x7FFF
    FLOOR_WHOLE = 0x8000        # the epoch accepted every sequence from 0 on
    EPOCH_LAST = 32_767         # a floor of it lets nobody back: a fence


cdef inline bint floor_lives(const Floor* floor) noexcept nogil:
    return floor.state & FLOOR_FATE == FLOOR_ALIVE


cdef inline uint64_t floor_term(const Floor* floor) noexcept nogil:
    return fold(
        <uint64_t>floor.producer_id ^ <uint64_t>0x2D358DCCAA6C78A5ULL,
        (<uint64_t><uint16_t>floor.epoch << 32 | <uint32_t>floor.next_sequence
         | <uint64_t>(floor.state & FLOOR_WHOLE) << 33) ^ <uint64_t>0x8BB84B93962EACC9ULL)


# 0 for the mark of a table that never collapsed a floor.
cdef inline uint64_t mark_term(int64_t mark_id, int16_t mark_epoch) noexcept nogil:
    if mark_id == 0:
        return 0
    return fold(<uint64_t>mark_id ^ <uint64_t>0x4B33A62ED433D4A3ULL,
                <uint64_t><uint16_t>mark_epoch ^ <uint64_t>0x4D5A2DA51DE1AA47ULL)


cdef inline bint under_mark(const Table* t, int64_t producer_id, int16_t epoch) noexcept nogil:
    return producer_id < t.mark_id and epoch <= t.mark_epoch


# The slot of a producer's floor whatever its state, NULL if it has none.
cdef Floor* floor_find(const Table* t, int64_t producer_id) noexcept nogil

# The place of the first floor of a producer id at or above this one.
cdef uint32_t floor_place(const Table* t, int64_t producer_id) noexcept nogil

# Gives a slot new content, in the digest too.
cdef void floor_write(Table* t, Floor* slot, const Floor* content) noexcept nogil

# The producer's slot; a dead one is put in where it belongs if there is none. Room is reserved.
cdef Floor* floor_slot(Table* t, int64_t producer_id) noexcept nogil

# Room for `more` new floors and for sorting them; -1 if memory ran out. Sweeps up the dead.
cdef int floors_reserve(Table* t, uint64_t more) noexcept nogil

# Gives back what was reserved and not needed.
cdef void floors_settle(Table* t) noexcept nogil

# Takes `count` living floors that lie behind the last one, in any order, into their places.
cdef void floors_take(Table* t, uint32_t count) noexcept nogil
