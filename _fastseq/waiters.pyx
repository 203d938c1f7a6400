"""Acknowledgements that wait: for an offset, for their time, or for the end of the term.

A `Term` is one leader's time over one partition, as its produce requests see it: what may be
appended, and who waits. Slots wait in rings in order of the end offset that they need; nearly all
come in that order, and the few duplicates of what is still under way step back a little. Waiting
acknowledgements belong to their term: whoever ends it fails them all (rule 2), so none can be
released by a later leader's watermark that happens to reach the same offset.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport (
    INT16_MAX, INT16_MIN, INT64_MAX, INT64_MIN, int16_t, int32_t, int64_t, uint32_t,
)

from _fastseq.answers cimport (
    Answer, Answers, answer_drop, answer_keep, answer_refuse, slot_close, slot_refuse,
)
from _fastseq.args cimport integer
from _fastseq.turn cimport Lane

cdef enum:
    FIRST_CAPACITY = 16
    KEPT_CAPACITY = 1024        # an empty ring gives more than this back
    REQUEST_TIMED_OUT = 7
    OUT_OF_ORDER_SEQUENCE_NUMBER = 45


cdef inline Wait* wait_at(const Ring* ring, uint32_t place) noexcept:
    return ring.waits + ((ring.head + place) & (ring.capacity - 1))


cdef int ring_grow(Ring* ring) except -1:
    cdef uint32_t wanted = <uint32_t>(2 * ring.capacity if ring.capacity else FIRST_CAPACITY)
    cdef Wait* waits = <Wait*>PyMem_Malloc(wanted * sizeof(Wait))
    cdef uint32_t i
    if waits == NULL:
        raise MemoryError()
    for i in range(ring.used):
        waits[i] = wait_at(ring, i)[0]
    PyMem_Free(ring.waits)
    ring.waits = waits
    ring.capacity = wanted
    ring.head = 0
    return 0


cdef int ring_add(Ring* ring, int64_t end, Answer* answer, int32_t slot) except -1:
    cdef uint32_t place
    if ring.used == ring.capacity:
        ring_grow(ring)
    place = ring.used
    while place > 0 and wait_at(ring, place - 1).end > end:
        wait_at(ring, place)[0] = wait_at(ring, place - 1)[0]
        place -= 1
    wait_at(ring, place).end = end
    wait_at(ring, place).answer = answer
    wait_at(ring, place).slot = slot
    answer_keep(answer)
    if ring.used == 0 or answer.deadline_ms < ring.soonest_ms:
        ring.soonest_ms = answer.deadline_ms
    ring.used += 1
    return 0


cdef void ring_empty(Ring* ring) noexcept:
    ring.head = ring.used = 0
    if ring.capacity > KEPT_CAPACITY:
        PyMem_Free(ring.waits)
        ring.waits = NULL
        ring.capacity = 0


# Closes what `reached` satisfies; with an error if there is one, else as the slots say.
cdef void ring_release(Answers out, Ring* ring, int64_t reached, int16_t error) noexcept:
    cdef Wait* wait
    while ring.used > 0 and wait_at(ring, 0).end <= reached:
        wait = wait_at(ring, 0)
        if error != 0:
            slot_refuse(out, wait.answer, wait.slot, error)
        else:
            slot_close(out, wait.answer, wait.slot)
        answer_drop(wait.answer)
        ring.head += 1
        ring.used -= 1
    if ring.used == 0:
        ring_empty(ring)


# Ends every request whose time is up, with all its slots; a watermark that stands still must not
# gather what nobody waits for any more.
cdef void ring_expire(Answers out, Ring* ring, int64_t now_ms) noexcept:
    cdef uint32_t kept = 0
    cdef uint32_t i
    cdef Wait wait
    if ring.used == 0 or ring.soonest_ms > now_ms:
        return
    ring.soonest_ms = INT64_MAX
    for i in range(ring.used):
        wait = wait_at(ring, i)[0]
        if wait.answer.deadline_ms <= now_ms:
            answer_refuse(out, wait.answer, REQUEST_TIMED_OUT)
            answer_drop(wait.answer)
        else:
            wait_at(ring, kept)[0] = wait
            kept += 1
            if wait.answer.deadline_ms < ring.soonest_ms:
                ring.soonest_ms = wait.answer.deadline_ms
    ring.used = kept
    if kept == 0:
        ring_empty(ring)


cdef void ring_close(Ring* ring) noexcept:
    cdef uint32_t i
    for i in range(ring.used):
        answer_drop(wait_at(ring, i).answer)
    PyMem_Free(ring.waits)
    ring.waits = NULL
    ring.used = ring.capacity = 0


cdef class Term:
    """One leader's term of one partition.

    `lane` is where it appends; `owner` and `look` are the caller's: `look()` is called once in
    each turn that brings batches and returns (error for new acks=all batches or 0, log start
    offset, whether compressed batches are looked into).
    """

    def __init__(self, Lane lane not None, Answers answers not None, owner=None, look=None):
        self.lane = lane
        self.answers = answers
        self.owner = owner
        self.look = look

    def __dealloc__(self):
        ring_close(&self.committed)
        ring_close(&self.durable)
        ring_close(&self.asked)

    def __len__(self):
        return self.committed.used + self.durable.used + self.asked.used

    @property
    def asking(self):
        """The number of the last question to the followers, 0 while nobody waits for an answer."""
        return self.question if self.asked.used > 0 else 0

    def reached(self, durable_end, committed_end):
        """Everything below these offsets is durable here, and committed: answer whom that serves.

        Neither may be lower than it was.
        """
        self.durable_end = integer(durable_end, "durable_end", self.durable_end, INT64_MAX)
        self.committed_end = integer(
            committed_end, "committed_end", self.committed_end, INT64_MAX)
        if self.durable.used > 0:
            ring_release(self.answers, &self.durable, self.durable_end, 0)
        if self.committed.used > 0:
            ring_release(self.answers, &self.committed, self.committed_end, 0)

    def confirmed(self, question):
        """Every member has followed this leader after `question`: what waited for it is a gap."""
        cdef int64_t number = integer(question, "question", 0, INT64_MAX)
        ring_release(self.answers, &self.asked, number, OUT_OF_ORDER_SEQUENCE_NUMBER)

    def expire(self, now_ms):
        """Answer requests whose time is up with 7: possibly stored."""
        cdef int64_t now = integer(now_ms, "now_ms", INT64_MIN, INT64_MAX)
        ring_expire(self.answers, &self.committed, now)
        ring_expire(self.answers, &self.durable, now)
        ring_expire(self.answers, &self.asked, now)

    def fail(self, error):
        """End of the term: everything that waits gets `error`."""
        cdef int16_t code = <int16_t>integer(error, "error", INT16_MIN, INT16_MAX)
        ring_release(self.answers, &self.committed, INT64_MAX, code)
        ring_release(self.answers, &self.durable, INT64_MAX, code)
        ring_release(self.answers, &self.asked, INT64_MAX, code)

    cdef int wait_committed(self, int64_t end, Answer* answer, int32_t slot) except -1:
        if end <= self.committed_end:
            slot_close(self.answers, answer, slot)
            return 0
        return ring_add(&self.committed, end, answer, slot)

    cdef int wait_durable(self, int64_t end, Answer* answer, int32_t slot) except -1:
        if end <= self.durable_end:
            slot_close(self.answers, answer, slot)
            return 0
        return ring_add(&self.durable, end, answer, slot)

    # A gap may be told only once every member has said, after this, that it follows (rule 6).
    cdef int ask(self, Answer* answer, int32_t slot) except -1:
        self.question += 1
        return ring_add(&self.asked, self.question, answer, slot)
