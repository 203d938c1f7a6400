"""Lines from a file or a pipe, as they arrive, without blocking the event loop.

Owns: splitting bytes at newlines. The last line counts without one; nothing else is stripped.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from cluster.errors import OncelogError

READ_BYTES = 256 * 1024  # bytes of one read: some thousand records handed over at once
LINE_BYTES_MAX = 64 * 1024 * 1024  # bytes of an unfinished line kept: no batch can hold it anyway


class LineTooLong(OncelogError):
    """A line does not end within LINE_BYTES_MAX."""


async def lines_of(fd: int) -> AsyncIterator[list[bytes]]:
    """The lines of the open file `fd`, in lists as long as what one read returned."""
    waiting = _Readable(fd)
    rest = b""
    try:
        while chunk := await waiting.read():
            *whole, rest = (rest + chunk).split(b"\n")
            if len(rest) > LINE_BYTES_MAX:
                raise LineTooLong(f"a line is longer than {LINE_BYTES_MAX} bytes")
            if whole:
                yield whole
        if rest:
            yield [rest]
    finally:
        waiting.close()


class _Readable:
    """Waits for a pipe or a terminal in the loop; a regular file never needs waiting for."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._signal = asyncio.Event()
        try:
            self._loop.add_reader(fd, self._signal.set)
            self._polled = True
        except PermissionError:  # epoll(7): not for regular files
            self._polled = False

    async def read(self) -> bytes:
        if self._polled:
            self._signal.clear()
            await self._signal.wait()
        else:
            await asyncio.sleep(0)
        return os.read(self._fd, READ_BYTES)

    def close(self) -> None:
        if self._polled:
            self._loop.remove_reader(self._fd)
