"""What control batches of our own do to a table: expiry, collapse of floors, fences (rule 4).

`floors_reserve` has made room before, so nothing here can fail. Expiry looks at one number for 64
producers, a lower bound of their last offsets, and then only at pages that may hold an idle one;
appends leave the bounds alone, looking brings them up to date. Memory is asked for ahead, over a
whole page, so that what expires costs bandwidth and not latency.
"""

from libc.stdint cimport INT64_MAX, int16_t, int64_t, uint16_t, uint32_t
from libc.string cimport memcpy

from _fastseq.digest cimport entry_digest
from _fastseq.entry cimport (
    BURIED, COLLAPSED, FLOOR_SET, KEPT, LIVE, NOT_FOUND, PAGE_BITS, RETURNED, WINDOW, Batch, Cell,
    Entry, Floor, Table, Transaction, Undo, accepted_term, batch_term, cell_at, empty_term,
    entry_at, prefetch, prefetch_slot, producer_hash, sequence_add, table_find, transaction_at,
)
from _fastseq.floors cimport (
    EPOCH_LAST, FLOOR_ALIVE, FLOOR_DEAD, FLOOR_FATE, FLOOR_WHOLE, floor_find, floor_lives,
    floor_place, floor_slot, floor_write, floors_take, mark_term,
)
from _fastseq.memory cimport index_remove
from _fastseq.state cimport floor_keep, journal_drop, journal_take

cdef enum:
    PAGE = 1 << PAGE_BITS
    COLLAPSE_FIRST = 2          # numbers below it are other fates of a floor
    COLLAPSE_LAST = 0x7FFF


# The chain of what one batch buries.
cdef struct Burial:
    uint32_t head
    uint32_t tail
    uint32_t count


cdef void floor_of(const Entry* entry, Floor* floor) noexcept nogil:
    floor.producer_id = entry.producer_id
    floor.next_sequence = entry.next_sequence
    floor.epoch = entry.epoch
    floor.state = FLOOR_ALIVE
    if entry.accepted >= entry.next_sequence:
        floor.state |= FLOOR_WHOLE


cdef void bury(Table* t, uint32_t number, Burial* burial) noexcept nogil:
    cdef Entry* entry = entry_at(t, number)
    index_remove(t, producer_hash(entry.producer_id), number)
    entry.state = KEPT
    entry.link = burial.head
    burial.head = number
    if burial.count == 0:
        burial.tail = number
    burial.count += 1
    t.buried += 1


cdef void burial_journal(Table* t, const Batch* at, const Burial* burial) noexcept nogil:
    cdef Undo* undo = journal_take(t, BURIED, at.base_offset, at.next_offset)
    undo.entry = burial.head
    undo.saved = burial.count
    memcpy(&undo.evicted, &burial.tail, sizeof(burial.tail))
    t.floor_undos += 1


# Takes the terms of these entries out of the digest, ring after ring in step.
cdef void digest_leave(Table* t, const uint32_t* numbers, int count) noexcept nogil:
    cdef uint32_t rings[PAGE]
    cdef const Entry* entry
    cdef const Cell* cell
    cdef int age
    cdef int i
    for i in range(count):
        entry = entry_at(t, numbers[i])
        rings[i] = entry.ring
        if entry.count > 1:
            prefetch(cell_at(t, entry.ring))
    for age in range(1, WINDOW):
        for i in range(count):
            entry = entry_at(t, numbers[i])
            if entry.count <= age:
                continue
            cell = cell_at(t, rings[i])
            rings[i] = cell.next
            prefetch(cell_at(t, cell.next))
            t.digest -= batch_term(
                entry.producer_id, entry.epoch, cell.last_sequence, cell.next_offset, cell.delta,
                cell.crc, entry.by_range >> (entry.count - age) & 1)
    for i in range(count):
        entry = entry_at(t, numbers[i])
        if entry.count == 0 or entry.transaction != NOT_FOUND:
            digest_leave_rare(t, entry)
        if entry.count > 0:
            t.digest -= batch_term(
                entry.producer_id, entry.epoch, sequence_add(entry.next_sequence, -1),
                entry.next_offset, entry.delta, entry.crc, entry.by_range & 1)
        t.digest -= accepted_term(entry.producer_id, entry.accepted)


cdef void digest_leave_rare(Table* t, const Entry* entry) noexcept nogil:
    cdef const Transaction* fields
    if entry.count == 0:
        t.digest -= empty_term(
            entry.producer_id, entry.epoch, entry.next_sequence, entry.next_offset)
    if entry.transaction != NOT_FOUND:
        fields = transaction_at(t, entry)
        t.digest -= batch_term(entry.producer_id, -1, fields.coordinator_epoch,
                               fields.first_offset, -2, 0, True)


# The idle producers of a page; brings the page's bound up to date.
cdef int page_idle(
        Table* t, uint32_t page, int64_t cutoff, uint32_t* numbers) noexcept nogil:
    cdef int64_t lowest = INT64_MAX
    cdef uint32_t number = page << PAGE_BITS
    cdef uint32_t end = min(number + PAGE, t.entries.used)
    cdef const Entry* entry
    cdef int count = 0
    while number < end:
        entry = entry_at(t, number)
        if entry.state == LIVE:
            if entry.next_offset <= cutoff and (
                    entry.transaction == NOT_FOUND
                    or transaction_at(t, entry).first_offset < 0):
                numbers[count] = number
                count += 1
                prefetch_slot(t, producer_hash(entry.producer_id))
            else:
                lowest = min(lowest, entry.next_offset)
        number += 1
    t.oldest[page] = lowest
    return count


