"""Topics and the cluster: create, delete, list, describe, and break on purpose.

Owns the way to the controller: changes go to it, and are sent again after fresh metadata while
nobody is or the wrong broker was asked. A change whose answer was lost is asked for again; that a
topic exists already, or is gone already, then means that the first attempt did it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from cluster.client import groups
from cluster.client.link import Answer, Link
from cluster.client.metadata import PartitionInfo
from cluster.client.offsets import END, TopicPartition, at, list_offsets
from cluster.client.producer_info import ProducersInfo, read_producers
from cluster.client.session import Session
from cluster.errors import (
    INVALID_PARTITIONS,
    LEADER_NOT_AVAILABLE,
    NONE,
    REQUEST_TIMED_OUT,
    TOPIC_ALREADY_EXISTS,
    UNKNOWN_TOPIC_OR_PARTITION,
    BrokerUnavailable,
    RequestError,
    code,
)
from cluster.limits import CLIENT_REQUEST_MS
from cluster.wire.apis import (
    CREATE_PARTITIONS,
    CREATE_TOPICS,
    DELETE_RECORDS,
    DELETE_TOPICS,
    DESCRIBE_CONFIGS,
    DESCRIBE_PRODUCERS,
    FAULT,
    INCREMENTAL_ALTER_CONFIGS,
    METADATA,
)
from cluster.wire.messages import (
    AlterableConfig,
    CreatableTopic,
    CreatableTopicConfig,
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResponse,
    DescribeProducersRequest,
    DescribeProducersResponse,
    DescribeProducersTopic,
    FaultRequest,
    FaultResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
    IncrementalResource,
    MetadataRequest,
    MetadataResponse,
)
from cluster.wire.schema import Message

_TOPIC, _BROKER = 2, 4
"""Resource types of settings."""
_SET, _DELETE = 0, 1
"""Operations of IncrementalAlterConfigs."""
_HARMLESS_TWICE = ("drop-acks", "status")
_CHANGE_TIMEOUT_MS = CLIENT_REQUEST_MS


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic, its partitions by index, and its settings."""

    name: str
    topic_id: bytes
    partitions: dict[int, PartitionInfo]
    config: dict[str, str | None]


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """The brokers alive, by node id with their addresses, and which of them is controller."""

    cluster_id: str | None
    controller: int
    """-1 when there is none at the moment."""
    brokers: dict[int, str]


