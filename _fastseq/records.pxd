from libc.stdint cimport int32_t, int64_t


# Walks `count` records in [p, end): 1 if they fill it exactly and their offset deltas are
# 0, 1, 2 ...; then `max_timestamp` has the largest timestamp.
cdef bint records_sound(
    const unsigned char* p, const unsigned char* end, int32_t count, int64_t base_timestamp,
    int64_t* max_timestamp) noexcept nogil

# The first record of a control batch whose records are [p, end): its type, or -1 if it is no
# control record. `coordinator_epoch` is -1 unless the record is a transaction marker.
cdef int control_type(
    const unsigned char* p, const unsigned char* end, int32_t* coordinator_epoch) noexcept nogil

# The value of the control record at `p` if its key is exactly four bytes of version 0, and its
# type and size; else NULL.
cdef const unsigned char* control_value(
    const unsigned char* p, const unsigned char* end, int* kind, int64_t* size) noexcept nogil
