from cpython.object cimport PyObject
from libc.stdint cimport int16_t, int32_t, int64_t, uint8_t, uint32_t


# One partition of a produce request, and what its client is told of it.
cdef struct Slot:
    int64_t base_offset
    int64_t append_time         # milliseconds, -1 where the client's own times count
    int64_t start_offset
    int32_t partition
    int32_t leader              # who leads if this broker does not, else -1
    int32_t leader_epoch
    int16_t error
    uint8_t verdict
    uint8_t open


cdef struct Topic:
    uint32_t name_at
    uint32_t name_size
    int32_t slots


# One produce request of one connection until its reply has left; one block of memory.
cdef struct Answer:
    PyObject* connection
    Answer* next                # among those that are complete
    Slot* slots
    Topic* topics
    unsigned char* names
    int64_t deadline_ms
    int32_t correlation_id
    int32_t slot_count
    int32_t topic_count
    int32_t waiting             # slots still open
    int32_t references
    int16_t version
    int16_t acks
    uint8_t native              # the carrier is not bound to answer in order
    uint8_t faulty              # a fault was ordered: if everything was stored, the reply is lost
    uint8_t complete


# Every slot is open. NULL without memory.
cdef Answer* answer_new(
    object connection, int32_t slots, int32_t topics, uint32_t name_bytes) noexcept
cdef void answer_free(Answer* answer) noexcept


cdef inline void answer_keep(Answer* answer) noexcept:
    answer.references += 1


cdef inline void answer_drop(Answer* answer) noexcept:
    answer.references -= 1
    if answer.references == 0:
        answer_free(answer)


cdef class Answers:
    cdef Answer* first
    cdef Answer* last
    cdef object reply
    cdef object no_reply
    cdef object hangup
    cdef public object endpoint

    cdef void completed(self, Answer* answer) noexcept
    cdef object effect(self, Answer* answer)


# A late word on a slot that was already closed changes nothing: the client was told "possibly
# stored", and that is true.
cdef inline void slot_close(Answers out, Answer* answer, int32_t slot) noexcept:
    if answer.slots[slot].open:
        answer.slots[slot].open = False
        answer.waiting -= 1
        if answer.waiting == 0:
            out.completed(answer)


# The slot ends with `error`; its base offset is kept if it has one.
cdef inline void slot_refuse(Answers out, Answer* answer, int32_t slot, int16_t error) noexcept:
    if answer.slots[slot].open:
        answer.slots[slot].error = error
        answer.slots[slot].verdict = 0
        slot_close(out, answer, slot)


# Every open slot ends with `error`.
cdef void answer_refuse(Answers out, Answer* answer, int16_t error) noexcept
