"""Times what a turn does in C: the decision pass, the checks of client batches, growing.

For benchmarks only. Each timed turn decides one-record batches of producers drawn at random, every
one the next in its sequence, or retries of all five in their windows; enters them with window,
checksum, digest and journal; and trims the journal to one turn behind, as the high watermark does.
CPU time counts, so that what other processes take away does not.
"""

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from _fastseq.args cimport acquire, integer
from _fastseq.batch cimport Checked, client_fault
from _fastseq.decide cimport Item, decide_all
from _fastseq.entry cimport Table, producer_hash, sequence_add
from _fastseq.layout cimport HEADER_SIZE, LENGTH_PREFIX, load32
from _fastseq.memory cimport table_reserve
from _fastseq.table cimport ProducerTable
from _fastseq.undo cimport table_trim


cdef int64_t now_ns() noexcept nogil:
    cdef timespec time
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return <int64_t>time.tv_sec * 1_000_000_000 + time.tv_nsec


# xorshift64* (Vigna, 2016), reduced by multiplication.
cdef inline uint32_t drawn(uint64_t* state, uint32_t below) noexcept nogil:
    state[0] ^= state[0] >> 12
    state[0] ^= state[0] << 25
    state[0] ^= state[0] >> 27
    return <uint32_t>((((state[0] * <uint64_t>0x2545F4914F6CDD1DULL) >> 32) * below) >> 32)


# `back` sequences before the next one; 0 is the next, and then the sequence advances.
cdef void prepare_item(
        Item* item, Table* t, uint32_t producer, int32_t* sequences, int32_t back) noexcept nogil:
    memset(item, 0, sizeof(Item))
    item.table = t
    item.batch.producer_id = 1000 + <int64_t>producer
    item.batch.first_sequence = sequence_add(sequences[producer], -back)
    item.batch.crc = producer
    item.batch.max_timestamp = 1_700_000_000_000
    item.hash = producer_hash(item.batch.producer_id)
    item.native = 1
    if back == 0:
        sequences[producer] = sequence_add(sequences[producer], 1)


# What a turn does in C once its entries are checked; returns its nanoseconds, -1 without memory.
cdef int64_t timed_turn(Table* t, Item* items, Py_ssize_t count) noexcept nogil:
    cdef int64_t started = now_ns()
    cdef int64_t high_watermark = t.next_offset
    if table_reserve(t, <uint32_t>count) < 0:
        return -1
    decide_all(items, count, INT64_MAX)
    table_trim(t, high_watermark)
    return now_ns() - started


# Fills every window, `turn` batches at a time; returns the longest turn.
cdef int64_t fill_windows(
        Table* t, Item* items, int32_t* sequences, uint32_t producers,
        Py_ssize_t turn) noexcept nogil:
    cdef int64_t longest = 0
    cdef int64_t spent
    cdef int64_t round_
    cdef Py_ssize_t i
    for round_ in range(5 * <int64_t>producers // turn + 1):
        for i in range(turn):
            prepare_item(
                &items[i], t, <uint32_t>((round_ * turn + i) % producers), sequences, 0)
        spent = timed_turn(t, items, turn)
        if spent < 0:
            return -1
        longest = max(longest, spent)
    return longest


cdef int64_t timed_turns(
        Table* t, Item* items, int32_t* sequences, uint32_t producers, Py_ssize_t turn,
        int64_t turns, bint retries) noexcept nogil:
    cdef uint64_t random = 88172645463325252ULL
    cdef int64_t total = 0
    cdef int64_t spent
    cdef int32_t back = 0
    cdef uint32_t producer = 0
    cdef Py_ssize_t i
    while turns > 0:
        for i in range(turn):
            if retries:
                back = 5 - <int32_t>(i % 5)
            if back == 0 or back == 5:
                producer = drawn(&random, producers)
            prepare_item(&items[i], t, producer, sequences, back)
        spent = timed_turn(t, items, turn)
        if spent < 0:
            return -1
        total += spent
        turns -= 1
    return total


def decide_nanoseconds(ProducerTable table not None, producers, turn, turns, *, retries=False):
    """Return the CPU nanoseconds of `turns` turns of `turn` batches, and the longest before them.

    Before them every producer sent five batches, so the table grew. With `retries` nothing is new.
    """
    cdef uint32_t many = <uint32_t>integer(producers, "producers", 1, 1 << 24)
    cdef Py_ssize_t size = integer(turn, "turn", 1, 1 << 20)
    cdef int64_t rounds = integer(turns, "turns", 1, INT64_MAX)
    cdef bint again = retries
    cdef int64_t longest = -1
    cdef int64_t total = -1
    items = <Item*>PyMem_Calloc(<size_t>size, sizeof(Item))
    sequences = <int32_t*>PyMem_Calloc(many, sizeof(int32_t))
    if items != NULL and sequences != NULL:
        longest = fill_windows(&table.state, items, sequences, many, size)
        total = timed_turns(&table.state, items, sequences, many, size, rounds, again)
    PyMem_Free(items)
    PyMem_Free(sequences)
    if total < 0 or longest < 0:
        raise MemoryError()
    return total, longest


def check_nanoseconds(data, rounds):
    """Return the CPU nanoseconds of checking the client batches in `data` so many times.

    Everything that a leader checks: header, checksum, every record. ValueError if one is unsound.
    """
    cdef Py_buffer view
    cdef Checked checked
    cdef int64_t times = integer(rounds, "rounds", 1, INT64_MAX)
    cdef int64_t started
    cdef int64_t at
    cdef int fault = 0
    acquire(data, &view, "data")
    p = <const unsigned char*>view.buf
    started = now_ns()
    while times > 0 and fault == 0:
        at = 0
        while at + HEADER_SIZE <= view.len and fault == 0:
            fault = client_fault(
                p + at, <int64_t><int32_t>load32(p + at + 8) + LENGTH_PREFIX, INT64_MAX, &checked)
            at += checked.header.size
        times -= 1
    started = now_ns() - started
    PyBuffer_Release(&view)
    if fault != 0:
        raise ValueError(f"data has an unsound batch (error {fault})")
    return started
