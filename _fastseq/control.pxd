from _fastseq.entry cimport Batch, Table
from _fastseq.layout cimport Header


# True if the whole batch at `p` is a control batch of our own that this version understands.
cdef bint control_ours(const unsigned char* p, const Header* header) noexcept nogil

# Does what the control batch at `p` says, at the offsets of `at`; what is not understood only
# moves the end. `floors_reserve` has made room for every producer there may be.
cdef void control_run(
    Table* t, const unsigned char* p, const unsigned char* end, const Batch* at) noexcept nogil
