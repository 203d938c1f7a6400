"""What processes tell each other beside the store, in a small file without locks or syncs.

Owns: the time until which each lease was last kept alive, and the last revision that anybody
announced, so that looking for news takes no lock either. A pulse is one write of 32 bytes into the
page cache: a broker proves that it lives without a transaction, so that neither a stopped process
that holds the database nor a slow disk ends anybody's lease. Nothing here survives a boot, and
nothing has to: a lease does not either.

Layout: slot 0 holds the announced revision; slot 1 + (lease modulo LEASE_SLOTS) holds the lease,
its end in ms of this boot, its time to live in ms, and 0. A slot is four int64.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

from cluster.control.store import StoreError
from cluster.limits import LEASE_SLOTS

_SLOT = struct.Struct("=qqqq")


class Pulses:
    """The file of pulses beside the store at `path`. Raises StoreError if it cannot be opened."""

    def __init__(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        file = path.with_name(path.name + "-leases")
        try:
            self._fd = os.open(file, flags, 0o644)
        except OSError as error:
            raise StoreError(f"{file}: {error.strerror}") from error

    def begin(self, lease: int, now_ms: int, ttl_ms: int) -> None:
        """A lease was granted: it lasts `ttl_ms` from every pulse."""
        self._write(lease, now_ms + ttl_ms, ttl_ms)

    def beat(self, lease: int, now_ms: int) -> bool:
        """Start the lease's time again. False if its time was up."""
        until_ms, ttl_ms = self._read(lease)
        if until_ms <= now_ms:
            return False
        self._write(lease, now_ms + ttl_ms, ttl_ms)
        return True

    def end(self, lease: int) -> None:
        """The lease has ended, and no pulse brings it back."""
        self._write(lease, 0, 0)

    def until(self, lease: int) -> int:
        """How long the lease lasts, 0 if nothing is known of it."""
        return self._read(lease)[0]

    def announce(self, revision: int) -> None:
        """The store moved to this revision. Two that race may leave the lower one: it is news.

        On a disk that takes nothing the others find out at their next sure look.
        """
        with suppress(OSError):
            os.pwrite(self._fd, _SLOT.pack(revision, 0, 0, 0), 0)

    def announced(self) -> int:
        """The revision announced last, 0 if none was."""
        data = os.pread(self._fd, _SLOT.size, 0)
        return int(_SLOT.unpack(data)[0]) if len(data) == _SLOT.size else 0

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)

    def _write(self, lease: int, until_ms: int, ttl_ms: int) -> None:
        try:
            os.pwrite(self._fd, _SLOT.pack(lease, until_ms, ttl_ms, 0), self._place(lease))
        except OSError as error:
            raise StoreError(f"a lease was not written: {error.strerror}") from error

    def _read(self, lease: int) -> tuple[int, int]:
        data = os.pread(self._fd, _SLOT.size, self._place(lease))
        if len(data) < _SLOT.size:
            return 0, 0
        owner, until_ms, ttl_ms, _ = _SLOT.unpack(data)
        return (int(until_ms), int(ttl_ms)) if owner == lease else (0, 0)

    def _place(self, lease: int) -> int:
        return (1 + lease % LEASE_SLOTS) * _SLOT.size
