"""The idempotent producer: records in, acknowledgements out, each record stored once or told why.

The thinking is done by `cluster.core.produce`; this shell gives it the clock, the connections and
the caller's futures. It takes one look at the machine per turn of the loop, however many records
were appended in it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Literal

from cluster.client.delivery import BatchDelivery, BufferFull, Delivery, Run, Single
from cluster.client.partitioner import Sticky, partition_of
from cluster.client.session import Session
from cluster.core.batches import Header, KeyValue
from cluster.core.produce import ProducerMachine
from cluster.core.producer_events import (
    ACKS_ALL,
    Connected,
    Disconnected,
    Effect,
    Event,
    MetadataKnown,
    NeedMetadata,
    NeedProducerId,
    ProduceAnswered,
    ProducerIdKnown,
    ProducerOptions,
    Resolved,
    SendProduce,
    Tick,
    Unsent,
)
from cluster.errors import (
    MESSAGE_TOO_LARGE,
    UNKNOWN_SERVER_ERROR,
    UNKNOWN_TOPIC_OR_PARTITION,
    BrokerUnavailable,
    Code,
    OncelogError,
    Outcome,
    ProduceError,
    RequestError,
)
from cluster.limits import BATCH_BYTES_MAX, CLIENT_METADATA_MS, CLIENT_PAUSE_MS, IN_FLIGHT_MAX
from cluster.wire.apis import INIT_PRODUCER_ID, PRODUCE
from cluster.wire.messages import (
    InitProducerIdRequest,
    InitProducerIdResponse,
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from cluster.wire.schema import Message

_RECORD_BYTES_MAX = BATCH_BYTES_MAX - 128  # the batch header and the record's own fields


@dataclass(frozen=True, slots=True)
class ProducerStats:
    """What a producer has done so far."""

    records: int
    batches: int
    attempts: int
    retries: int
    duplicates: int
    """Batches acknowledged as stored before: their first acknowledgement was lost."""
    acked: int
    """Records."""
    failed: int
    """Records."""
    longest_gap_ms: float
    """Longest time without an acknowledgement while records waited for one."""


class Producer:
    """Sends records to the leaders of their partitions and keeps each exactly once.

    `bootstrap` names brokers as "host:port". `acks` is "all" (every in-sync replica has it), 1
    (the leader has it) or 0 (nobody says). Retrying goes on for `delivery_timeout_ms`; then, and
    on a refusal that retrying cannot change, the record fails with a ProduceError whose `outcome`
    says whether it can be in the log. At most `buffer_bytes` of records wait unacknowledged:
    beyond that `send` waits and `submit` raises BufferFull.

    With `idempotent=False` retries are blind, and a lost acknowledgement becomes a duplicate.

    Use it as an async context manager: leaving it waits for everything sent; leaving it with an
    exception does not, and what is still under way fails with what is known of its fate.
    """

    def __init__(
        self,
        bootstrap: Sequence[str] | str,
        *,
        acks: Literal["all", 0, 1, -1] = "all",
        idempotent: bool = True,
        linger_ms: int = 5,
        batch_bytes: int = 65_536,
        in_flight_max: int = IN_FLIGHT_MAX,
        request_timeout_ms: int = 1_000,
        delivery_timeout_ms: int = 120_000,
        buffer_bytes: int = 32 * 1024 * 1024,
        client_id: str = "oncelog",
    ) -> None:
        self._machine = ProducerMachine(
            ProducerOptions(
                acks=ACKS_ALL if acks == "all" else acks,
                idempotent=idempotent,
                linger_ms=linger_ms,
                batch_bytes=batch_bytes,
                in_flight_max=in_flight_max,
                request_timeout_ms=request_timeout_ms,
                delivery_timeout_ms=delivery_timeout_ms,
            )
        )
        self._session = Session(bootstrap, client_id)
        self._buffer_bytes = buffer_bytes
        self._batch_bytes = batch_bytes
        self._sticky: dict[str, Sticky] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._flushers: list[asyncio.Future[None]] = []
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._turn_scheduled = False
        self._open = False
        self._last_ack = 0.0
        self._busy_since = 0.0
        self._longest_gap = 0.0

    async def __aenter__(self) -> Producer:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close(abandon=error is not None)

    async def start(self) -> None:
        """Connects. Raises BrokerUnavailable when no broker answers."""
        self._loop = asyncio.get_running_loop()
        session = self._session
        session.on_up = self._on_up
        session.on_down = self._on_down
        session.on_metadata = self._on_metadata
        await session.start()
        self._open = True

    async def close(self, *, abandon: bool = False) -> None:
        """Waits for everything sent, unless it is to be abandoned, and disconnects."""
        if not self._open:
            return
        try:
            if not abandon:
                await self.flush()
        finally:
            self._open = False
            self._perform(self._machine.abandon(self._now_ms()))
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            if self._timer is not None:
                self._timer.cancel()
            self._session.close()

    # Records

    async def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> Delivery:
        """Stores one record and says where it is.

        Without `partition` the key decides, as in Kafka's clients; without a key partitions take
        turns. Waits while the buffer is full. Raises ProduceError when the record was not
        acknowledged, RequestError when the topic does not exist.
        """
        count = await self.partitions(topic)
        if partition is not None and not 0 <= partition < count:
            raise RequestError(UNKNOWN_TOPIC_OR_PARTITION, f"{topic} has {count} partitions")
        await self.ready()
        return await self.submit(
            topic,
            value,
            key=key,
            partition=partition,
            headers=headers,
            timestamp_ms=timestamp_ms,
        )

    def submit(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[Delivery]:
        """As `send`, without waiting: the future ends with what `send` would return or raise.

        Records of one partition are stored in the order of the calls. Raises BufferFull (see
        `ready`). A call without `partition` needs the topic to be known: by an earlier `send`, or
        by `await producer.partitions(topic)`.
        """
        self._check_room()
        size = _payload_bytes(key, value)
        if partition is None:
            partition = self._choose(topic, key, size)
        if timestamp_ms is None:
            timestamp_ms = int(time.time() * 1000)
        future: asyncio.Future[Delivery] = self._loop.create_future()
        self._machine.append(
            (topic, partition),
            (timestamp_ms, key, value, headers),
            Single(future, timestamp_ms),
            self._now_ms(),
        )
        self._schedule_turn()
        return future

    def submit_many(
        self,
        topic: str,
        partition: int,
        records: Sequence[KeyValue],
        *,
        timestamp_ms: int | None = None,
    ) -> asyncio.Future[list[BatchDelivery]]:
        """Stores (key, value) pairs of one partition, in order, at little cost per record.

        The future ends with one BatchDelivery per batch they were cut into, in order, when all
        are stored; with PartlyProduced when any failed. Raises BufferFull only if the buffer is
        full already, so that a call may exceed it once.
        """
        self._check_room()
        for key, value in records:
            _payload_bytes(key, value)
        if timestamp_ms is None:
            timestamp_ms = int(time.time() * 1000)
        future: asyncio.Future[list[BatchDelivery]] = self._loop.create_future()
        if not records:
            future.set_result([])
            return future
        run = Run(future, len(records))
        self._machine.append_many((topic, partition), records, timestamp_ms, run, self._now_ms())
        self._schedule_turn()
        return future

    async def ready(self) -> None:
        """Waits until the buffer has room."""
        while self._open and self._machine.buffered_bytes >= self._buffer_bytes:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    async def flush(self) -> None:
        """Sends what lingers, and waits until every record's fate is known."""
        while not self._machine.idle:
            self._machine.flush()
            self._schedule_turn()
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._flushers.append(waiter)
            await waiter

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has; RequestError when it does not exist."""
        known = self._session.metadata.topics.get(topic)
        if known is not None:
            return len(known.partitions)
        return await self._session.partitions(topic)

    @property
    def stats(self) -> ProducerStats:
        """Counters since the start."""
        counts = asdict(self._machine.counts)
        return ProducerStats(**counts, longest_gap_ms=self._longest_gap * 1000)

    @property
    def refused_for(self) -> Code:
        """Why brokers refuse for the moment what is sent again and again; NONE if they do not."""
        return self._machine.refused_for

    def _check_room(self) -> None:
        if not self._open:
            raise OncelogError("the producer is not started, or closed")
        if self._machine.buffered_bytes >= self._buffer_bytes:
            raise BufferFull(f"{self._machine.buffered_bytes} bytes wait for acknowledgement")
        if self._machine.idle:
            self._busy_since = self._loop.time()

    def _choose(self, topic: str, key: bytes | None, size: int) -> int:
        known = self._session.metadata.topics.get(topic)
        if known is None:
            raise OncelogError(
                f"the partitions of {topic!r} are not known yet: await producer.partitions() first"
            )
        if key is not None:
            return partition_of(key, len(known.partitions))
        sticky = self._sticky.get(topic)
        if sticky is None:
            sticky = Sticky(random.randrange(2**16), self._batch_bytes)
            self._sticky[topic] = sticky
        return sticky.choose(size, len(known.partitions))

    # The machine's clock and events

    def _now_ms(self) -> int:
        return int(self._loop.time() * 1000)

    def _schedule_turn(self) -> None:
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._turn_scheduled = False
        if not self._open:
            return
        self._perform(self._machine.step(Tick(), self._now_ms()))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_ms = self._machine.next_deadline_ms()
        if deadline_ms is not None:
            self._timer = self._loop.call_at(deadline_ms / 1000, self._schedule_turn)

    def _tell(self, event: Event) -> None:
        self._perform(self._machine.step(event, self._now_ms()))
        self._schedule_turn()  # the next deadline may be another

    def _on_up(self, node: int) -> None:
        self._tell(Connected(node))

    def _on_down(self, node: int) -> None:
        self._tell(Disconnected(node))

    def _on_metadata(self) -> None:
        metadata = self._session.metadata
        leaders = {
            (name, index): partition.leader
            for name, topic in metadata.topics.items()
            for index, partition in topic.partitions.items()
        }
        event = MetadataKnown(leaders, dict(metadata.errors))
        self._tell(event)

    def _on_answer(self, request_id: int, message: Message | None) -> None:
        if message is None:
            return  # the connection ended, which the machine hears for all its requests at once
        assert isinstance(message, ProduceResponse)
        answers = [one for topic in message.responses for one in topic.partition_responses]
        if len(answers) == 1:
            one = answers[0]
            event = ProduceAnswered(request_id, one.error_code, one.base_offset, one.verdict)
        else:
            event = ProduceAnswered(request_id, UNKNOWN_SERVER_ERROR.number)
        self._tell(event)

    # The machine's effects

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendProduce():
                    self._send(effect)
                case Resolved():
                    self._settle(effect)
                case NeedMetadata(topics):
                    self._session.track(topics)
                    self._start_task("metadata", self._ask_metadata)
                case NeedProducerId():
                    self._start_task("producer id", self._ask_producer_id)
        if effects:
            self._wake()

    def _send(self, effect: SendProduce) -> None:
        data = PartitionProduceData(index=effect.partition, records=effect.batch)
        body = ProduceRequest(
            acks=effect.acks,
            timeout_ms=effect.timeout_ms,
            topic_data=[TopicProduceData(name=effect.topic, partition_data=[data])],
        )
        request_id = effect.request_id
        link = self._session.link(effect.node)
        if effect.acks == 0:
            if link is not None:
                link.post(PRODUCE, body, None)
        elif link is None or not link.post(
            PRODUCE, body, lambda message: self._on_answer(request_id, message)
        ):
            self._tell(Unsent(request_id))

    def _settle(self, effect: Resolved) -> None:
        if effect.outcome is Outcome.STORED:
            now = self._loop.time()
            since = max(self._last_ack, self._busy_since)
            self._longest_gap = max(self._longest_gap, now - since)
            self._last_ack = now
        for span in effect.spans:
            token = span.token
            assert isinstance(token, Single | Run)
            token.settle(span, effect)

    def _wake(self) -> None:
        if self._waiters and self._machine.buffered_bytes < self._buffer_bytes:
            _release(self._waiters)
        if self._flushers and self._machine.idle:
            _release(self._flushers)

    def _start_task(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        running = self._tasks.get(name)
        if running is None or running.done():
            self._tasks[name] = self._loop.create_task(work())

    async def _ask_metadata(self) -> None:
        """The machine asks again while it lacks a leader, so a failure is not retried here."""
        with suppress(BrokerUnavailable):
            await self._session.refresh()

    async def _ask_producer_id(self) -> None:
        while True:
            with suppress(BrokerUnavailable):
                answer = await self._session.ask_any(
                    INIT_PRODUCER_ID,
                    InitProducerIdRequest(),
                    InitProducerIdResponse,
                    timeout_ms=CLIENT_METADATA_MS,
                )
                if answer.error_code == 0:
                    break
            await asyncio.sleep(CLIENT_PAUSE_MS / 1000)
        event = ProducerIdKnown(answer.producer_id, answer.producer_epoch)
        self._tell(event)


def _payload_bytes(key: bytes | None, value: bytes | None) -> int:
    """Bytes of key and value; ProduceError when no batch can hold them."""
    size = (0 if value is None else len(value)) + (0 if key is None else len(key))
    if size > _RECORD_BYTES_MAX:
        raise ProduceError(MESSAGE_TOO_LARGE, Outcome.NOT_STORED)
    return size


def _release(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
