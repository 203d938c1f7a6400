"""The producer table of one partition replica: a function of its log below `next_offset`.

Per producer it remembers the epoch, the last five batches and how many records the epoch has
accepted; that is what a retry is recognised by. Every append is applied at once and journalled,
so that `rollback` can undo it: a failed write, a truncated log (rules 1 and 3). The journal is
bounded; below `journal_start` the way back is a snapshot and replay.

What is in the log counts: applying never judges a sequence or an epoch, that is `turn`'s part. A
batch that does not follow the one before it, which only a foreign log can hold, starts the window
and the count anew. Not thread-safe.
"""

from collections import namedtuple

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uint32_t, uint64_t

from _fastseq.args cimport acquire, integer, window_end
from _fastseq.batch cimport crc_right
from _fastseq.compact cimport table_compact
from _fastseq.control cimport control_run
from _fastseq.digest cimport table_collect, table_digest, window_cells
from _fastseq.dump cimport dump_kafka, dump_own, load_kafka, load_own
from _fastseq.entry cimport (
    LIVE, NOT_FOUND, WINDOW, Batch, Cell, Entry, Table, entry_at, producer_hash, sequence_add,
    table_find,
)
from _fastseq.entry cimport Floor as Slot
from _fastseq.floors cimport (
    EPOCH_LAST, FLOOR_WHOLE, floor_find, floor_lives, floor_place, floors_reserve, floors_settle,
)
from _fastseq.layout cimport (
    ATTRIBUTE_APPEND_TIME, ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, FAULT_MAGIC, HEADER_SIZE,
    MARKER_ABORT, MARKER_COMMIT, Header, header_fault, header_next_offset,
)
from _fastseq.memory cimport (
    entry_size, garbage_free, index_reserve, pool_bytes, table_bytes, table_clear, table_close,
    table_open, table_reserve,
)
from _fastseq.records cimport control_type
from _fastseq.state cimport table_append, table_mark
from _fastseq.undo cimport table_rollback, table_trim

cdef enum:
    JOURNAL_ENTRIES = 65_536            # 4 MB a partition at most
    JOURNAL_ENTRIES_MAX = 1 << 24
    TIDIED_AT_ONCE = 1_024              # a quarter of a millisecond
    MOVED_AT_ONCE = 256                 # batches' worth of the index
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_LEADER_EPOCH = 75
    INVALID_RECORD = 87


CachedBatch = namedtuple("CachedBatch", [
    "first_sequence", "last_sequence", "base_offset", "next_offset", "crc"])
CachedBatch.__doc__ = """One remembered batch; `crc` is that of the stored bytes."""

ProducerEntry = namedtuple("ProducerEntry", [
    "producer_id", "producer_epoch", "accepted", "last_timestamp", "batches"])
ProducerEntry.__doc__ = """A producer: `batches` oldest first; `accepted` counts records."""

Floor = namedtuple("Floor", ["producer_id", "producer_epoch", "next_sequence", "whole"])
Floor.__doc__ = """What is left of an expired or fenced producer.

Only `next_sequence` may follow in this epoch, `whole` says that the epoch had accepted everything
before it. With FENCED_EPOCH nothing is accepted any more.
"""
FENCED_EPOCH = EPOCH_LAST


cdef int run_fault(
        const unsigned char* p, const unsigned char* end, const RunRules* rules,
        Run* run) noexcept nogil:
    cdef Header header
    cdef int64_t expected = rules.next_offset
    cdef int fault
    run.batches = run.controls = 0
    while p < end:
        fault = header_fault(p, end - p, &header)
        if fault != 0:
            return INVALID_RECORD if fault == FAULT_MAGIC else CORRUPT_MESSAGE
        if rules.check_crc and not crc_right(p, &header):
            return CORRUPT_MESSAGE
        if header.base_offset < expected or (
                rules.contiguous and header.base_offset != expected):
            return OFFSET_OUT_OF_RANGE
        if header.leader_epoch > rules.leader_epoch_max:
            return UNKNOWN_LEADER_EPOCH
        expected = header_next_offset(&header)
        run.batches += 1
        run.controls += header.producer_id < 0 and header.attributes & ATTRIBUTE_CONTROL != 0
        p += header.size
    return 0


cdef int run_reserve(Table* t, const Run* run) noexcept nogil:
    if table_reserve(t, <uint32_t>run.batches) < 0:
        return -1
    if run.controls > 0:
        return floors_reserve(t, <uint32_t>t.count + <uint64_t>run.batches)
    return 0


