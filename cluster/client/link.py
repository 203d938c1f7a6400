"""One connection to one broker: requests out, each answered once, or told that none will come.

Owns the DEALER socket and the correlation ids of what is unanswered on it. Every request posted
gets exactly one reply: the broker's, or None once the connection has ended. A broker may answer
in any order, and an answer nobody waits for any more is dropped. What is posted in one turn of the
loop leaves as one message with a frame for each request, and answers come back likewise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from cluster.errors import BrokerUnavailable
from cluster.net.zmq import DealerEndpoint, Frames, gathered
from cluster.wire.apis import (
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_GROUPS,
    DELETE_RECORDS,
    DELETE_TOPICS,
    DESCRIBE_CLUSTER,
    DESCRIBE_CONFIGS,
    DESCRIBE_GROUPS,
    DESCRIBE_PRODUCERS,
    FAULT,
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    INCREMENTAL_ALTER_CONFIGS,
    INIT_PRODUCER_ID,
    JOIN_GROUP,
    LEAVE_GROUP,
    LIST_GROUPS,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_DELETE,
    OFFSET_FETCH,
    PRODUCE,
    SYNC_GROUP,
)
from cluster.wire.codec import decode_response, encode_request
from cluster.wire.primitives import WireError
from cluster.wire.schema import Message

VERSIONS = {
    PRODUCE: 11,
    FETCH: 12,
    LIST_OFFSETS: 7,
    METADATA: 12,
    CREATE_TOPICS: 7,
    DELETE_TOPICS: 6,
    INIT_PRODUCER_ID: 4,
    DESCRIBE_CONFIGS: 4,
    DESCRIBE_CLUSTER: 1,
    CREATE_PARTITIONS: 3,
    DELETE_RECORDS: 2,
    DESCRIBE_PRODUCERS: 0,
    INCREMENTAL_ALTER_CONFIGS: 1,
    FAULT: 0,
    OFFSET_COMMIT: 8,
    OFFSET_FETCH: 8,
    FIND_COORDINATOR: 4,
    JOIN_GROUP: 9,
    HEARTBEAT: 4,
    LEAVE_GROUP: 5,
    SYNC_GROUP: 5,
    DESCRIBE_GROUPS: 5,
    LIST_GROUPS: 4,
    DELETE_GROUPS: 2,
    OFFSET_DELETE: 0,
}
"""The one version of each API that this client speaks."""

Reply = Callable[[Message | None], None]
Answer = TypeVar("Answer", bound=Message)


class Link:
    """A connection that reconnects by itself until closed; `up` says whether it stands."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        client_id: str,
        *,
        on_up: Callable[[Link], None],
        on_down: Callable[[Link], None],
    ) -> None:
        self.address = address
        self.malformed = 0
        """Answers that could not be read; each ends the connection."""
        self._loop = loop
        self._client_id = client_id
        self._on_up = on_up
        self._on_down = on_down
        self._pending: dict[int, tuple[int, Reply]] = {}
        self._last_id = 0
        self._outgoing: list[bytes] = []
        self._closed = False
        self._endpoint = self._connect()

    @property
    def up(self) -> bool:
        """The broker has greeted and its connection was not seen to end."""
        return self._endpoint.connected

    def post(self, api: int, body: Message, reply: Reply | None) -> bool:
        """Sends a request; False, and no reply, when it could not leave.

        `reply` None is for a request that has no answer.
        """
        self._last_id = (self._last_id + 1) & 0x7FFFFFFF
        correlation_id = self._last_id
        frame = encode_request(api, VERSIONS[api], correlation_id, self._client_id, body)
        if not self._endpoint.connected:
            return False
        if not self._outgoing:
            self._loop.call_soon(self._leave)
        self._outgoing.append(frame)
        if reply is not None:
            self._pending[correlation_id] = (api, reply)
        return True

    def _leave(self) -> None:
        """Send what was posted in this turn of the loop.

        If the connection has ended meanwhile it is lost with it, which every request is told.
        """
        outgoing, self._outgoing = self._outgoing, []
        for message in gathered(outgoing):
            self._endpoint.send(message)

    async def request(
        self, api: int, body: Message, answer: type[Answer], timeout_ms: int
    ) -> Answer:
        """Sends a request and waits for its answer.

        Raises BrokerUnavailable when it cannot leave, or the answer does not come in time.
        """
        future: asyncio.Future[Message | None] = self._loop.create_future()

        def reply(message: Message | None) -> None:
            if not future.done():
                future.set_result(message)

        if not self.post(api, body, reply):
            raise BrokerUnavailable(f"not connected to {self.address}")
        correlation_id = self._last_id
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                message = await future
        except TimeoutError:
            raise BrokerUnavailable(
                f"no answer from {self.address} within {timeout_ms} ms"
            ) from None
        finally:
            self._pending.pop(correlation_id, None)
        if message is None:
            raise BrokerUnavailable(f"the connection to {self.address} ended before the answer")
        assert isinstance(message, answer)
        return message

    def close(self) -> None:
        """Ends the connection; what is unanswered is told so."""
        if not self._closed:
            self._closed = True
            self._outgoing.clear()
            self._endpoint.close()
            self._give_up()

    def _connect(self) -> DealerEndpoint:
        return DealerEndpoint(
            self._loop,
            self.address,
            on_turn=self._on_turn,
            on_connected=lambda: self._on_up(self),
            on_disconnected=self._went,
        )

    def _on_turn(self, messages: list[Frames]) -> None:
        for frame in chain.from_iterable(messages):
            entry = self._pending.pop(int.from_bytes(frame[:4]), None)
            if entry is None:
                continue
            api, reply = entry
            try:
                _, message = decode_response(api, VERSIONS[api], frame)
            except WireError:
                self._pending[-1] = entry  # still to be told, with the others
                self._start_over()
                return
            reply(message)

    def _start_over(self) -> None:
        """A peer that does not speak our protocol: nothing it sent before counts either."""
        self.malformed += 1
        self._endpoint.close()
        self._went()
        if not self._closed:
            self._endpoint = self._connect()

    def _went(self) -> None:
        self._outgoing.clear()
        self._give_up()
        self._on_down(self)

    def _give_up(self) -> None:
        pending, self._pending = self._pending, {}
        for _, reply in pending.values():
            reply(None)
