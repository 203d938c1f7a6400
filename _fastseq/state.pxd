# An append to a producer table: what every batch passes, and the declarations of what few do.

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t

from _fastseq.entry cimport (
    FREE, INSERTED, LIVE, NOT_FOUND, PUSHED, WINDOW, Batch, Cell, Entry, Floor, Table, Undo,
    accepted_term, batch_term, cell_at, cell_take, entry_at, entry_restart, entry_take, index_put,
    likely, newest_copy, page_lower, producer_hash, sequence_add,
)
from _fastseq.memory cimport undo_forget


# A producer never seen, with an empty window that `first_sequence` may start; its terms of the
# digest come with the batch.
cdef inline uint32_t table_insert(
        Table* t, int64_t producer_id, int16_t epoch, int32_t first_sequence,
        int64_t next_offset) noexcept nogil:
    cdef uint32_t hash = producer_hash(producer_id)
    cdef uint32_t number = entry_take(t)
    cdef Entry* entry = entry_at(t, number)
    index_put(t, hash, number)
    entry.producer_id = producer_id
    entry.last_timestamp = -1
    entry.transaction = NOT_FOUND
    entry.state = LIVE
    entry_restart(entry, epoch, first_sequence, next_offset)
    page_lower(t, number, next_offset)
    return number


# Past its bound the journal forgets its oldest entry, and rollback reaches no further.
cdef inline Undo* journal_take(
        Table* t, int kind, int64_t base_offset, int64_t next_offset) noexcept nogil:
    cdef Undo* undo
    if t.journal_used == t.journal_limit:
        journal_drop(t)
    if t.journal_used == 0:
        t.journal_head = 0      # stay in the lines that are warm
    t.journal_used += 1
    undo = t.journal + ((t.journal_head + t.journal_used - 1) & t.journal_mask)
    undo.kind = <uint8_t>kind
    undo.base_offset = base_offset
    undo.next_offset = next_offset
    return undo


cdef inline void journal_drop(Table* t) noexcept nogil:
    cdef Undo* oldest = t.journal + (t.journal_head & t.journal_mask)
    if oldest.kind != PUSHED and oldest.kind != INSERTED:
        undo_forget(t, oldest)
    if oldest.next_offset > t.journal_start:
        t.journal_start = oldest.next_offset
    t.journal_head += 1
    t.journal_used -= 1


# Makes room for a new newest batch: the present one goes into the ring, where it takes the place
# of the oldest once the window is full; `undo` then has that one.
cdef inline void window_turn(Table* t, Entry* entry, Undo* undo) noexcept nogil:
    cdef Cell* cell
    cdef Cell* fresh
    cdef uint32_t number
    undo.was_full = entry.count == WINDOW
    if likely(entry.count == WINDOW):
        cell = cell_at(t, entry.ring)
        undo.evicted = cell[0]
        t.digest -= batch_term(
            entry.producer_id, entry.epoch, cell.last_sequence, cell.next_offset, cell.delta,
            cell.crc, entry.by_range >> (WINDOW - 1) & 1)
        newest_copy(entry, cell)
        entry.ring = cell.next
        return
    if entry.count > 0:
        number = cell_take(t)
        fresh = cell_at(t, number)
        if entry.ring == NOT_FOUND:
            fresh.next = number
            newest_copy(entry, fresh)
        else:
            # The oldest moves into the new cell, so that nobody must look for who points at it.
            cell = cell_at(t, entry.ring)
            fresh[0] = cell[0]
            newest_copy(entry, cell)
            cell.next = number
        entry.ring = number
    entry.count += 1


cdef inline void entry_push(Table* t, Entry* entry, const Batch* batch, Undo* undo) noexcept nogil:
    window_turn(t, entry, undo)
    entry.next_offset = batch.next_offset
    entry.delta = batch.delta
    entry.crc = batch.crc
    entry.by_range = <uint8_t>(
        (entry.by_range << 1 | batch.by_range) & ((1 << WINDOW) - 1))
    entry.next_sequence = sequence_add(batch.first_sequence, batch.delta + 1)
    entry.accepted += batch.delta + 1
    entry.last_timestamp = batch.max_timestamp
    t.digest += accepted_term(entry.producer_id, batch.delta + 1) + batch_term(
        entry.producer_id, entry.epoch, sequence_add(batch.first_sequence, batch.delta),
        batch.next_offset, batch.delta, batch.crc, batch.by_range)


# Enters a producer's data batch; `number` is its entry or NOT_FOUND. No checks: what is in the log
# counts, whatever its epoch and sequence.
cdef inline void table_append(Table* t, const Batch* batch, uint32_t number) noexcept nogil:
    cdef Entry* entry
    cdef Undo* undo
    if number != NOT_FOUND:
        entry = entry_at(t, number)
        if likely(entry.epoch == batch.epoch and entry.count > 0
                  and entry.next_sequence == batch.first_sequence and not batch.transactional):
            undo = journal_take(t, PUSHED, batch.base_offset, batch.next_offset)
            undo.entry = number
            undo.last_timestamp = entry.last_timestamp
            undo.by_range = entry.by_range
            entry_push(t, entry, batch, undo)
            t.next_offset = batch.next_offset
            return
    append_rare(t, batch, number)


# Everything else that an append can be: the first of a producer, one that does not follow the
# newest, one that opens a transaction.
cdef void append_rare(Table* t, const Batch* batch, uint32_t number) noexcept nogil

# A transaction marker.
cdef void table_mark(
    Table* t, const Batch* marker, int32_t coordinator_epoch) noexcept nogil

# Keeps a floor's slot in the journal before it changes.
cdef void floor_keep(Table* t, const Floor* slot, const Batch* batch) noexcept nogil