# A control batch that lost its record to compaction says nothing about producers any more.
cdef void control_apply(
        Table* t, const unsigned char* p, const Header* header, const Batch* batch) noexcept nogil:
    cdef int32_t coordinator_epoch
    cdef int kind
    if header.record_count > 0 and batch.producer_id < 0:
        control_run(t, p, p + header.size, batch)
    elif header.record_count > 0:
        kind = control_type(p + HEADER_SIZE, p + header.size, &coordinator_epoch)
        if kind == MARKER_ABORT or kind == MARKER_COMMIT:
            table_mark(t, batch, coordinator_epoch)
    t.next_offset = batch.next_offset


cdef void batch_apply(Table* t, const unsigned char* p, const Header* header) noexcept nogil:
    cdef Batch batch
    batch.producer_id = header.producer_id
    batch.base_offset = header.base_offset
    batch.next_offset = header_next_offset(header)
    batch.max_timestamp = header.max_timestamp
    batch.first_sequence = header.base_sequence & INT32_MAX
    batch.delta = header.last_offset_delta
    batch.crc = header.crc
    batch.epoch = header.producer_epoch
    batch.by_range = (header.attributes & ATTRIBUTE_APPEND_TIME) != 0
    batch.transactional = (header.attributes & ATTRIBUTE_TRANSACTIONAL) != 0
    if header.attributes & ATTRIBUTE_CONTROL:
        control_apply(t, p, header, &batch)
    elif header.producer_id < 0:
        t.next_offset = batch.next_offset
    else:
        table_append(t, &batch, table_find(
            t, batch.producer_id, producer_hash(batch.producer_id)))


cdef void run_apply(
        Table* t, const unsigned char* p, const unsigned char* end) noexcept nogil:
    cdef Header header
    while p < end and header_fault(p, end - p, &header) == 0:
        batch_apply(t, p, &header)
        p += header.size
    floors_settle(t)


# The size that the header at `position` claims, not more than there is.
cdef int64_t batch_size(object data, int64_t position) except -1:
    cdef Py_buffer view
    cdef Header header
    acquire(data, &view, "data")
    try:
        window_end(position, -1, view.len)
        if header_fault(<const unsigned char*>view.buf + position, view.len - position,
                        &header) != 0:
            raise ValueError(f"no whole record batch at position {position} of data")
        return header.size
    finally:
        PyBuffer_Release(&view)


cdef object cached_value(const Cell* cell):
    return CachedBatch(
        sequence_add(cell.last_sequence, -cell.delta), cell.last_sequence,
        cell.next_offset - cell.delta - 1, cell.next_offset, cell.crc)


cdef object entry_value(const Table* t, const Entry* entry):
    cdef Cell cells[WINDOW]
    cdef uint32_t count = window_cells(t, entry, cells)
    cdef uint32_t i
    return ProducerEntry(
        entry.producer_id, entry.epoch, entry.accepted, entry.last_timestamp,
        tuple([cached_value(&cells[i]) for i in range(count)]))


cdef object floor_value(const Slot* floor):
    return Floor(
        floor.producer_id, floor.epoch, floor.next_sequence, floor.state & FLOOR_WHOLE != 0)


