from _fastseq.answers cimport Answer


# The response to a produce request, from its correlation id on.
cdef bytes reply_frame(const Answer* answer, object endpoint)
