"""Floors, what is left of expired producers: a sorted array of 16 bytes a producer.

Owns `Table.floors`. A slot is alive, dead (its producer came back) or gone in a numbered collapse;
what is not alive stays in its place for as long as the journal names any floor, so that undoing
changes slots and never moves them. Only then are the dead swept up. Ids are unique and ascend.
`floors_reserve` is the only function that can fail.
"""

from libc.stdint cimport UINT32_MAX, int64_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy, memmove, memset

from _fastseq.entry cimport Floor, Table

cdef enum:
    SPARE = 16                  # slots that growing leaves free at least


cdef uint32_t floor_place(const Table* t, int64_t producer_id) noexcept nogil:
    cdef uint32_t low = 0
    cdef uint32_t high = t.floors_used
    cdef uint32_t middle
    while low < high:
        middle = low + (high - low >> 1)
        if t.floors[middle].producer_id < producer_id:
            low = middle + 1
        else:
            high = middle
    return low


cdef Floor* floor_find(const Table* t, int64_t producer_id) noexcept nogil:
    cdef uint32_t place
    if t.floors_used == 0:
        return NULL
    place = floor_place(t, producer_id)
    if place == t.floors_used or t.floors[place].producer_id != producer_id:
        return NULL
    return t.floors + place


cdef void floor_write(Table* t, Floor* slot, const Floor* content) noexcept nogil:
    if floor_lives(slot):
        t.floors_alive -= 1
        t.digest -= floor_term(slot)
    slot[0] = content[0]
    if floor_lives(slot):
        t.floors_alive += 1
        t.digest += floor_term(slot)


cdef Floor* floor_slot(Table* t, int64_t producer_id) noexcept nogil:
    cdef uint32_t place = floor_place(t, producer_id)
    cdef Floor* slot = t.floors + place
    if place < t.floors_used and slot.producer_id == producer_id:
        return slot
    memmove(slot + 1, slot, (t.floors_used - place) * sizeof(Floor))
    t.floors_used += 1
    memset(slot, 0, sizeof(Floor))
    slot.producer_id = producer_id
    slot.state = FLOOR_DEAD
    return slot


cdef void sweep_dead(Table* t) noexcept nogil:
    cdef uint32_t kept = 0
    cdef uint32_t i
    for i in range(t.floors_used):
        if floor_lives(t.floors + i):
            t.floors[kept] = t.floors[i]
            kept += 1
    t.floors_used = kept


cdef int floors_room(Table* t, uint64_t room) noexcept nogil:
    cdef Floor* floors
    if room > UINT32_MAX:
        return -1
    floors = <Floor*>realloc(t.floors, <size_t>room * sizeof(Floor))
    if floors == NULL:
        return -1
    t.floors = floors
    t.floors_room = <uint32_t>room
    return 0


cdef int floors_reserve(Table* t, uint64_t more) noexcept nogil:
    cdef uint64_t wanted
    if t.floor_undos == 0 and t.floors_alive < t.floors_used:
        sweep_dead(t)
    wanted = t.floors_used + 2 * more + SPARE
    if wanted <= t.floors_room:
        return 0
    return floors_room(t, wanted)


cdef void floors_settle(Table* t) noexcept nogil:
    cdef uint64_t enough = <uint64_t>t.floors_used + t.floors_used // 8 + SPARE
    if t.floors_room > enough + t.floors_used // 8 + 4 * SPARE:
        floors_room(t, enough)


# Sorts `count` floors at `from_` by id, one byte of it after the other, with as much room at
# `to`; returns where they ended up. Bytes that all ids share are left out.
cdef Floor* radix_sorted(Floor* from_, Floor* to, uint32_t count) noexcept nogil:
    cdef uint32_t starts[256]
    cdef uint64_t differing = 0
    cdef bint ascending = True
    cdef Floor* other
    cdef uint32_t sum
    cdef uint32_t next_sum
    cdef uint32_t i
    cdef int shift
    for i in range(1, count):
        differing |= <uint64_t>(from_[i].producer_id ^ from_[0].producer_id)
        ascending = ascending and from_[i - 1].producer_id < from_[i].producer_id
    if ascending:
        return from_
    for shift in range(0, 64, 8):
        if differing >> shift & 0xFF == 0:
            continue
        memset(starts, 0, sizeof(starts))
        for i in range(count):
            starts[<uint64_t>from_[i].producer_id >> shift & 0xFF] += 1
        sum = 0
        for i in range(256):
            next_sum = sum + starts[i]
            starts[i] = sum
            sum = next_sum
        for i in range(count):
            to[starts[<uint64_t>from_[i].producer_id >> shift & 0xFF]] = from_[i]
            starts[<uint64_t>from_[i].producer_id >> shift & 0xFF] += 1
        other = from_
        from_ = to
        to = other
    return from_


# Merges from the back. A dead slot of the same producer makes way for its new floor.
cdef void merge(Table* t, const Floor* fresh, uint32_t count) noexcept nogil:
    cdef int64_t old = <int64_t>t.floors_used - 1
    cdef int64_t new = <int64_t>count - 1
    cdef int64_t out = old + count
    cdef int64_t end = out + 1
    while new >= 0:
        if old >= 0 and t.floors[old].producer_id > fresh[new].producer_id:
            t.floors[out] = t.floors[old]
            old -= 1
        else:
            if old >= 0 and t.floors[old].producer_id == fresh[new].producer_id:
                old -= 1
            t.floors[out] = fresh[new]
            new -= 1
        out -= 1
    if out > old:
        memmove(t.floors + old + 1, t.floors + out + 1, <size_t>(end - out - 1) * sizeof(Floor))
    t.floors_used = <uint32_t>(end - (out - old))


cdef void floors_take(Table* t, uint32_t count) noexcept nogil:
    cdef Floor* fresh = t.floors + t.floors_used
    cdef Floor* sorted_ = radix_sorted(fresh, fresh + count, count)
    cdef uint32_t i
    for i in range(count):
        t.digest += floor_term(sorted_ + i)
    t.floors_alive += count
    if t.floors_used == 0 or t.floors[t.floors_used - 1].producer_id < sorted_[0].producer_id:
        if sorted_ != fresh:
            memcpy(fresh, sorted_, count * sizeof(Floor))
        t.floors_used += count
        return
    if sorted_ == fresh:
        memcpy(fresh + count, fresh, count * sizeof(Floor))
    merge(t, fresh + count, count)
