"""A file whose handle stays open while anybody outside this thread may still use it.

Owns: one handle. A sync worker holds the bare number, so closing it early would let the system give
the number to another file and have the wrong one synced.

Invariant: a pinned file is open; a retired one closes with its last pin.
"""

from __future__ import annotations

from itertools import islice

from cluster.storage.disk import Disk

CLOSED = -1
TRIED = 8  # files used longest ago that are tried to be closed: some may be in use


class OpenFiles:
    """How many files the logs of one broker keep open: whoever was used longest ago is closed.

    Files in use beyond this are more than the bound until they are let go.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: dict[PinnedFile, None] = {}  # used longest ago first

    def __len__(self) -> int:
        """How many are open."""
        return len(self._files)

    def used(self, file: PinnedFile) -> None:
        """This one is open and in use."""
        self._files.pop(file, None)
        self._files[file] = None
        if len(self._files) > self._most:
            for oldest in list(islice(self._files, TRIED)):
                if oldest is not file and oldest.release() and len(self._files) <= self._most:
                    break

    def closed(self, file: PinnedFile) -> None:
        """This one is not open any more."""
        self._files.pop(file, None)


class PinnedFile:
    """A file opened at first use and closed when nobody needs it."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.path = path
        self._disk = disk
        self._handle = CLOSED
        self._pins = 0
        self._retired = False
        self.files: OpenFiles | None = None

    def share(self, files: OpenFiles) -> None:
        """Be one of these from now on."""
        self.files = files
        if self.is_open:
            files.used(self)

    @property
    def is_open(self) -> bool:
        """Whether a handle is held."""
        return self._handle != CLOSED

    def open(self, *, create: bool = False) -> int:
        """The handle."""
        if self._handle == CLOSED:
            self._handle = self._disk.open(self.path, create=create)
        if self.files is not None:
            self.files.used(self)
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
            if self.files is not None:
                self.files.closed(self)
            self._disk.close(handle)
        return self._handle == CLOSED

    def retire(self) -> None:
        """Close now or with the last pin: nothing will be read or written any more."""
        self._retired = True
        self.release()
