"""A turn: all batches that arrived together, decided, stamped and laid out in one pass.

`Turn` takes entries in order of arrival, then `run` checks each where it lies, decides it against
its partition's table (`decide`), and copies what was accepted once, into the arena: there each
partition's batches are contiguous, with base offset and leader epoch stamped, ready to be written
and pushed as they are. A `Lane` is a partition's append position as this pass sees it, with its
counters.

Invariants: a lane's run covers [base_offset, next_offset) without a gap, and the table stands at
next_offset afterwards. Memory is taken before the first decision, so a turn that fails with
MemoryError has changed nothing. Large turns and pushes run without the GIL, so that other threads
get on; tables have no lock, so only one thread may use those of a broker.
"""

from cpython.buffer cimport Py_buffer, PyBuffer_Release
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport (
    INT16_MAX, INT32_MAX, INT32_MIN, INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint64_t,
)
from libc.string cimport memcpy, memset

from _fastseq.args cimport acquire, integer, window_end
from _fastseq.decide cimport (
    VERDICT_ABOVE_BOUND, VERDICT_CONFLICT, VERDICT_DUPLICATE, VERDICT_FENCED, VERDICT_FLOORED,
    VERDICT_GAP, VERDICT_INVALID, VERDICT_NEW, VERDICT_REFUSED, VERDICT_STALE,
    VERDICT_UNKNOWN_PRODUCER, Item, decide_all,
)
from _fastseq.entry cimport Table
from _fastseq.floors cimport floors_settle
from _fastseq.passes cimport Place, fill, lay_out, prepare_all
from _fastseq.table cimport ProducerTable, Run, RunRules, run_apply, run_fault, run_reserve

cdef extern from "Python.h":
    # With plain pointers, since shrinking may move the object.
    PyObject* PyBytes_FromStringAndSize(const char*, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject**, Py_ssize_t) except -1
    char* PyBytes_AS_STRING(PyObject*)

NEW = VERDICT_NEW
DUPLICATE = VERDICT_DUPLICATE
GAP = VERDICT_GAP
FENCED = VERDICT_FENCED
UNKNOWN_PRODUCER = VERDICT_UNKNOWN_PRODUCER
INVALID = VERDICT_INVALID
CONFLICT = VERDICT_CONFLICT
STALE = VERDICT_STALE
ABOVE_BOUND = VERDICT_ABOVE_BOUND
REFUSED = VERDICT_REFUSED
FLOORED = VERDICT_FLOORED

cdef enum:
    MAX_BATCH_BYTES = 1_048_588         # Kafka's default max.message.bytes
    FIRST_CAPACITY = 64
    WITHOUT_GIL_BYTES = 1 << 18         # a pass over so many takes 30 us: worth a handover

cdef uint64_t last_stamp = 0
cdef Item LAYOUT                        # for the places of its fields


cdef class Lane:
    """Where one partition appends: its table, its leader epoch, its limit, its counters.

    Counters only grow. `records` and `bytes` count what was accepted; `conflicts` counts retries
    whose bytes differ from the original's, also those that were acknowledged as Kafka does.
    """

    def __init__(self, ProducerTable table not None, leader_epoch=-1,
                 max_batch_bytes=MAX_BATCH_BYTES):
        self.table = table
        self.leader_epoch = leader_epoch
        self.max_batch_bytes = max_batch_bytes
        self.append_time = False

    @property
    def next_offset(self):
        """Where the next batch goes."""
        return self.table.state.next_offset

    @property
    def leader_epoch(self):
        """Stamped on what is accepted; what is pushed may not be above it."""
        return self.epoch

    @leader_epoch.setter
    def leader_epoch(self, value):
        self.epoch = <int32_t>integer(value, "leader_epoch", -1, INT32_MAX)

    @property
    def max_batch_bytes(self):
        """The largest batch that a client may send, in bytes."""
        return self.bytes_max

    @max_batch_bytes.setter
    def max_batch_bytes(self, value):
        self.bytes_max = integer(value, "max_batch_bytes", 0, INT32_MAX)