cdef void table_expire(Table* t, const Batch* at, int64_t cutoff) noexcept nogil:
    cdef uint32_t numbers[PAGE]
    cdef Burial burial
    cdef uint32_t pages = (t.entries.used + PAGE - 1) >> PAGE_BITS
    cdef uint32_t page
    cdef int count
    cdef int i
    burial.head = burial.tail = NOT_FOUND
    burial.count = 0
    for page in range(pages):
        if t.oldest[page] > cutoff:
            continue
        count = page_idle(t, page, cutoff, numbers)
        digest_leave(t, numbers, count)
        for i in range(count):
            floor_of(entry_at(t, numbers[i]), t.floors + t.floors_used + burial.count)
            bury(t, numbers[i], &burial)
    if burial.count > 0:
        floors_take(t, burial.count)
        burial_journal(t, at, &burial)
    t.next_offset = at.next_offset


# When the numbers are used up: collapses that can be undone get the first ones again, in their
# order, and floors of all others are simply dead. Half of the numbers become free at least, if need
# be because the journal forgets its oldest records.
cdef void collapses_renumber(Table* t) noexcept nogil:
    cdef uint16_t numbers[COLLAPSE_LAST + 1]
    cdef Undo* undo
    cdef uint32_t undoable = 0
    cdef uint32_t i
    for i in range(t.journal_used):
        undoable += t.journal[(t.journal_head + i) & t.journal_mask].kind == COLLAPSED
    while undoable > COLLAPSE_LAST // 2:
        undoable -= t.journal[t.journal_head & t.journal_mask].kind == COLLAPSED
        journal_drop(t)
    for i in range(COLLAPSE_LAST + 1):
        numbers[i] = FLOOR_DEAD
    t.collapses = COLLAPSE_FIRST - 1
    for i in range(t.journal_used):
        undo = t.journal + ((t.journal_head + i) & t.journal_mask)
        if undo.kind == COLLAPSED:
            t.collapses += 1
            numbers[undo.saved] = t.collapses
            undo.saved = t.collapses
    for i in range(t.floors_used):
        fate_renumber(t.floors + i, numbers)
    for i in range(t.journal_used):
        undo = t.journal + ((t.journal_head + i) & t.journal_mask)
        if undo.kind == FLOOR_SET or undo.kind == RETURNED:
            fate_renumber(<Floor*>&undo.evicted, numbers)


cdef inline void fate_renumber(Floor* floor, const uint16_t* numbers) noexcept nogil:
    cdef uint16_t fate = floor.state & FLOOR_FATE
    if fate >= COLLAPSE_FIRST:
        floor.state = <uint16_t>(floor.state & FLOOR_WHOLE) | numbers[fate]


cdef void table_collapse(
        Table* t, const Batch* at, int64_t id_bound, int16_t epoch_bound) noexcept nogil:
    cdef Undo* undo
    cdef Floor gone
    cdef uint32_t i
    if t.collapses == COLLAPSE_LAST:
        collapses_renumber(t)
    undo = journal_take(t, COLLAPSED, at.base_offset, at.next_offset)
    undo.evicted.next_offset = t.mark_id
    undo.evicted.delta = t.mark_epoch
    t.collapses = max(<uint16_t>(t.collapses + 1), <uint16_t>COLLAPSE_FIRST)
    undo.saved = t.collapses
    t.floor_undos += 1
    t.digest -= mark_term(t.mark_id, t.mark_epoch)
    t.mark_id = max(t.mark_id, id_bound)
    t.mark_epoch = max(t.mark_epoch, epoch_bound)
    t.digest += mark_term(t.mark_id, t.mark_epoch)
    for i in range(floor_place(t, t.mark_id)):
        if floor_lives(t.floors + i) and t.floors[i].epoch <= t.mark_epoch:
            gone = t.floors[i]
            gone.state |= t.collapses
            floor_write(t, t.floors + i, &gone)
    t.next_offset = at.next_offset


cdef void fence_entry(
        Table* t, const Batch* at, uint32_t number, int16_t epoch) noexcept nogil:
    cdef Burial burial
    cdef Floor floor
    burial.head = burial.tail = NOT_FOUND
    burial.count = 0
    floor_of(entry_at(t, number), &floor)
    floor.epoch = epoch
    floor.state = FLOOR_ALIVE
    t.digest -= entry_digest(t, entry_at(t, number))
    bury(t, number, &burial)
    floor_write(t, floor_slot(t, floor.producer_id), &floor)
    burial_journal(t, at, &burial)


cdef void fence_floor(
        Table* t, const Batch* at, int64_t producer_id, int16_t epoch) noexcept nogil:
    cdef Floor* slot = floor_slot(t, producer_id)
    cdef Floor floor = slot[0]
    floor_keep(t, slot, at)
    if not floor_lives(slot):
        floor.next_sequence = 0
    floor.epoch = epoch
    floor.state = FLOOR_ALIVE
    floor_write(t, slot, &floor)


cdef void table_fence(
        Table* t, const Batch* at, int64_t producer_id, int16_t epoch) noexcept nogil:
    cdef uint32_t number = table_find(t, producer_id, producer_hash(producer_id))
    cdef const Floor* slot
    if number != NOT_FOUND:
        if epoch > entry_at(t, number).epoch or epoch == EPOCH_LAST:
            fence_entry(t, at, number, epoch)
    else:
        slot = floor_find(t, producer_id)
        if slot == NULL or not floor_lives(slot) or epoch > slot.epoch:
            fence_floor(t, at, producer_id, epoch)
    t.next_offset = at.next_offset
