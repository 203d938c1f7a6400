"""The disk as storage sees it: a dozen synchronous calls on paths below one data directory.

Owns: the `Disk` protocol, the error that every call raises, and two helpers over it. The broker's
disk stands in `cluster.broker.disk`; the simulator's loses what was not synced.

Invariants every Disk keeps: paths are relative to the data directory and '/'-separated; `write`
stores all bytes or raises; nothing survives a crash for certain before `sync` (bytes of a file) or
`sync_directory` (names in a directory) returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview

EIO = 5  # the error number reported for damage that the disk itself did not notice
PARSE = "parse"  # the operation of an error that says that stored bytes make no sense


class DiskError(Exception):
    """A call to the disk failed; `errno` is the system's number, as in OSError."""

    def __init__(self, errno: int, path: str, operation: str) -> None:
        super().__init__(f"{operation} {path}: error {errno}")
        self.errno = errno
        self.path = path
        self.operation = operation


class Disk(Protocol):
    """Files below one data directory; every call raises `DiskError`."""

    def open(self, path: str, *, create: bool = False) -> int:
        """A handle for reading and writing; with `create` the file may be new."""

    def open_directory(self, path: str) -> int:
        """A handle of a directory, to be given to a sync worker; "" is the data directory."""

    def close(self, handle: int) -> None:
        """Give the handle back; it must not be waiting in a sync worker."""

    def size(self, handle: int) -> int:
        """Bytes in the file."""

    def write(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        """Store all bytes of all buffers from `position` on, or raise with some of them stored."""

    def read(self, handle: int, position: int, length: int) -> bytes:
        """Up to `length` bytes from `position`; fewer only at the end of the file."""

    def read_cached(self, handle: int, position: int, length: int) -> Buffer:
        """What `read` would answer as far as no device is waited for: a prefix of it, or nothing.

        The buffer is the caller's as long as it is referenced.
        """

    def truncate(self, handle: int, length: int) -> None:
        """Cut the file to `length` bytes."""

    def sync(self, handle: int) -> None:
        """Block until the file's bytes are durable: for cold paths, turns use sync workers."""

    def exists(self, path: str) -> bool:
        """Whether a file or directory of this name is there."""

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted; "" is the data directory itself."""

    def make_directory(self, path: str) -> None:
        """Create one directory."""

    def remove_directory(self, path: str) -> None:
        """Remove a directory with the files in it."""

    def rename(self, old: str, new: str) -> None:
        """Give a file or directory another name, atomically, replacing a file of that name."""

    def unlink(self, path: str) -> None:
        """Remove a file's name."""

    def sync_directory(self, path: str) -> None:
        """Block until the names in a directory are durable; "" is the data directory itself."""


def parent(path: str) -> str:
    """The directory a path lies in; "" for the data directory."""
    return path.rpartition("/")[0]


def read_file(disk: Disk, path: str) -> bytes | None:
    """All bytes of a small file, None if there is no such file."""
    if not disk.exists(path):
        return None
    handle = disk.open(path)
    try:
        return disk.read(handle, 0, disk.size(handle))
    finally:
        disk.close(handle)


def read_end(disk: Disk, path: str, length: int) -> bytes:
    """The last bytes of a file, fewer if it is shorter."""
    handle = disk.open(path)
    try:
        size = disk.size(handle)
        return disk.read(handle, max(size - length, 0), length)
    finally:
        disk.close(handle)


def write_file(disk: Disk, path: str, data: bytes, *, sync: bool) -> None:
    """Fill a file anew in place; only for content that proves itself whole when read."""
    handle = disk.open(path, create=True)
    try:
        disk.truncate(handle, 0)
        disk.write(handle, 0, [data])
        if sync:
            disk.sync(handle)
    finally:
        disk.close(handle)


def replace_file(disk: Disk, path: str, data: bytes) -> None:
    """Replace a file's content so that a crash leaves the old or the new one, durable on return."""
    temporary = path + ".tmp"
    write_file(disk, temporary, data, sync=True)
    disk.rename(temporary, path)
    disk.sync_directory(parent(path))
