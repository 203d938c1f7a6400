"""Undoing what the journal has, newest first, exactly.

The evicted batch comes back into its place, a replaced entry is copied back, an inserted one is
removed from the index by shifting its successors back, so that no tombstones gather; expired
producers leave their floors, collapsed floors the mark. Nothing here can fail.
"""

from libc.stdint cimport int16_t, int64_t, uint32_t
from libc.string cimport memcpy

from _fastseq.digest cimport entry_digest
from _fastseq.entry cimport (
    BURIED, COLLAPSED, INSERTED, LIVE, MARKED, NOT_FOUND, PUSHED, RETURNED, SAVED, WINDOW, Cell,
    Entry, Floor, Table, Transaction, Undo, accepted_term, batch_term, cell_at, cell_give, entry_at,
    index_put, page_lower, producer_hash, sequence_add, transaction_at,
)
from _fastseq.floors cimport (
    FLOOR_DEAD, FLOOR_FATE, FLOOR_WHOLE, floor_find, floor_place, floor_slot, floor_write,
    mark_term,
)
from _fastseq.memory cimport entry_free, index_remove, ring_free
from _fastseq.state cimport journal_drop


# The newest batch leaves the window; what it had pushed out comes back.
cdef void entry_pop(Table* t, Entry* entry, const Undo* undo) noexcept nogil:
    cdef Cell* cell = NULL
    cdef uint32_t number = entry.ring
    cdef uint32_t last
    t.digest -= batch_term(
        entry.producer_id, entry.epoch, sequence_add(entry.next_sequence, -1),
        entry.next_offset, entry.delta, entry.crc, entry.by_range & 1)
    t.digest -= accepted_term(entry.producer_id, entry.delta + 1)
    entry.accepted -= entry.delta + 1
    entry.next_sequence = sequence_add(entry.next_sequence, -entry.delta - 1)
    entry.last_timestamp = undo.last_timestamp
    entry.by_range = undo.by_range
    # The newest of the ring is the one before its oldest.
    last = number
    while cell_at(t, last).next != number:
        last = cell_at(t, last).next
    cell = cell_at(t, last)
    entry.next_offset = cell.next_offset
    entry.delta = cell.delta
    entry.crc = cell.crc
    if undo.was_full:
        entry.ring = last
        last = cell.next
        cell[0] = undo.evicted
        cell.next = last
        t.digest += batch_term(
            entry.producer_id, entry.epoch, cell.last_sequence, cell.next_offset, cell.delta,
            cell.crc, entry.by_range >> (WINDOW - 1) & 1)
    else:
        ring_shorten(t, entry, last)
        entry.count -= 1


cdef void ring_shorten(Table* t, Entry* entry, uint32_t last) noexcept nogil:
    cdef uint32_t before = entry.ring
    if before == last:
        entry.ring = NOT_FOUND
    else:
        while cell_at(t, before).next != last:
            before = cell_at(t, before).next
        cell_at(t, before).next = entry.ring
    cell_give(t, last)


cdef void undo_marked(Table* t, const Undo* undo) noexcept nogil:
    cdef Entry* entry = entry_at(t, undo.entry)
    cdef const Transaction* kept = <const Transaction*>&undo.evicted
    t.digest -= entry_digest(t, entry)
    if undo.was_full:
        transaction_at(t, entry)[0] = kept[0]
    else:
        cell_give(t, entry.transaction)
        entry.transaction = NOT_FOUND
    entry.last_timestamp = undo.last_timestamp
    entry.next_offset = kept.spare
    t.digest += entry_digest(t, entry)


cdef void undo_saved(Table* t, const Undo* undo) noexcept nogil:
    cdef Entry* entry = entry_at(t, undo.entry)
    cdef Entry* saved = entry_at(t, undo.saved)
    t.digest -= entry_digest(t, entry)
    ring_free(t, entry)
    entry[0] = saved[0]
    entry.state = LIVE
    t.digest += entry_digest(t, entry)
    page_lower(t, undo.entry, entry.next_offset)
    saved.ring = saved.transaction = NOT_FOUND
    entry_free(t, undo.saved)


cdef void undo_inserted(Table* t, uint32_t number) noexcept nogil:
    cdef Entry* entry = entry_at(t, number)
    t.digest -= entry_digest(t, entry)
    index_remove(t, producer_hash(entry.producer_id), number)
    entry_free(t, number)


cdef void undo_buried(Table* t, uint32_t number) noexcept nogil:
    cdef Entry* entry
    cdef Floor* slot
    cdef Floor dead
    while number != NOT_FOUND:
        entry = entry_at(t, number)
        entry.state = LIVE
        index_put(t, producer_hash(entry.producer_id), number)
        page_lower(t, number, entry.next_offset)
        t.digest += entry_digest(t, entry)
        slot = floor_find(t, entry.producer_id)
        dead = slot[0]
        dead.state = FLOOR_DEAD
        floor_write(t, slot, &dead)
        t.buried -= 1
        number = entry.link


cdef void undo_collapsed(Table* t, const Undo* undo) noexcept nogil:
    cdef Floor alive
    cdef uint32_t i
    t.digest -= mark_term(t.mark_id, t.mark_epoch)
    for i in range(floor_place(t, t.mark_id)):
        if t.floors[i].state & FLOOR_FATE == undo.saved:
            alive = t.floors[i]
            alive.state &= FLOOR_WHOLE
            floor_write(t, t.floors + i, &alive)
    t.mark_id = undo.evicted.next_offset
    t.mark_epoch = <int16_t>undo.evicted.delta
    t.digest += mark_term(t.mark_id, t.mark_epoch)


cdef void undo_one(Table* t, const Undo* undo) noexcept nogil:
    cdef Floor floor
    if undo.kind == PUSHED:
        entry_pop(t, entry_at(t, undo.entry), undo)
        page_lower(t, undo.entry, entry_at(t, undo.entry).next_offset)
    elif undo.kind == SAVED:
        undo_saved(t, undo)
    elif undo.kind == INSERTED:
        undo_inserted(t, undo.entry)
    elif undo.kind == MARKED:
        undo_marked(t, undo)
    elif undo.kind == BURIED:
        undo_buried(t, undo.entry)
        t.floor_undos -= 1
    elif undo.kind == COLLAPSED:
        undo_collapsed(t, undo)
        t.floor_undos -= 1
    else:
        if undo.kind == RETURNED:
            undo_inserted(t, undo.entry)
        memcpy(&floor, &undo.evicted, sizeof(Floor))
        floor_write(t, floor_slot(t, floor.producer_id), &floor)
        t.floor_undos -= 1


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
