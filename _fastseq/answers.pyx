"""Answers to produce requests: one slot per partition, sent when every slot is closed.

A slot is open, closed with its verdict, or refused with an error in the verdict's place. `Answers`
gathers what is complete and turns it into a broker's effects, once per step: a reply, or what a
request without one needs. An answer lives as long as a turn or a waiting slot refers to it.

On a carrier that answers in order a withheld answer still has to end its request: a lost one, and
an error that acks=0 leaves no room for, close the connection, as Kafka does.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int16_t, int32_t, uint32_t
from libc.string cimport memset

from _fastseq.reply cimport reply_frame


cdef Answer* answer_new(
        object connection, int32_t slots, int32_t topics, uint32_t name_bytes) noexcept:
    cdef size_t size = (sizeof(Answer) + <size_t>slots * sizeof(Slot)
                        + <size_t>topics * sizeof(Topic) + name_bytes)
    cdef Answer* answer = <Answer*>PyMem_Malloc(size)
    cdef int32_t i
    if answer == NULL:
        return NULL
    memset(answer, 0, sizeof(Answer))
    answer.slots = <Slot*>(answer + 1)
    answer.topics = <Topic*>(answer.slots + slots)
    answer.names = <unsigned char*>(answer.topics + topics)
    answer.slot_count = answer.waiting = slots
    answer.topic_count = topics
    answer.references = 1
    Py_INCREF(connection)
    answer.connection = <PyObject*>connection
    for i in range(slots):
        memset(&answer.slots[i], 0, sizeof(Slot))
        answer.slots[i].base_offset = answer.slots[i].append_time = -1
        answer.slots[i].start_offset = answer.slots[i].leader = -1
        answer.slots[i].open = True
    return answer


cdef void answer_free(Answer* answer) noexcept:
    Py_DECREF(<object>answer.connection)
    PyMem_Free(answer)


cdef void answer_refuse(Answers out, Answer* answer, int16_t error) noexcept:
    cdef int32_t i
    for i in range(answer.slot_count):
        slot_refuse(out, answer, i, error)


cdef bint stored(const Answer* answer) noexcept:
    cdef int32_t i
    for i in range(answer.slot_count):
        if answer.slots[i].error != 0:
            return False
    return True


cdef class Answers:
    """Complete answers of a broker's step, in the order in which they became so.

    `reply(connection, frame)`, `no_reply(connection)` and `hangup(connection, reason)` make its
    effects. `endpoint(node_id, native)` is asked for (host, port, rack) of the broker to go to, or
    None, when this one does not lead.
    """

    def __cinit__(self, reply, no_reply, hangup, endpoint=None):
        self.first = self.last = NULL
        self.reply = reply
        self.no_reply = no_reply
        self.hangup = hangup
        self.endpoint = endpoint

    def __dealloc__(self):
        cdef Answer* answer
        while self.first != NULL:
            answer = self.first
            self.first = answer.next
            answer_drop(answer)

    cdef void completed(self, Answer* answer) noexcept:
        if answer.complete:
            return
        answer.complete = True
        answer_keep(answer)
        answer.next = NULL
        if self.first == NULL:
            self.first = answer
        else:
            self.last.next = answer
        self.last = answer

    def drain(self):
        """The effects of everything that is complete, which is forgotten then."""
        cdef list effects = []
        cdef Answer* answer
        while self.first != NULL:
            answer = self.first
            self.first = answer.next
            try:
                effects.append(self.effect(answer))
            finally:
                answer_drop(answer)
        return effects

    cdef object effect(self, Answer* answer):
        cdef object connection = <object>answer.connection
        cdef bint good
        if answer.acks != 0 and not answer.faulty:
            return self.reply(connection, reply_frame(answer, self.endpoint))
        good = stored(answer)
        if answer.acks != 0 and not good:
            return self.reply(connection, reply_frame(answer, self.endpoint))
        if answer.native or (good and answer.acks == 0):
            return self.no_reply(connection)
        if good:
            return self.hangup(connection, "a fault was ordered: the acknowledgement is lost")
        return self.hangup(connection, "acks=0 and an error")