class Admin:
    """Changes and describes the cluster that `bootstrap` ("host:port" addresses) leads to.

    Every call raises RequestError with the broker's reason, or BrokerUnavailable when no broker
    that could answer was reached within `patience_ms`.
    """

    def __init__(
        self,
        bootstrap: Sequence[str] | str,
        *,
        patience_ms: int | None = None,
        client_id: str = "oncelog",
    ) -> None:
        self._session = Session(bootstrap, client_id, patience_ms=patience_ms)

    async def __aenter__(self) -> Admin:
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
        await self._session.start()

    async def close(self) -> None:
        """Disconnects."""
        self._session.close()

    async def create_topic(
        self,
        name: str,
        *,
        partitions: int = -1,
        replicas: int = -1,
        config: Mapping[str, str] | None = None,
        if_not_exists: bool = False,
    ) -> None:
        """Creates a topic; -1 takes the cluster's defaults.

        Raises RequestError with TOPIC_ALREADY_EXISTS unless `if_not_exists`.
        """
        body = CreateTopicsRequest(
            topics=[
                CreatableTopic(
                    name=name,
                    num_partitions=partitions,
                    replication_factor=replicas,
                    configs=[
                        CreatableTopicConfig(name=key, value=value)
                        for key, value in (config or {}).items()
                    ],
                )
            ],
            timeout_ms=_CHANGE_TIMEOUT_MS,
        )

        def judge(answer: CreateTopicsResponse) -> tuple[int, str]:
            result = answer.topics[0]
            return result.error_code, result.error_message or name

        harmless = (TOPIC_ALREADY_EXISTS.number,)
        await self._change(
            CREATE_TOPICS, body, CreateTopicsResponse, judge,
            done=harmless if if_not_exists else (), done_again=harmless,
        )  # fmt: skip

    async def delete_topic(self, name: str) -> None:
        """Deletes a topic and its records."""
        body = DeleteTopicsRequest(
            topics=[DeleteTopicState(name=name)], timeout_ms=_CHANGE_TIMEOUT_MS
        )

        def judge(answer: DeleteTopicsResponse) -> tuple[int, str]:
            result = answer.responses[0]
            return result.error_code, result.error_message or name

        await self._change(
            DELETE_TOPICS, body, DeleteTopicsResponse, judge,
            done_again=(UNKNOWN_TOPIC_OR_PARTITION.number,),
            final=(UNKNOWN_TOPIC_OR_PARTITION.number,),
        )  # fmt: skip

    async def alter_topic(
        self, name: str, settings: Mapping[str, str | None], *, validate_only: bool = False
    ) -> None:
        """Changes settings of a topic; None takes a setting back to its default.

        Raises RequestError with INVALID_CONFIG naming the first key that may not be so.
        """
        changes = [
            AlterableConfig(key, _DELETE if value is None else _SET, value)
            for key, value in settings.items()
        ]
        body = IncrementalAlterConfigsRequest(
            [IncrementalResource(_TOPIC, name, changes)], validate_only
        )

        def judge(answer: IncrementalAlterConfigsResponse) -> tuple[int, str]:
            result = answer.responses[0]
            return result.error_code, result.error_message or name

        unknown = UNKNOWN_TOPIC_OR_PARTITION.number
        await self._change(
            INCREMENTAL_ALTER_CONFIGS, body, IncrementalAlterConfigsResponse, judge,
            final=(unknown,),
        )  # fmt: skip

    async def add_partitions(self, name: str, total: int, *, validate_only: bool = False) -> None:
        """Gives a topic more partitions, `total` in all; keys go to other partitions then."""
        wish = CreatePartitionsTopic(name, total, None)
        body = CreatePartitionsRequest([wish], _CHANGE_TIMEOUT_MS, validate_only)

        def judge(answer: CreatePartitionsResponse) -> tuple[int, str]:
            result = answer.results[0]
            return result.error_code, result.error_message or name

        unknown = UNKNOWN_TOPIC_OR_PARTITION.number
        await self._change(
            CREATE_PARTITIONS, body, CreatePartitionsResponse, judge,
            done_again=(INVALID_PARTITIONS.number,), final=(unknown,),
        )  # fmt: skip

    async def delete_records(self, topic: str, partition: int, before: int = -1) -> int:
        """Deletes a partition's records below offset `before`, -1 for all that are committed.

        Returns where the log begins once every in-sync replica has deleted them.
        """
        wish = DeleteRecordsTopic(topic, [DeleteRecordsPartition(partition, before)])
        body = DeleteRecordsRequest([wish], CLIENT_REQUEST_MS)

        def judge(answer: DeleteRecordsResponse) -> int:
            return answer.topics[0].partitions[0].error_code

        answer = await self._ask_leader(
            (topic, partition), DELETE_RECORDS, body, DeleteRecordsResponse, judge=judge
        )
        return answer.topics[0].partitions[0].low_watermark

    async def producers(self, topic: str, partition: int, page: int = 0) -> ProducersInfo:
        """A page of the producers that a partition's leader remembers.

        The next one begins at `next_page`; who comes or goes meanwhile may be missed.
        """
        return await self._producers(topic, partition, -1, page)

    async def producer(self, topic: str, partition: int, producer_id: int) -> ProducersInfo:
        """One producer of a partition, or its floor, or neither."""
        return await self._producers(topic, partition, producer_id, 0)

    async def _producers(
        self, topic: str, partition: int, producer_id: int, page: int
    ) -> ProducersInfo:
        wish = DescribeProducersTopic(topic, [partition])
        body = DescribeProducersRequest([wish], producer_id, page)

        def judge(answer: DescribeProducersResponse) -> int:
            return answer.topics[0].partitions[0].error_code

        place = (topic, partition)
        answer = await self._ask_leader(
            place, DESCRIBE_PRODUCERS, body, DescribeProducersResponse, judge=judge
        )
        return read_producers(topic, answer.topics[0].partitions[0])

    async def describe_broker(self, node: int) -> dict[str, str | None]:
        """The settings of one broker, as it tells them; RequestError if it refuses."""
        body = DescribeConfigsRequest([DescribeConfigsResource(_BROKER, str(node), None)])
        answer = await self._session.ask_node(
            node, DESCRIBE_CONFIGS, body, DescribeConfigsResponse, timeout_ms=CLIENT_REQUEST_MS
        )
        result = answer.results[0]
        if result.error_code:
            raise RequestError(code(result.error_code), result.error_message or f"broker {node}")
        return {entry.name: entry.value for entry in result.configs}

    async def list_topics(self) -> list[str]:
        """The names of all topics, sorted."""
        await self._session.refresh(everything=True)
        return sorted(self._session.metadata.topics)

    async def describe_topic(self, name: str) -> TopicDescription:
        """A topic as the brokers know it now."""
        await self._session.refresh(name)
        await self._session.partitions(name)
        info = self._session.metadata.topics[name]
        return TopicDescription(name, info.topic_id, info.partitions, await self._config(name))

    async def _config(self, topic: str) -> dict[str, str | None]:
        """A topic's settings. Brokers hear of a new topic one after the other: whoever has not
        heard of one that another broker has described is asked again.
        """
        resource = DescribeConfigsResource(
            resource_type=_TOPIC, resource_name=topic, configuration_keys=None
        )
        session, body = self._session, DescribeConfigsRequest(resources=[resource])
        deadline = session.deadline()
        while True:
            answer = await session.ask_any(
                DESCRIBE_CONFIGS, body, DescribeConfigsResponse, timeout_ms=CLIENT_REQUEST_MS
            )
            result = answer.results[0]
            if not result.error_code:
                return {entry.name: entry.value for entry in result.configs}
            failure = RequestError(code(result.error_code), result.error_message or topic)
            if result.error_code != UNKNOWN_TOPIC_OR_PARTITION.number:
                raise failure
            await session.pause(deadline, failure)

    async def list_groups(self) -> list[groups.GroupListing]:
        """All consumer groups, by name."""
        return await groups.list_groups(self._session)

    async def describe_group(self, group: str) -> groups.GroupDescription:
        """A group with its members; RequestError with GROUP_ID_NOT_FOUND if there is none."""
        return await groups.describe_group(self._session, group)

    async def delete_group(self, group: str) -> None:
        """Deletes a group that has no members, with its offsets."""
        await groups.delete_group(self._session, group)

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        """What a group has committed."""
        return await groups.group_offsets(self._session, group)

    async def set_group_offsets(self, group: str, offsets: Mapping[TopicPartition, int]) -> None:
        """Moves a group that has no members: its next one begins at these offsets."""
        await groups.set_group_offsets(self._session, group, offsets)

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """The high watermark of each partition."""
        return await list_offsets(self._session, at(partitions, END))

    async def describe_cluster(self) -> ClusterDescription:
        """The brokers alive and the controller."""
        await self._session.refresh()
        metadata = self._session.metadata
        return ClusterDescription(metadata.cluster_id, metadata.controller, dict(metadata.brokers))

    async def brokers_at(self, node: int) -> set[int]:
        """The brokers alive as one broker sees them: each hears of the others at its own pace."""
        answer = await self._session.ask_node(
            node, METADATA, MetadataRequest(topics=[]), MetadataResponse,
            timeout_ms=CLIENT_REQUEST_MS,
        )  # fmt: skip
        return {broker.node_id for broker in answer.brokers}

    async def fault(
        self, node: int, kind: str, *, percent: int = 0, seed: int = 0, enabled: bool = True
    ) -> str:
        """Orders a fault of one broker and returns which are on.

        `kind` is "drop-acks" (with `percent` of them, drawn from `seed`), "pause", "kill" or
        "status". A broker obeys only when started with allow_faults = true. What does no harm
        twice is ordered again when the connection ended before the answer.
        """
        session = self._session
        body = FaultRequest(kind=kind, percent=percent, seed=seed, enabled=enabled)
        deadline = session.deadline()
        while True:
            try:
                answer = await session.ask_node(
                    node, FAULT, body, FaultResponse, timeout_ms=session.patience_ms
                )
                break
            except BrokerUnavailable as failure:
                if kind not in _HARMLESS_TWICE:
                    raise
                await session.pause(deadline, failure)
        if answer.error_code:
            raise RequestError(code(answer.error_code), answer.error_message or kind)
        return answer.status

    async def _change(
        self, api: int, body: Message, answer: type[Answer],
        judge: Callable[[Answer], tuple[int, str]], *,
        done: Sequence[int] = (), done_again: Sequence[int] = (), final: Sequence[int] = (),
    ) -> None:  # fmt: skip
        """Asks the controller until it answers for good.

        Errors in `done` are success, those in `done_again` too once an answer was lost, and those
        in `final` are told at once though others of their kind are retried.
        """
        session = self._session
        deadline = session.deadline(2 * session.patience_ms)  # one answer may be lost
        lost = False
        while True:
            sent = False
            try:
                link = await self._controller()
                sent = True
                number, detail = judge(await link.request(api, body, answer, session.patience_ms))
            except BrokerUnavailable as error:
                failure: RequestError | BrokerUnavailable = error
                lost = lost or sent
            else:
                if number in (NONE.number, *done) or (lost and number in done_again):
                    return
                lost = lost or number == REQUEST_TIMED_OUT.number  # passed on, and not heard of
                failure = RequestError(code(number), detail)
                if number in final or not code(number).retriable:
                    raise failure
            await session.pause(deadline, failure)
            await session.refresh()

    async def _ask_leader(
        self, place: tuple[str, int], api: int, body: Message, answer: type[Answer], *,
        judge: Callable[[Answer], int],
    ) -> Answer:  # fmt: skip
        """Asks a partition's leader, and whoever leads after it, until one answers for good."""
        session = self._session
        await session.refresh(place[0])
        count = await session.partitions(place[0])
        if not 0 <= place[1] < count:
            raise RequestError(UNKNOWN_TOPIC_OR_PARTITION, f"{place[0]} has {count} partitions")
        deadline = session.deadline(2 * session.patience_ms)
        while True:
            failure: RequestError | BrokerUnavailable
            failure = RequestError(LEADER_NOT_AVAILABLE, f"{place[0]}-{place[1]}")
            leader = session.metadata.leader(*place)
            if leader >= 0:
                try:
                    found = await session.ask_node(
                        leader, api, body, answer, timeout_ms=session.patience_ms
                    )
                except BrokerUnavailable as error:
                    failure = error
                else:
                    number = judge(found)
                    if not number:
                        return found
                    failure = RequestError(code(number), f"{place[0]}-{place[1]}")
                    if not code(number).retriable:
                        raise failure
            await session.pause(deadline, failure)
            await session.refresh()

    async def _controller(self) -> Link:
        session = self._session
        if session.metadata.controller < 0:
            await session.refresh()
        if session.metadata.controller < 0:
            raise BrokerUnavailable("the cluster has no controller at the moment")
        return await session.wait_for(session.metadata.controller, session.patience_ms)
