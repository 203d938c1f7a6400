"""A file whose handle stays open while anybody outside this thread may still use it.

Owns: one handle. A sync worker holds the bare number, so closing it early would let the system give
the number to another file and have the wrong one synced.

Invariant: a pinned file is open; a retired one closes with its last pin.
"""

from __future__ import annotations

from cluster.storage.disk import Disk

CLOSED = -1


class PinnedFile:
    """A file opened at first use and closed when nobody needs it."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.path = path
        self._disk = disk
        self._handle = CLOSED
        self._pins = 0
        self._retired = False

    @property
    def is_open(self) -> bool:
        """Whether a handle is held."""
        return self._handle != CLOSED

    def open(self, *, create: bool = False) -> int:
        """The handle."""
        if self._handle == CLOSED:
            self._handle = self._disk.open(self.path, create=create)
        return self._handle

    def pin(self) -> None:
        """Keep the handle open until the matching `unpin`."""
        self.open()
        self._pins += 1

    def unpin(self) -> None:
        """Take back one `pin`."""
        self._pins -= 1
        if self._retired:
            self.release()

    def release(self) -> bool:
        """Close the handle unless it is pinned. True if it is closed."""
        if self._handle != CLOSED and self._pins == 0:
            handle, self._handle = self._handle, CLOSED
            self._disk.close(handle)
        return self._handle == CLOSED

    def retire(self) -> None:
        """Close now or with the last pin: nothing will be read or written any more."""
        self._retired = True
        self.release()
