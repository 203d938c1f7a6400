from libc.stdint cimport int32_t, int64_t, uint64_t

from _fastseq.state cimport Table


cdef class ProducerTable:
    cdef Table state
    # The turn that last met this table, and its place there.
    cdef uint64_t turn_stamp
    cdef Py_ssize_t turn_place

    cdef run(self, object data, int64_t start, int64_t end, int64_t wanted)
    cdef replace(self, object data, bint kafka, int64_t next_offset)


# What a run of stamped batches must satisfy before it is applied.
cdef struct RunRules:
    int64_t next_offset         # of the log so far
    int32_t leader_epoch_max
    bint contiguous             # base offsets follow without a gap
    bint check_crc


# 0 if the batches in [p, end) are whole and follow the rules, else a Kafka error code; `count`
# is how many there are.
cdef int run_fault(
    const unsigned char* p, const unsigned char* end, const RunRules* rules,
    int64_t* count) noexcept nogil

# Applies batches that `run_fault` passed and `table_reserve` made room for.
cdef void run_apply(
    Table* t, const unsigned char* p, const unsigned char* end) noexcept nogil