# Moves an array into twice the room when it is full.
cdef void* grown(void* memory, Py_ssize_t used, Py_ssize_t* capacity, size_t size) except NULL:
    cdef Py_ssize_t wanted
    if memory != NULL and used < capacity[0]:
        return memory
    wanted = max(2 * capacity[0], <Py_ssize_t>FIRST_CAPACITY)
    memory = PyMem_Realloc(memory, <size_t>wanted * size)
    if memory == NULL:
        raise MemoryError()
    capacity[0] = wanted
    return memory


cdef class Turn:
    """The produce entries of one turn of the loop: `begin`, `add` each, `run`, read the results.

    The result arrays are indexed by entry, in the order of `add`. `verdicts` are this module's
    constants, `errors` Kafka's codes, `offsets` base offsets or -1, `ends` what the high watermark
    must reach before the entry may be acknowledged, or -1; `slots` are the caller's own numbers.
    `runs` has (lane, start, end, base_offset, next_offset) for each lane with accepted batches:
    the bytes [start, end) of `arena` are that partition's next ones.
    """

    def __cinit__(self):
        self.items = NULL
        self.places = NULL
        self.views = NULL
        self.begin()

    def __dealloc__(self):
        self.release()
        PyMem_Free(self.items)
        PyMem_Free(self.places)
        PyMem_Free(self.views)

    cdef void release(self):
        while self.view_count > 0:
            self.view_count -= 1
            PyBuffer_Release(&self.views[self.view_count])
        self.last_frame = None

    cpdef begin(self):
        """Forget the previous turn; its `arena` and arrays stay with whoever holds them."""
        global last_stamp
        self.release()
        last_stamp += 1
        self.stamp_now = last_stamp
        self.used = 0
        self.bytes = 0
        self.done = False
        self.lanes = []
        self.runs = []
        self.arena = b""

    @property
    def count(self):
        """Entries so far."""
        return self.used

    def add(self, Lane lane not None, frame, position, length, slot, native=True, refuse_new=0):
        """Take the entry of `length` bytes at `position` of `frame`, which is kept until `run`.

        `native` tells the native client's entries from those of Kafka clients. With `refuse_new`
        only a retry of what is stored is answered; anything else gets this error code.
        """
        cdef int64_t start = integer(position, "position", 0, INT64_MAX >> 1)
        cdef int64_t size = integer(length, "length", 0, INT32_MAX)
        cdef int16_t refusal = <int16_t>integer(refuse_new, "refuse_new", 0, INT16_MAX)
        cdef bint is_native = native
        cdef Item* item = self.item(lane, frame, start, size, slot)
        item.native = <uint8_t>is_native
        item.refuse_new = refusal

    def add_control(self, Lane lane not None, data, slot):
        """Take a control batch of the leader's own, as `expire_batch` and its like encode them.

        It is NEW, gets the next offset among the entries of its lane, and does to the table there
        what it says, so that entries after it are decided by what it left. INVALID if malformed.
        """
        cdef Py_ssize_t size = len(data)
        cdef Item* item = self.item(lane, data, 0, size, slot)
        item.control = True
        self.places[item.lane].controls += 1

    cdef Item* item(self, Lane lane, object frame, int64_t start, int64_t size,
                    object slot) except NULL:
        cdef int32_t number = <int32_t>integer(slot, "slot", INT32_MIN, INT32_MAX)
        if self.done:
            raise ValueError("the turn has run: begin() comes first")
        return self.item_at(lane, self.keep(frame, start, size), size, number)

    # `data` lies in a frame that is kept.
    cdef Item* item_at(self, Lane lane, const unsigned char* data, int64_t size,
                       int32_t number) except NULL:
        cdef Item* item
        self.items = <Item*>grown(self.items, self.used, &self.item_capacity, sizeof(Item))
        item = &self.items[self.used]
        memset(item, 0, sizeof(Item))
        item.lane = <int32_t>self.place_of(lane)
        item.table = &lane.table.state
        item.data = data
        item.length = size
        item.slot = number
        item.offset = item.end = -1
        self.places[item.lane].waiting += 1
        self.used += 1
        self.bytes += size
        return item

    # Neighbouring entries mostly share a frame, and then its buffer is taken once.
    cdef const unsigned char* keep(self, object frame, int64_t start, int64_t size) except NULL:
        cdef Py_buffer* view
        if self.view_count == 0 or self.last_frame is not frame:
            self.views = <Py_buffer*>grown(
                self.views, self.view_count, &self.view_capacity, sizeof(Py_buffer))
            acquire(frame, &self.views[self.view_count], "frame")
            self.view_count += 1
            self.last_frame = frame
        view = &self.views[self.view_count - 1]
        window_end(start, -1, view.len)
        if size > view.len - start:
            raise ValueError(f"length {size} reaches past the end of frame ({view.len} bytes)")
        return <const unsigned char*>view.buf + start

    cdef Py_ssize_t place_of(self, Lane lane) except -1:
        cdef ProducerTable table = lane.table
        cdef Py_ssize_t place = table.turn_place
        if table.turn_stamp == self.stamp_now:
            if self.lanes[place] is not lane:
                raise ValueError("lane shares its table with another lane of this turn")
            return place
        place = len(self.lanes)
        self.places = <Place*>grown(self.places, place, &self.place_capacity, sizeof(Place))
        memset(&self.places[place], 0, sizeof(Place))
        self.places[place].table = &table.state
        self.lanes.append(lane)
        table.turn_stamp = self.stamp_now
        table.turn_place = place
        return place

    def run(self, producer_id_bound=INT64_MAX, wall_ms=-1):
        """Decide all entries in order, enter them into their tables, and fill arrays and arena.

        An id at or above `producer_id_bound` was never handed out as far as the caller knows.
        `wall_ms` is what lanes with `append_time` stamp their batches with.
        """
        cdef int64_t bound = integer(producer_id_bound, "producer_id_bound", 0, INT64_MAX)
        cdef Py_ssize_t lanes = len(self.lanes)
        cdef int64_t room
        cdef int64_t size
        if self.done:
            raise ValueError("the turn has run: begin() comes first")
        self.wall_ms = integer(wall_ms, "wall_ms", -1, INT64_MAX)
        self.reserve(lanes)
        if self.bytes < WITHOUT_GIL_BYTES:
            room = prepare_all(self.items, self.used, self.places)
        else:
            with nogil:
                room = prepare_all(self.items, self.used, self.places)
        cdef PyObject* arena = PyBytes_FromStringAndSize(NULL, room)
        filled = <unsigned char*>PyBytes_AS_STRING(arena)
        self.done = True
        if room < WITHOUT_GIL_BYTES:
            size = self.decide(filled, lanes, bound)
        else:
            with nogil:
                size = self.decide(filled, lanes, bound)
        if size != room:
            _PyBytes_Resize(&arena, size)
        self.arena = <bytes>arena
        Py_DECREF(self.arena)
        self.report(lanes)
        self.release()

    cdef int64_t decide(
            self, unsigned char* filled, Py_ssize_t lanes, int64_t bound) noexcept nogil:
        decide_all(self.items, self.used, bound)
        cdef int64_t size = lay_out(self.items, self.used, self.places, lanes)
        fill(filled, self.items, self.used, self.places)
        return size

    cdef int reserve(self, Py_ssize_t lanes) except -1:
        cdef Lane lane
        cdef Run run
        cdef Py_ssize_t i
        for i in range(lanes):
            lane = self.lanes[i]
            run.batches = self.places[i].waiting
            run.controls = self.places[i].controls
            self.places[i].base_offset = lane.table.state.next_offset
            self.places[i].leader_epoch = lane.epoch
            self.places[i].bytes_max = lane.bytes_max
            self.places[i].append_time = self.wall_ms if lane.append_time else -1
            if run_reserve(self.places[i].table, &run) < 0:
                raise MemoryError()
        return 0

    cdef int report(self, Py_ssize_t lanes) except -1:
        cdef Place* place
        cdef Lane lane
        cdef Py_ssize_t i
        for i in range(lanes):
            lane = self.lanes[i]
            place = &self.places[i]
            floors_settle(place.table)
            count_verdicts(lane, place)
            if place.bytes > 0:
                self.runs.append((lane, place.start, place.start + place.bytes,
                                  place.base_offset, place.table.next_offset))
        return 0

    @property
    def verdicts(self):
        """One of this module's verdicts per entry, unsigned bytes."""
        return self.column("B", 1, <char*>&LAYOUT.verdict - <char*>&LAYOUT)

    @property
    def errors(self):
        """Kafka's error code per entry, 16 bits."""
        return self.column("h", 2, <char*>&LAYOUT.error - <char*>&LAYOUT)

    @property
    def offsets(self):
        """Base offset per entry, the original's for a duplicate, -1 if there is none, 64 bits."""
        return self.column("q", 8, <char*>&LAYOUT.offset - <char*>&LAYOUT)

    @property
    def ends(self):
        """What the high watermark must reach before the ack, -1 if there is none, 64 bits."""
        return self.column("q", 8, <char*>&LAYOUT.end - <char*>&LAYOUT)

    @property
    def slots(self):
        """The caller's number per entry, 32 bits."""
        return self.column("i", 4, <char*>&LAYOUT.slot - <char*>&LAYOUT)

    # A copy of one field of all items, so that it outlives the turn.
    cdef object column(self, str code, size_t width, size_t field):
        cdef bytearray column = bytearray(self.used * width)
        cdef char* out = PyByteArray_AS_STRING(column)
        cdef Py_ssize_t i
        for i in range(self.used):
            memcpy(out + i * width, <char*>&self.items[i] + field, width)
        return memoryview(column).toreadonly().cast(code)


