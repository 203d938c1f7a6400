"""A network between clients and brokers that loses answers: what is asked arrives, unanswered."""

from __future__ import annotations

import asyncio
from contextlib import suppress

CHUNK = 65_536


class Proxy:
    """Listens on a free port and passes everything on to `target`, until it is made deaf."""

    def __init__(self) -> None:
        self.target = ("", 0)
        self.deaf = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Where clients connect to."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def hang_up(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def stop(self) -> None:
        """No more connections."""
        assert self._server is not None, "not started"
        self._server.close()
        await self.hang_up()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, ours}
        with suppress(OSError):
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, ours, asking=True))
                group.create_task(self._pass(theirs, writer, asking=False))
        self._writers -= {writer, ours}

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, asking: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                if asking or not self.deaf:
                    writer.write(data)
                    await writer.drain()
        writer.transport.abort()
