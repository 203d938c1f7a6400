"""The way to a group's coordinator: found by asking any broker, looked for again when it has moved.

Owns what is believed of where one group is coordinated. A coordinator that is gone is another one
soon, so it is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster.client.link import Answer
from cluster.client.session import Session
from cluster.errors import (
    COORDINATOR_LOAD_IN_PROGRESS,
    COORDINATOR_NOT_AVAILABLE,
    NOT_COORDINATOR,
    BrokerUnavailable,
    RequestError,
    code,
)
from cluster.limits import CLIENT_METADATA_MS, CLIENT_REQUEST_MS
from cluster.wire import apis, messages
from cluster.wire.schema import Message

MOVED = frozenset(
    error.number
    for error in (COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE, NOT_COORDINATOR)
)
"""Errors that pass once the group's coordinator is found, or has read what it must know."""


class Coordinator:
    """Where one group is coordinated."""

    def __init__(self, session: Session, group: str) -> None:
        self.group = group
        self.node_id = -1
        """-1 while nobody is known to be it."""
        self._session = session

    async def find(self) -> int:
        """The coordinator's node id; RequestError while the group has none."""
        if self.node_id >= 0:
            return self.node_id
        request = messages.FindCoordinatorRequest(coordinator_keys=[self.group])
        answer = await self._session.ask_any(
            apis.FIND_COORDINATOR, request, messages.FindCoordinatorResponse,
            timeout_ms=CLIENT_REQUEST_MS,
        )  # fmt: skip
        found = answer.coordinators[0]
        if found.error_code:
            raise RequestError(code(found.error_code), self.group)
        if self._session.link(found.node_id) is None:
            await self._session.refresh()
        self.node_id = found.node_id
        return found.node_id

    def moved(self, number: int) -> None:
        """An answer says that it is another one now, or that it is only being read."""
        if number != COORDINATOR_LOAD_IN_PROGRESS.number:
            self.node_id = -1

    async def ask(
        self, api: int, body: Message, answer: type[Answer], timeout_ms: int = CLIENT_REQUEST_MS
    ) -> Answer:
        """Ask once."""
        node_id = await self.find()
        try:
            link = await self._session.wait_for(node_id, CLIENT_METADATA_MS)
            return await link.request(api, body, answer, timeout_ms)
        except BrokerUnavailable:
            self.node_id = -1
            raise

    async def settled(
        self, api: int, body: Message, answer: type[Answer], error_of: Callable[[Answer], int]
    ) -> Answer:
        """Ask until a coordinator answers that is not about to be another, or patience ends."""
        deadline = self._session.deadline()
        while True:
            try:
                found = await self.ask(api, body, answer)
                number = error_of(found)
                if number not in MOVED:
                    return found
                failure: RequestError | BrokerUnavailable = RequestError(code(number), self.group)
                self.moved(number)
            except BrokerUnavailable as error:
                failure = error
            except RequestError as error:
                if error.code.number not in MOVED:
                    raise
                failure = error
            await self._session.pause(deadline, failure)
