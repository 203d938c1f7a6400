"""Appends that not every batch is: first ones, new epochs, transactions, returns from a floor.

Each keeps in the journal what it changes and leaves the digest right. What is in the log counts:
nothing here judges a sequence or an epoch.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from _fastseq.digest cimport entry_digest
from _fastseq.entry cimport (
    FLOOR_SET, INSERTED, KEPT, MARKED, NOT_FOUND, PUSHED, RETURNED, SAVED, Batch, Entry, Floor,
    Table, Transaction, Undo, cell_at, entry_at, entry_restart, entry_take, producer_hash,
    table_find, transaction_at,
)
from _fastseq.floors cimport (
    FLOOR_DEAD, FLOOR_FATE, FLOOR_WHOLE, floor_find, floor_lives, floor_write,
)
from _fastseq.memory cimport transaction_cell


# Keeps the entry as it is and begins it anew; digest and journal know.
cdef void entry_replace(Table* t, uint32_t number, const Batch* batch) noexcept nogil:
    cdef Entry* entry = entry_at(t, number)
    cdef Undo* undo = journal_take(t, SAVED, batch.base_offset, batch.next_offset)
    cdef uint32_t saved = entry_take(t)
    cdef uint32_t fields = entry.transaction
    undo.entry = number
    undo.saved = saved
    t.digest -= entry_digest(t, entry)
    entry_at(t, saved)[0] = entry[0]
    entry_at(t, saved).state = KEPT
    if fields != NOT_FOUND:
        entry.transaction = NOT_FOUND
        transaction_cell(t, entry)
        cell_at(t, entry.transaction)[0] = cell_at(t, fields)[0]
    entry_restart(entry, batch.epoch, batch.first_sequence, batch.next_offset)


# Keeps the transaction fields and whatever else a marker changes.
cdef void entry_mark(Table* t, uint32_t number, const Batch* batch) noexcept nogil:
    cdef Entry* entry = entry_at(t, number)
    cdef Undo* undo = journal_take(t, MARKED, batch.base_offset, batch.next_offset)
    cdef Transaction* kept = <Transaction*>&undo.evicted
    undo.entry = number
    undo.last_timestamp = entry.last_timestamp
    undo.was_full = entry.transaction != NOT_FOUND
    if undo.was_full:
        kept[0] = transaction_at(t, entry)[0]
    kept.spare = entry.next_offset


# Keeps what a floor's slot has, and whether it lived, in a record of the journal.
cdef inline void floor_remember(Table* t, Undo* undo, const Floor* slot) noexcept nogil:
    memcpy(&undo.evicted, slot, sizeof(Floor))
    t.floor_undos += 1


cdef void floor_keep(Table* t, const Floor* slot, const Batch* batch) noexcept nogil:
    floor_remember(t, journal_take(t, FLOOR_SET, batch.base_offset, batch.next_offset), slot)


# How many records the epoch had accepted, as far as a floor can tell.
cdef inline int64_t floor_accepted(const Floor* slot, const Batch* batch) noexcept nogil:
    if (floor_lives(slot) and slot.state & FLOOR_WHOLE and slot.epoch == batch.epoch
            and slot.next_sequence == batch.first_sequence):
        return slot.next_sequence
    return 0


# A producer without an entry; its floor ends if it had one.
cdef uint32_t entry_begin(Table* t, const Batch* batch) noexcept nogil:
    cdef Floor* slot = floor_find(t, batch.producer_id)
    cdef bint returns = slot != NULL and slot.state & FLOOR_FATE != FLOOR_DEAD
    cdef uint32_t number = table_insert(
        t, batch.producer_id, batch.epoch, batch.first_sequence, batch.next_offset)
    cdef Undo* undo = journal_take(
        t, RETURNED if returns else INSERTED, batch.base_offset, batch.next_offset)
    cdef Floor dead
    undo.entry = number
    if returns:
        entry_at(t, number).accepted = floor_accepted(slot, batch)
        floor_remember(t, undo, slot)
        dead = slot[0]
        dead.state = FLOOR_DEAD
        floor_write(t, slot, &dead)
    return number


cdef void append_rare(Table* t, const Batch* batch, uint32_t number) noexcept nogil:
    cdef Undo unused
    cdef Undo* undo = &unused
    cdef Entry* entry
    cdef bint opens = batch.transactional
    if number == NOT_FOUND:
        number = entry_begin(t, batch)
        entry = entry_at(t, number)
    else:
        entry = entry_at(t, number)
        opens = opens and (entry.transaction == NOT_FOUND
                           or transaction_at(t, entry).first_offset < 0)
        if (entry.count == 0 or entry.epoch != batch.epoch
                or entry.next_sequence != batch.first_sequence):
            append_replaces(t, number, batch)
        else:
            t.digest -= entry_digest(t, entry)
            if opens:
                entry_mark(t, number, batch)
            undo = journal_take(t, PUSHED, batch.base_offset, batch.next_offset)
            undo.entry = number
            undo.last_timestamp = entry.last_timestamp
            undo.by_range = entry.by_range
    if opens:
        transaction_cell(t, entry)
        transaction_at(t, entry).first_offset = batch.base_offset
    push_counted(t, entry, batch, undo)
    t.next_offset = batch.next_offset


# A window that is empty and waits for just this sequence keeps its count of accepted records.
cdef void append_replaces(Table* t, uint32_t number, const Batch* batch) noexcept nogil:
    cdef Entry* entry = entry_at(t, number)
    cdef int64_t accepted = 0
    if entry.epoch == batch.epoch and entry.next_sequence == batch.first_sequence:
        accepted = entry.accepted
    entry_replace(t, number, batch)
    entry.accepted = accepted


# Pushes into an entry whose terms are not in the digest, and then puts them all there.
cdef void push_counted(Table* t, Entry* entry, const Batch* batch, Undo* undo) noexcept nogil:
    cdef uint64_t digest = t.digest
    entry_push(t, entry, batch, undo)
    t.digest = digest + entry_digest(t, entry)


# A transaction marker: it ends the open transaction and sets the epoch, which empties the window
# only if it changes.
cdef void table_mark(
        Table* t, const Batch* marker, int32_t coordinator_epoch) noexcept nogil:
    cdef uint32_t number = table_find(
        t, marker.producer_id, producer_hash(marker.producer_id))
    cdef Entry* entry
    cdef Transaction* fields
    cdef Batch begin = marker[0]
    begin.first_sequence = 0
    if number == NOT_FOUND:
        number = entry_begin(t, &begin)
        entry = entry_at(t, number)
    else:
        entry = entry_at(t, number)
        if entry.epoch != marker.epoch:
            entry_replace(t, number, &begin)
        else:
            t.digest -= entry_digest(t, entry)
            entry_mark(t, number, marker)
    transaction_cell(t, entry)
    fields = transaction_at(t, entry)
    fields.coordinator_epoch = coordinator_epoch
    fields.first_offset = -1
    entry.last_timestamp = marker.max_timestamp
    if entry.count == 0:
        entry.next_offset = marker.next_offset
    t.digest += entry_digest(t, entry)
    t.next_offset = marker.next_offset
