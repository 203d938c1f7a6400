"""The newest bytes of a log in memory, by reference to the buffers they arrived in.

Owns: a contiguous suffix of the log as whole appended runs, bounded in bytes held alive. Readers at
the end of the log are served from here without touching the disk.

Invariant: runs follow one another without a gap and the last ends at the log's next offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

from _fastseq.batch import batch_at
from cluster.storage.disk import Buffer
from cluster.storage.reading import take_batches

# A run is kept by reference when it is most of the buffer it lies in. Otherwise a few bytes would
# keep a whole turn's arena, shared by all partitions, alive.
SHARE_OF_OWNER = 4


def _owned(data: memoryview) -> memoryview | bytes:
    held = memoryview(data.obj).nbytes
    return data if held <= SHARE_OF_OWNER * len(data) else bytes(data)


class Tail:
    """A suffix of the log, at most `bytes_max` bytes of runs (the newest run always fits)."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bases: deque[int] = deque()
        self._runs: deque[Buffer] = deque()
        self._bytes = 0

    @property
    def start_offset(self) -> int | None:
        """Offset of the first record held, None when nothing is."""
        return self._bases[0] if self._bases else None

    def add(self, data: memoryview, base_offset: int) -> None:
        """Hold a run that was just written, and let the oldest go."""
        self._bases.append(base_offset)
        self._runs.append(_owned(data))
        self._bytes += len(data)
        while self._bytes > self._bytes_max and len(self._runs) > 1:
            self._bytes -= len(self._runs.popleft())
            self._bases.popleft()

    def clear(self) -> None:
        """Hold nothing: the log was cut or moved."""
        self._bases.clear()
        self._runs.clear()
        self._bytes = 0

    def read(self, offset: int, max_bytes: int, limit_offset: int) -> Buffer:
        """Whole batches from the one that holds `offset`, over as many runs as fit."""
        index = bisect_right(self._bases, offset) - 1
        run = self._runs[index]
        start = batch_at(run, 0, len(run), offset)
        parts: list[Buffer] = []
        while True:
            end = take_batches(run, start, max_bytes, limit_offset, at_least_one=not parts)
            if end > start:
                parts.append(memoryview(run)[start:end])
                max_bytes -= end - start
            index += 1
            if end < len(run) or index == len(self._runs):
                break
            run, start = self._runs[index], 0
        return parts[0] if len(parts) == 1 else b"".join(parts)
