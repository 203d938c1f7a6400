"""The passes of a turn that need no Python: check every entry, lay the accepted ones out, stamp.

Between the check and the laying out lies the decision (`decide`). Nothing here allocates or
raises, so a turn that began to change tables also ends. The passes run without the GIL when a turn
is large; tables have no lock, so only one thread may use those of a broker.
"""

from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from _fastseq.batch cimport Checked, client_fault, crc_right, crc_rewritten
from _fastseq.control cimport control_ours
from _fastseq.decide cimport VERDICT_INVALID, VERDICT_NEW, Item
from _fastseq.entry cimport prefetch_slot, producer_hash
from _fastseq.layout cimport (
    ATTRIBUTE_APPEND_TIME, ATTRIBUTE_TRANSACTIONAL, FAULT_MAGIC, header_fault, store16, store32,
    store64,
)

cdef enum:
    CORRUPT_MESSAGE = 2
    INVALID_TXN_STATE = 48
    INVALID_RECORD = 87


# The time of the append takes the place of the client's largest timestamp, for all records. The
# stored bytes then differ from one attempt to the next, so retries are known by their range.
cdef void stamp_time(
        const unsigned char* p, Checked* checked, int64_t append_time) noexcept nogil:
    checked.attributes |= ATTRIBUTE_APPEND_TIME
    checked.max_timestamp = append_time
    checked.rewritten = True
    checked.crc = crc_rewritten(p, checked.header.size, checked.attributes, append_time)


# Fills what the table needs to know from the client's header; a fault is a verdict at once.
cdef void prepare(Item* item, const Place* place) noexcept nogil:
    cdef Checked checked
    cdef int error = client_fault(item.data, item.length, place.bytes_max, &checked)
    if error == 0 and checked.attributes & ATTRIBUTE_TRANSACTIONAL:
        error = INVALID_TXN_STATE       # no transaction can be open
    if error != 0:
        item.verdict = VERDICT_INVALID
        item.error = <int16_t>error
        return
    if place.append_time >= 0:
        stamp_time(item.data, &checked, place.append_time)
        item.batch.by_range = True
    item.batch.producer_id = checked.header.producer_id
    item.batch.max_timestamp = checked.max_timestamp
    item.batch.first_sequence = checked.header.base_sequence
    item.batch.delta = checked.header.last_offset_delta
    item.batch.crc = checked.crc
    item.batch.epoch = checked.header.producer_epoch
    item.attributes = checked.attributes
    item.rewritten = <uint8_t>checked.rewritten
    item.hash = producer_hash(item.batch.producer_id)
    prefetch_slot(item.table, item.hash)


# The leader's own control batch: it may be only what this version itself would apply.
cdef void prepare_control(Item* item) noexcept nogil:
    cdef Checked checked
    cdef int fault = header_fault(item.data, item.length, &checked.header)
    item.verdict = VERDICT_INVALID
    if fault != 0 or checked.header.size != item.length:
        item.error = <int16_t>(INVALID_RECORD if fault == FAULT_MAGIC else CORRUPT_MESSAGE)
    elif not crc_right(item.data, &checked.header):
        item.error = CORRUPT_MESSAGE
    elif not control_ours(item.data, &checked.header):
        item.error = INVALID_RECORD
    else:
        item.verdict = 0
        item.batch.producer_id = -1
        item.batch.max_timestamp = checked.header.max_timestamp
        item.hash = producer_hash(-1)


# Returns how many bytes the arena needs at most.
cdef int64_t prepare_all(Item* items, Py_ssize_t count, const Place* places) noexcept nogil:
    cdef int64_t size = 0
    cdef Py_ssize_t i
    for i in range(count):
        if items[i].verdict != 0:
            continue            # refused before the turn ran
        if items[i].control:
            prepare_control(&items[i])
        else:
            prepare(&items[i], &places[items[i].lane])
        if items[i].verdict == 0:
            size += items[i].length
    return size


# Copies an accepted batch and writes what the leader decides about it. The checksum covers
# neither base offset nor leader epoch, so it is right unless the rest was rewritten.
cdef void stamp(unsigned char* p, const Item* item, int32_t leader_epoch) noexcept nogil:
    memcpy(p, item.data, <size_t>item.length)
    store64(p, <uint64_t>item.batch.base_offset)
    store32(p + 12, <unsigned int>leader_epoch)
    if item.rewritten:
        store32(p + 17, item.batch.crc)
        store16(p + 21, <unsigned short>item.attributes)
        store64(p + 35, <uint64_t>item.batch.max_timestamp)


# Counts the verdicts of each lane and lays the lanes out one after another; returns the size.
cdef int64_t lay_out(
        const Item* items, Py_ssize_t count, Place* places, Py_ssize_t lanes) noexcept nogil:
    cdef Place* place
    cdef int64_t size = 0
    cdef Py_ssize_t i
    for i in range(count):
        place = &places[items[i].lane]
        place.verdicts[items[i].verdict] += 1
        place.mismatched += items[i].mismatched
        if items[i].verdict == VERDICT_NEW:
            place.bytes += items[i].length
            place.records += items[i].batch.delta + 1
    for i in range(lanes):
        places[i].start = size
        size += places[i].bytes
    return size


cdef void fill(
        unsigned char* arena, const Item* items, Py_ssize_t count, Place* places) noexcept nogil:
    cdef Place* place
    cdef Py_ssize_t i
    for i in range(count):
        if items[i].verdict == VERDICT_NEW:
            place = &places[items[i].lane]
            stamp(arena + place.start + place.filled, &items[i], place.leader_epoch)
            place.filled += items[i].length
