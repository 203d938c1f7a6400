"""Buffers that reads fill, used again once nobody looks at them.

Owns the buffers it keeps. One is free when the pool alone refers to it: whoever holds a view, a
socket with an answer half sent say, keeps it. So a reader that is slow holds what it was given, and
nobody has to say when it is done.

Large ones are pages of their own: the system copies up to twice as fast to where a page begins as
to where the allocator would put it (measured), and gets the memory back when the pool shrinks.
"""

from __future__ import annotations

import sys
from mmap import mmap

from cluster.limits import READ_POOL_BYTES

SMALL = 32 * 1024  # bytes up to which the allocator is as fast as looking for a free buffer
CLASS = 64 * 1024  # buffers are multiples of this, so that reads of about the same size share them
UNUSED = 3  # references to a buffer that the list, the loop over it and the question itself hold


class Buffers:
    """A pool of at most `bytes_max` bytes; beyond that, buffers are made and forgotten."""

    def __init__(self, bytes_max: int = READ_POOL_BYTES) -> None:
        self.held = 0
        self._bytes_max = bytes_max
        self._buffers: list[mmap] = []

    def take(self, length: int) -> memoryview:
        """A view of `length` bytes that nobody else has; what is in them is of no meaning."""
        if length <= SMALL:
            return memoryview(bytearray(length))
        size = -(-length // CLASS) * CLASS
        found = self._find(size)
        if found is not None:
            return memoryview(found)[:length]
        made = mmap(-1, size)
        if size + self.held > self._bytes_max:
            self._drop_unused(size)
        if size + self.held <= self._bytes_max:
            self._buffers.append(made)
            self.held += size
        return memoryview(made)[:length]

    def _find(self, size: int) -> mmap | None:
        """A buffer of about this size that nobody looks at."""
        for buffer in self._buffers:
            if size <= len(buffer) <= 2 * size and sys.getrefcount(buffer) == UNUSED:
                return buffer
        return None

    def _drop_unused(self, size: int) -> None:
        """Make room for a size that is asked for now."""
        kept: list[mmap] = []
        for buffer in self._buffers:
            if sys.getrefcount(buffer) == UNUSED and self.held + size > self._bytes_max:
                self.held -= len(buffer)
            else:
                kept.append(buffer)
        self._buffers = kept
