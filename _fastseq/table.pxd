from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from _fastseq.entry cimport Table


cdef class ProducerTable:
    cdef Table state
    # The turn that last met this table, and its place there.
    cdef uint64_t turn_stamp
    cdef Py_ssize_t turn_place

    cdef uint32_t number_of(self, object producer_id) except? 0xFFFFFFFE
    cdef run(self, object data, int64_t start, int64_t end, int64_t wanted)
    cdef replace(self, object data, bint kafka, int64_t next_offset)


# What a run of stamped batches must satisfy before it is applied.
cdef struct RunRules:
    int64_t next_offset         # of the log so far
    int32_t leader_epoch_max
    bint contiguous             # base offsets follow without a gap
    bint check_crc


# What lies in a run.
cdef struct Run:
    int64_t batches
    int64_t controls            # of our own, which may make floors


# 0 if the batches in [p, end) are whole and follow the rules, else a Kafka error code; `run`
# counts what comes before the fault.
cdef int run_fault(
    const unsigned char* p, const unsigned char* end, const RunRules* rules,
    Run* run) noexcept nogil

# Room for a run; -1 if memory ran out.
cdef int run_reserve(Table* t, const Run* run) noexcept nogil

# Applies batches that `run_fault` passed and `run_reserve` made room for.
cdef void run_apply(
    Table* t, const unsigned char* p, const unsigned char* end) noexcept nogil
