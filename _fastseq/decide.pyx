"""The decision table: is a client's batch new, a retry, or neither? (Rule 6.)

One pass over the items of a turn. The second batch of a producer sees the first, because what is
accepted enters the table at once. Memory is asked for ahead of the pass, index lines twice as far
as entries, so that a table larger than the caches costs bandwidth and not latency.

Same epoch: the next sequence is new; the same first and last sequence as a remembered batch, with
the same checksum, is a duplicate; a whole range behind the window that this epoch has accepted is
a retry too old to show; anything else is a gap. Higher epochs start at 0, lower ones are fenced,
a producer never seen starts at 0. Sequences are modulo 2^31.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from _fastseq.state cimport (
    NOT_FOUND, Cached, Entry, Table, entry_at, entry_place, prefetch_slot, sequence_add,
    sequence_behind, table_append, table_find, table_guess,
)

cdef enum:
    AHEAD = 12                  # items between asking for an entry's lines and using them
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


# A remembered batch with exactly this range. Checksums that cannot be compared do not contradict.
cdef bint find_duplicate(Item* item, const Entry* entry) noexcept nogil:
    cdef int32_t last = sequence_add(item.batch.first_sequence, item.batch.delta)
    cdef const Cached* cached
    cdef int place
    cdef int age
    for age in range(entry.count):
        place = entry_place(entry, age)
        cached = &entry.batches[place]
        if cached.last_sequence != last or cached.delta != item.batch.delta:
            continue
        item.mismatched = <uint8_t>(
            cached.crc != item.batch.crc and (entry.by_range >> place & 1) == 0
            and item.batch.by_range == 0)
        if item.mismatched and item.native:
            refuse(item, VERDICT_CONFLICT, INVALID_RECORD)
        else:
            item.verdict = VERDICT_DUPLICATE
            item.offset = cached.next_offset - cached.delta - 1
            item.end = cached.next_offset
        return True
    return False


# Whether the whole range lies behind the window, among the records that this epoch accepted.
cdef bint below_window(const Item* item, const Entry* entry) noexcept nogil:
    cdef const Cached* oldest
    cdef int32_t behind = sequence_behind(entry.next_sequence, item.batch.first_sequence)
    cdef int32_t window
    if entry.count == 0 or behind > entry.accepted or behind > BEHIND_MAX:
        return False
    oldest = &entry.batches[entry_place(entry, entry.count - 1)]
    window = sequence_behind(entry.next_sequence, sequence_add(
        oldest.last_sequence, -oldest.delta))
    return behind - item.batch.delta - 1 >= window


# The native client never reuses a number, so it may be told; an ack must still wait for the oldest
# batch remembered, since everything before it is committed no later. A late copy of a Kafka client
# must not fence a healthy producer, so it is told nothing.
cdef void answer_below_window(Item* item, const Entry* entry) noexcept nogil:
    if item.native:
        item.verdict = VERDICT_DUPLICATE
        item.end = entry.batches[entry_place(entry, entry.count - 1)].next_offset
    else:
        refuse(item, VERDICT_STALE, REQUEST_TIMED_OUT)


cdef void decide_rare(Item* item, uint32_t number, int64_t producer_id_bound) noexcept nogil:
    cdef const Entry* entry = entry_at(item.table, number)
    if item.batch.epoch == entry.epoch and find_duplicate(item, entry):
        return
    if item.batch.producer_id >= producer_id_bound:
        refuse(item, VERDICT_ABOVE_BOUND, NOT_ENOUGH_REPLICAS)
    elif item.batch.epoch < entry.epoch:
        refuse(item, VERDICT_FENCED, INVALID_PRODUCER_EPOCH)
    elif item.batch.epoch > entry.epoch and item.batch.first_sequence == 0:
        accept(item, number)
    elif item.batch.epoch == entry.epoch and below_window(item, entry):
        answer_below_window(item, entry)
    elif item.refuse_new != 0:
        # Its predecessor may have been refused just so; a gap would say more than is known.
        refuse(item, VERDICT_REFUSED, item.refuse_new)
    else:
        refuse(item, VERDICT_GAP, OUT_OF_ORDER_SEQUENCE_NUMBER)


cdef void decide_unknown(Item* item, int64_t producer_id_bound) noexcept nogil:
    if item.batch.producer_id >= producer_id_bound:
        refuse(item, VERDICT_ABOVE_BOUND, NOT_ENOUGH_REPLICAS)
    elif item.batch.first_sequence == 0:
        accept(item, NOT_FOUND)
    elif item.refuse_new != 0:
        refuse(item, VERDICT_REFUSED, item.refuse_new)
    else:
        refuse(item, VERDICT_UNKNOWN_PRODUCER, OUT_OF_ORDER_SEQUENCE_NUMBER)


# The window is contiguous and shorter than the sequence space, so the next sequence cannot be a
# remembered one: the common case needs no search for a duplicate.
cdef inline void decide(Item* item, int64_t producer_id_bound) noexcept nogil:
    cdef uint32_t number = item.found
    cdef const Entry* entry
    if item.batch.producer_id < 0:
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


cdef void decide_all(Item* items, Py_ssize_t count, int64_t producer_id_bound) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(min(<Py_ssize_t>AHEAD, count)):
        guess(&items[i])
    for i in range(count):
        if i + 2 * AHEAD < count:
            prefetch_slot(items[i + 2 * AHEAD].table, items[i + 2 * AHEAD].hash)
        if i + AHEAD < count:
            guess(&items[i + AHEAD])
        if items[i].verdict == 0:
            decide(&items[i], producer_id_bound)
