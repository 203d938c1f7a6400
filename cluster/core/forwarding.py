"""Requests that only the controller can decide: any broker takes them and passes them on.

Owns the requests of this broker's clients that are on their way to the controller, and the
passing back of its answers. Clients need not find the controller; where there is none for the
moment, the request waits for the next one.

Invariants: what may have reached a controller is never sent to another, since it may have been
carried out: it is answered with a time-out, outcome unknown; what waits is bounded in number, in
bytes and in time; a request is passed on once, never around, and served once, though a socket may
bring it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster import errors
from cluster.core.calls import Call, Handler
from cluster.core.controller import Controller
from cluster.core.image import Image
from cluster.core.outbox import Outbox
from cluster.limits import (
    FORWARD_BYTES_MAX,
    FORWARD_MS,
    FORWARD_PAUSE_MS,
    FORWARDED_BYTES_MAX,
    FORWARDS_MAX,
)
from cluster.wire import codec, stream
from cluster.wire.primitives import WireError
from cluster.wire.schema import Message

Decider = Controller | errors.Code
"""The controller's epoch on this broker, or why nobody decides."""
Serve = Callable[[Call, Decider], None]
"""Serves a call, and answers it, with an error for each item where nobody decides."""


@dataclass(slots=True)
class _Waiting:
    """One request until the controller has answered it."""

    call: Call
    serve: Serve
    deadline_ms: int
    sent_to: tuple[int, int] | None = None
    """Node and incarnation that were asked."""
    not_before_ms: int = 0
    """Who was asked is not the controller yet, or no more: the next is asked from then on."""


class Forwarding:
    """Requests on their way to the controller."""

    def __init__(
        self, image: Image, out: Outbox, controller: Callable[[], Controller | None]
    ) -> None:
        """`controller` gives this broker's controller epoch, None while another one has it."""
        self._image = image
        self._out = out
        self._controller = controller
        self._serving: dict[type[Message], Handler] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._served: dict[int, tuple[int, dict[int, None]]] = {}
        self._number = 0
        self._bytes = 0

    def __len__(self) -> int:
        """How many requests wait for the controller."""
        return len(self._waiting)

    def deciding(self, request: type[Message], serve: Serve) -> Handler:
        """A handler of this type that has `serve` called where the controller is."""

        def handler(call: Call) -> None:
            controller = self._controller()
            if controller is not None:
                serve(call, controller)
            elif call.forwarded:
                call.answer_frame(b"")  # whoever passed it on looks for the controller again
            else:
                self._begin(call, serve)

        self._serving[request] = handler
        return handler

    def _begin(self, call: Call, serve: Serve) -> None:
        size = len(call.frame)
        full = len(self._waiting) >= FORWARDS_MAX or self._bytes + size > FORWARDED_BYTES_MAX
        if full or size > FORWARD_BYTES_MAX:
            serve(call, errors.NOT_CONTROLLER if full else errors.MESSAGE_TOO_LARGE)
            return
        self._number += 1
        self._bytes += size
        self._waiting[self._number] = _Waiting(call, serve, call.now_ms + FORWARD_MS)

    # -- this broker's clients ----------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Send what was not sent, serve it here if this broker became the controller, or give up.

        Called at the end of a step, when it is known who is the controller.
        """
        if not self._waiting:
            return
        for number, waiting in list(self._waiting.items()):
            unsent = waiting.sent_to is None and now_ms >= waiting.not_before_ms
            if unsent and not self._send(number, waiting):
                continue
            lost = waiting.sent_to is not None and not self._connected(waiting.sent_to)
            if lost or now_ms >= waiting.deadline_ms:
                self._give_up(number, waiting)

    def _send(self, number: int, waiting: _Waiting) -> bool:
        """Pass it on if there is somebody; False when it was served here."""
        controller = self._controller()
        if controller is not None:
            self._forget(number)
            waiting.serve(waiting.call, controller)
            return False
        stored = self._image.controller
        if stored is None:
            return True
        target = (stored.value.node_id, stored.value.incarnation)
        if self._image.alive(target[0]) == target[1] and self._connected(target):
            waiting.sent_to = target
            call = waiting.call
            self._out.control(target[0], stream.Forward(number, bytes(call.frame), call.native))
        return True

    def _connected(self, target: tuple[int, int]) -> bool:
        link = self._out.links.get(target[0])
        return link is not None and link.connected and link.incarnation == target[1]

    def _give_up(self, number: int, waiting: _Waiting) -> None:
        self._forget(number)
        unsent = waiting.sent_to is None
        waiting.serve(waiting.call, errors.NOT_CONTROLLER if unsent else errors.REQUEST_TIMED_OUT)

    def _forget(self, number: int) -> None:
        self._bytes -= len(self._waiting.pop(number).call.frame)

    def answered(self, sender: int, message: stream.Forwarded, now_ms: int) -> None:
        """A controller's answer: the response, or nothing because it is none any more."""
        waiting = self._waiting.get(message.number)
        if waiting is None or waiting.sent_to is None or waiting.sent_to[0] != sender:
            return  # given up before
        if not message.frame:
            waiting.sent_to, waiting.not_before_ms = None, now_ms + FORWARD_PAUSE_MS
            return
        self._forget(message.number)
        waiting.call.answer_frame(message.frame)

    # -- other brokers' clients ---------------------------------------------------------------

    def take(self, sender: int, message: stream.Forward, now_ms: int) -> None:
        """Serve a request that another broker passed on; its answer goes back there."""
        served = self._served_of(sender)
        if message.number in served:
            return  # a socket may bring it twice: a deletion might find another topic of the name
        served[message.number] = None
        if len(served) > FORWARDS_MAX:
            del served[next(iter(served))]

        def reply(frame: bytes) -> None:
            if not frame:
                served.pop(message.number, None)  # it may come again: nothing was done
            self._out.control(sender, stream.Forwarded(message.number, frame))

        try:
            header, body = codec.decode_request(message.frame)
        except WireError:
            header, body = None, None
        handler = self._serving.get(type(body)) if body is not None else None
        if header is None or handler is None:
            reply(b"")  # of another release: this broker cannot decide it
            return
        handler(
            Call(
                body=body,
                header=header,
                connection=b"",
                native=message.native,
                now_ms=now_ms,
                frame=message.frame,
                out=self._out,
                reply=reply,
                forwarded=True,
            )
        )

    def _served_of(self, sender: int) -> dict[int, None]:
        """Numbers of the latest requests that this incarnation of a broker passed on."""
        link = self._out.links.get(sender)
        incarnation = 0 if link is None else link.incarnation
        known, served = self._served.get(sender, (incarnation, {}))
        if known != incarnation:
            served = {}
        self._served[sender] = (incarnation, served)
        return served
