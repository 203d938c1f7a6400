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
from libc.stdint cimport INT32_MAX, INT64_MAX, int32_t, int64_t, uint32_t

from _fastseq.args cimport acquire, integer, window_end
from _fastseq.batch cimport crc_right
from _fastseq.dump cimport dump_kafka, dump_own, load_kafka, load_own
from _fastseq.layout cimport (
    ATTRIBUTE_APPEND_TIME, ATTRIBUTE_CONTROL, ATTRIBUTE_TRANSACTIONAL, FAULT_MAGIC, HEADER_SIZE,
    MARKER_ABORT, MARKER_COMMIT, Header, header_fault, header_next_offset,
)
from _fastseq.records cimport control_type
from _fastseq.state cimport (
    NOT_FOUND, Batch, Cached, Entry, Table, entry_at, entry_place, producer_hash, sequence_add,
    table_append, table_clear, table_close, table_collect, table_digest, table_find, table_mark,
    table_open, table_reserve, table_rollback, table_trim,
)

cdef enum:
    JOURNAL_ENTRIES = 65_536            # 4 MB a partition at most
    JOURNAL_ENTRIES_MAX = 1 << 24
    OFFSET_OUT_OF_RANGE = 1
    CORRUPT_MESSAGE = 2
    UNKNOWN_LEADER_EPOCH = 75
    INVALID_RECORD = 87


CachedBatch = namedtuple("CachedBatch", [
    "first_sequence", "last_sequence", "base_offset", "next_offset", "max_timestamp", "crc"])
CachedBatch.__doc__ = """One remembered batch; `crc` is that of the stored bytes."""

ProducerEntry = namedtuple("ProducerEntry", [
    "producer_id", "producer_epoch", "accepted", "last_timestamp", "batches"])
ProducerEntry.__doc__ = """A producer: `batches` oldest first; `accepted` counts records."""


cdef int run_fault(
        const unsigned char* p, const unsigned char* end, const RunRules* rules,
        int64_t* count) noexcept nogil:
    cdef Header header
    cdef int64_t expected = rules.next_offset
    cdef int fault
    count[0] = 0
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
        count[0] += 1
        p += header.size
    return 0


# A control batch that lost its record to compaction says nothing about producers any more.
cdef void control_apply(
        Table* t, const unsigned char* p, const Header* header, const Batch* batch) noexcept nogil:
    cdef int32_t coordinator_epoch
    cdef int kind
    if batch.producer_id >= 0 and header.record_count > 0:
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


cdef object cached_value(const Cached* cached):
    return CachedBatch(
        sequence_add(cached.last_sequence, -cached.delta), cached.last_sequence,
        cached.next_offset - cached.delta - 1, cached.next_offset, cached.max_timestamp,
        cached.crc)


cdef object entry_value(const Entry* entry):
    cdef int age
    return ProducerEntry(
        entry.producer_id, entry.epoch, entry.accepted, entry.last_timestamp,
        tuple([cached_value(&entry.batches[entry_place(entry, age)])
               for age in range(entry.count - 1, -1, -1)]))


cdef class ProducerTable:
    """Producers of one partition replica, as its log below `next_offset` made them.

    `journal_entries` bounds how many appends can be undone, 64 bytes each.
    """

    def __cinit__(self, next_offset=0, *, journal_entries=JOURNAL_ENTRIES):
        cdef int64_t offset = integer(next_offset, "next_offset", 0, INT64_MAX >> 1)
        cdef int64_t limit = integer(journal_entries, "journal_entries", 1, JOURNAL_ENTRIES_MAX)
        if table_open(&self.state, offset, <uint32_t>limit) < 0:
            raise MemoryError()

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
        """64 bits over all entries, whatever their order in memory; costs a pass over them."""
        return table_digest(&self.state)

    def get(self, producer_id):
        """Return the entry of a producer, None if it is not known."""
        cdef int64_t wanted = integer(producer_id, "producer_id", -INT64_MAX, INT64_MAX)
        cdef uint32_t number = table_find(&self.state, wanted, producer_hash(wanted))
        return None if number == NOT_FOUND else entry_value(entry_at(&self.state, number))

    def entries(self):
        """Return all entries in order of producer id."""
        cdef uint32_t i
        numbers = <uint32_t*>PyMem_Malloc((<size_t>self.state.count + 1) * sizeof(uint32_t))
        try:
            if numbers == NULL or table_collect(&self.state, numbers) != 0:
                raise MemoryError()
            return [entry_value(entry_at(&self.state, numbers[i]))
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
        cdef int64_t count
        cdef int fault
        rules.next_offset = self.state.next_offset
        rules.leader_epoch_max = INT32_MAX
        rules.contiguous = rules.check_crc = False
        acquire(data, &view, "data")
        try:
            end = window_end(start, end, view.len)
            p = <const unsigned char*>view.buf
            fault = run_fault(p + start, p + end, &rules, &count)
            if fault != 0:
                raise ValueError(f"batch {count} of data cannot be applied (error {fault})")
            if wanted >= 0 and count != wanted:
                raise ValueError(f"data holds {count} batches there, not {wanted}")
            if table_reserve(&self.state, <uint32_t>count) < 0:
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
            if kafka:
                load_kafka(&fresh, <const unsigned char*>view.buf, view.len)
            else:
                load_own(&fresh, <const unsigned char*>view.buf, view.len)
            self.state, fresh = fresh, self.state
        finally:
            table_close(&fresh)
            PyBuffer_Release(&view)
