"""ZeroMQ endpoints: raw sockets whose file descriptors sit in the event loop.

Owns: the ROUTER a broker listens on and the DEALERs that brokers and clients connect with. Each
loop turn everything readable is received without blocking, up to a bound, and handed over in one
call. There is no coroutine, future or callback per message: that is what zmq.asyncio costs.

Invariants:
- libzmq's descriptor signals edges, and any call on the socket may consume one. Whoever receives
  to a bound, or sends, therefore schedules another look at the socket.
- A DEALER queues nothing while it is not connected (IMMEDIATE), so nothing old is replayed after
  a reconnect, and `send` says whether the message left.
- A ROUTER never blocks on a peer: it drops to vanished ones and says so.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import zmq
from zmq.backend import Socket

from cluster.limits import (
    ENDPOINT_BYTES_PER_TURN,
    ENDPOINT_MESSAGES_PER_TURN,
    FRAME_BYTES_MAX,
    GATHERED_BYTES,
    GATHERED_FRAMES_MAX,
    HANDSHAKE_MS,
    ROUTER_QUEUE_MESSAGES,
)

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from typing_extensions import Buffer

Frames = list[memoryview]
RoutedMessage = tuple[bytes, Frames]

# The methods of the Cython class, not of its Python subclass: half the cost per message.
_send = Socket.send
_recv = Socket.recv
_NOBLOCK = int(zmq.NOBLOCK)
_SEND_MORE = int(zmq.NOBLOCK | zmq.SNDMORE)
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)
# A frame offers its bytes as a buffer, which pyzmq's stubs do not say. `Frame.buffer` would keep
# a reference cycle, so that no message is freed before the garbage collector runs.
_view: Callable[[Any], memoryview] = memoryview

_CONNECTED = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_DISCONNECTED = int(zmq.EVENT_DISCONNECTED)
_WATCHED = _CONNECTED | _DISCONNECTED


def gathered(frames: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Frames that may stand alone, as few messages in the same order.

    A message costs both ends a wake-up of libzmq's thread and a look at the socket, whatever is
    in it. It arrives as a whole, so a large frame travels alone.
    """
    message: list[bytes] = []
    size = 0
    for frame in frames:
        full = size + len(frame) > GATHERED_BYTES or len(message) == GATHERED_FRAMES_MAX
        if message and full:
            yield message
            message, size = [], 0
        message.append(frame)
        size += len(frame)
    if message:
        yield message


