"""The produce requests of a turn, from the bytes of their frames to the answers that wait.

`Routes` knows the partitions of this broker by topic and index, and the term of whoever leads
here. `ProduceTurn` is a turn whose entries come out of request frames: `collect` sets the produce
requests among a turn's messages aside, `take` reads them and enters their batches, `run` decides,
`tell` closes every slot or lets it wait. What needs a batch in the log before it may be told comes
back from `tell` to the caller.

Checks that come before a batch is looked at are made here: acks, transactions, topic, leader,
one batch per partition. Whether enough members are present is told to the turn and not checked
before it, since a retry of something stored is answered even while new writes are refused.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Free
from libc.stdint cimport (
    INT16_MAX, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t, uint8_t, uint32_t,
    uint64_t,
)
from libc.string cimport memcpy

from _fastseq.answers cimport (
    Answer, Answers, Slot, answer_drop, answer_keep, answer_new, slot_close, slot_refuse,
)
from _fastseq.args cimport integer
from _fastseq.decide cimport (
    VERDICT_ABOVE_BOUND, VERDICT_FENCED, VERDICT_FLOORED, VERDICT_INVALID, VERDICT_NEW, Item,
)
from _fastseq.layout cimport ATTRIBUTE_CODEC, CODEC_LAST, HEADER_SIZE, load16
from _fastseq.request cimport (
    REQUEST_MALFORMED, REQUEST_SOUND, VERSION_MAX, VERSION_MIN, Name, Part, Request, part_next,
    request_check, topic_end, topic_next,
)
from _fastseq.turn cimport Turn, grown
from _fastseq.waiters cimport Term

cdef enum:
    ACKS_ALL = -1
    ACKS_LEADER = 1
    ACKS_NONE = 0
    UNKNOWN_TOPIC_OR_PARTITION = 3
    NOT_LEADER_OR_FOLLOWER = 6
    INVALID_TOPIC = 17
    INVALID_REQUIRED_ACKS = 21
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45
    TRANSACTIONAL_ID_AUTHORIZATION_FAILED = 53
    KAFKA_STORAGE_ERROR = 56
    UNSUPPORTED_COMPRESSION_TYPE = 76
    INVALID_RECORD = 87
    ZSTD_SINCE = 7              # the first version whose clients know zstd
    PARTITIONS_MAX = 1 << 20    # a list has a place for each index below the highest

cdef uint64_t last_request = 0


cdef class Route:
    """One partition of this broker: the term, if it is led here, else who leads it.

    `closed` keeps clients out of a topic that brokers write themselves.
    """

    def __cinit__(self):
        self.leader = self.leader_epoch = -1
        self.item = -1


cdef class Routes:
    """The partitions of this broker, by the names that produce requests give them."""

    def __cinit__(self):
        self.topics = {}

    def add(self, topic, index, Route route not None):
        """From now on requests for this partition go there."""
        cdef int64_t place = integer(index, "index", 0, PARTITIONS_MAX - 1)
        cdef list routes = self.topics.setdefault(topic.encode(), [])
        routes.extend([None] * (place + 1 - len(routes)))
        routes[place] = route

    def drop(self, topic, index, Route route not None):
        """The partition is gone, unless another one has its name by now."""
        cdef int64_t place = integer(index, "index", 0, PARTITIONS_MAX - 1)
        cdef bytes name = topic.encode()
        cdef list routes = self.topics.get(name, [])
        if place < len(routes) and routes[place] is route:
            routes[place] = None
            if all([each is None for each in routes]):
                del self.topics[name]


cdef class ProduceTurn(Turn):
    """A turn of produce requests: `collect`, `take`, `run`, `tell`."""

    def __cinit__(self, Answers answers not None, Routes routes not None):
        self.answers = answers
        self.routes = routes
        self.terms = []

    def __dealloc__(self):
        self.forget()
        PyMem_Free(self.owners)
        PyMem_Free(self.frames)

    cdef void forget(self) noexcept:
        while self.owned > 0:
            self.owned -= 1
            if self.owners[self.owned].answer != NULL:
                answer_drop(self.owners[self.owned].answer)
        self.frame_count = 0

    cpdef begin(self):
        """Forget the previous turn; its `arena` and arrays stay with whoever holds them."""
        self.forget()
        self.terms = []
        self.messages = None
        self.deep = False
        Turn.begin(self)

    def collect(self, messages):
        """Begin a turn with the produce requests among these; the other messages, in order.

        A message has `connection`, `frame` and `native`. Frames are kept until `run`.
        """
        cdef list others = []
        cdef Py_ssize_t number = 0
        cdef const unsigned char* p
        cdef int64_t size
        self.begin()
        self.messages = messages
        for message in messages:
            p = self.keep(message.frame, 0, 0)
            size = self.views[self.view_count - 1].len
            if size >= 2 and p[0] == 0 and p[1] == 0:
                self.frames = <Frame*>grown(
                    self.frames, self.frame_count, &self.frame_capacity, sizeof(Frame))
                self.frames[self.frame_count].p = p
                self.frames[self.frame_count].size = size
                self.frames[self.frame_count].message = number
                self.frame_count += 1
            else:
                others.append(message)
            number += 1
        return others

    @property
    def collected(self):
        """How many produce requests wait to be taken."""
        return self.frame_count

    def take(self, now_ms, wait_max_ms, elements_max, loses_reply=None):
        """Read what was collected; (connection, reason, whether its version is why) of each bad.

        A request may wait for the time that it names, at most `wait_max_ms`, and name at most
        `elements_max` topics and partitions. `loses_reply()` says whether a fault takes the reply
        of the next request.
        """
        cdef int64_t now = integer(now_ms, "now_ms", INT64_MIN >> 1, INT64_MAX >> 1)
        cdef int64_t longest = integer(wait_max_ms, "wait_max_ms", 0, INT64_MAX >> 1)
        cdef int64_t most = integer(elements_max, "elements_max", 0, INT64_MAX)
        cdef list bad = []
        cdef Request request
        cdef Answer* answer
        cdef Py_ssize_t i
        cdef int fault
        for i in range(self.frame_count):
            message = self.messages[self.frames[i].message]
            connection = message.connection
            fault = request_check(self.frames[i].p, self.frames[i].size, most, &request)
            if fault != REQUEST_SOUND:
                bad.append((connection, fault_told(fault, &request), fault != REQUEST_MALFORMED))
                continue
            answer = answer_new(
                connection, request.part_count, request.topic_count, request.name_bytes)
            if answer == NULL:
                raise MemoryError()
            answer.correlation_id = request.correlation_id
            answer.version = request.version
            answer.acks = request.acks
            answer.deadline_ms = now + min(max(<int64_t>request.timeout_ms, 0), longest)
            try:
                answer.native = <uint8_t>bool(message.native)
                answer.faulty = <uint8_t>bool(loses_reply is not None and loses_reply())
                self.serve(&request, answer)
            finally:
                answer_drop(answer)
        self.frame_count = 0
        self.messages = None
        return bad

    cdef int serve(self, const Request* request, Answer* answer) except -1:
        global last_request
        cdef object cursor_topics = self.routes.topics
        cdef int32_t slot = 0
        cdef uint32_t name_at = 0
        cdef int32_t i
        cdef Name name
        cdef Part part
        cursor = request.topics
        last_request += 1
        if request.part_count == 0:
            self.answers.completed(answer)
        for i in range(request.topic_count):
            name = topic_next(&cursor)
            answer.topics[i].name_at = name_at
            answer.topics[i].name_size = name.size
            answer.topics[i].slots = name.parts
            memcpy(answer.names + name_at, name.p, name.size)
            name_at += name.size
            routes = cursor_topics.get(PyBytes_FromStringAndSize(<char*>name.p, name.size))
            for _ in range(name.parts):
                part = part_next(&cursor)
                answer.slots[slot].partition = part.partition
                self.serve_part(request, answer, slot, routes, part.data, part.size)
                slot += 1
            topic_end(&cursor)
        return 0

    cdef int serve_part(self, const Request* request, Answer* answer, int32_t slot, list routes,
                        const unsigned char* data, int64_t size) except -1:
        cdef int32_t index = answer.slots[slot].partition
        cdef Route route = None
        if request.acks != ACKS_ALL and request.acks != ACKS_LEADER and request.acks != ACKS_NONE:
            slot_refuse(self.answers, answer, slot, INVALID_REQUIRED_ACKS)
            return 0
        if request.transactional:
            slot_refuse(self.answers, answer, slot, TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
            return 0
        if routes is not None and 0 <= index < len(routes):
            route = routes[index]
        if route is None:
            slot_refuse(self.answers, answer, slot, UNKNOWN_TOPIC_OR_PARTITION)
            return 0
        if route.closed:
            slot_refuse(self.answers, answer, slot, INVALID_TOPIC)
            return 0
        if route.term is None:
            answer.slots[slot].leader = route.leader
            answer.slots[slot].leader_epoch = route.leader_epoch
            slot_refuse(self.answers, answer, slot, NOT_LEADER_OR_FOLLOWER)
            return 0
        if route.stamp == last_request:
            # Which of the two would come first is not said: neither is taken.
            self.items[route.item].verdict = VERDICT_INVALID
            self.items[route.item].error = INVALID_RECORD
            slot_refuse(self.answers, answer, slot, INVALID_RECORD)
            return 0
        route.stamp = last_request
        route.item = <int32_t>self.used
        return self.enter(request, answer, slot, route.term, data, size)

    cdef int enter(self, const Request* request, Answer* answer, int32_t slot, Term term,
                   const unsigned char* data, int64_t size) except -1:
        cdef Item* item
        if term.stamp != self.stamp_now:
            self.look(term)
        self.owners = <Owner*>grown(
            self.owners, self.owned, &self.owner_capacity, sizeof(Owner))
        item = self.item_at(term.lane, data, size, slot)
        while self.owned < self.used - 1:       # entries that came another way
            self.owners[self.owned].answer = NULL
            self.owned += 1
        self.owners[self.owned].answer = answer
        self.owners[self.owned].term = <void*>term
        self.owners[self.owned].slot = slot
        self.owned += 1
        answer_keep(answer)
        answer.slots[slot].start_offset = term.start_offset
        item.native = answer.native
        if request.acks == ACKS_ALL:
            item.refuse_new = term.refuse_new
        if (request.version < ZSTD_SINCE and size >= HEADER_SIZE
                and load16(data + 21) & ATTRIBUTE_CODEC == CODEC_LAST):
            item.verdict = VERDICT_INVALID
            item.error = UNSUPPORTED_COMPRESSION_TYPE
        return 0

    # A term is asked for its state once a turn.
    cdef int look(self, Term term) except -1:
        term.refuse_new, term.start_offset, term.deep = term.look()
        term.stamp = self.stamp_now
        self.deep = self.deep or term.deep
        self.terms.append(term)
        return 0

    def compressed(self):
        """(number, batch) of every entry that must be looked into before `run`."""
        cdef list found = []
        cdef Item* item
        cdef Py_ssize_t i
        for i in range(self.owned):
            item = &self.items[i]
            if (self.owners[i].answer != NULL and (<Term>self.owners[i].term).deep
                    and item.length >= HEADER_SIZE
                    and load16(item.data + 21) & ATTRIBUTE_CODEC):
                found.append((i, PyBytes_FromStringAndSize(<char*>item.data, item.length)))
        return found

    def refuse_entry(self, number, error):
        """Before `run`: the entry is INVALID, with this error."""
        cdef Py_ssize_t i = integer(number, "number", 0, self.used - 1)
        self.items[i].error = <int16_t>integer(error, "error", 1, INT16_MAX)
        self.items[i].verdict = VERDICT_INVALID

    def tell(self):
        """Close every slot, or let it wait; the numbers of entries that the caller must answer.

        Those are FLOORED, before whose answer a fence must be in the log, and ABOVE_BOUND, for
        which only the caller knows the error.
        """
        cdef list left = []
        cdef Py_ssize_t i
        for i in range(self.owned):
            if self.owners[i].answer != NULL and self.tell_one(i):
                left.append(i)
        return left

    # True if the caller must answer.
    cdef bint tell_one(self, Py_ssize_t number) except -1:
        cdef Owner* owner = &self.owners[number]
        cdef const Item* item = &self.items[number]
        cdef Term term = <Term>owner.term
        cdef Slot* slot = &owner.answer.slots[owner.slot]
        if not slot.open:
            return False
        if item.error == 0 and item.end > term.lane.table.state.next_offset:
            slot_refuse(self.answers, owner.answer, owner.slot, KAFKA_STORAGE_ERROR)
            return False
        if item.verdict == VERDICT_FLOORED or item.verdict == VERDICT_ABOVE_BOUND:
            return True
        if item.verdict == VERDICT_FENCED:
            self.refuse_once_committed(number, item.error)
        elif item.error == OUT_OF_ORDER_SEQUENCE_NUMBER and not item.native:
            term.ask(owner.answer, owner.slot)
        elif item.error != 0:
            slot_refuse(self.answers, owner.answer, owner.slot, item.error)
        else:
            slot.base_offset = item.offset
            slot.verdict = item.verdict
            if item.verdict == VERDICT_NEW:
                slot.append_time = self.places[item.lane].append_time
            if owner.answer.acks == ACKS_NONE:
                slot_close(self.answers, owner.answer, owner.slot)
            elif owner.answer.acks == ACKS_LEADER:
                term.wait_durable(item.end, owner.answer, owner.slot)
            else:
                term.wait_committed(item.end, owner.answer, owner.slot)
        return False

    cdef Owner* owner(self, object number) except NULL:
        cdef Py_ssize_t i = integer(number, "number", 0, self.owned - 1)
        if self.owners[i].answer == NULL:
            raise ValueError(f"number {number} is no entry of a request")
        return &self.owners[i]

    def term(self, number):
        """The term that an entry belongs to."""
        return <Term>self.owner(number).term

    def producer_id(self, number):
        """The producer id in the header of an entry."""
        self.owner(number)
        return self.items[<Py_ssize_t>number].batch.producer_id

    def settle(self, number):
        """The entry's verdict stands: close its slot now."""
        cdef Owner* owner = self.owner(number)
        cdef Slot* slot = &owner.answer.slots[owner.slot]
        if slot.open:
            slot.base_offset = self.items[<Py_ssize_t>number].offset
            slot.verdict = self.items[<Py_ssize_t>number].verdict
            slot_close(self.answers, owner.answer, owner.slot)

    def refuse(self, number, error):
        """Close the entry's slot with this error now."""
        cdef Owner* owner = self.owner(number)
        slot_refuse(self.answers, owner.answer, owner.slot,
                    <int16_t>integer(error, "error", 1, INT16_MAX))

    def refuse_once_committed(self, number, error):
        """Close the entry's slot with this error once all that the log holds now is committed.

        What an answer rests on may not be committed yet, and a client that is told takes new
        numbers: it must not hear of a fence that the next leader may not know.
        """
        cdef Owner* owner = self.owner(number)
        cdef Term term = <Term>owner.term
        if owner.answer.slots[owner.slot].open:
            owner.answer.slots[owner.slot].error = <int16_t>integer(error, "error", 1, INT16_MAX)
            term.wait_committed(term.lane.table.state.next_offset, owner.answer, owner.slot)


cdef str fault_told(int fault, const Request* request):
    if fault == REQUEST_MALFORMED:
        return "malformed produce request"
    return (f"version {request.version} of Produce is not served, only {VERSION_MIN} to"
            f" {VERSION_MAX}")