cdef void count_verdicts(Lane lane, const Place* place):
    lane.batches += place.verdicts[VERDICT_NEW]
    lane.records += place.records
    lane.bytes += place.bytes
    lane.duplicates += place.verdicts[VERDICT_DUPLICATE]
    lane.gaps += place.verdicts[VERDICT_GAP]
    lane.fenced += place.verdicts[VERDICT_FENCED]
    lane.unknown_producers += place.verdicts[VERDICT_UNKNOWN_PRODUCER]
    lane.invalid += place.verdicts[VERDICT_INVALID]
    lane.conflicts += place.mismatched
    lane.stale += place.verdicts[VERDICT_STALE]
    lane.above_bound += place.verdicts[VERDICT_ABOVE_BOUND]
    lane.refused += place.verdicts[VERDICT_REFUSED]
    lane.floored += place.verdicts[VERDICT_FLOORED]


# All batches or none; returns an error code, -1 without memory.
cdef int enter_run(
        Table* t, const unsigned char* p, const unsigned char* end,
        const RunRules* rules) noexcept nogil:
    cdef Run run
    cdef int fault = run_fault(p, end, rules, &run)
    if fault == 0:
        if run_reserve(t, &run) < 0:
            return -1
        run_apply(t, p, end)
    return fault


def push_check(Lane lane not None, data, start, end):
    """Check the replicated batches in [start, end) and enter them all, or none; 0 or an error code.

    They must be whole, sound, of leader epochs up to the lane's, and follow its log without a gap.
    Codes: 1 another offset, 2 torn or corrupt, 75 a leader epoch from the future, 87 other magic.
    """
    cdef Py_buffer view
    cdef RunRules rules
    cdef Table* t = &lane.table.state
    cdef int64_t first = integer(start, "start", 0, INT64_MAX)
    cdef int64_t past = integer(end, "end", -1, INT64_MAX)
    cdef int fault
    rules.next_offset = t.next_offset
    rules.leader_epoch_max = lane.epoch
    rules.contiguous = rules.check_crc = True
    acquire(data, &view, "data")
    try:
        past = window_end(first, past, view.len)
        p = <const unsigned char*>view.buf
        if past - first < WITHOUT_GIL_BYTES:
            fault = enter_run(t, p + first, p + past, &rules)
        else:
            with nogil:
                fault = enter_run(t, p + first, p + past, &rules)
        if fault < 0:
            raise MemoryError()
        return fault
    finally:
        PyBuffer_Release(&view)
