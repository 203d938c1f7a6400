from _fastseq.entry cimport Table


cdef bytes dump_own(const Table* t)
cdef int load_own(Table* t, const unsigned char* p, Py_ssize_t size) except -1
cdef bytes dump_kafka(const Table* t)
cdef int load_kafka(Table* t, const unsigned char* p, Py_ssize_t size) except -1
