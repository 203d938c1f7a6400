"""The data directory of a broker: the real `Disk`, and who may use the directory.

Owns: one directory, its lock, and the translation of system errors into DiskError. Handles are file
descriptors, so that sync workers can take them as they are.

Invariants: one process at a time (flock on `.lock`, which the system gives up when it dies); only
of the cluster and node named in `meta.properties`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from errno import EIO, EOPNOTSUPP
from pathlib import Path

from cluster.broker.buffers import Buffers
from cluster.storage.disk import Buffer, DiskError

LOCK = ".lock"
IOV_MAX = os.sysconf("SC_IOV_MAX")  # buffers one call takes


class DirectoryRefused(Exception):
    """The data directory is in use; the text says what to do."""


class FileDisk:
    """Files below `root`, which must exist; only to be read with `read_only`."""

    def __init__(self, root: str | os.PathLike[str], *, read_only: bool = False) -> None:
        self._mode = os.O_RDONLY if read_only else os.O_RDWR
        self.root = Path(root)
        self.buffers = Buffers()
        self._paths: dict[int, str] = {}
        self._caches = True

    def open(self, path: str, *, create: bool = False) -> int:
        """A file descriptor for reading and writing."""
        flags = self._mode | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        with _translated(path, "open"):
            handle = os.open(self.root / path, flags, 0o644)
        self._paths[handle] = path
        return handle

    def open_directory(self, path: str) -> int:
        """A descriptor that fdatasync makes the names in the directory durable by."""
        with _translated(path, "open"):
            handle = os.open(self.root / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._paths[handle] = path
        return handle

    def close(self, handle: int) -> None:
        """Close the descriptor."""
        with _translated(self._paths.pop(handle), "close"):
            os.close(handle)

    def size(self, handle: int) -> int:
        """Bytes in the file."""
        with _translated(self._paths[handle], "stat"):
            return os.fstat(handle).st_size

    def write(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        """Store all bytes, over as many short writes as it takes (KAFKA-17181)."""
        try:
            written = os.pwritev(handle, buffers[:IOV_MAX], position)
            if written < sum(map(len, buffers)):
                _write_rest(handle, position, buffers, written)
        except OSError as error:
            raise DiskError(error.errno or EIO, self._paths[handle], "write") from error

    def read(self, handle: int, position: int, length: int) -> bytes:
        """Up to `length` bytes; fewer only at the end of the file."""
        with _translated(self._paths[handle], "read"):
            data = os.pread(handle, length, position)
            if len(data) == length or not data:
                return data
            parts = [data]
            while data and (length := length - len(data)) > 0:
                position += len(data)
                data = os.pread(handle, length, position)
                parts.append(data)
            return b"".join(parts)

    def read_cached(self, handle: int, position: int, length: int) -> memoryview:
        """What the page cache has of the range, up to the first page that it has not."""
        if not self._caches or length == 0:
            return memoryview(b"")
        buffer = self.buffers.take(length)
        try:
            count = os.preadv(handle, [buffer], position, os.RWF_NOWAIT)
        except BlockingIOError:
            count = 0
        except OSError as error:
            if error.errno != EOPNOTSUPP:
                raise DiskError(error.errno or EIO, self._paths[handle], "read") from error
            self._caches, count = False, 0  # the file system cannot tell: ask the read workers
        return buffer[:count]

    def truncate(self, handle: int, length: int) -> None:
        """Cut the file."""
        with _translated(self._paths[handle], "truncate"):
            os.ftruncate(handle, length)

    def sync(self, handle: int) -> None:
        """Block in fdatasync."""
        with _translated(self._paths[handle], "sync"):
            os.fdatasync(handle)

    def exists(self, path: str) -> bool:
        """Whether the name is there."""
        with _translated(path, "stat"):
            return (self.root / path).exists()

    def list(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        with _translated(path, "list"):
            return sorted(entry.name for entry in (self.root / path).iterdir())

    def make_directory(self, path: str) -> None:
        """Create one directory."""
        with _translated(path, "create"):
            (self.root / path).mkdir()

    def remove_directory(self, path: str) -> None:
        """Remove a directory with what is in it."""
        with _translated(path, "remove"):
            shutil.rmtree(self.root / path)

    def rename(self, old: str, new: str) -> None:
        """Rename atomically, over a file of that name."""
        with _translated(old, "rename"):
            (self.root / old).replace(self.root / new)

    def unlink(self, path: str) -> None:
        """Remove a file."""
        with _translated(path, "remove"):
            (self.root / path).unlink()

    def sync_directory(self, path: str) -> None:
        """Block until the directory's names are durable."""
        with _translated(path, "sync"):
            handle = os.open(self.root / path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _write_rest(handle: int, position: int, buffers: Sequence[Buffer], written: int) -> None:
    rest = [memoryview(buffer) for buffer in buffers if len(buffer)]
    while rest := _after(rest, written):
        if written == 0:
            raise OSError(EIO, "nothing was written")
        position += written
        written = os.pwritev(handle, rest[:IOV_MAX], position)


def _after(buffers: list[memoryview], written: int) -> list[memoryview]:
    """What is left of the buffers after `written` bytes of them."""
    for index, buffer in enumerate(buffers):
        if written < len(buffer):
            return [buffer[written:], *buffers[index + 1 :]]
        written -= len(buffer)
    return []


@contextmanager
def _translated(path: str, operation: str) -> Iterator[None]:
    # PEP 475: the os functions repeat calls interrupted by a signal themselves.
    try:
        yield
    except OSError as error:
        raise DiskError(error.errno or EIO, path, operation) from error


def in_use(root: str | os.PathLike[str]) -> bool:
    """Whether a process holds this data directory at this moment."""
    try:
        handle = os.open(Path(root) / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class DataDirectory:
    """A data directory held by this process, and its disk.

    Raises DirectoryRefused if another process holds it.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        path = Path(root)
        path.mkdir(parents=True, exist_ok=True)
        self.disk = FileDisk(path)
        self._lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            _take_lock(self._lock, path)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another process have it."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> DataDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _take_lock(handle: int, root: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DirectoryRefused(
            f"{root} is in use by another process; stop it or choose another directory"
        ) from None