cdef class ProducerTable:
    """Producers of one partition replica, as its log below `next_offset` made them.

    `journal_entries` bounds how many changes can be undone, 64 bytes each. A client's new producer
    is refused while `bytes` is not below `budget_bytes`; what the log holds always enters.
    """

    def __cinit__(self, next_offset=0, *, journal_entries=JOURNAL_ENTRIES,
                  budget_bytes=INT64_MAX):
        cdef int64_t offset = integer(next_offset, "next_offset", 0, INT64_MAX >> 1)
        cdef int64_t limit = integer(journal_entries, "journal_entries", 1, JOURNAL_ENTRIES_MAX)
        cdef int64_t budget = integer(budget_bytes, "budget_bytes", 0, INT64_MAX)
        if table_open(&self.state, offset, <uint32_t>limit) < 0:
            raise MemoryError()
        self.state.budget = budget

    def __dealloc__(self):
        table_close(&self.state)

    def __len__(self):
        return self.state.count

    @property
    def next_offset(self):
        """The end of the log that the table stands for."""
        return self.state.next_offset

    @property
    def journal_start(self):
        """The lowest offset that `rollback` can reach."""
        return self.state.journal_start

    @property
    def digest(self):
        """64 bits over epochs, windows, counts, floors and mark; kept current, so reading is free.

        A sum modulo 2^64 of one mixed term for each remembered batch, floor and mark, and of a
        term linear in each count of accepted records, whose factor is odd. One difference alone is
        always seen where it is in a count, else missed once in 2^64; so are several, as long as
        nobody makes them for the purpose: the terms hold no secret.
        """
        return self.state.digest

    def recompute_digest(self):
        """Return the digest from scratch, which costs a pass over everything; for checks."""
        return table_digest(&self.state)

    @property
    def bytes(self):
        """Memory that producers take, in bytes: entries, windows, index, floors, their rounding.

        The journal is not in it; neither is what was given back and waits to be used again.
        """
        return table_bytes(&self.state)

    @property
    def reserved_bytes(self):
        """Memory for entries and windows that was asked of the system and not given back, in bytes.

        After a mass expiry it goes down again, with the turns that follow.
        """
        return (pool_bytes(&self.state.entries) + pool_bytes(&self.state.cells)
                + pool_bytes(&self.state.left_entries) + pool_bytes(&self.state.left_cells))

    @property
    def budget_bytes(self):
        """From this many `bytes` on a client's new producer is refused."""
        return self.state.budget

    @budget_bytes.setter
    def budget_bytes(self, value):
        self.state.budget = integer(value, "budget_bytes", 0, INT64_MAX)

    @property
    def floor_count(self):
        """How many floors there are; the leader collapses them past its bound."""
        return self.state.floors_alive

    @property
    def mark(self):
        """(id bound, epoch bound): unknown ids below the one, up to the other, are FLOORED."""
        return self.state.mark_id, self.state.mark_epoch

    def get(self, producer_id):
        """Return the entry of a producer, None if it is not known."""
        cdef uint32_t number = self.number_of(producer_id)
        return None if number == NOT_FOUND else entry_value(
            &self.state, entry_at(&self.state, number))

    def entry_bytes(self, producer_id):
        """Return the bytes of a producer's entry and window, without its share of the index."""
        cdef uint32_t number = self.number_of(producer_id)
        return 0 if number == NOT_FOUND else entry_size(entry_at(&self.state, number))

    cdef uint32_t number_of(self, object producer_id) except? 0xFFFFFFFE:
        cdef int64_t wanted = integer(producer_id, "producer_id", -INT64_MAX, INT64_MAX)
        return table_find(&self.state, wanted, producer_hash(wanted))

    def floor(self, producer_id):
        """Return the floor of a producer, None if it has none."""
        cdef int64_t wanted = integer(producer_id, "producer_id", -INT64_MAX, INT64_MAX)
        cdef const Slot* slot = floor_find(&self.state, wanted)
        return None if slot == NULL or not floor_lives(slot) else floor_value(slot)

    def floors_after(self, producer_id, limit):
        """Return at most `limit` floors of ids above this one, in their order."""
        cdef int64_t above = integer(producer_id, "producer_id", -INT64_MAX, INT64_MAX - 1)
        cdef int64_t most = integer(limit, "limit", 1, INT64_MAX)
        cdef uint32_t place = floor_place(&self.state, above + 1)
        cdef list found = []
        while place < self.state.floors_used and len(found) < most:
            if floor_lives(self.state.floors + place):
                found.append(floor_value(self.state.floors + place))
            place += 1
        return found

    def entries_after(self, cursor, limit):
        """Return the entries in the next `limit` places of memory, and the cursor after them.

        The cursor is 0 at first and -1 at the end. Looks at no more than `limit` entries, so a
        table of any size is walked without a pause; what comes or goes meanwhile may be missed.
        """
        cdef int64_t place = integer(cursor, "cursor", 0, INT64_MAX >> 1)
        cdef int64_t end = place + integer(limit, "limit", 1, INT64_MAX >> 1)
        cdef list found = []
        cdef const Entry* entry
        while place < min(end, <int64_t>self.state.entries.used):
            entry = entry_at(&self.state, <uint32_t>place)
            if entry.state == LIVE:
                found.append(entry_value(&self.state, entry))
            place += 1
        return found, (place if place < self.state.entries.used else -1)

    def entries(self):
        """Return all entries in order of producer id."""
        cdef uint32_t i
        numbers = <uint32_t*>PyMem_Malloc((<size_t>self.state.count + 1) * sizeof(uint32_t))
        try:
            if numbers == NULL or table_collect(&self.state, numbers) != 0:
                raise MemoryError()
            return [entry_value(&self.state, entry_at(&self.state, numbers[i]))
                    for i in range(self.state.count)]
        finally:
            PyMem_Free(numbers)

    def apply(self, data, position=0, length=-1):
        """Apply the stamped batch at `position` and return the new `next_offset`.

        ValueError if there is no whole batch at or above `next_offset`, or, `length` being given,
        not exactly one in so many bytes; then nothing has changed.
        """
        cdef int64_t start = integer(position, "position", 0, INT64_MAX >> 1)
        cdef int64_t size = integer(length, "length", -1, INT64_MAX >> 1)
        if size < 0:
            size = batch_size(data, start)
        return self.run(data, start, start + size, 1)

    def apply_run(self, data, start, end):
        """Apply all batches in [start, end) and return the new `next_offset`; all or none."""
        return self.run(
            data, integer(start, "start", 0, INT64_MAX), integer(end, "end", -1, INT64_MAX), -1)

    # `wanted` is the number of batches there should be, -1 for any.
    cdef run(self, object data, int64_t start, int64_t end, int64_t wanted):
        cdef Py_buffer view
        cdef RunRules rules
        cdef Run run
        cdef int fault
        rules.next_offset = self.state.next_offset
        rules.leader_epoch_max = INT32_MAX
        rules.contiguous = rules.check_crc = False
        acquire(data, &view, "data")
        try:
            end = window_end(start, end, view.len)
            p = <const unsigned char*>view.buf
            fault = run_fault(p + start, p + end, &rules, &run)
            if fault != 0:
                raise ValueError(f"batch {run.batches} of data cannot be applied (error {fault})")
            if wanted >= 0 and run.batches != wanted:
                raise ValueError(f"data holds {run.batches} batches there, not {wanted}")
            if run_reserve(&self.state, &run) < 0:
                raise MemoryError()
            run_apply(&self.state, p + start, p + end)
        finally:
            PyBuffer_Release(&view)
        return self.state.next_offset

    def rollback(self, offset):
        """Undo every append that reaches past `offset`, a batch border; exact, windows included.

        False, and nothing done, if that lies below `journal_start`: then load a snapshot and
        replay. Inside a producer's batch the whole batch goes.
        """
        return bool(table_rollback(&self.state, integer(offset, "offset", 0, INT64_MAX)))

    def tidy(self):
        """Give back a little of what expired producers held; to be called now and then."""
        garbage_free(&self.state, TIDIED_AT_ONCE)
        # Without memory for a smaller index the larger one stays.
        index_reserve(&self.state, <uint64_t>self.state.count + self.state.buried, MOVED_AT_ONCE)
        table_compact(&self.state)

    def trim(self, offset):
        """Give up the way back below `offset`, the high watermark. O(what is forgotten)."""
        table_trim(&self.state, integer(offset, "offset", 0, INT64_MAX))

    def clear(self, next_offset):
        """Forget all producers: the log is empty and begins at `next_offset`."""
        table_clear(&self.state, integer(next_offset, "next_offset", 0, INT64_MAX >> 1))

    def dump(self):
        """Return the whole state as bytes, equal for equal states."""
        return dump_own(&self.state)

    def load(self, data):
        """Become what `dump` wrote; ValueError on any damage, and then nothing has changed."""
        self.replace(data, False, 0)

    def dump_kafka(self):
        """Return the state as Kafka's snapshot file has it: the last batch of each producer."""
        return dump_kafka(&self.state)

    def load_kafka(self, data, next_offset):
        """Become what a Kafka snapshot of offset `next_offset` says; ValueError on any damage."""
        self.replace(data, True, integer(next_offset, "next_offset", 0, INT64_MAX >> 1))

    cdef replace(self, object data, bint kafka, int64_t next_offset):
        cdef Py_buffer view
        cdef Table fresh
        acquire(data, &view, "data")
        try:
            if table_open(&fresh, next_offset, self.state.journal_limit) < 0:
                raise MemoryError()
            fresh.budget = self.state.budget
            if kafka:
                load_kafka(&fresh, <const unsigned char*>view.buf, view.len)
            else:
                load_own(&fresh, <const unsigned char*>view.buf, view.len)
            self.state, fresh = fresh, self.state
        finally:
            table_close(&fresh)
            PyBuffer_Release(&view)
