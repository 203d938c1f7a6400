"""The consumer: committed records of assigned partitions, in order, from offsets the caller keeps.

Owns the positions and the fetches under way: at most one per broker, with all its partitions, sent
again as soon as the previous one is handed to the caller, so that the next data travels while the
caller works. An answer to a question the position has moved away from is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from _fastseq.batch import Record
from cluster.client.membership import GroupOptions, Membership
from cluster.client.metadata import NO_LEADER
from cluster.client.offsets import BEGIN, END, TopicPartition, at, list_offsets
from cluster.client.session import Session
from cluster.client.subscription import Policy, SubscribedConsumer
from cluster.errors import CORRUPT_MESSAGE, BrokerUnavailable, RequestError, code
from cluster.limits import CLIENT_PAUSE_MS, FETCH_BYTES_MAX
from cluster.wire.apis import FETCH
from cluster.wire.messages import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from cluster.wire.records import CorruptBatch, next_offset, read_records
from cluster.wire.schema import Message


@dataclass(frozen=True, slots=True)
class Fetched:
    """Consecutive records of one partition."""

    topic: str
    partition: int
    records: list[Record]
    high_watermark: int
    """The end of what was committed when the broker answered."""


@dataclass(slots=True)
class _Assigned:
    position: int
    high_watermark: int = -1
    data: PartitionData | None = None
    """An answer for `position` that the caller has not taken."""
    not_before: float = 0.0
    """Loop seconds: it is left alone until then."""


@dataclass(slots=True)
class _Fetch:
    """A question under way: which positions it asked for."""

    asked: dict[TopicPartition, int] = field(default_factory=dict)


class Consumer:
    """Reads what is committed, from offsets the caller keeps (`assign`) or a group (`subscribe`).

    `poll` waits up to `max_wait_ms` for records and returns at most about `max_bytes` per broker
    (a batch is never cut, so one larger than that still comes). A leader change is followed; an
    offset outside the log raises RequestError with OFFSET_OUT_OF_RANGE.
    """

    def __init__(
        self,
        bootstrap: Sequence[str] | str,
        *,
        max_wait_ms: int = 500,
        min_bytes: int = 1,
        max_bytes: int = 4 * 1024 * 1024,
        partition_max_bytes: int = 1024 * 1024,
        client_id: str = "oncelog",
    ) -> None:
        if not 0 < max_bytes <= FETCH_BYTES_MAX or not 0 < partition_max_bytes <= FETCH_BYTES_MAX:
            raise ValueError(f"max_bytes, partition_max_bytes: expected 1 to {FETCH_BYTES_MAX}")
        self._session = Session(bootstrap, client_id)
        self._max_wait_ms = max_wait_ms
        self._min_bytes = min_bytes
        self._max_bytes = max_bytes
        self._partition_max_bytes = partition_max_bytes
        self._assigned: dict[TopicPartition, _Assigned] = {}
        self._fetches: dict[int, _Fetch] = {}
        self._arrived = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._subscription: SubscribedConsumer | None = None

    async def __aenter__(self) -> Consumer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Connects. Raises BrokerUnavailable when no broker answers."""
        self._session.on_down = self._on_down
        await self._session.start()

    async def close(self) -> None:
        """Leaves the group, if it is in one, and disconnects."""
        if self._subscription is not None:
            await self._subscription.close()
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
        self._session.close()

    # Positions

    def assign(self, positions: Mapping[TopicPartition, int]) -> None:
        """Reads exactly these partitions from now on, each from the offset given.

        Partitions that keep their position keep what was fetched for them already.
        """
        old = self._assigned
        self._assigned = {
            where: old[where]
            if where in old and old[where].position == offset
            else _Assigned(offset)
            for where, offset in positions.items()
        }
        self._session.track(topic for topic, _ in positions)

    def position(self, where: TopicPartition) -> int:
        """The offset that the next poll begins with."""
        return self._assigned[where].position

    def high_watermark(self, where: TopicPartition) -> int:
        """The end of what is committed as last heard, -1 before the first answer."""
        return self._assigned[where].high_watermark

    async def partitions(self, topic: str) -> list[TopicPartition]:
        """All partitions of a topic; RequestError when it does not exist."""
        return [(topic, index) for index in range(await self._session.partitions(topic))]

    async def begin_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """The first offset each partition keeps."""
        return await list_offsets(self._session, at(partitions, BEGIN))

    async def end_offsets(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition: one past the last committed record."""
        return await list_offsets(self._session, at(partitions, END))

    async def offsets_for_time(
        self, timestamps_ms: Mapping[TopicPartition, int]
    ) -> dict[TopicPartition, int]:
        """The first offset whose record's timestamp is not before the one given; -1 if none."""
        return await list_offsets(self._session, timestamps_ms)

    # Groups

    def subscribe(
        self, topics: Sequence[str], *, group: GroupOptions | str, policy: Policy | None = None
    ) -> None:
        """Reads these topics as a member of a group, which shares their partitions out.

        Offsets are the group's: `poll` begins where the group has committed, commits every five
        seconds what earlier polls returned, and before partitions go to another member. `policy`
        changes that (no commits of its own, positions kept elsewhere, what to do where nothing is
        committed) and names who is told of partitions that come and go. Members of other clients
        that assign by "range" share the group. A group takes place inside `poll`: whoever does not
        call it for `rebalance_timeout_ms` is left out of the next generation.
        """
        if self._subscription is not None:
            raise ValueError("a consumer subscribes once; another one is another member")
        options = GroupOptions(group) if isinstance(group, str) else group
        self._session.track(topics)
        membership = Membership(self._session, topics, options, self._arrived.set)
        self._subscription = SubscribedConsumer(
            self._session, self, membership, policy or Policy()
        )  # fmt: skip

    async def commit(self, offsets: Mapping[TopicPartition, int] | None = None) -> None:
        """Commits offsets of the group: those given, or the positions of all partitions it has.

        RequestError when this member has been replaced meanwhile: then the records belong to
        whoever has their partitions now.
        """
        await self._subscribed().commit(offsets)

    async def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """What the group has committed; partitions without are left out."""
        return await self._subscribed().membership.committed(partitions)

    def _subscribed(self) -> SubscribedConsumer:
        if self._subscription is None:
            raise ValueError("subscribe first: without a group there are no committed offsets")
        return self._subscription

    @property
    def positions(self) -> dict[TopicPartition, int]:
        """The offset that the next poll begins with, of every partition assigned."""
        return {where: one.position for where, one in self._assigned.items()}

    # Reading

    async def poll(self, timeout_ms: int | None = None) -> list[Fetched]:
        """The next records of the assigned partitions; empty when none came in time.

        Positions move past what is returned. Raises RequestError for what asking again cannot
        help, among it bytes that fail their checksum (CORRUPT_MESSAGE).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self._max_wait_ms if timeout_ms is None else timeout_ms) / 1000
        while True:
            self._arrived.clear()
            if self._subscription is not None:
                await self._subscription.advance(deadline)
            taken = self._take()
            self._fetch()
            now = loop.time()
            if taken or now >= deadline:
                return taken
            wake = min(self._next_pause(now), deadline)
            handle = loop.call_at(wake, self._arrived.set)
            try:
                await self._arrived.wait()
            finally:
                handle.cancel()

    def _take(self) -> list[Fetched]:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        taken = []
        for (topic, partition), assigned in self._assigned.items():
            data, assigned.data = assigned.data, None
            if data is None or not data.records:
                continue
            read = memoryview(data.records)
            try:
                records = read_records(read, assigned.position)
                assigned.position = next_offset(read, assigned.position)
            except CorruptBatch as error:
                raise RequestError(CORRUPT_MESSAGE, f"{topic}-{partition}: {error}") from error
            if records:
                taken.append(Fetched(topic, partition, records, data.high_watermark))
        return taken

    def _fetch(self) -> None:
        """Asks every broker that has none of our questions for what it leads."""
        now = self._session.now()
        wanted: dict[int, dict[TopicPartition, int]] = {}
        homeless = False
        for where, assigned in self._assigned.items():
            if assigned.data is not None or assigned.not_before > now:
                continue
            node = self._session.metadata.leader(*where)
            if node == NO_LEADER or self._session.link(node) is None:
                homeless = True
            elif node not in self._fetches:
                wanted.setdefault(node, {})[where] = assigned.position
        for node, asked in wanted.items():
            self._ask(node, asked)
        if homeless:
            self._refresh()

    def _ask(self, node: int, asked: dict[TopicPartition, int]) -> None:
        topics: dict[str, list[FetchPartition]] = {}
        for (topic, partition), position in asked.items():
            topics.setdefault(topic, []).append(
                FetchPartition(
                    partition=partition,
                    current_leader_epoch=self._session.metadata.leader_epoch(topic, partition),
                    fetch_offset=position,
                    partition_max_bytes=self._partition_max_bytes,
                )
            )
        body = FetchRequest(
            max_wait_ms=self._max_wait_ms,
            min_bytes=self._min_bytes,
            max_bytes=self._max_bytes,
            topics=[FetchTopic(topic=name, partitions=listed) for name, listed in topics.items()],
        )
        fetch = _Fetch(asked)
        link = self._session.link(node)
        if link is not None and link.post(
            FETCH, body, lambda message: self._on_answer(node, fetch, message)
        ):
            self._fetches[node] = fetch
        else:
            self._pause(asked)

    def _on_answer(self, node: int, fetch: _Fetch, message: Message | None) -> None:
        if self._fetches.get(node) is fetch:
            del self._fetches[node]
        self._arrived.set()
        if message is None:
            return
        assert isinstance(message, FetchResponse)
        if message.error_code:
            self._on_error(message.error_code, "fetch", fetch.asked)
        for topic in message.responses:
            for data in topic.partitions:
                where = (topic.topic, data.partition_index)
                assigned = self._assigned.get(where)
                if assigned is None or fetch.asked.get(where) != assigned.position:
                    continue
                if data.error_code:
                    self._on_error(data.error_code, f"{where[0]}-{where[1]}", [where])
                else:
                    assigned.high_watermark = data.high_watermark
                    assigned.data = data if data.records else None

    def _on_down(self, node: int) -> None:
        # The link has told the fetch under way already; the leader may be another by now.
        self._fetches.pop(node, None)
        self._arrived.set()

    def _on_error(self, number: int, what: str, partitions: Iterable[TopicPartition]) -> None:
        error = code(number)
        if not error.retriable:
            self._failure = RequestError(error, what)
            return
        self._pause(partitions)
        self._refresh()

    def _pause(self, partitions: Iterable[TopicPartition]) -> None:
        until = self._session.now() + CLIENT_PAUSE_MS / 1000
        for where in partitions:
            if where in self._assigned:
                self._assigned[where].not_before = until

    def _next_pause(self, now: float) -> float:
        """When the first partition left alone may be asked for again."""
        ends = [one.not_before for one in self._assigned.values() if one.not_before > now]
        return min(ends, default=float("inf"))

    def _refresh(self) -> None:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.get_running_loop().create_task(self._refresh_once())

    async def _refresh_once(self) -> None:
        try:
            await asyncio.sleep(CLIENT_PAUSE_MS / 1000)
            await self._session.refresh()
        except BrokerUnavailable as error:
            self._failure = error
        self._arrived.set()
