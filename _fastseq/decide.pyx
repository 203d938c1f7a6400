"""The decision table: is a client's batch new, a retry, or neither? (Rule 6.)

One pass over the items of a turn. The second batch of a producer sees the first, because what is
accepted enters the table at once. Memory is asked for ahead of the pass, index lines twice as far
as entries, so that a table larger than the caches costs bandwidth and not latency.

Same epoch: the next sequence is new; the same first and last sequence as a remembered batch, with
the same checksum, is a duplicate; a whole range behind the window that this epoch has accepted is
a retry too old to show; anything else is a gap. Higher epochs start at 0, lower ones are fenced,
a producer never seen starts at 0. Sequences are modulo 2^31.

A producer that expired has left a floor: the sequence after it, or a higher epoch at 0, brings it
back. What lies at or below the floor, or under the mark that floors collapse into, may be stored:
FLOORED, and the caller appends a fence before it answers 47. A floor of the last epoch is such a
fence: FENCED. A new producer beyond the table's budget is REFUSED with 19, which is retriable and
says that nothing was appended; no producer is ever evicted for another.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from _fastseq.control cimport control_run
from _fastseq.digest cimport window_cells
from _fastseq.entry cimport (
    NOT_FOUND, WINDOW, Cell, Entry, Floor, Table, cell_at, entry_at, prefetch,
    prefetch_ring, prefetch_slot,
    sequence_add, sequence_behind, table_find, table_guess,
)
from _fastseq.floors cimport EPOCH_LAST, floor_find, floor_lives, under_mark
from _fastseq.memory cimport table_bytes
from _fastseq.state cimport table_append

cdef enum:
    AHEAD = 12                  # items between asking for a line and using it
    HOPS = 3                    # batches of a window after the oldest and before the newest
    HOP = 4                     # items between asking for one of them and the next
    REQUEST_TIMED_OUT = 7       # "may have been written": the Kafka client's cue to keep calm
    NOT_ENOUGH_REPLICAS = 19
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    INVALID_PRODUCER_EPOCH = 47
    INVALID_RECORD = 87
    BEHIND_MAX = 1 << 30        # farther back is as likely to be ahead


cdef inline int refuse(Item* item, int verdict, int error) noexcept nogil:
    item.verdict = <unsigned char>verdict
    item.error = <short>error
    return 0


# Places, offsets and the table move together with the verdict (rule 1).
cdef inline void accept(Item* item, uint32_t number) noexcept nogil:
    cdef Table* t = item.table
    if item.refuse_new != 0:
        refuse(item, VERDICT_REFUSED, item.refuse_new)
        return
    item.verdict = VERDICT_NEW
    item.batch.base_offset = item.offset = t.next_offset
    item.batch.next_offset = item.end = t.next_offset + item.batch.delta + 1
    if item.batch.producer_id < 0:
        t.next_offset = item.end
    else:
        table_append(t, &item.batch, number)


# Enters a control batch of our own, which has no producer and is nobody's retry.
cdef void accept_control(Item* item) noexcept nogil:
    item.verdict = VERDICT_NEW
    item.batch.base_offset = item.offset = item.table.next_offset
    item.batch.next_offset = item.end = item.offset + 1
    control_run(item.table, item.data, item.data + item.length, &item.batch)


# A duplicate by range. Checksums that cannot be compared do not contradict.
cdef void answer_duplicate(
        Item* item, int64_t next_offset, uint32_t crc, bint by_range) noexcept nogil:
    item.mismatched = <uint8_t>(
        crc != item.batch.crc and not by_range and item.batch.by_range == 0)
    if item.mismatched and item.native:
        refuse(item, VERDICT_CONFLICT, INVALID_RECORD)
    else:
        item.verdict = VERDICT_DUPLICATE
        item.offset = next_offset - item.batch.delta - 1
        item.end = next_offset


# A remembered batch with exactly this range, the newest first, since it lies in the entry.
cdef inline bint find_duplicate(Item* item, const Entry* entry) noexcept nogil:
    cdef int32_t last = sequence_add(item.batch.first_sequence, item.batch.delta)
    cdef uint32_t number = entry.ring
    cdef const Cell* cell
    cdef int age
    if entry.count == 0:
        return False
    if sequence_add(last, 1) == entry.next_sequence and entry.delta == item.batch.delta:
        answer_duplicate(item, entry.next_offset, entry.crc, entry.by_range & 1)
        return True
    for age in range(entry.count - 1, 0, -1):
        cell = cell_at(item.table, number)
        if cell.last_sequence == last and cell.delta == item.batch.delta:
            answer_duplicate(item, cell.next_offset, cell.crc, entry.by_range >> age & 1)
            return True
        number = cell.next
    return False


# Whether the whole range lies behind the window, among the records that this epoch accepted; then
# `oldest` is the end of the oldest batch remembered.
cdef bint below_window(const Item* item, const Entry* entry, int64_t* oldest) noexcept nogil:
    cdef Cell cells[WINDOW]
    cdef int32_t behind = sequence_behind(entry.next_sequence, item.batch.first_sequence)
    cdef int32_t window
    if entry.count == 0 or behind > entry.accepted or behind > BEHIND_MAX:
        return False
    window_cells(item.table, entry, cells)
    oldest[0] = cells[0].next_offset
    window = sequence_behind(entry.next_sequence, sequence_add(
        cells[0].last_sequence, -cells[0].delta))
    return behind - item.batch.delta - 1 >= window


# The native client never reuses a number, so it may be told; an ack must still wait for the oldest
# batch remembered, since everything before it is committed no later. A late copy of a Kafka client
# must not fence a healthy producer, so it is told nothing.
cdef void answer_below_window(Item* item, int64_t oldest) noexcept nogil:
    if item.native:
        item.verdict = VERDICT_DUPLICATE
        item.end = oldest
    else:
        refuse(item, VERDICT_STALE, REQUEST_TIMED_OUT)


cdef void decide_rare(Item* item, uint32_t number, int64_t producer_id_bound) noexcept nogil:
    cdef const Entry* entry = entry_at(item.table, number)
    cdef int64_t oldest = -1
    if item.batch.epoch == entry.epoch and find_duplicate(item, entry):
        return
    if item.batch.producer_id >= producer_id_bound:
        refuse(item, VERDICT_ABOVE_BOUND, NOT_ENOUGH_REPLICAS)
    elif item.batch.epoch < entry.epoch:
        refuse(item, VERDICT_FENCED, INVALID_PRODUCER_EPOCH)
    elif item.batch.epoch > entry.epoch and item.batch.first_sequence == 0:
        accept(item, number)
    elif item.batch.epoch == entry.epoch and below_window(item, entry, &oldest):
        answer_below_window(item, oldest)
    else:
        answer_gap(item, VERDICT_GAP)


# A producer that the table has no entry for. Whoever would be a new one must fit the budget.
cdef void accept_unknown(Item* item) noexcept nogil:
    if item.refuse_new == 0 and table_bytes(item.table) >= item.table.budget:
        refuse(item, VERDICT_REFUSED, NOT_ENOUGH_REPLICAS)
    else:
        accept(item, NOT_FOUND)


# What may be stored below a floor is refused for good, but not before the fence is in the log.
cdef void answer_floored(Item* item) noexcept nogil:
    if item.refuse_new != 0:
        refuse(item, VERDICT_REFUSED, item.refuse_new)
    else:
        refuse(item, VERDICT_FLOORED, INVALID_PRODUCER_EPOCH)


cdef void answer_gap(Item* item, int verdict) noexcept nogil:
    if item.refuse_new != 0:
        # Its predecessor may have been refused just so; a gap would say more than is known.
        refuse(item, VERDICT_REFUSED, item.refuse_new)
    else:
        refuse(item, verdict, OUT_OF_ORDER_SEQUENCE_NUMBER)


cdef void decide_floor(Item* item, const Floor* floor) noexcept nogil:
    cdef int32_t ahead = sequence_behind(item.batch.first_sequence, floor.next_sequence)
    if item.batch.epoch < floor.epoch or floor.epoch == EPOCH_LAST:
        refuse(item, VERDICT_FENCED, INVALID_PRODUCER_EPOCH)
    elif item.batch.epoch > floor.epoch:
        if item.batch.first_sequence == 0:
            accept_unknown(item)
        else:
            answer_gap(item, VERDICT_GAP)
    elif ahead == 0:
        accept_unknown(item)
    elif ahead < BEHIND_MAX:
        answer_gap(item, VERDICT_GAP)
    else:
        answer_floored(item)


cdef void decide_unknown(Item* item, int64_t producer_id_bound) noexcept nogil:
    cdef const Floor* floor = floor_find(item.table, item.batch.producer_id)
    if item.batch.producer_id >= producer_id_bound:
        refuse(item, VERDICT_ABOVE_BOUND, NOT_ENOUGH_REPLICAS)
    elif floor != NULL and floor_lives(floor):
        decide_floor(item, floor)
    elif under_mark(item.table, item.batch.producer_id, item.batch.epoch):
        answer_floored(item)
    elif item.batch.first_sequence == 0:
        accept_unknown(item)
    else:
        answer_gap(item, VERDICT_UNKNOWN_PRODUCER)


# The window is contiguous and shorter than the sequence space, so the next sequence cannot be a
# remembered one: the common case needs no search for a duplicate.
cdef inline void decide(Item* item, int64_t producer_id_bound) noexcept nogil:
    cdef uint32_t number = item.found
    cdef const Entry* entry
    if item.batch.producer_id < 0:
        if item.control:
            accept_control(item)
        else:
            accept(item, NOT_FOUND)
        return
    if (number == NOT_FOUND
            or entry_at(item.table, number).producer_id != item.batch.producer_id):
        number = table_find(item.table, item.batch.producer_id, item.hash)
        if number == NOT_FOUND:
            decide_unknown(item, producer_id_bound)
            return
    entry = entry_at(item.table, number)
    if (entry.epoch == item.batch.epoch and entry.next_sequence == item.batch.first_sequence
            and item.batch.producer_id < producer_id_bound):
        accept(item, number)
    else:
        decide_rare(item, number, producer_id_bound)


cdef inline void guess(Item* item) noexcept nogil:
    item.found = table_guess(item.table, item.hash)


# A control batch may have taken entries away that were found before.
cdef void forget_guesses(Item* items, Py_ssize_t count) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        items[i].found = items[i].probe = NOT_FOUND


# What the entry says about a batch to come: asks for the oldest batch of its window, which a new
# one will replace, and notes where a search for a retry begins. Returns 1 for a likely retry.
cdef inline int look(Item* item) noexcept nogil:
    prefetch_ring(item.table, item.found)
    item.probe = NOT_FOUND
    if item.found == NOT_FOUND or (
            entry_at(item.table, item.found).next_sequence == item.batch.first_sequence):
        return 0
    item.probe = entry_at(item.table, item.found).ring
    return 1


# One step of that search, as far as memory is concerned.
cdef inline void hop(Item* item) noexcept nogil:
    if item.probe != NOT_FOUND:
        item.probe = cell_at(item.table, item.probe).next
        prefetch(cell_at(item.table, item.probe))


cdef void hop_on(Item* items, Py_ssize_t count) noexcept nogil:
    cdef int step
    for step in range(1, HOPS + 1):
        if AHEAD - step * HOP < count:
            hop(items + AHEAD - step * HOP)


# Memory is asked for some steps ahead: the place in the index, the entry, the oldest batch; where
# a turn has retries, one after the other those that follow it in the window.
cdef void decide_all(Item* items, Py_ssize_t count, int64_t producer_id_bound) noexcept nogil:
    cdef Py_ssize_t retries = 0
    cdef Py_ssize_t i
    for i in range(min(<Py_ssize_t>(2 * AHEAD), count)):
        guess(&items[i])
    for i in range(min(<Py_ssize_t>AHEAD, count)):
        retries += look(&items[i])
    for i in range(count):
        if i + 3 * AHEAD < count:
            prefetch_slot(items[i + 3 * AHEAD].table, items[i + 3 * AHEAD].hash)
        if i + 2 * AHEAD < count:
            guess(&items[i + 2 * AHEAD])
        if i + AHEAD < count:
            retries += look(&items[i + AHEAD])
        if retries > 0:
            hop_on(items + i, count - i)
        if items[i].verdict == 0:
            decide(&items[i], producer_id_bound)
            if items[i].control:
                forget_guesses(items + i + 1, min(<Py_ssize_t>(2 * AHEAD), count - i - 1))
