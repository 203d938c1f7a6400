"""One request while it is served, and who serves which: the dispatch by message type.

Owns the way back: whoever serves a request answers it through its call, at once by returning the
response or later by `Call.answer`. Nothing here knows any API. Invariants: a call is answered at
most once; every type of request has at most one handler; what has no handler is not advertised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from cluster.core.effects import Frame, Hangup, Reply
from cluster.core.outbox import Outbox
from cluster.wire import codec
from cluster.wire.primitives import Data, WireError
from cluster.wire.schema import Message


class Call(msgspec.Struct, gc=False):
    """One request of one client until it is answered."""

    body: Any
    header: codec.RequestHeader
    connection: bytes
    """The reply address: opaque, of one request or one connection, as the carrier wants it."""
    native: bool
    """The carrier is the native client's; Kafka clients are told other addresses of brokers."""
    now_ms: int
    """When the request was taken up."""
    frame: Data
    """The whole request as it arrived, valid as long as it is referenced."""
    out: Outbox
    reply: Callable[[bytes], None] | None = None
    """Takes the response of a request that no connection of this broker brought."""
    forwarded: bool = False
    """Another broker passed it on: it is not passed on again."""
    answered: bool = False

    def answer(self, body: Message) -> None:
        """Send the response; the first answer of a call counts."""
        key, version = self.header.api_key, self.header.api_version
        self.answer_frame(codec.encode_response(key, version, self.header.correlation_id, body))

    def answer_frame(self, frame: Frame) -> None:
        """Send a response that is encoded already, correlation id included."""
        if self.answered:
            return
        self.answered = True
        if self.reply is not None:
            self.reply(frame if isinstance(frame, bytes) else b"".join(frame))
        else:
            self.out.emit(Reply(self.connection, frame))

    def hang_up(self, reason: str) -> None:
        """Close the connection instead of answering."""
        if not self.answered:
            self.answered = True
            self.out.emit(Hangup(self.connection, reason))


Handler = Callable[[Call], Message | None]
"""Serves a request: the response, or None if `call.answer` gets it later."""


class Handlers:
    """Who serves which type of request."""

    def __init__(self) -> None:
        """Nobody serves anything yet."""
        self._handlers: dict[type[Message], Handler] = {}

    def register(self, request: type[Message], handler: Handler) -> None:
        """From now on `handler` serves this type; ValueError if another one does."""
        if request in self._handlers:
            raise ValueError(f"{request.__name__} has a handler already")
        self._handlers[request] = handler

    def serves(self, request: type[Message]) -> bool:
        """Whether this type has a handler."""
        return request in self._handlers

    def serve(self, call: Call) -> None:
        """Hand a call to its handler. WireError if nobody serves its type."""
        handler = self._handlers.get(type(call.body))
        if handler is None:
            raise WireError(f"no handler for {type(call.body).__name__}")
        response = handler(call)
        if response is not None:
            call.answer(response)
