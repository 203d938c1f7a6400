from libc.stdint cimport int64_t

from _fastseq.entry cimport Table


# Undoes every append that reaches past `offset`; False, and nothing done, if the journal does not.
cdef bint table_rollback(Table* t, int64_t offset) noexcept nogil

# Forgets how to undo what lies below `offset`.
cdef void table_trim(Table* t, int64_t offset) noexcept nogil
