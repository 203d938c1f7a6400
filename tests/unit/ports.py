"""Ports that a closed ZeroMQ socket gives back when its thread comes to it, and not before."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

WITHIN_S = 10


async def freed(endpoint: str) -> None:
    """Wait until "host:port" can be bound again: libzmq closes a listener behind the caller."""
    host, _, port = endpoint.rpartition(":")
    async with asyncio.timeout(WITHIN_S):
        while not _can_bind(host, int(port)):  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.001)


def _can_bind(host: str, port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return True
    return False
