from _fastseq.entry cimport Table


# Gives back memory that few producers hold, a little at each call. Only between changes: numbers of
# entries are others afterwards.
cdef void table_compact(Table* t) noexcept nogil
