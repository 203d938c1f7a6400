"""The listener for Kafka's clients: TCP connections on the broker's own loop.

Owns: the sockets, who is read from and who is not, and what is closed for taking too long. What is
in the bytes, requests in order and responses in order, is `_fastseq.frames`; requests of all
connections leave by `drain`, once a turn; `settle` ends the turn: it writes what was answered, one
write a connection, and goes on with whoever had used up its share.

Back-pressure is not reading. A connection is not read while requests of it wait: for their turn,
for answers to those before them, or for the client to read what it was sent.

Invariants: there is no timer per connection; one look a second, while anything is overdue at all,
closes clients that leave a frame unfinished or an answer unread. A connection ends for one reason,
which is counted.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from _fastseq.frames import (
    REFUSED,
    SHARE_USED,
    UNFINISHED,
    WAITS,
    Exchange,
)
from cluster import limits
from cluster.net.strangers import looks_like

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from typing_extensions import Buffer

log = logging.getLogger(__name__)

TCP = 2
"""First byte of the address of a request that came by this listener."""

_STOP_READING = SHARE_USED | WAITS
_WILDCARD = "*"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener takes; times in milliseconds."""

    connections: int = limits.KAFKA_CONNECTIONS_MAX
    frame_bytes: int = limits.FRAME_BYTES_MAX
    in_flight: int = limits.KAFKA_IN_FLIGHT_MAX
    in_flight_bytes: int = limits.KAFKA_IN_FLIGHT_BYTES
    requests_per_turn: int = limits.KAFKA_REQUESTS_PER_TURN
    bytes_per_turn: int = limits.KAFKA_BYTES_PER_TURN
    large_bytes: int = limits.KAFKA_LARGE_BYTES
    frame_ms: int = limits.KAFKA_FRAME_MS
    unread_ms: int = limits.KAFKA_UNREAD_MS
    look_ms: int = limits.KAFKA_LOOK_MS


