"""Bytes of many TCP connections to requests, and responses to bytes in the order of the requests.

An `Exchange` holds what all connections of a listener share: the memory they receive into, the
requests of the turn under way, and who is to be written to when it ends. A `Conversation` is one
connection: it splits what came into frames and puts the responses into order. A frame is four bytes
of length, big-endian, and as many bytes of request or response; its address names connection and
request, so that whoever answers needs to know neither.

Bytes are received into slabs that all connections share. Complete frames leave as views of a slab,
which is used again once nobody holds a view of it. An incomplete frame moves to memory of its own;
once much of a large one is there, of exactly its size, and the rest is received right there.

Produce requests of a connection are taken together; any other request waits until all before it are
answered and keeps those behind it waiting, as every request does in Kafka: clients rely on what an
earlier request did, and at most one large answer is held per connection.

Invariants: responses leave in the order of their requests, each once; a frame that is refused ends
its conversation; nothing that is taken from a connection in one turn exceeds its share.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free, PyMem_Realloc
from libc.stdint cimport INT32_MAX, INT64_MAX, int16_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcpy

from _fastseq.args cimport integer
from _fastseq.layout cimport load16, load32, load64, store32, store64
from _fastseq.slabs cimport Memory, Reserve, Slabs

cdef enum:
    TCP = 2                     # first byte of an address: a connection of this kind
    ADDRESS_SIZE = 17           # that byte, the connection's number, the request's number
    PREFIX = 4                  # bytes of the length before a frame
    FRAME_MIN = 8               # api key, version and correlation id: less is no request
    PRODUCE_KEY = 0
    LARGE = 64 * 1024           # bytes of a frame: the rest is received in place
    ROOM_MIN = 64 * 1024        # bytes offered to one read of a slab, at least
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


cdef class Exchange:
    """What the connections of one listener share.

    `make(address, frame, False)` gives the value that `drain` hands out for a request. `wake()` is
    called when there is something to drain, or a share to renew, at most once between two drains.
    """

    cdef object make
    cdef object wake
    cdef Py_ssize_t frame_bytes_max
    cdef Py_ssize_t in_flight_max
    cdef Py_ssize_t in_flight_bytes_max
    cdef Py_ssize_t share_requests
    cdef Py_ssize_t share_bytes
    cdef list requests
    cdef list touched
    cdef dict conversations
    cdef Slabs slabs
    cdef Reserve reserve
    cdef int64_t opened
    cdef int64_t round
    cdef bint woken
    cdef readonly int64_t requests_taken
    cdef readonly int64_t bytes_received
    cdef readonly int64_t bytes_sent
    cdef readonly int64_t in_flight
    cdef readonly int64_t undeliverable     # responses whose connection had gone
    cdef readonly int64_t unexpected        # responses to requests that were not under way

    def __init__(
            self, object make, object wake, *, slab_bytes, frame_bytes_max, in_flight_max,
            in_flight_bytes_max, share_requests, share_bytes, large_bytes_max):
        """Bounds: bytes of a frame; requests and bytes that a connection may have unanswered;
        requests and bytes that it may have taken per turn; bytes of large frames that are being
        received, over all connections. A slab has `slab_bytes`.
        """
        self.make = make
        self.wake = wake
        self.slabs = Slabs(integer(slab_bytes, "slab_bytes", LARGE + ROOM_MIN, INT32_MAX))
        self.frame_bytes_max = integer(frame_bytes_max, "frame_bytes_max", FRAME_MIN, INT32_MAX)
        self.in_flight_max = integer(in_flight_max, "in_flight_max", 1, 1 << 20)
        self.in_flight_bytes_max = integer(
            in_flight_bytes_max, "in_flight_bytes_max", 1, INT64_MAX)
        self.share_requests = integer(share_requests, "share_requests", 1, INT32_MAX)
        self.share_bytes = integer(share_bytes, "share_bytes", 1, INT32_MAX)
        self.reserve = Reserve(integer(large_bytes_max, "large_bytes_max", 1, INT64_MAX))
        self.requests = []
        self.touched = []
        self.conversations = {}

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
        cdef const uint8_t* p = <const uint8_t*>PyBytes_AS_STRING(address)
        cdef Conversation conversation
        if PyBytes_GET_SIZE(address) != ADDRESS_SIZE or p[0] != TCP:
            raise ValueError(f"not the address of a request: {address!r}")
        conversation = self.conversations.get(<int64_t>load64(p + 1))
        if conversation is None:
            self.undeliverable += 1
        else:
            conversation.answer(<int64_t>load64(p + 9), frame)

    def hang_up(self, bytes address not None):
        """No response: the connection ends here, once what was asked before is answered."""
        self.answer(address, Ellipsis)

    def settled(self):
        """The owners of conversations to write to, or to go on with, since the last call."""
        cdef list touched = self.touched
        cdef Conversation conversation
        if touched:
            self.touched = []
        for conversation in touched:
            conversation.is_touched = False
        return [
            owner for conversation in touched
            if (owner := (<Conversation>conversation).owner) is not None]

    cdef int notify(self) except -1:
        if not self.woken:
            self.woken = True
            self.wake()
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
    cdef bint is_short
    cdef Py_ssize_t reserved
    cdef bint closed
    cdef readonly bint ended    # the last response is in `outgoing`: write it, then close
    cdef public bint blocked    # take no request: the client does not read what it was answered
    cdef readonly bytes fault   # first bytes of what was refused

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
            self.exchange.slabs.make_room(kept + ROOM_MIN)
            self.target = self.exchange.slabs.slab
            self.target_start = self.exchange.slabs.used
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
        if target is self.exchange.slabs.slab:
            self.exchange.slabs.used = self.target_end + count
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
            self.release()
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
        elif self.blocked or self.is_short:
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
        self.release()
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
        # What a frame announces takes no memory yet: whoever holds some of it has sent something.
        self.is_short = LARGE <= size < whole and not self.reserve(whole)
        if size < LARGE or whole <= size or self.is_short:
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

    # Whether memory for a large frame of this size may be taken.
    cdef bint reserve(self, Py_ssize_t size) except -1:
        if not self.reserved and self.exchange.reserve.take(size, None if self.is_short else self):
            self.reserved = size
        return self.reserved != 0

    # The large frame is there, or will never be: whoever waits for memory goes on.
    cdef int release(self) except -1:
        cdef Conversation other
        cdef list waiting
        if self.reserved:
            waiting = self.exchange.reserve.give(self.reserved)
            self.reserved = 0
            if waiting:
                self.exchange.notify()
            for other in waiting:
                other.is_short = False
                other.touch()
        return 0

    cdef int touch(self) except -1:
        if not self.is_touched:
            self.is_touched = True
            self.exchange.touched.append(self)
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
        self.touch()
        if self.ended or frame is None:
            return 0
        if frame is Ellipsis:
            self.ended = True
            return 0
        if self.pieces is None:
            self.pieces = []
        if isinstance(frame, (list, tuple)):
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
