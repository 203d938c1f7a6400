"""What it is that connects to the listener for Kafka's clients and does not speak their protocol.

Owns the guesses by the first bytes, so that a log line says what to look for: a client with TLS on,
a browser or a scraper with the wrong port, a ZeroMQ client. Any of them would be the length of a
frame that nobody sends.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_LENGTH = struct.Struct(">i")
_HTTP = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"CONN", b"PATC", b"TRAC", b"PRI ")
_ZMTP = b"\xff\0\0\0"
_SHORTEST = 8  # bytes of key, version and correlation id


class Looks(NamedTuple):
    """What was refused: `reason` for the counter, `said` for the log."""

    reason: str
    said: str


def looks_like(start: bytes) -> Looks:
    """Say what these first bytes of a refused frame, at least four, look like."""
    if start.startswith(b"\x16\x03"):
        return Looks("tls", "it looks like a TLS handshake; this listener speaks plain TCP")
    if start.startswith(_HTTP):
        return Looks("http", "it looks like an HTTP request; metrics have an address of their own")
    if start.startswith(_ZMTP):
        return Looks("zmq", "it looks like a ZeroMQ client; those have an address of their own")
    if start.startswith(b"SSH-"):
        return Looks("ssh", "it looks like an SSH client")
    (length,) = _LENGTH.unpack_from(start)
    if length < 0:
        return Looks("negative", f"a frame of negative length ({length})")
    if length < _SHORTEST:
        return Looks("short", f"a frame of {length} bytes is no request")
    return Looks("large", f"a frame of {length} bytes is more than is taken")