class _Pump:
    """Keeps one socket's descriptor in the loop and calls `turn` at most once per loop turn."""

    def __init__(self, loop: AbstractEventLoop, socket: Socket, turn: Callable[[], None]) -> None:
        self._loop = loop
        self._turn = turn
        self._scheduled = False
        self._closed = False
        self._fd = _number(socket, zmq.FD)
        loop.add_reader(self._fd, self._readable)

    def again(self) -> None:
        """Look at the socket in the next loop turn, whatever its descriptor says."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def close(self) -> None:
        self._closed = True
        self._loop.remove_reader(self._fd)

    def _readable(self) -> None:
        if not self._scheduled:
            self._run()

    def _run(self) -> None:
        self._scheduled = False
        if not self._closed:
            self._turn()


class RouterEndpoint:
    """A ROUTER socket bound to `address` ("host:port", port 0 takes a free one).

    `on_turn` gets all messages of a loop turn at once, each as (identity of the peer, frames).
    A message larger than `max_message_bytes` closes its peer's connection.

    Raises OSError when the address cannot be bound.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        address: str,
        *,
        on_turn: Callable[[list[RoutedMessage]], None],
        max_message_bytes: int = FRAME_BYTES_MAX,
        limit_per_turn: int = ENDPOINT_MESSAGES_PER_TURN,
        queue_messages: int = ROUTER_QUEUE_MESSAGES,
        heartbeat_ivl_ms: int = 1000,
        heartbeat_timeout_ms: int = 5000,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        self._on_turn = on_turn
        self._limit = limit_per_turn
        self.unreachable = 0
        """Messages dropped because their peer had gone, or did not read."""
        socket = self._socket = Socket(context or zmq.Context.instance(), zmq.ROUTER)
        _configure(socket, max_message_bytes, heartbeat_ivl_ms, heartbeat_timeout_ms)
        socket.set(zmq.ROUTER_MANDATORY, 1)
        # A client that does not read must not fill the memory; what is dropped, `send` says.
        socket.set(zmq.SNDHWM, queue_messages)
        # A peer that comes back before its old connection is seen to be dead takes its place.
        socket.set(zmq.ROUTER_HANDOVER, 1)
        try:
            socket.bind(_url(address))
        except zmq.ZMQError as error:
            socket.close(0)
            raise OSError(error.errno, f"cannot listen on {address}: {error.strerror}") from error
        bound = socket.get(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self.endpoint = bound.rstrip(b"\0").decode().removeprefix("tcp://")
        """Where the socket listens: "host:port", with the port that was taken."""
        self._pump = _Pump(loop, socket, self._turn)

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self.endpoint.rpartition(":")[2])

    def send(self, identity: bytes, frames: Sequence[Buffer]) -> bool:
        """Queues one message; False when the peer is gone, or does not read while its queue is
        full, and the message was dropped.
        """
        socket = self._socket
        try:
            _send(socket, identity, _SEND_MORE, True, False)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            self.unreachable += 1
            return False
        for frame in frames[:-1]:
            _send(socket, frame, _SEND_MORE, True, False)
        _send(socket, frames[-1], _NOBLOCK, True, False)
        self._pump.again()
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Takes the socket out of the loop; what is queued has `linger_ms` to leave until the
        context ends. May be called twice.
        """
        if not self._socket.closed:
            self._pump.close()
            self._socket.close(linger_ms)

    def _turn(self) -> None:
        socket = self._socket
        messages: list[RoutedMessage] = []
        budget, room = ENDPOINT_BYTES_PER_TURN, self._limit
        more = _number(socket, _EVENTS) & _POLLIN != 0
        while more and room > 0 and budget > 0:
            try:
                identity = _recv(socket, _NOBLOCK)
            except zmq.Again:
                more = False
                break
            frames = _receive_frames(socket)
            room -= len(frames)
            for frame in frames:
                budget -= frame.nbytes
            messages.append((identity, frames))
        if more:
            self._pump.again()
        if messages:
            self._on_turn(messages)


class DealerEndpoint:
    """A DEALER socket that connects to `address` and reconnects until closed.

    `on_turn` gets all messages of a loop turn at once, each a list of frames; None is for a peer
    that sends nothing back, and saves a look at the socket after every send. `on_connected` is
    called once the peer has completed the handshake, `on_disconnected` when that connection ended:
    closed, or silent for `heartbeat_timeout_ms` (libzmq's own thread answers heartbeats, so a busy
    peer is not taken for a dead one, and a stopped process is). Messages in transit are then lost.
    """

    def __init__(
        self,
        loop: AbstractEventLoop,
        address: str,
        *,
        on_turn: Callable[[list[Frames]], None] | None,
        on_connected: Callable[[], None] | None = None,
        on_disconnected: Callable[[], None] | None = None,
        identity: bytes | None = None,
        heartbeat_ivl_ms: int = 100,
        heartbeat_timeout_ms: int = 300,
        max_message_bytes: int = FRAME_BYTES_MAX,
        limit_per_turn: int = ENDPOINT_MESSAGES_PER_TURN,
        context: zmq.Context[Any] | None = None,
    ) -> None:
        self._on_turn = on_turn
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._limit = limit_per_turn
        self.connected = False
        """The peer completed the handshake and its connection was not seen to end."""
        context = context or zmq.Context.instance()
        socket = self._socket = Socket(context, zmq.DEALER)
        _configure(socket, max_message_bytes, heartbeat_ivl_ms, heartbeat_timeout_ms)
        if identity is not None:
            socket.set(zmq.ROUTING_ID, identity)
        socket.set(zmq.IMMEDIATE, 1)
        socket.set(zmq.RECONNECT_IVL, 20)
        socket.set(zmq.RECONNECT_IVL_MAX, 100)
        socket.set(zmq.CONNECT_TIMEOUT, HANDSHAKE_MS)
        # A stopped process still accepts: the kernel does. It must not hold the first message.
        socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
        monitor = self._monitor = Socket(context, zmq.PAIR)
        monitor.set(zmq.LINGER, 0)
        channel = f"inproc://monitor-{_number(socket, zmq.FD)}"
        socket.monitor(channel, _WATCHED)
        monitor.connect(channel)
        self._watch = _Pump(loop, monitor, self._watch_turn)
        self._pump = _Pump(loop, socket, self._turn)
        socket.connect(_url(address))
        self._watch.again()

    def send(self, frames: Sequence[Buffer]) -> bool:
        """Queues one message; False, with nothing queued, when there is no connection."""
        if not self.connected:
            return False  # told of its end, the socket may still take a message, to lose it
        socket = self._socket
        try:
            for frame in frames[:-1]:
                _send(socket, frame, _SEND_MORE, True, False)
            _send(socket, frames[-1], _NOBLOCK, True, False)
        except zmq.Again:
            return False
        if self._on_turn is not None:
            self._pump.again()
        return True

    def close(self, linger_ms: int = 0) -> None:
        """Ends the connection without a call of `on_disconnected`; what is queued has `linger_ms`
        to leave until the context ends. May be called twice.
        """
        if not self._socket.closed:
            self.connected = False
            self._pump.close()
            self._watch.close()
            self._socket.monitor(None, 0)
            self._monitor.close(0)
            self._socket.close(linger_ms)

    def _turn(self) -> None:
        socket = self._socket
        messages: list[Frames] = []
        budget, room = ENDPOINT_BYTES_PER_TURN, self._limit
        more = _number(socket, _EVENTS) & _POLLIN != 0
        while more and room > 0 and budget > 0:
            try:
                frames = _receive_frames(socket)
            except zmq.Again:
                more = False
                break
            room -= len(frames)
            for frame in frames:
                budget -= frame.nbytes
            messages.append(frames)
        if more:
            self._pump.again()
        if messages and self._on_turn is not None:
            self._on_turn(messages)

    def _watch_turn(self) -> None:
        while not self._monitor.closed:  # a callback may close this endpoint
            try:
                event = _recv(self._monitor, _NOBLOCK)
                _recv(self._monitor, _NOBLOCK)  # the peer's address
            except zmq.Again:
                return
            (kind,) = struct.unpack_from("=H", event)
            if kind == _CONNECTED:
                self._came()
            elif kind == _DISCONNECTED:
                self._went()

    def _came(self) -> None:
        # Asking for the events makes libzmq attach the new pipe, which a send may put off.
        _number(self._socket, _EVENTS)
        self._pump.again()
        self._went()  # libzmq tells every end; still, a connection never follows another unended
        if self._socket.closed:
            return
        self.connected = True
        if self._on_connected is not None:
            self._on_connected()

    def _went(self) -> None:
        if self.connected:
            self.connected = False
            if self._on_disconnected is not None:
                self._on_disconnected()


def _receive_frames(socket: Socket) -> Frames:
    """The frames of one message without copying; raises zmq.Again when there is none."""
    frame = _recv(socket, _NOBLOCK, False)
    frames = [_view(frame)]
    while frame.more:
        frame = _recv(socket, _NOBLOCK, False)
        frames.append(_view(frame))
    return frames


def _configure(socket: Socket, max_message_bytes: int, ivl_ms: int, timeout_ms: int) -> None:
    socket.set(zmq.LINGER, 0)
    # Whoever sends bounds what it has unanswered; a full queue would drop without a word.
    socket.set(zmq.SNDHWM, 0)
    # With a bound here libzmq stops reading a peer whose messages wait. If that peer then hangs up,
    # its next heartbeat ends this process: out_event in stream_engine_base.cpp (4.3.5) asserts
    # that there was no error. Whoever sends under credit needs no such bound.
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.MAXMSGSIZE, max_message_bytes)
    socket.set(zmq.HEARTBEAT_IVL, ivl_ms)
    socket.set(zmq.HEARTBEAT_TIMEOUT, timeout_ms)


def _number(socket: Socket, option: int) -> int:
    value = socket.get(option)
    assert isinstance(value, int)
    return value


def _url(address: str) -> str:
    return address if "://" in address else f"tcp://{address}"
