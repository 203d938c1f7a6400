"""A replicated, idempotent, partitioned log: a retry never becomes a second message."""
