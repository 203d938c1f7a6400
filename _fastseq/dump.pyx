"""Producer state as bytes: our side file with whole windows, and Kafka's snapshot with one batch.

Ours, version 1, big-endian: magic 8 bytes, version u16, zero u16, CRC-32C u32 of all that follows,
next offset i64, number of sections u32; a section is tag u32, length u64 and its bytes. A reader
refuses a tag that it does not know unless its highest bit is set. Section 1 holds the producers in
order of id: count u32, then for each id i64, accepted i64, last timestamp i64, first offset of the
open transaction i64, coordinator epoch i32, epoch i16, batches u8, by-range bits u8 (bit 0 the
oldest), and its batches, oldest first: next offset i64, max timestamp i64, last sequence i32,
records - 1 i32, CRC u32. Equal states give equal bytes.

Kafka's, version 1: version i16, CRC-32C u32 of all that follows, count i32, 46 bytes a producer.
Loading fills an empty table that the caller throws away on ValueError.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from _fastseq.crc32c cimport crc32c_update
from _fastseq.layout cimport (
    RECORDS_PER_BATCH, load16, load32, load64, store16, store32, store64,
)
from _fastseq.state cimport (
    NOT_FOUND, WINDOW, Batch, Cached, Entry, Table, entry_at, entry_place, entry_push,
    producer_hash, sequence_add, table_collect, table_find, table_insert, table_reserve,
)

cdef const char* MAGIC = b"oncelogP"

cdef enum:
    VERSION = 1
    CRC_FROM = 16               # the checksum covers everything from here on
    PREFIX_SIZE = 28
    SECTION_SIZE = 12
    SECTION_PRODUCERS = 1
    ENTRY_SIZE = 40
    CACHED_SIZE = 28
    KAFKA_PREFIX_SIZE = 10
    KAFKA_CRC_FROM = 6
    KAFKA_ENTRY_SIZE = 46


# The numbers of all entries in order of producer id; the caller frees them.
cdef uint32_t* collected(const Table* t) except NULL:
    numbers = <uint32_t*>PyMem_Malloc((<size_t>t.count + 1) * sizeof(uint32_t))
    if numbers == NULL or table_collect(t, numbers) != 0:
        PyMem_Free(numbers)
        raise MemoryError()
    return numbers


cdef unsigned char* entry_store(unsigned char* p, const Entry* entry) noexcept nogil:
    cdef const Cached* cached
    cdef int age
    cdef int place
    cdef uint8_t by_range = 0
    for age in range(entry.count):
        place = entry_place(entry, age)
        by_range = <uint8_t>(by_range << 1 | (entry.by_range >> place & 1))
    store64(p, <uint64_t>entry.producer_id)
    store64(p + 8, <uint64_t>entry.accepted)
    store64(p + 16, <uint64_t>entry.last_timestamp)
    store64(p + 24, <uint64_t>entry.txn_first_offset)
    store32(p + 32, <uint32_t>entry.coordinator_epoch)
    store16(p + 36, <unsigned short>entry.epoch)
    p[38] = entry.count
    p[39] = by_range
    p += ENTRY_SIZE
    for age in range(entry.count - 1, -1, -1):
        cached = &entry.batches[entry_place(entry, age)]
        store64(p, <uint64_t>cached.next_offset)
        store64(p + 8, <uint64_t>cached.max_timestamp)
        store32(p + 16, <uint32_t>cached.last_sequence)
        store32(p + 20, <uint32_t>cached.delta)
        store32(p + 24, cached.crc)
        p += CACHED_SIZE
    return p


cdef bytes dump_own(const Table* t):
    cdef uint32_t* numbers = collected(t)
    cdef Py_ssize_t size = PREFIX_SIZE + SECTION_SIZE + 4
    cdef uint32_t i
    cdef bytes out
    cdef unsigned char* start
    cdef unsigned char* p
    try:
        for i in range(t.count):
            size += ENTRY_SIZE + CACHED_SIZE * entry_at(t, numbers[i]).count
        out = PyBytes_FromStringAndSize(NULL, size)
        start = <unsigned char*>PyBytes_AS_STRING(out)
        memcpy(start, MAGIC, 8)
        store16(start + 8, VERSION)
        store16(start + 10, 0)
        store64(start + 16, <uint64_t>t.next_offset)
        store32(start + 24, 1)
        store32(start + PREFIX_SIZE, SECTION_PRODUCERS)
        store64(start + PREFIX_SIZE + 4, <uint64_t>(size - PREFIX_SIZE - SECTION_SIZE))
        store32(start + PREFIX_SIZE + SECTION_SIZE, t.count)
        p = start + PREFIX_SIZE + SECTION_SIZE + 4
        for i in range(t.count):
            p = entry_store(p, entry_at(t, numbers[i]))
        store32(start + 12, crc32c_update(0, start + CRC_FROM, <size_t>(size - CRC_FROM)))
    finally:
        PyMem_Free(numbers)
    return out


# Bounds of one remembered batch, whoever wrote it.
cdef bint cached_plausible(
        int64_t next_offset, int32_t last_sequence, int32_t delta, int64_t end) noexcept nogil:
    return (0 <= delta < RECORDS_PER_BATCH and last_sequence >= 0
            and delta < next_offset <= end)


# Pushes the batch at `p` into the window; 0 if it does not follow what is there.
cdef bint cached_load(
        Entry* entry, const unsigned char* p, uint8_t by_range, int64_t end) noexcept nogil:
    cdef Batch batch
    cdef int64_t after = 0
    cdef int32_t last_sequence = <int32_t>load32(p + 16)
    batch.next_offset = <int64_t>load64(p)
    batch.max_timestamp = <int64_t>load64(p + 8)
    batch.delta = <int32_t>load32(p + 20)
    batch.crc = load32(p + 24)
    batch.by_range = by_range
    if not cached_plausible(batch.next_offset, last_sequence, batch.delta, end):
        return False
    batch.first_sequence = sequence_add(last_sequence, -batch.delta)
    if entry.count > 0:
        after = entry.batches[entry.newest].next_offset
        if batch.first_sequence != entry.next_sequence:
            return False
    if batch.next_offset - batch.delta - 1 < after:
        return False
    entry_push(entry, &batch)
    return True


# Reads one producer and returns its size, or 0 if it is damaged. Ids ascend from `above`.
cdef Py_ssize_t entry_load(
        Table* t, const unsigned char* p, const unsigned char* end, int64_t above) noexcept nogil:
    cdef int64_t producer_id
    cdef int64_t accepted
    cdef int64_t window
    cdef Entry* entry
    cdef int i
    if end - p < ENTRY_SIZE or p[38] > WINDOW or p[39] >> p[38] != 0:
        return 0
    producer_id = <int64_t>load64(p)
    accepted = <int64_t>load64(p + 8)
    if producer_id <= above or end - p < ENTRY_SIZE + CACHED_SIZE * p[38]:
        return 0
    entry = entry_at(t, table_insert(t, producer_id, <int16_t>load16(p + 36), 0))
    entry.txn_first_offset = <int64_t>load64(p + 24)
    entry.coordinator_epoch = <int32_t>load32(p + 32)
    for i in range(p[38]):
        if not cached_load(entry, p + ENTRY_SIZE + CACHED_SIZE * i, p[39] >> i & 1,
                           t.next_offset):
            return 0
    window = entry.accepted
    if accepted < window or (p[38] == 0 and accepted != 0):
        return 0
    entry.accepted = accepted
    entry.last_timestamp = <int64_t>load64(p + 16)
    return ENTRY_SIZE + CACHED_SIZE * p[38]


cdef int load_producers(Table* t, const unsigned char* p, const unsigned char* end) except -1:
    cdef int64_t above = -1
    cdef Py_ssize_t size
    cdef uint32_t count
    cdef uint32_t i
    if end - p < 4:
        raise ValueError("producer state is damaged: its section is cut off")
    count = load32(p)
    p += 4
    if count > (end - p) // ENTRY_SIZE:
        raise ValueError(f"producer state is damaged: no room for {count} producers")
    if table_reserve(t, count) < 0:
        raise MemoryError()
    for i in range(count):
        size = entry_load(t, p, end, above)
        if size == 0:
            raise ValueError(f"producer state is damaged: producer {i} of {count}")
        above = <int64_t>load64(p)
        p += size
    if p != end:
        raise ValueError("producer state is damaged: bytes left after the last producer")
    return 0


cdef int load_own(Table* t, const unsigned char* p, Py_ssize_t size) except -1:
    cdef const unsigned char* end = p + size
    cdef uint32_t sections
    cdef uint32_t tag
    cdef uint64_t length
    cdef bint found = False
    if size < PREFIX_SIZE or memcmp(p, MAGIC, 8) != 0:
        raise ValueError("producer state is damaged: no such file begins like this")
    if load16(p + 8) != VERSION:
        raise ValueError(f"producer state has version {load16(p + 8)}, only {VERSION} is known")
    if (load16(p + 10) != 0
            or load32(p + 12) != crc32c_update(0, p + CRC_FROM, <size_t>(size - CRC_FROM))):
        raise ValueError("producer state is damaged: its checksum is wrong")
    t.next_offset = t.journal_start = <int64_t>load64(p + 16)
    sections = load32(p + 24)
    p += PREFIX_SIZE
    while sections > 0:
        if end - p < SECTION_SIZE or load64(p + 4) > <uint64_t>(end - p - SECTION_SIZE):
            raise ValueError("producer state is damaged: a section is cut off")
        tag = load32(p)
        length = load64(p + 4)
        p += SECTION_SIZE
        if tag == SECTION_PRODUCERS and not found:
            load_producers(t, p, p + length)
            found = True
        elif tag >> 31 == 0:
            raise ValueError(f"producer state has a section {tag} that this version cannot read")
        p += length
        sections -= 1
    if p != end or not found or not 0 <= t.next_offset <= INT64_MAX >> 1:
        raise ValueError("producer state is damaged: its sections do not add up")
    return 0


cdef void kafka_entry_store(unsigned char* p, const Entry* entry) noexcept nogil:
    cdef const Cached* newest = &entry.batches[entry.newest]
    cdef bint known = entry.count > 0
    store64(p, <uint64_t>entry.producer_id)
    store16(p + 8, <unsigned short>entry.epoch)
    store32(p + 10, <uint32_t>newest.last_sequence if known else 0xFFFFFFFFU)
    store64(p + 14, <uint64_t>((newest.next_offset if known else 0) - 1))
    store32(p + 22, <uint32_t>newest.delta if known else 0)
    store64(p + 26, <uint64_t>entry.last_timestamp)
    store32(p + 34, <uint32_t>entry.coordinator_epoch)
    store64(p + 38, <uint64_t>entry.txn_first_offset)


cdef bytes dump_kafka(const Table* t):
    cdef uint32_t* numbers = collected(t)
    cdef Py_ssize_t size = KAFKA_PREFIX_SIZE + KAFKA_ENTRY_SIZE * <Py_ssize_t>t.count
    cdef uint32_t i
    cdef bytes out
    cdef unsigned char* p
    try:
        out = PyBytes_FromStringAndSize(NULL, size)
        p = <unsigned char*>PyBytes_AS_STRING(out)
        store16(p, VERSION)
        store32(p + 6, t.count)
        for i in range(t.count):
            kafka_entry_store(
                p + KAFKA_PREFIX_SIZE + KAFKA_ENTRY_SIZE * <Py_ssize_t>i, entry_at(t, numbers[i]))
        store32(p + 2, crc32c_update(0, p + KAFKA_CRC_FROM, <size_t>(size - KAFKA_CRC_FROM)))
    finally:
        PyMem_Free(numbers)
    return out


# Kafka keeps no checksum of the batch, hence by range; and of the records accepted in this epoch
# only those of the last batch are certain.
cdef bint kafka_entry_load(Table* t, const unsigned char* p) noexcept nogil:
    cdef Batch batch
    cdef Entry* entry
    cdef int64_t producer_id = <int64_t>load64(p)
    cdef int32_t last_sequence = <int32_t>load32(p + 10)
    if producer_id < 0:
        return False
    if table_find(t, producer_id, producer_hash(producer_id)) != NOT_FOUND:
        return False
    entry = entry_at(t, table_insert(t, producer_id, <int16_t>load16(p + 8), 0))
    if last_sequence != -1:
        batch.next_offset = <int64_t>(load64(p + 14) + 1)
        batch.delta = <int32_t>load32(p + 22)
        batch.max_timestamp = <int64_t>load64(p + 26)
        batch.crc = 0
        batch.by_range = 1
        if not cached_plausible(batch.next_offset, last_sequence, batch.delta, t.next_offset):
            return False
        batch.first_sequence = sequence_add(last_sequence, -batch.delta)
        entry_push(entry, &batch)
    entry.last_timestamp = <int64_t>load64(p + 26)
    entry.coordinator_epoch = <int32_t>load32(p + 34)
    entry.txn_first_offset = <int64_t>load64(p + 38)
    return True


cdef int load_kafka(Table* t, const unsigned char* p, Py_ssize_t size) except -1:
    cdef Py_ssize_t count
    cdef Py_ssize_t i
    if size < KAFKA_PREFIX_SIZE:
        raise ValueError("snapshot is damaged: it is cut off")
    if load16(p) != VERSION:
        raise ValueError(f"snapshot has version {load16(p)}, only {VERSION} is known")
    if load32(p + 2) != crc32c_update(0, p + KAFKA_CRC_FROM, <size_t>(size - KAFKA_CRC_FROM)):
        raise ValueError("snapshot is damaged: its checksum is wrong")
    count = <int32_t>load32(p + 6)
    if count < 0 or size != KAFKA_PREFIX_SIZE + KAFKA_ENTRY_SIZE * count:
        raise ValueError(f"snapshot is damaged: {size} bytes are not {count} producers")
    if table_reserve(t, <uint32_t>count) < 0:
        raise MemoryError()
    for i in range(count):
        if not kafka_entry_load(t, p + KAFKA_PREFIX_SIZE + KAFKA_ENTRY_SIZE * i):
            raise ValueError(f"snapshot is damaged: producer {i} of {count}")
    return 0
