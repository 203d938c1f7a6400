"""One client's part in a consumer group: finding the coordinator, joining, staying, committing.

Owns the member's id and generation and the heartbeats, one task of them. It knows nothing of
records: whoever uses it says when to join and what to commit. A coordinator that has moved is
looked for again; a member that was put out joins anew under another id; what asking again cannot
help is raised.

Invariant: every request carries the generation that it belongs to, so that a member which was
replaced without noticing is refused and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from cluster.client.assignors import RANGE, Reader, assign_ranges
from cluster.client.coordinator import MOVED, Coordinator
from cluster.client.offsets import TopicPartition
from cluster.client.session import Session
from cluster.errors import (
    FENCED_INSTANCE_ID,
    ILLEGAL_GENERATION,
    MEMBER_ID_REQUIRED,
    REBALANCE_IN_PROGRESS,
    UNKNOWN_MEMBER_ID,
    BrokerUnavailable,
    RequestError,
    code,
)
from cluster.limits import CLIENT_PAUSE_MS, CLIENT_REQUEST_MS
from cluster.wire import apis, messages
from cluster.wire.assignments import (
    PROTOCOL_TYPE,
    Subscription,
    by_topic,
    decode_assignment,
    decode_topics,
    encode_assignment,
    encode_subscription,
)

_OUT = frozenset(
    error.number for error in (UNKNOWN_MEMBER_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS)
)
_LEAVE_MS = 1_000


@dataclass(frozen=True, slots=True)
class GroupOptions:
    """How a member takes part; times in milliseconds."""

    group: str
    session_timeout_ms: int = 10_000
    """How long a member may be silent before it is put out."""
    rebalance_timeout_ms: int = 60_000
    """How long a member may take to poll again once the group forms a new generation."""
    heartbeat_ms: int = 1_000
    instance_id: str | None = None
    """Names this member over restarts: coming back in time costs no rebalance."""


class Membership:
    """A member of one group. `on_change` is called when it must join again."""

    def __init__(
        self, session: Session, topics: Sequence[str], options: GroupOptions,
        on_change: Callable[[], None],
    ) -> None:  # fmt: skip
        self.options = options
        self.topics = tuple(topics)
        self.member_id = ""
        self.generation = -1
        self.must_join = True
        self.failure: RequestError | None = None
        """Why this can be no member any more."""
        self.coordinator = Coordinator(session, options.group)
        self._session = session
        self._on_change = on_change
        self._beats: asyncio.Task[None] | None = None

    # -- joining ------------------------------------------------------------------------------

    async def join(self) -> list[TopicPartition]:
        """Take part in the next generation; the partitions that are this member's then.

        Comes back when everybody has joined, however long that takes.
        """
        self.must_join = False
        while True:
            try:
                joined = await self._join_once()
                if joined is not None:
                    return joined
            except BrokerUnavailable:
                pass
            except RequestError as error:
                if error.code.number not in MOVED:
                    raise
            await asyncio.sleep(CLIENT_PAUSE_MS / 1000)

    async def _join_once(self) -> list[TopicPartition] | None:
        options = self.options
        metadata = encode_subscription(Subscription(self.topics))
        request = messages.JoinGroupRequest(
            group_id=options.group, session_timeout_ms=options.session_timeout_ms,
            rebalance_timeout_ms=options.rebalance_timeout_ms, member_id=self.member_id,
            group_instance_id=options.instance_id, protocol_type=PROTOCOL_TYPE,
            protocols=[messages.JoinGroupProtocol(name=RANGE, metadata=metadata)],
        )  # fmt: skip
        patience_ms = options.rebalance_timeout_ms + CLIENT_REQUEST_MS
        answer = await self.coordinator.ask(
            apis.JOIN_GROUP, request, messages.JoinGroupResponse, patience_ms
        )  # fmt: skip
        if answer.error_code == MEMBER_ID_REQUIRED.number:
            self.member_id = answer.member_id
            return await self._join_once()
        if answer.error_code:
            self._refused(answer.error_code)
            return None
        self.member_id, self.generation = answer.member_id, answer.generation_id
        return await self._sync(answer)

    async def _sync(self, joined: messages.JoinGroupResponse) -> list[TopicPartition] | None:
        assignments: list[messages.SyncGroupRequestAssignment] = []
        if joined.leader == self.member_id and not joined.skip_assignment:
            assignments = await self._assign(joined.members)
        request = messages.SyncGroupRequest(
            group_id=self.options.group, generation_id=self.generation,
            member_id=self.member_id, group_instance_id=self.options.instance_id,
            protocol_type=PROTOCOL_TYPE, protocol_name=joined.protocol_name,
            assignments=assignments,
        )  # fmt: skip
        answer = await self.coordinator.ask(
            apis.SYNC_GROUP, request, messages.SyncGroupResponse,
            self.options.rebalance_timeout_ms + CLIENT_REQUEST_MS,
        )  # fmt: skip
        if answer.error_code:
            self._refused(answer.error_code)
            return None
        self._beat_on()
        found = decode_assignment(answer.assignment)
        return [(topic, index) for topic, indexes in found.items() for index in indexes]

    async def _assign(
        self, members: Iterable[messages.JoinGroupResponseMember]
    ) -> list[messages.SyncGroupRequestAssignment]:
        readers = [
            Reader(one.member_id, one.group_instance_id, decode_topics(one.metadata))
            for one in members
        ]
        counts = {}
        for topic in sorted({topic for reader in readers for topic in reader.topics}):
            with suppress(RequestError):  # nobody reads what is not there
                counts[topic] = await self._session.partitions(topic)
        return [
            messages.SyncGroupRequestAssignment(member_id, encode_assignment(places))
            for member_id, places in assign_ranges(readers, counts).items()
        ]

    def _refused(self, number: int) -> None:
        """Errors that joining again may help, or RequestError."""
        if number == UNKNOWN_MEMBER_ID.number:
            self.member_id = ""
        elif number in MOVED:
            self.coordinator.moved(number)
        elif number not in _OUT:
            raise RequestError(code(number), self.options.group)

    # -- staying ------------------------------------------------------------------------------

    def _beat_on(self) -> None:
        if self._beats is None or self._beats.done():
            self._beats = asyncio.get_running_loop().create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.options.heartbeat_ms / 1000)
            generation = self.generation
            request = messages.HeartbeatRequest(
                group_id=self.options.group, generation_id=generation,
                member_id=self.member_id, group_instance_id=self.options.instance_id,
            )  # fmt: skip
            try:
                answer = await self.coordinator.ask(
                    apis.HEARTBEAT, request, messages.HeartbeatResponse,
                    self.options.session_timeout_ms,
                )  # fmt: skip
            except (BrokerUnavailable, RequestError):
                continue
            if answer.error_code and generation == self.generation:
                self._heard(answer.error_code)

    def _heard(self, number: int) -> None:
        if number in MOVED:
            self.coordinator.moved(number)
            return
        if number == UNKNOWN_MEMBER_ID.number:
            self.member_id = ""
        elif number == FENCED_INSTANCE_ID.number:
            self.failure = RequestError(FENCED_INSTANCE_ID, str(self.options.instance_id))
        self.must_join = True
        self._on_change()

    # -- offsets ------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit as a member of this generation.

        RequestError when the member is none any more: whoever has the partitions now goes on from
        what was committed before.
        """
        topics = [
            messages.OffsetCommitRequestTopic(
                name=topic,
                partitions=[
                    messages.OffsetCommitRequestPartition(index, offsets[topic, index])
                    for index in indexes
                ],
            )
            for topic, indexes in by_topic(offsets).items()
        ]
        request = messages.OffsetCommitRequest(
            group_id=self.options.group, generation_id_or_member_epoch=self.generation,
            member_id=self.member_id, group_instance_id=self.options.instance_id,
            topics=topics,
        )  # fmt: skip
        answer = await self.coordinator.settled(
            apis.OFFSET_COMMIT, request, messages.OffsetCommitResponse, _commit_error
        )
        number = _commit_error(answer)
        if number in _OUT or number == FENCED_INSTANCE_ID.number:
            self._heard(number)
        if number:
            raise RequestError(code(number), f"offsets of group {self.options.group}")

    async def committed(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:  # fmt: skip
        """What is committed of these partitions; those without are left out."""
        asked = messages.OffsetFetchRequestGroup(
            group_id=self.options.group,
            topics=[
                messages.OffsetFetchRequestTopic(name=topic, partition_indexes=indexes)
                for topic, indexes in by_topic(partitions).items()
            ],
        )
        request = messages.OffsetFetchRequest(groups=[asked])
        answer = await self.coordinator.settled(
            apis.OFFSET_FETCH, request, messages.OffsetFetchResponse,
            lambda found: found.groups[0].error_code,
        )  # fmt: skip
        found = answer.groups[0]
        if found.error_code:
            raise RequestError(code(found.error_code), self.options.group)
        return {
            (topic.name, part.partition_index): part.committed_offset
            for topic in found.topics
            for part in topic.partitions
            if part.committed_offset >= 0
        }

    # -- the end ------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Go, so that the others need not wait for the silence; a static member only falls silent,
        since it means to come back."""
        if self._beats is not None:
            self._beats.cancel()
            await asyncio.gather(self._beats, return_exceptions=True)
        if not self.member_id or self.options.instance_id is not None:
            return
        gone = messages.MemberIdentity(member_id=self.member_id, reason="the consumer was closed")
        request = messages.LeaveGroupRequest(group_id=self.options.group, members=[gone])
        with suppress(BrokerUnavailable, RequestError):
            await self.coordinator.ask(
                apis.LEAVE_GROUP, request, messages.LeaveGroupResponse, _LEAVE_MS
            )
        self.member_id = ""


def _commit_error(answer: messages.OffsetCommitResponse) -> int:
    """The first error of any partition, 0 for none."""
    return next(
        (
            part.error_code
            for topic in answer.topics
            for part in topic.partitions
            if part.error_code
        ),
        0,
    )
