"""The digest of a producer table from scratch, and its entries in order.

The table keeps its digest current with every change: a sum modulo 2^64 of one mixed term for each
remembered batch (producer, epoch, sequence, offset, records, checksum), one linear term for each
count of accepted records, one for each floor and one for the mark. Here it is computed from what
is there, which must give the same.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort

from _fastseq.entry cimport (
    LIVE, NOT_FOUND, WINDOW, Cell, Entry, Table, Transaction, accepted_term, batch_term, cell_at,
    empty_term, entry_at, newest_copy, transaction_at,
)
from _fastseq.floors cimport floor_lives, floor_term, mark_term


# The batches of an entry, oldest first, as cells; returns how many.
cdef uint32_t window_cells(const Table* t, const Entry* entry, Cell* cells) noexcept nogil:
    cdef uint32_t number = entry.ring
    cdef int i
    if entry.count == 0:
        return 0
    for i in range(entry.count - 1):
        cells[i] = cell_at(t, number)[0]
        number = cells[i].next
    newest_copy(entry, &cells[entry.count - 1])
    return entry.count


cdef uint64_t entry_digest(const Table* t, const Entry* entry) noexcept nogil:
    cdef Cell cells[WINDOW]
    cdef const Transaction* fields
    cdef uint64_t digest = accepted_term(entry.producer_id, entry.accepted)
    cdef int i
    if entry.count == 0:
        digest += empty_term(
            entry.producer_id, entry.epoch, entry.next_sequence, entry.next_offset)
    else:
        window_cells(t, entry, cells)
    for i in range(entry.count):
        digest += batch_term(
            entry.producer_id, entry.epoch, cells[i].last_sequence, cells[i].next_offset,
            cells[i].delta, cells[i].crc, entry.by_range >> (entry.count - 1 - i) & 1)
    if entry.transaction != NOT_FOUND:
        fields = transaction_at(t, entry)
        digest += batch_term(entry.producer_id, -1, fields.coordinator_epoch,
                             fields.first_offset, -2, 0, True)
    return digest


cdef uint64_t table_digest(const Table* t) noexcept nogil:
    cdef uint64_t digest = mark_term(t.mark_id, t.mark_epoch)
    cdef uint32_t i
    for i in range(t.entries.used):
        if entry_at(t, i).state == LIVE:
            digest += entry_digest(t, entry_at(t, i))
    for i in range(t.floors_used):
        if floor_lives(t.floors + i):
            digest += floor_term(t.floors + i)
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
    cdef bint ascending = True
    cdef uint32_t used = 0
    cdef uint32_t i
    if found == NULL:
        return 1
    for i in range(t.entries.used):
        if entry_at(t, i).state == LIVE:
            found[used].number = i
            found[used].producer_id = entry_at(t, i).producer_id
            if used > 0 and found[used - 1].producer_id > found[used].producer_id:
                ascending = False
            used += 1
    if not ascending:
        qsort(found, used, sizeof(Numbered), &by_producer)
    for i in range(used):
        numbers[i] = found[i].number
    free(found)
    return 0
