"""The hot path in Cython: batches, producer table, turns, sync workers; imports nothing of ours."""