class KafkaListener:
    """Listens on `address` ("host:port", port 0 takes a free one) once `serve` is called.

    `make(address, frame, False)` is the request that `drain` hands out; `wake()` is called when a
    turn is wanted: `drain` at its beginning, `settle` at its end.

    Raises OSError naming the address when it cannot be bound.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        address: str,
        *,
        make: Callable[[bytes, memoryview, bool], Any],
        wake: Callable[[], object],
        bounds: Bounds | None = None,
    ) -> None:
        self._loop = loop
        self.time = loop.time
        self.bounds = bounds or Bounds()
        self.exchange = Exchange(
            make, wake,
            slab_bytes=limits.KAFKA_SLAB_BYTES, frame_bytes_max=self.bounds.frame_bytes,
            in_flight_max=self.bounds.in_flight, in_flight_bytes_max=self.bounds.in_flight_bytes,
            share_requests=self.bounds.requests_per_turn, share_bytes=self.bounds.bytes_per_turn,
            large_bytes_max=self.bounds.large_bytes,
        )  # fmt: skip
        self._address = address
        bound = _bound(address)
        self._socket: socket.socket | None = bound
        host, port = address.rpartition(":")[0], bound.getsockname()[1]
        self.endpoint = f"{host}:{port}"
        """Where the socket listens: "host:port", with the port that was taken."""
        self._server: asyncio.Server | None = None
        self._open: set[_Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._used_up: list[_Connection] = []
        self._harmed: set[int] = set()
        """Numbers of the connections that a fault ends."""
        self._watched: set[_Connection] = set()
        self._look: asyncio.TimerHandle | None = None
        self._told = 0.0
        self._untold = 0
        self.accepted = 0
        self.closed: Counter[str] = Counter()
        """Connections that ended, by why."""

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self.endpoint.rpartition(":")[2])

    @property
    def connections(self) -> int:
        """Connections that are open."""
        return len(self._open)

    async def serve(self) -> None:
        """Accept connections from now on; OSError if another process has the port by now."""
        assert self._socket is not None, "serves once"
        try:
            self._socket.listen(limits.KAFKA_BACKLOG)
        except OSError as error:
            raise _cannot_listen(self._address, error) from error
        taken, self._socket = self._socket, None  # from here on the loop closes it
        self._server = await self._loop.create_server(
            lambda: _Connection(self), sock=taken, backlog=limits.KAFKA_BACKLOG
        )

    def discard(self) -> None:
        """Give up the address, where it does not serve yet."""
        if self._socket is not None:
            self._socket.close()

    async def close(self, linger_ms: int) -> None:
        """Accept nobody any more, and give what was answered `linger_ms` to leave."""
        if self._server is not None:
            self._server.close()
        self.discard()
        if self._look is not None:
            self._look.cancel()
        for connection in list(self._open):
            connection.end("stopped")
        with suppress(TimeoutError):
            async with asyncio.timeout(linger_ms / 1000):
                await self._empty.wait()
        for connection in list(self._open):
            connection.abort()

    # -- turns --------------------------------------------------------------------------------

    def drain(self) -> list[Any]:
        """The requests of a turn, of all connections in order of arrival."""
        return self.exchange.drain()

    def answer(self, address: bytes, frame: Buffer | Sequence[Buffer] | None) -> None:
        """The response to one request; None where none is wanted."""
        self.exchange.answer(address, frame)

    def hang_up(self, address: bytes, *, ordered: bool = False) -> None:
        """Close the connection of this request, once what was asked before is answered.

        `ordered` says that a fault takes the answer, which is counted apart from what is refused.
        """
        undeliverable = self.exchange.undeliverable
        self.exchange.hang_up(address)
        if ordered and self.exchange.undeliverable == undeliverable:
            self._harmed.add(int.from_bytes(address[1:9]))

    def settle(self) -> None:
        """The turn is over: write its answers, and go on with who waited for its end."""
        for connection in self.exchange.settled():
            connection.respond()
        if self._used_up:
            waiting, self._used_up = self._used_up, []
            for connection in waiting:
                connection.go_on()

    # -- connections --------------------------------------------------------------------------

    def opened(self, connection: _Connection) -> bool:
        """Whether a new connection may stay."""
        self.accepted += 1
        self._open.add(connection)
        self._empty.clear()
        return len(self._open) <= self.bounds.connections

    def why(self, number: int) -> str:
        """Why the connection of this number is closed in place of an answer."""
        return "fault" if number in self._harmed else "refused"

    def gone(self, connection: _Connection, number: int, reason: str) -> None:
        """A connection ended."""
        self._open.discard(connection)
        self._harmed.discard(number)
        self._watched.discard(connection)
        self.closed[reason] += 1
        if not self._open:
            self._empty.set()

    def use_up(self, connection: _Connection) -> None:
        """A connection has had its share of this turn."""
        self._used_up.append(connection)

    def watch(self, connection: _Connection) -> None:
        """Look at a connection from time to time: something about it is unfinished."""
        self._watched.add(connection)
        if self._look is None:
            self._look = self._loop.call_later(self.bounds.look_ms / 1000, self._look_round)

    def tell(self, peer: object, said: str) -> None:
        """Log that a client was closed; a line a second, so that a scan does not fill the disk."""
        now = self._loop.time()
        if now - self._told < 1.0:
            self._untold += 1
            return
        more = f" (and {self._untold} before it)" if self._untold else ""
        self._told, self._untold = now, 0
        log.warning("closed the Kafka client at %s: %s%s", _named(peer), said, more)

    def _look_round(self) -> None:
        self._look = None
        now = self._loop.time()
        self._watched = {one for one in self._watched if one.overdue(now)}
        if self._watched:
            self._look = self._loop.call_later(self.bounds.look_ms / 1000, self._look_round)


class _Connection(asyncio.BufferedProtocol):
    """One TCP connection: reads while it may, and is closed when it takes too long."""

    __slots__ = (
        "_ending_since", "_listener", "_paused", "_reason", "_requests", "_since", "_talk",
        "_transport", "_unread", "_unread_since", "_waits", "_watched",
    )  # fmt: skip

    def __init__(self, listener: KafkaListener) -> None:
        self._listener = listener
        self._talk = listener.exchange.open(self)
        self._transport: asyncio.Transport | None = None
        self._reason = ""
        self._paused = False
        self._waits = False
        self._watched = False
        self._requests = 0
        self._since = 0.0
        self._unread = 0
        self._unread_since = 0.0
        self._ending_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if not self._listener.opened(self):
            self._refuse("limit", "there are as many connections as this broker takes")

    def connection_lost(self, exc: Exception | None) -> None:
        self._talk.close()
        self._listener.gone(
            self, self._talk.number, self._reason or ("client" if exc is None else "lost")
        )
        self._transport = None

    # -- reading ------------------------------------------------------------------------------

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._talk.get_buffer(sizehint)

    def buffer_updated(self, nbytes: int) -> None:
        state = self._talk.buffer_updated(nbytes)
        if state:
            self._heed(state)

    def go_on(self) -> None:
        """Take what waited, and read again unless something still waits."""
        if self._reason or self._transport is None:
            return
        state = self._talk.go_on()
        self._waits = False
        if not state & (_STOP_READING | REFUSED) and self._paused:
            self._paused = False
            self._since = self._listener.time()
            self._transport.resume_reading()
        if state:
            self._heed(state)

    def _heed(self, state: int) -> None:
        assert self._transport is not None
        if state & REFUSED:
            self._refuse(*looks_like(self._talk.fault))
            return
        if state & _STOP_READING and not self._paused:
            self._paused = True
            self._transport.pause_reading()
        if state & SHARE_USED:
            self._listener.use_up(self)
        elif state & WAITS:
            self._waits = True
        if state & UNFINISHED:
            self._watch()

    # -- writing ------------------------------------------------------------------------------

    def respond(self) -> None:
        """Write what was answered."""
        transport = self._transport
        if transport is None:
            return
        pieces = self._talk.outgoing()
        if len(pieces) == 1:
            transport.write(pieces[0])
        elif pieces:
            transport.writelines(pieces)
        if self._talk.ended:
            self.end(self._listener.why(self._talk.number))
        elif self._waits:
            self.go_on()

    def pause_writing(self) -> None:
        assert self._transport is not None
        self._talk.blocked = True
        self._unread = self._transport.get_write_buffer_size()
        self._unread_since = self._listener.time()
        self._watch()
        if not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._talk.blocked = False
        self.go_on()

    # -- ending -------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """Close once what was answered has been written."""
        if self._reason or self._transport is None:
            return
        self._reason = reason
        self._ending_since = self._listener.time()
        self._transport.close()
        self._watch()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def overdue(self, now: float) -> bool:
        """Close what has taken too long; whether another look is needed."""
        if self._transport is None:
            return False
        if self._reason:
            if now - self._ending_since > self._listener.bounds.unread_ms / 1000:
                self.abort()
            return True
        if self._talk.blocked:
            return self._unread_too_long(self._transport.get_write_buffer_size(), now)
        if self._talk.expected and not self._paused:
            return self._unfinished_too_long(now)
        self._watched = False
        return False

    def _unread_too_long(self, unread: int, now: float) -> bool:
        if unread < self._unread:
            self._unread, self._unread_since = unread, now
        elif now - self._unread_since > self._listener.bounds.unread_ms / 1000:
            self._refuse("unread", f"it leaves {unread} bytes of answers unread")
        return True

    def _unfinished_too_long(self, now: float) -> bool:
        taken = self._talk.taken
        if taken != self._requests:
            self._requests, self._since = taken, now
        allowed_s = self._listener.bounds.frame_ms / 1000
        allowed_s += self._talk.expected / limits.KAFKA_BYTES_PER_S_MIN
        if now - self._since > allowed_s:
            self._refuse("slow", f"a frame was not complete after {allowed_s:.0f} s")
        return True

    def _refuse(self, reason: str, said: str) -> None:
        assert self._transport is not None
        self._listener.tell(self._transport.get_extra_info("peername"), said)
        self._reason = reason
        self._transport.abort()

    def _watch(self) -> None:
        if not self._watched:
            self._watched = True
            self._requests, self._since = self._talk.taken, self._listener.time()
            self._listener.watch(self)


def _bound(address: str) -> socket.socket:
    """A socket bound to "host:port", with the options that its connections inherit."""
    host, _, port = address.rpartition(":")
    host = "0.0.0.0" if host == _WILDCARD else host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(address, error) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The kernel finds out that a silent client's machine has gone.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, limits.KAFKA_KEEPALIVE_S)
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, limits.KAFKA_KEEPALIVE_S // 4)
        bound.setblocking(False)
        bound.bind(where)
    except OSError as error:
        bound.close()
        raise _cannot_listen(address, error) from error
    return bound


def _cannot_listen(address: str, error: OSError) -> OSError:
    text = f"cannot listen on {address} for Kafka clients: {error.strerror or error}"
    return OSError(error.errno, text)


def _named(peer: object) -> str:
    return f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "an unknown address"
