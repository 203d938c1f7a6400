"""Times the decision pass alone, over arrays prepared as a turn prepares them.

For benchmarks only. Each timed turn decides one-record batches of producers drawn at random, every
one the next in its sequence, enters them into the table with the journal on, and trims the journal
to one turn behind, as the high watermark does.
"""

from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memset
from posix.time cimport CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from _fastseq.args cimport integer
from _fastseq.decide cimport Item, decide_all
from _fastseq.entry cimport Table, producer_hash, sequence_add
from _fastseq.memory cimport table_reserve
from _fastseq.table cimport ProducerTable
from _fastseq.undo cimport table_trim


# CPU time: what other processes take away is not counted.
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


cdef void prepare_item(Item* item, Table* t, uint32_t producer, int32_t* sequences) noexcept nogil:
    memset(item, 0, sizeof(Item))
    item.table = t
    item.batch.producer_id = 1000 + <int64_t>producer
    item.batch.first_sequence = sequences[producer]
    item.batch.crc = producer
    item.batch.max_timestamp = 1_700_000_000_000
    item.hash = producer_hash(item.batch.producer_id)
    item.native = 1
    sequences[producer] = sequence_add(sequences[producer], 1)


# Returns the nanoseconds of one turn.
cdef int64_t timed_turn(Table* t, Item* items, Py_ssize_t count) noexcept nogil:
    cdef int64_t started = now_ns()
    cdef int64_t high_watermark = t.next_offset
    decide_all(items, count, INT64_MAX)
    table_trim(t, high_watermark)
    return now_ns() - started


# Every producer's window is filled first, `turn` batches at a time.
cdef int64_t timed_turns(
        Table* t, Item* items, int32_t* sequences, uint32_t producers, Py_ssize_t turn,
        int64_t turns) noexcept nogil:
    cdef uint64_t random = 88172645463325252ULL
    cdef int64_t total = 0
    cdef int64_t warm
    cdef Py_ssize_t i
    for warm in range(5 * <int64_t>producers // turn + 1):
        for i in range(turn):
            prepare_item(
                &items[i], t, <uint32_t>((warm * turn + i) % producers), sequences)
        if table_reserve(t, <uint32_t>turn) < 0:
            return -1
        timed_turn(t, items, turn)
    while turns > 0:
        for i in range(turn):
            prepare_item(&items[i], t, drawn(&random, producers), sequences)
        if table_reserve(t, <uint32_t>turn) < 0:
            return -1
        total += timed_turn(t, items, turn)
        turns -= 1
    return total


def decide_nanoseconds(ProducerTable table not None, producers, turn, turns):
    """Return the CPU nanoseconds of `turns` turns of `turn` batches, filling not counted."""
    cdef uint32_t many = <uint32_t>integer(producers, "producers", 1, 1 << 24)
    cdef Py_ssize_t size = integer(turn, "turn", 1, 1 << 20)
    cdef int64_t rounds = integer(turns, "turns", 1, INT64_MAX)
    cdef int64_t total = -1
    items = <Item*>PyMem_Calloc(<size_t>size, sizeof(Item))
    sequences = <int32_t*>PyMem_Calloc(many, sizeof(int32_t))
    if items != NULL and sequences != NULL:
        total = timed_turns(&table.state, items, sequences, many, size, rounds)
    PyMem_Free(items)
    PyMem_Free(sequences)
    if total < 0:
        raise MemoryError()
    return total
