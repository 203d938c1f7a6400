"""Producer state as bytes: our side file with whole windows, and Kafka's snapshot with one batch.

Ours, version 2, big-endian: magic 8 bytes, version u16, zero u16, CRC-32C u32 of all that follows,
next offset i64, number of sections u32; a section is tag u32, length u64 and its bytes. A reader
refuses a tag that it does not know unless its highest bit is set. Equal states give equal bytes.

1, producers in order of id: count u32, then for each id i64, accepted i64, last timestamp i64, end
of its newest batch or of what else made it i64, first offset of the open transaction i64,
coordinator epoch i32, next sequence i32, epoch i16, batches u8, by-range bits u8 (bit 0 the
newest), and its batches, oldest first: next offset i64, last sequence i32, records - 1 i32, CRC-32C
u32 as stored.
2, floors in order of id: count u32, then id i64, next sequence i32, epoch i16, whole u16 (1 or 0).
3, mark: id bound i64, epoch bound i16. 4, digest u64 of all this, which a reader computes again.

Kafka's, version 1: version i16, CRC-32C u32 of all that follows, count i32, 46 bytes a producer.
Loading fills an empty table that the caller throws away on ValueError.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from _fastseq.crc32c cimport crc32c_update
from _fastseq.digest cimport table_collect, table_digest, window_cells
from _fastseq.entry cimport (
    NOT_FOUND, WINDOW, Batch, Cell, Entry, Floor, Table, Transaction, Undo, entry_at,
    producer_hash, sequence_add, table_find, transaction_at,
)
from _fastseq.floors cimport (
    FLOOR_ALIVE, FLOOR_WHOLE, floor_lives, floors_reserve, floors_settle,
)
from _fastseq.layout cimport (
    RECORDS_PER_BATCH, load16, load32, load64, store16, store32, store64,
)
from _fastseq.memory cimport cells_reserve, table_reserve, transaction_cell
from _fastseq.state cimport entry_push, table_insert

cdef const char* MAGIC = b"oncelogP"

cdef enum:
    VERSION = 2
    CRC_FROM = 16               # the checksum covers everything from here on
    PREFIX_SIZE = 28
    SECTION_SIZE = 12
    SECTION_PRODUCERS = 1
    SECTION_FLOORS = 2
    SECTION_MARK = 3
    SECTION_DIGEST = 4
    SECTIONS = 4
    ENTRY_SIZE = 52
    CACHED_SIZE = 20
    FLOOR_SIZE = 16
    MARK_SIZE = 10
    DIGEST_SIZE = 8
    KAFKA_VERSION = 1
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


cdef unsigned char* section_store(unsigned char* p, uint32_t tag, int64_t size) noexcept nogil:
    store32(p, tag)
    store64(p + 4, <uint64_t>size)
    return p + SECTION_SIZE


cdef unsigned char* entry_store(
        unsigned char* p, const Table* t, const Entry* entry) noexcept nogil:
    cdef Cell cells[WINDOW]
    cdef uint32_t count = window_cells(t, entry, cells)
    cdef bint fields = entry.transaction != NOT_FOUND
    cdef uint32_t i
    store64(p, <uint64_t>entry.producer_id)
    store64(p + 8, <uint64_t>entry.accepted)
    store64(p + 16, <uint64_t>entry.last_timestamp)
    store64(p + 24, <uint64_t>entry.next_offset)
    store64(p + 32, <uint64_t>(transaction_at(t, entry).first_offset if fields else -1))
    store32(p + 40, <uint32_t>(transaction_at(t, entry).coordinator_epoch if fields else -1))
    store32(p + 44, <uint32_t>entry.next_sequence)
    store16(p + 48, <unsigned short>entry.epoch)
    p[50] = entry.count
    p[51] = entry.by_range
    p += ENTRY_SIZE
    for i in range(count):
        store64(p, <uint64_t>cells[i].next_offset)
        store32(p + 8, <uint32_t>cells[i].last_sequence)
        store32(p + 12, <uint32_t>cells[i].delta)
        store32(p + 16, cells[i].crc)
        p += CACHED_SIZE
    return p


cdef unsigned char* floors_store(unsigned char* p, const Table* t) noexcept nogil:
    cdef const Floor* floor
    cdef uint32_t i
    p = section_store(p, SECTION_FLOORS, 4 + FLOOR_SIZE * <int64_t>t.floors_alive)
    store32(p, t.floors_alive)
    p += 4
    for i in range(t.floors_used):
        floor = t.floors + i
        if floor_lives(floor):
            store64(p, <uint64_t>floor.producer_id)
            store32(p + 8, <uint32_t>floor.next_sequence)
            store16(p + 12, <unsigned short>floor.epoch)
            store16(p + 14, 1 if floor.state & FLOOR_WHOLE else 0)
            p += FLOOR_SIZE
    return p


cdef void own_store(
        unsigned char* start, Py_ssize_t size, const Table* t, const uint32_t* numbers,
        int64_t producers) noexcept nogil:
    cdef unsigned char* p = start + PREFIX_SIZE
    cdef uint32_t i
    memcpy(start, MAGIC, 8)
    store16(start + 8, VERSION)
    store16(start + 10, 0)
    store64(start + 16, <uint64_t>t.next_offset)
    store32(start + 24, SECTIONS)
    p = section_store(p, SECTION_PRODUCERS, producers)
    store32(p, t.count)
    p += 4
    for i in range(t.count):
        p = entry_store(p, t, entry_at(t, numbers[i]))
    p = floors_store(p, t)
    p = section_store(p, SECTION_MARK, MARK_SIZE)
    store64(p, <uint64_t>t.mark_id)
    store16(p + 8, <unsigned short>t.mark_epoch)
    p = section_store(p + MARK_SIZE, SECTION_DIGEST, DIGEST_SIZE)
    store64(p, t.digest)
    store32(start + 12, crc32c_update(0, start + CRC_FROM, <size_t>(size - CRC_FROM)))


cdef bytes dump_own(const Table* t):
    cdef uint32_t* numbers = collected(t)
    cdef int64_t producers = 4
    cdef Py_ssize_t size
    cdef uint32_t i
    cdef bytes out
    try:
        for i in range(t.count):
            producers += ENTRY_SIZE + CACHED_SIZE * entry_at(t, numbers[i]).count
        size = (PREFIX_SIZE + SECTIONS * SECTION_SIZE + producers + MARK_SIZE + DIGEST_SIZE
                + 4 + FLOOR_SIZE * <Py_ssize_t>t.floors_alive)
        out = PyBytes_FromStringAndSize(NULL, size)
        own_store(<unsigned char*>PyBytes_AS_STRING(out), size, t, numbers, producers)
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
        Table* t, Entry* entry, const unsigned char* p, uint8_t by_range) noexcept nogil:
    cdef Batch batch
    cdef Undo unused
    cdef int32_t last_sequence = <int32_t>load32(p + 8)
    batch.next_offset = <int64_t>load64(p)
    batch.max_timestamp = -1
    batch.delta = <int32_t>load32(p + 12)
    batch.crc = load32(p + 16)
    batch.by_range = by_range
    if not cached_plausible(batch.next_offset, last_sequence, batch.delta, t.next_offset):
        return False
    batch.first_sequence = sequence_add(last_sequence, -batch.delta)
    if entry.count > 0 and (
            batch.first_sequence != entry.next_sequence
            or batch.next_offset - batch.delta - 1 < entry.next_offset):
        return False
    entry_push(t, entry, &batch, &unused)
    return True


cdef void transaction_load(
        Table* t, Entry* entry, int64_t first_offset, int32_t coordinator_epoch) noexcept nogil:
    cdef Transaction* fields
    if first_offset == -1 and coordinator_epoch == -1:
        return
    transaction_cell(t, entry)
    fields = transaction_at(t, entry)
    fields.first_offset = first_offset
    fields.coordinator_epoch = coordinator_epoch


# What the fields of an entry must satisfy beside its batches.
cdef bint entry_adds_up(const Entry* entry, const unsigned char* p) noexcept nogil:
    cdef int64_t accepted = <int64_t>load64(p + 8)
    cdef int32_t next_sequence = <int32_t>load32(p + 44)
    if entry.count == 0:
        return accepted >= 0 and next_sequence >= 0
    return (accepted >= entry.accepted and next_sequence == entry.next_sequence
            and <int64_t>load64(p + 24) == entry.next_offset)


# Reads one producer and returns its size, or 0 if it is damaged. Ids ascend from `above`.
cdef Py_ssize_t entry_load(
        Table* t, const unsigned char* p, const unsigned char* end, int64_t above) noexcept nogil:
    cdef int64_t producer_id
    cdef int64_t next_offset
    cdef Entry* entry
    cdef uint32_t number
    cdef int i
    if end - p < ENTRY_SIZE or p[50] > WINDOW or p[51] >> p[50] != 0:
        return 0
    producer_id = <int64_t>load64(p)
    next_offset = <int64_t>load64(p + 24)
    if (producer_id <= above or end - p < ENTRY_SIZE + CACHED_SIZE * p[50]
            or not 0 <= next_offset <= t.next_offset):
        return 0
    number = table_insert(t, producer_id, <int16_t>load16(p + 48), 0, next_offset)
    entry = entry_at(t, number)
    for i in range(p[50]):
        if not cached_load(t, entry, p + ENTRY_SIZE + CACHED_SIZE * i,
                           p[51] >> (p[50] - 1 - i) & 1):
            return 0
    if not entry_adds_up(entry, p):
        return 0
    transaction_load(t, entry, <int64_t>load64(p + 32), <int32_t>load32(p + 40))
    entry.next_sequence = <int32_t>load32(p + 44)
    entry.accepted = <int64_t>load64(p + 8)
    entry.last_timestamp = <int64_t>load64(p + 16)
    return ENTRY_SIZE + CACHED_SIZE * p[50]


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
    if (table_reserve(t, count) < 0
            or cells_reserve(t, <uint64_t>((end - p) // CACHED_SIZE + count)) < 0):
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


# A producer has an entry or a floor.
cdef bint floor_load(Table* t, const unsigned char* p, int64_t above) noexcept nogil:
    cdef Floor* floor = t.floors + t.floors_used
    cdef int64_t producer_id = <int64_t>load64(p)
    if (producer_id <= above or load16(p + 14) > 1 or load32(p + 8) >> 31 != 0
            or table_find(t, producer_id, producer_hash(producer_id)) != NOT_FOUND):
        return False
    floor.producer_id = producer_id
    floor.next_sequence = <int32_t>load32(p + 8)
    floor.epoch = <int16_t>load16(p + 12)
    floor.state = <uint16_t>(FLOOR_WHOLE if load16(p + 14) else FLOOR_ALIVE)
    t.floors_used += 1
    t.floors_alive += 1
    return True


cdef int load_floors(Table* t, const unsigned char* p, const unsigned char* end) except -1:
    cdef int64_t above = -1
    cdef uint32_t count
    cdef uint32_t i
    if end - p < 4 or load32(p) != (end - p - 4) / FLOOR_SIZE or (end - p - 4) % FLOOR_SIZE != 0:
        raise ValueError("producer state is damaged: its floors do not fit their section")
    count = load32(p)
    if floors_reserve(t, count) < 0:
        raise MemoryError()
    p += 4
    for i in range(count):
        if not floor_load(t, p, above):
            raise ValueError(f"producer state is damaged: floor {i} of {count}")
        above = <int64_t>load64(p)
        p += FLOOR_SIZE
    floors_settle(t)
    return 0


cdef int load_mark(Table* t, const unsigned char* p, const unsigned char* end) except -1:
    if end - p != MARK_SIZE or <int64_t>load64(p) < 0 or <int16_t>load16(p + 8) < -1:
        raise ValueError("producer state is damaged: its mark")
    t.mark_id = <int64_t>load64(p)
    t.mark_epoch = <int16_t>load16(p + 8)
    return 0


cdef int load_section(
        Table* t, uint32_t tag, const unsigned char* p, const unsigned char* end,
        uint64_t* digest) except -1:
    if tag == SECTION_PRODUCERS:
        load_producers(t, p, end)
    elif tag == SECTION_FLOORS:
        load_floors(t, p, end)
    elif tag == SECTION_MARK:
        load_mark(t, p, end)
    elif tag == SECTION_DIGEST and end - p == DIGEST_SIZE:
        digest[0] = load64(p)
    elif tag >> 31 == 0:
        raise ValueError(f"producer state has a section {tag} that this version cannot read")
    return 0


cdef int check_prefix(const unsigned char* p, Py_ssize_t size) except -1:
    if size < PREFIX_SIZE or memcmp(p, MAGIC, 8) != 0:
        raise ValueError("producer state is damaged: no such file begins like this")
    if load16(p + 8) != VERSION:
        raise ValueError(f"producer state has version {load16(p + 8)}, only {VERSION} is known")
    if (load16(p + 10) != 0
            or load32(p + 12) != crc32c_update(0, p + CRC_FROM, <size_t>(size - CRC_FROM))):
        raise ValueError("producer state is damaged: its checksum is wrong")
    return 0


cdef int load_own(Table* t, const unsigned char* p, Py_ssize_t size) except -1:
    cdef const unsigned char* end = p + size
    cdef uint64_t digest = 0
    cdef uint64_t length
    cdef uint32_t found = 0
    cdef uint32_t sections
    cdef uint32_t tag
    check_prefix(p, size)
    t.next_offset = t.journal_start = <int64_t>load64(p + 16)
    sections = load32(p + 24)
    p += PREFIX_SIZE
    while sections > 0:
        if end - p < SECTION_SIZE or load64(p + 4) > <uint64_t>(end - p - SECTION_SIZE):
            raise ValueError("producer state is damaged: a section is cut off")
        tag = load32(p)
        length = load64(p + 4)
        p += SECTION_SIZE
        # Each once and in this order, since floors are checked against producers.
        if tag <= SECTIONS:
            if tag != found + 1:
                raise ValueError(f"producer state is damaged: section {tag} after {found}")
            found = tag
        load_section(t, tag, p, p + length, &digest)
        p += length
        sections -= 1
    if p != end or found != SECTIONS or not 0 <= t.next_offset <= INT64_MAX >> 1:
        raise ValueError("producer state is damaged: its sections do not add up")
    t.digest = table_digest(t)
    if t.digest != digest:
        raise ValueError("producer state is damaged: its digest is another")
    return 0


cdef void kafka_entry_store(
        unsigned char* p, const Table* t, const Entry* entry) noexcept nogil:
    cdef bint known = entry.count > 0
    cdef bint fields = entry.transaction != NOT_FOUND
    cdef int32_t last_sequence = sequence_add(entry.next_sequence, -1) if known else -1
    store64(p, <uint64_t>entry.producer_id)
    store16(p + 8, <unsigned short>entry.epoch)
    store32(p + 10, <uint32_t>last_sequence)
    store64(p + 14, <uint64_t>((entry.next_offset if known else 0) - 1))
    store32(p + 22, <uint32_t>entry.delta if known else 0)
    store64(p + 26, <uint64_t>entry.last_timestamp)
    store32(p + 34, <uint32_t>(transaction_at(t, entry).coordinator_epoch if fields else -1))
    store64(p + 38, <uint64_t>(transaction_at(t, entry).first_offset if fields else -1))


cdef bytes dump_kafka(const Table* t):
    cdef uint32_t* numbers = collected(t)
    cdef Py_ssize_t size = KAFKA_PREFIX_SIZE + KAFKA_ENTRY_SIZE * <Py_ssize_t>t.count
    cdef uint32_t i
    cdef bytes out
    cdef unsigned char* p
    try:
        out = PyBytes_FromStringAndSize(NULL, size)
        p = <unsigned char*>PyBytes_AS_STRING(out)
        store16(p, KAFKA_VERSION)
        store32(p + 6, t.count)
        for i in range(t.count):
            kafka_entry_store(
                p + KAFKA_PREFIX_SIZE + KAFKA_ENTRY_SIZE * <Py_ssize_t>i, t,
                entry_at(t, numbers[i]))
        store32(p + 2, crc32c_update(0, p + KAFKA_CRC_FROM, <size_t>(size - KAFKA_CRC_FROM)))
    finally:
        PyMem_Free(numbers)
    return out


# Kafka keeps no checksum of the batch, hence by range; and of the records accepted in this epoch
# only those of the last batch are certain.
cdef bint kafka_entry_load(Table* t, const unsigned char* p) noexcept nogil:
    cdef Batch batch
    cdef Undo unused
    cdef Entry* entry
    cdef int64_t producer_id = <int64_t>load64(p)
    cdef int32_t last_sequence = <int32_t>load32(p + 10)
    if producer_id < 0:
        return False
    if table_find(t, producer_id, producer_hash(producer_id)) != NOT_FOUND:
        return False
    entry = entry_at(t, table_insert(
        t, producer_id, <int16_t>load16(p + 8), 0, 0))
    if last_sequence != -1:
        batch.next_offset = <int64_t>(load64(p + 14) + 1)
        batch.delta = <int32_t>load32(p + 22)
        batch.max_timestamp = <int64_t>load64(p + 26)
        batch.crc = 0
        batch.by_range = 1
        if not cached_plausible(batch.next_offset, last_sequence, batch.delta, t.next_offset):
            return False
        batch.first_sequence = sequence_add(last_sequence, -batch.delta)
        entry_push(t, entry, &batch, &unused)
    entry.last_timestamp = <int64_t>load64(p + 26)
    transaction_load(t, entry, <int64_t>load64(p + 38), <int32_t>load32(p + 34))
    return True


cdef int load_kafka(Table* t, const unsigned char* p, Py_ssize_t size) except -1:
    cdef Py_ssize_t count
    cdef Py_ssize_t i
    if size < KAFKA_PREFIX_SIZE:
        raise ValueError("snapshot is damaged: it is cut off")
    if load16(p) != KAFKA_VERSION:
        raise ValueError(f"snapshot has version {load16(p)}, only {KAFKA_VERSION} is known")
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
    t.digest = table_digest(t)
    return 0
