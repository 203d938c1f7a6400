"""Bytes of many TCP connections to requests, and responses to bytes in the order of the requests.

An `Exchange` holds what all connections of a listener share: the memory they receive into, the
requests of the turn under way, and who is to be written to when it ends. A `Conversation` is one
connection: it splits what came into frames and puts the responses into order. A frame is four bytes
of length, big-endian, and as many bytes of request or response; its address names connection and
request, so that whoever answers needs to know neither.

Bytes are received into slabs that all connections share. Complete frames leave as views of a slab,
which is used again once nobody holds a view of it. An incomplete frame moves to memory of its own;
if it is large, of exactly its size, and the rest of it is received right there.

Produce requests of a connection are taken together; any other request waits until all before it are
answered and keeps those behind it waiting, as every request does in Kafka: clients rely on what an
earlier request did, and at most one large answer is held per connection.

Invariants: responses leave in the order of their requests, each once; a frame that is refused ends
its conversation; nothing that is taken from a connection in one turn exceeds its share.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport INT32_MAX, INT64_MAX, int16_t, int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

from _fastseq.args cimport integer
from _fastseq.layout cimport load16, load32, load64, store32, store64

cdef enum:
    TCP = 2                     # first byte of an address: a connection of this kind
    ADDRESS_SIZE = 17           # that byte, the connection's number, the request's number
    PREFIX = 4                  # bytes of the length before a frame
    FRAME_MIN = 8               # api key, version and correlation id: less is no request
    PRODUCE_KEY = 0
    LARGE = 64 * 1024           # an incomplete frame from this size on is received in place
    ROOM_MIN = 64 * 1024        # bytes offered to one read of a slab, at least
    SLABS_KEPT = 8              # slabs kept for reuse; more are in use only while views are held
    STATE_READ_ON = 0
    STATE_SHARE_USED = 1
    STATE_WAITS = 2
    STATE_UNFINISHED = 4
    STATE_REFUSED = 8

READ_ON = STATE_READ_ON
SHARE_USED = STATE_SHARE_USED
WAITS = STATE_WAITS
UNFINISHED = STATE_UNFINISHED
REFUSED = STATE_REFUSED


cdef class Memory:
    """Bytes that are not touched before they are received into; views keep them alive."""

    cdef uint8_t* data
    cdef Py_ssize_t size
    cdef Py_ssize_t views

    def __cinit__(self, Py_ssize_t size):
        self.data = <uint8_t*>malloc(size)
        if self.data is NULL:
            raise MemoryError
        self.size = size

    def __dealloc__(self):
        free(self.data)

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer* view):
        self.views -= 1


cdef class Exchange:
    """What the connections of one listener share.

    `make(address, frame, False)` gives the value that `drain` hands out for a request. `wake()` is
    called when there is something to drain, or a share to renew, at most once between two drains.
    """

    cdef object make
    cdef object wake
    cdef Py_ssize_t slab_bytes
    cdef Py_ssize_t frame_bytes_max
    cdef Py_ssize_t in_flight_max
    cdef Py_ssize_t in_flight_bytes_max
    cdef Py_ssize_t share_requests
    cdef Py_ssize_t share_bytes
    cdef list requests
    cdef list touched
    cdef dict conversations
    cdef list slabs
    cdef Memory slab
    cdef Py_ssize_t slab_used
    cdef int64_t opened
    cdef int64_t round
    cdef bint woken
    cdef readonly int64_t requests_taken
    cdef readonly int64_t bytes_received
    cdef readonly int64_t bytes_sent
    cdef readonly int64_t in_flight
    cdef readonly int64_t undeliverable
    """Responses whose connection had gone."""
    cdef readonly int64_t unexpected
    """Responses to requests that were not under way."""

    def __init__(
            self, object make, object wake, *, slab_bytes, frame_bytes_max, in_flight_max,
            in_flight_bytes_max, share_requests, share_bytes):
        """Bounds: bytes of a frame; requests and bytes that a connection may have unanswered;
        requests and bytes that it may have taken per turn. A slab has `slab_bytes`.
        """
        self.make = make
        self.wake = wake
        self.slab_bytes = integer(slab_bytes, "slab_bytes", 2 * ROOM_MIN, INT32_MAX)
        self.frame_bytes_max = integer(frame_bytes_max, "frame_bytes_max", FRAME_MIN, INT32_MAX)
        self.in_flight_max = integer(in_flight_max, "in_flight_max", 1, 1 << 20)
        self.in_flight_bytes_max = integer(
            in_flight_bytes_max, "in_flight_bytes_max", 1, INT64_MAX)
        self.share_requests = integer(share_requests, "share_requests", 1, INT32_MAX)
        self.share_bytes = integer(share_bytes, "share_bytes", 1, INT32_MAX)
        self.requests = []
        self.touched = []
        self.conversations = {}
        self.slabs = []
        self.slab = Memory(self.slab_bytes)

    def __len__(self):
        """How many conversations are open."""
        return len(self.conversations)

    def open(self, object owner):
        """A conversation of a new connection; `owner` is what `settled` names it by."""
        cdef Conversation conversation = Conversation(self, owner, self.opened)
        self.conversations[self.opened] = conversation
        self.opened += 1
        return conversation

    def drain(self):
        """The requests of a turn, in order of arrival; every connection has its share anew."""
        cdef list requests = self.requests
        self.woken = False
        self.round += 1
        if requests:
            self.requests = []
        return requests

    def answer(self, bytes address not None, object frame):
        """The response to the request of this address: bytes, a sequence of buffers, or None where
        none is wanted. That of a connection which has gone is dropped and counted.
        """
        cdef Conversation conversation = self.addressed(address)
        if conversation is None:
            self.undeliverable += 1
        else:
            conversation.answer(<int64_t>load64(<uint8_t*>PyBytes_AS_STRING(address) + 9), frame)

    def hang_up(self, bytes address not None):
        """No response: the connection ends here, once what was asked before is answered."""
        cdef Conversation conversation = self.addressed(address)
        if conversation is not None:
            conversation.answer(
                <int64_t>load64(<uint8_t*>PyBytes_AS_STRING(address) + 9), Ellipsis)

    def settled(self):
        """The owners of conversations that were answered since the last call."""
        cdef list touched = self.touched
        cdef Conversation conversation
        if not touched:
            return touched
        self.touched = []
        for conversation in touched:
            conversation.is_touched = False
        return [
            owner for conversation in touched
            if (owner := (<Conversation>conversation).owner) is not None]

    cdef Conversation addressed(self, bytes address):
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(address)
        if PyBytes_GET_SIZE(address) != ADDRESS_SIZE or p[0] != TCP:
            raise ValueError(f"not the address of a request: {address!r}")
        return self.conversations.get(<int64_t>load64(p + 1))

    cdef int notify(self) except -1:
        if not self.woken:
            self.woken = True
            self.wake()
        return 0

    # Sets `slab` and `slab_used` so that `size` bytes and a good read fit.
    cdef int make_room(self, Py_ssize_t size) except -1:
        cdef Memory slab
        if self.slab.views == 0:
            self.slab_used = 0
        if self.slab.size - self.slab_used >= size + ROOM_MIN:
            return 0
        if len(self.slabs) < SLABS_KEPT:
            self.slabs.append(self.slab)
        self.slab_used = 0
        for slab in self.slabs:
            if slab.views == 0:
                self.slabs.remove(slab)
                self.slab = slab
                return 0
        self.slab = Memory(self.slab_bytes)
        return 0


cdef class Conversation:
    """One connection: requests out of its bytes, its responses in order.

    `get_buffer` and `buffer_updated` are those of asyncio.BufferedProtocol, but that the second
    says how to go on: 0, or any of SHARE_USED and WAITS (stop reading; `go_on` once the turn is
    over, or once something was answered), UNFINISHED (a frame has begun) and REFUSED (`fault` says
    why; nothing more is taken).
    """

    cdef Exchange exchange
    cdef readonly object owner
    cdef readonly int64_t number
    cdef int64_t asked
    cdef int64_t answered
    cdef uint32_t* sizes
    cdef Py_ssize_t sizes_room
    cdef Py_ssize_t bytes_unanswered
    cdef int64_t round
    cdef Py_ssize_t requests_left
    cdef Py_ssize_t bytes_left
    cdef Memory rest
    cdef Py_ssize_t rest_start
    cdef Py_ssize_t rest_end
    cdef Memory target
    cdef Py_ssize_t target_start
    cdef Py_ssize_t target_end
    cdef dict early
    cdef list pieces
    cdef Py_ssize_t pieces_bytes
    cdef bint alone
    cdef bint is_touched
    cdef bint closed
    cdef readonly bint ended
    """The last response is in `outgoing`: write it, then close."""
    cdef public bint blocked
    """Take no request, whatever comes: the client does not read what it was answered."""
    cdef readonly bytes fault
    """First bytes of what was refused."""

    def __init__(self, Exchange exchange not None, object owner, int64_t number):
        self.exchange = exchange
        self.owner = owner
        self.number = number
        self.round = -1

    def __dealloc__(self):
        PyMem_Free(self.sizes)

    @property
    def in_flight(self):
        """Requests that were taken and not answered."""
        return self.asked - self.answered

    @property
    def taken(self):
        """Requests that were taken."""
        return self.asked

    @property
    def expected(self):
        """Bytes of the frame that has begun, with its length; 0 when none has."""
        return 0 if self.rest is None else max(PREFIX, self.front())

    def get_buffer(self, Py_ssize_t hint):
        """Where the next read goes."""
        cdef Py_ssize_t kept
        cdef Py_ssize_t limit
        self.renew()
        limit = max(self.bytes_left, 1)
        kept = 0 if self.rest is None else self.rest_end - self.rest_start
        if kept and kept >= self.front() > 0:
            raise RuntimeError("frames wait to be taken: go on before reading")
        if kept and self.rest.size - self.rest_start == self.front():
            self.target = self.rest
            self.target_start = self.rest_start
            self.target_end = self.rest_end
            limit = min(limit, self.rest.size - self.rest_end)
        else:
            self.exchange.make_room(kept)
            self.target = self.exchange.slab
            self.target_start = self.exchange.slab_used
            self.target_end = self.target_start + kept
            if kept:
                memcpy(
                    self.target.data + self.target_start, self.rest.data + self.rest_start, kept)
            limit = min(limit, self.target.size - self.target_end)
        return memoryview(self.target)[self.target_end:self.target_end + limit]

    def buffer_updated(self, Py_ssize_t count):
        """`count` bytes were received: take their requests, keep what is incomplete."""
        cdef Memory target = self.target
        if count < 0 or target is None or count > target.size - self.target_end:
            raise ValueError(f"{count} bytes cannot have been received")
        self.target = None
        self.exchange.bytes_received += count
        self.bytes_left -= count
        if target is self.exchange.slab:
            self.exchange.slab_used = self.target_end + count
        return self.split(target, self.target_start, self.target_end + count)

    def go_on(self):
        """Take what waited; what `buffer_updated` answers."""
        self.renew()
        if self.rest is None:
            return self.outcome(False)
        return self.split(self.rest, self.rest_start, self.rest_end)

    def outgoing(self):
        """Bytes of the responses that are due, as a list of buffers; empty where there are none."""
        cdef list pieces = self.pieces
        if pieces is None:
            return []
        self.exchange.bytes_sent += self.pieces_bytes
        self.pieces = None
        if len(pieces) > 2 and self.pieces_bytes <= LARGE:
            pieces = [b"".join(pieces)]
        self.pieces_bytes = 0
        return pieces

    def close(self):
        """The connection has gone: its requests are answered to nobody."""
        if not self.closed:
            self.closed = True
            self.owner = None
            self.exchange.in_flight -= self.asked - self.answered
            del self.exchange.conversations[self.number]
            self.rest = None
            self.early = None
            self.pieces = None

    # -- in --------------------------------------------------------------------------------------

    cdef inline void renew(self) noexcept:
        if self.round != self.exchange.round:
            self.round = self.exchange.round
            self.requests_left = self.exchange.share_requests
            self.bytes_left = self.exchange.share_bytes

    # Bytes of the first frame in `rest`, 0 while its length is not known.
    cdef inline Py_ssize_t front(self) noexcept:
        if self.rest_end - self.rest_start < PREFIX:
            return 0
        return PREFIX + <Py_ssize_t>load32(self.rest.data + self.rest_start)

    cdef int split(self, Memory source, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef object view = None
        cdef uint32_t length
        cdef bint held = False
        while not held and end - start >= PREFIX:
            length = load32(source.data + start)
            if length < FRAME_MIN or length > self.exchange.frame_bytes_max:
                return self.refuse(source.data + start, end - start)
            if end - start - PREFIX < <Py_ssize_t>length:
                break
            held = not self.admits(<int16_t>load16(source.data + start + PREFIX))
            if not held:
                if view is None:
                    view = memoryview(source)
                start += PREFIX
                self.take(view[start:start + length], length)
                start += length
        self.keep(source, start, end)
        return self.outcome(held)

    cdef int outcome(self, bint held) except -1:
        cdef int found = STATE_READ_ON
        if self.closed or self.ended:
            return STATE_WAITS
        if held and (self.requests_left > 0 or self.blocked or self.alone):
            found = STATE_WAITS
        elif held or self.bytes_left <= 0:
            found = STATE_SHARE_USED
            self.exchange.notify()
        elif self.blocked:
            found = STATE_WAITS
        if self.rest is not None and not held:
            found |= STATE_UNFINISHED
        return found

    cdef inline bint admits(self, int16_t key) noexcept:
        cdef int64_t in_flight = self.asked - self.answered
        if self.closed or self.ended or self.blocked or self.alone or self.requests_left <= 0:
            return False
        if in_flight == 0:
            return True
        return (
            key == PRODUCE_KEY and in_flight < self.exchange.in_flight_max
            and self.bytes_unanswered < self.exchange.in_flight_bytes_max)

    cdef int take(self, object frame, uint32_t length) except -1:
        cdef Exchange exchange = self.exchange
        cdef bytes address = PyBytes_FromStringAndSize(NULL, ADDRESS_SIZE)
        cdef uint8_t* p = <uint8_t*>PyBytes_AS_STRING(address)
        p[0] = TCP
        store64(p + 1, self.number)
        store64(p + 9, self.asked)
        self.remember(length)
        exchange.requests.append(exchange.make(address, frame, False))
        self.alone = frame[0] != 0 or frame[1] != PRODUCE_KEY
        self.asked += 1
        self.requests_left -= 1
        exchange.in_flight += 1
        exchange.requests_taken += 1
        return exchange.notify()

    # The ring of the sizes of unanswered requests, by the last bits of their numbers.
    cdef int remember(self, uint32_t length) except -1:
        cdef Py_ssize_t room = self.sizes_room
        cdef uint32_t* sizes
        cdef int64_t at
        if self.asked - self.answered == room:
            room = max(2 * room, 4)
            sizes = <uint32_t*>PyMem_Realloc(NULL, room * sizeof(uint32_t))
            if sizes is NULL:
                raise MemoryError
            for at in range(self.answered, self.asked):
                sizes[at & (room - 1)] = self.sizes[at & (self.sizes_room - 1)]
            PyMem_Free(self.sizes)
            self.sizes = sizes
            self.sizes_room = room
        self.sizes[self.asked & (room - 1)] = length
        self.bytes_unanswered += length
        return 0

    # What is left of `source`: nothing, frames that wait, or a frame that is not complete.
    cdef int keep(self, Memory source, Py_ssize_t start, Py_ssize_t end) except -1:
        cdef Memory kept
        cdef Py_ssize_t size = end - start
        cdef Py_ssize_t whole = 0
        if size == 0:
            self.rest = None
            return 0
        if size >= PREFIX:
            whole = PREFIX + <Py_ssize_t>load32(source.data + start)
        if whole <= size or whole < LARGE:
            whole = size
        if source is self.rest and (whole == size or source.size - start == whole):
            self.rest_start = start
            self.rest_end = end
            return 0
        kept = Memory(whole)
        memcpy(kept.data, source.data + start, size)
        self.rest = kept
        self.rest_start = 0
        self.rest_end = size
        return 0

    cdef int refuse(self, const uint8_t* data, Py_ssize_t size) except -1:
        self.fault = (<const char*>data)[:min(size, 16)]
        self.rest = None
        self.ended = True
        return STATE_REFUSED

    # -- out -------------------------------------------------------------------------------------

    cdef int answer(self, int64_t request, object frame) except -1:
        if request < self.answered or request >= self.asked or (
                self.early is not None and request in self.early):
            self.exchange.unexpected += 1
            return 0
        if request != self.answered:
            if self.early is None:
                self.early = {}
            self.early[request] = frame
            return 0
        self.put(frame)
        while self.early:
            if self.answered not in self.early:
                return 0
            self.put(self.early.pop(self.answered))
        self.early = None
        return 0

    cdef int put(self, object frame) except -1:
        self.bytes_unanswered -= self.sizes[self.answered & (self.sizes_room - 1)]
        self.answered += 1
        self.alone = False
        self.exchange.in_flight -= 1
        if not self.is_touched:
            self.is_touched = True
            self.exchange.touched.append(self)
        if self.ended or frame is None:
            return 0
        if frame is Ellipsis:
            self.ended = True
            return 0
        if self.pieces is None:
            self.pieces = []
        if isinstance(frame, bytes):
            self.prefix(PyBytes_GET_SIZE(frame))
            self.pieces.append(frame)
        elif isinstance(frame, (list, tuple)):
            self.prefix(sum(map(len, frame)))
            self.pieces.extend(frame)
        else:
            self.prefix(len(frame))
            self.pieces.append(frame)
        return 0

    cdef int prefix(self, Py_ssize_t size) except -1:
        cdef bytes length = PyBytes_FromStringAndSize(NULL, PREFIX)
        if size > INT32_MAX:
            raise ValueError(f"a response of {size} bytes has no length")
        store32(<uint8_t*>PyBytes_AS_STRING(length), <uint32_t>size)
        self.pieces.append(length)
        self.pieces_bytes += PREFIX + size
        return 0


def looks_like(bytes start not None):
    """What the first bytes of a refused frame look like: a short reason and a sentence."""
    cdef uint32_t length
    if PyBytes_GET_SIZE(start) < PREFIX:
        return "malformed", "an incomplete length"
    length = load32(<uint8_t*>PyBytes_AS_STRING(start))
    if start[:2] == b"\x16\x03":
        return "tls", "a TLS handshake; this listener speaks plain TCP"
    if any(start.startswith(verb) for verb in HTTP_VERBS):
        return "http", "an HTTP request; metrics have an address of their own"
    if start[:1] == b"\xff":
        if len(start) == 4 or start[1:8] == bytes(7):
            return "zmq", "a ZeroMQ greeting; native clients have an address of their own"
    if start[:4] == b"SSH-":
        return "ssh", "an SSH client"
    if length < FRAME_MIN:
        return "short", f"a frame of {length} bytes, which is no request"
    if <int32_t>length < 0:
        return "negative", f"a negative length ({<int32_t>length})"
    return "large", f"a frame of {length} bytes, which is more than is taken"


cdef tuple HTTP_VERBS = (
    b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"CONN", b"PATC", b"TRAC", b"PRI ")
