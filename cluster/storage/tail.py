"""The newest bytes of a log in memory, where they can be handed out without a copy.

Owns: a contiguous suffix of the log, bounded in bytes held alive per log, and over all logs of a
broker by the budget that they share. Readers at the end of the log are served from here without
touching the disk. A large run is kept by reference to the buffer it arrived in; small ones are
gathered in chunks, so that an answer is a few buffers and not one for each batch.

Invariant: pieces follow one another without a gap and the last ends at the log's next offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from _fastseq.batch import batch_at
from cluster.limits import READ_MEMORY_BYTES, TAIL_CHUNK_BYTES
from cluster.storage.budget import Budget
from cluster.storage.reading import take_batches

# A run is kept by reference when it is most of the buffer it lies in. Otherwise a few bytes would
# keep a whole turn's arena, shared by all partitions, alive.
SHARE_OF_OWNER = 4


class _Piece:
    """Bytes of the log from `base_offset` on; `room` is what may still be added to them."""

    __slots__ = ("base_offset", "buffer", "used")

    def __init__(self, base_offset: int, buffer: memoryview, used: int) -> None:
        self.base_offset = base_offset
        self.buffer = buffer
        self.used = used


def _base_offset(piece: _Piece) -> int:
    return piece.base_offset


_NOTHING: deque[_Piece] = deque()  # of every tail that holds nothing; an idle log has no more


class Tail:
    """A suffix of the log, at most `bytes_max` bytes (the newest piece always fits)."""

    def __init__(self, bytes_max: int, budget: Budget | None = None) -> None:
        self._bytes_max = bytes_max
        self._budget = Budget(READ_MEMORY_BYTES) if budget is None else budget
        self._pieces = _NOTHING
        self._bytes = 0

    @property
    def start_offset(self) -> int | None:
        """Offset of the first record held, None when nothing is."""
        return self._pieces[0].base_offset if self._pieces else None

    def add(self, data: memoryview, base_offset: int) -> None:
        """Hold a run that was just written, and let the oldest go."""
        if self._pieces is _NOTHING:
            self._pieces = deque()
        pieces, size = self._pieces, len(data)
        last = pieces[-1] if pieces else None
        if last is not None and last.used + size <= len(last.buffer):
            last.buffer[last.used : last.used + size] = data
            last.used += size
        else:
            piece = _piece(data, base_offset, 0 if last is None else len(last.buffer))
            pieces.append(piece)
            self._bytes += len(piece.buffer)
            while self._bytes > self._bytes_max and len(pieces) > 1:
                self._bytes -= len(pieces.popleft().buffer)
        self._budget.use(self, self._bytes)

    def clear(self) -> None:
        """Hold nothing: the log was cut or moved, or goes on without it."""
        if self._pieces:
            self._budget.forget(self)
            self.let_go()

    def let_go(self) -> None:
        """Other logs need the memory more."""
        self._pieces = _NOTHING
        self._bytes = 0

    def read(self, offset: int, max_bytes: int, limit_offset: int) -> Sequence[memoryview]:
        """Whole batches from the one that holds `offset`, over as many pieces as fit."""
        self._budget.use(self, self._bytes)
        index = bisect_right(self._pieces, offset, key=_base_offset) - 1
        piece = self._pieces[index]
        start = batch_at(piece.buffer, 0, piece.used, offset)
        parts: list[memoryview] = []
        while True:
            data = piece.buffer[: piece.used]
            end, _ = take_batches(data, start, max_bytes, limit_offset, at_least_one=not parts)
            if end > start:
                parts.append(data[start:end].toreadonly())
                max_bytes -= end - start
            index += 1
            if end < piece.used or index == len(self._pieces):
                return parts
            piece, start = self._pieces[index], 0


def _piece(data: memoryview, base_offset: int, before: int) -> _Piece:
    """A large run as it is; room for more behind a small one, the more the more there was."""
    size = len(data)
    if 2 * size >= TAIL_CHUNK_BYTES and memoryview(data.obj).nbytes <= SHARE_OF_OWNER * size:
        return _Piece(base_offset, data, size)
    room = max(size, min(TAIL_CHUNK_BYTES, 2 * before))
    chunk = memoryview(bytearray(room))
    chunk[:size] = data
    return _Piece(base_offset, chunk, size)
