"""Who is in the cluster and who leads what: the answers to Metadata and DescribeCluster.

Owns the reading of these out of the image, with the addresses of the listener that the client
came by, and the making of topics that a Kafka client asks about where that is allowed. A topic is
made before the answer leaves, so that the answer names its leaders; a Kafka client that asks for
a leader which was just lost is answered once the next one is known, or soon without.

Invariants: nothing here changes the image; a question that waits for a topic waits a bounded time,
and no more than a bounded number do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from cluster import errors
from cluster.core.calls import Call
from cluster.core.defaults import INTERNAL_TOPICS, TopicDefaults
from cluster.core.image import Image, PartitionId, Versioned
from cluster.core.losses import Losses
from cluster.core.records import PartitionRecord, Registration, TopicRecord
from cluster.core.topics import bad_name
from cluster.limits import AUTO_CREATE_MS, AUTO_CREATES_MAX, LEADER_WAITS_MAX
from cluster.wire import apis, codec, messages
from cluster.wire.messages.metadata import OPERATIONS_UNKNOWN

TOPIC_OPERATIONS = sum(1 << operation for operation in (3, 4, 5, 6, 7, 8, 10, 11))
"""Everything that may be done with a topic: without authentication everybody may do all of it."""
CLUSTER_OPERATIONS = sum(1 << operation for operation in (5, 7, 8, 9, 10, 11, 12))
NULL_NAMES_SINCE = 12
"""The first version in which a topic that was asked for by its id may have no name."""
_BROKERS, _CONTROLLERS = 1, 2
"""Endpoint types of DescribeCluster."""


@dataclass(slots=True)
class _Waiting:
    """A question whose topics are being made."""

    call: Call
    missing: set[str]
    deadline_ms: int
    refused: dict[str, int] = field(default_factory=dict)
    """Topics that could not be made, and why."""


@dataclass(slots=True)
class _Leaderless:
    """A question whose leaders are being elected."""

    call: Call
    partitions: list[PartitionId]
    deadline_ms: int


class ClusterMetadata:
    """Metadata as one broker knows it."""

    def __init__(
        self, image: Image, node_id: int, defaults: TopicDefaults, *,
        create: Callable[[Call], None], internal_partitions: int,
    ) -> None:  # fmt: skip
        """`create` serves a CreateTopics call, here or where the controller is;
        `internal_partitions` is how many an internal topic will have."""
        self._image = image
        self._node_id = node_id
        self._defaults = defaults
        self._create = create
        self._internal_partitions = internal_partitions
        self.losses = Losses(image)
        self._waiting: list[_Waiting] = []
        self._leaderless: list[_Leaderless] = []
        self._members: tuple[int, dict[int, int]] = (-1, {})
        """Who is alive, as of which change."""
        self._kept: dict[str, dict[tuple[int, int], tuple[tuple[int, int], bytes]]] = {}
        """By topic id, version and operations: the change that it shows, and the encoded topic."""

    # -- brokers ------------------------------------------------------------------------------

    def _controller_id(self, *, native: bool) -> int:
        """The controller's node id while there is one; -1 for none is no answer for Kafka's
        clients, and any broker passes on what only the controller decides.
        """
        controller = self._image.controller
        if controller is not None and self._image.alive(controller.value.node_id) is not None:
            return controller.value.node_id
        return -1 if native else self._node_id

    def _brokers(self, *, native: bool, lost: Iterable[int] = ()) -> list[tuple[int, str, int]]:
        """Brokers alive or lately lost, and where clients of this kind find them."""
        found = []
        for node_id in sorted({*self._image.alive_nodes(), *lost}):
            address = address_of(self._image.brokers[node_id].value, native=native)
            if address is not None:
                found.append((node_id, *address))
        return found

    def describe_cluster(self, call: Call) -> messages.DescribeClusterResponse:
        """Who this cluster is and who is in it."""
        request: messages.DescribeClusterRequest = call.body
        cluster = self._image.cluster
        if request.endpoint_type != _BROKERS:
            asked = request.endpoint_type == _CONTROLLERS
            code = errors.MISMATCHED_ENDPOINT_TYPE if asked else errors.UNSUPPORTED_ENDPOINT_TYPE
            return messages.DescribeClusterResponse(
                error_code=code.number, error_message=code.text, endpoint_type=_BROKERS
            )
        response = messages.DescribeClusterResponse(
            cluster_id="" if cluster is None else cluster.cluster_id,
            controller_id=self._controller_id(native=call.native),
            brokers=[
                messages.DescribeClusterBroker(node_id, host, port)
                for node_id, host, port in self._brokers(native=call.native)
            ],
            cluster_authorized_operations=(
                CLUSTER_OPERATIONS
                if request.include_cluster_authorized_operations
                else OPERATIONS_UNKNOWN
            ),
        )
        return response

    # -- topics -------------------------------------------------------------------------------

    def metadata(self, call: Call) -> messages.MetadataResponse | None:
        """Brokers alive, and the topics asked for; None while topics or leaders are made."""
        missing = self._to_create(call)
        if not missing or len(self._waiting) >= AUTO_CREATES_MAX:
            return None if self._awaits_leaders(call) else self._answer(call, {})
        waiting = _Waiting(call, set(missing), call.now_ms + AUTO_CREATE_MS)
        self._waiting.append(waiting)
        self._begin(waiting, missing)
        return None

    def _awaits_leaders(self, call: Call) -> bool:
        """Whether the question waits for an election. Our own client asks again in no time."""
        if call.native or len(self._leaderless) >= LEADER_WAITS_MAX:
            return False
        wanted: Iterable[TopicRecord | None] = self._image.topics_by_id.values()
        if not _everything(call):
            wanted = map(self._wanted, call.body.topics)
        topics = [topic for topic in wanted if topic is not None]
        awaited, until_ms = self.losses.awaited(topics, call.now_ms)
        if awaited:
            self._leaderless.append(_Leaderless(call, awaited, until_ms))
        return bool(awaited)

    def _answer(self, call: Call, refused: dict[str, int]) -> messages.MetadataResponse:
        request: messages.MetadataRequest = call.body
        cluster = self._image.cluster
        by_cluster = request.include_cluster_authorized_operations
        lost = () if call.native else self.losses.listed(call.now_ms)
        return messages.MetadataResponse(
            brokers=[
                messages.MetadataResponseBroker(node_id, host, port)
                for node_id, host, port in self._brokers(native=call.native, lost=lost)
            ],
            cluster_id=None if cluster is None else cluster.cluster_id,
            controller_id=self._controller_id(native=call.native),
            topics=self._topics(call, refused),
            cluster_authorized_operations=(
                CLUSTER_OPERATIONS if by_cluster else OPERATIONS_UNKNOWN
            ),
        )

    def _topics(self, call: Call, refused: dict[str, int]) -> list[messages.MetadataResponseTopic]:
        request: messages.MetadataRequest = call.body
        operations = OPERATIONS_UNKNOWN
        if request.include_topic_authorized_operations:
            operations = TOPIC_OPERATIONS
        if _everything(call):
            names = sorted({*self._image.topics, *(() if call.native else INTERNAL_TOPICS)})
            wishes = [messages.MetadataRequestTopic(name=name) for name in names]
        else:
            assert request.topics is not None
            wishes = request.topics
        topics: list[messages.MetadataResponseTopic | bytes] = []
        for wish in wishes:
            topic = self._wanted(wish)
            if topic is not None:
                topics.append(self._encoded(topic, call.header.api_version, operations))
            elif not call.native and wish.name in INTERNAL_TOPICS:
                topics.append(self._virtual(wish.name, operations))
            else:
                topics.append(self._missing(call, wish, refused))
        return cast("list[messages.MetadataResponseTopic]", topics)  # the type is `spliced`

    def _missing(
        self, call: Call, wish: messages.MetadataRequestTopic, refused: dict[str, int]
    ) -> messages.MetadataResponseTopic:
        code = self._unknown(wish).number
        if wish.name is not None:
            code = refused.get(wish.name, code)
        no_name = None if call.header.api_version >= NULL_NAMES_SINCE else ""
        return messages.MetadataResponseTopic(code, wish.name or no_name, wish.topic_id)

    def _encoded(self, topic: TopicRecord, version: int, operations: int) -> bytes:
        """One topic in an answer, kept until something that it says has changed."""
        changed = (
            self._image.topic_changes.get(topic.topic_id, -1),
            self._image.member_change,
        )
        kept = self._kept.setdefault(topic.topic_id, {})
        known = kept.get((version, operations))
        if known is None or known[0] != changed:
            data = codec.encode_element(apis.METADATA, version, self._topic(topic, operations))
            known = kept[version, operations] = (changed, data)
            self._forget_deleted()
        return known[1]

    def _forget_deleted(self) -> None:
        if len(self._kept) > 2 * len(self._image.topics) + 16:
            known = self._image.topics_by_id
            self._kept = {key: kept for key, kept in self._kept.items() if key in known}

    def _topic(self, topic: TopicRecord, operations: int) -> messages.MetadataResponseTopic:
        partitions = []
        for key in self._image.partitions_of(topic):
            record = self._image.partitions.get(key)
            if record is not None:
                partitions.append(self._partition(key[1], record))
        return messages.MetadataResponseTopic(
            name=topic.name,
            topic_id=bytes.fromhex(topic.topic_id),
            is_internal=topic.name in INTERNAL_TOPICS,
            partitions=partitions,
            topic_authorized_operations=operations,
        )

    def _unknown(self, wish: messages.MetadataRequestTopic) -> errors.Code:
        if wish.name is None:
            return errors.UNKNOWN_TOPIC_ID
        bad = bad_name(wish.name) is not None
        return errors.INVALID_TOPIC_EXCEPTION if bad else errors.UNKNOWN_TOPIC_OR_PARTITION

    def _wanted(self, wish: messages.MetadataRequestTopic) -> TopicRecord | None:
        if wish.name is None:
            return self._image.topics_by_id.get(wish.topic_id.hex())
        found = self._image.topics.get(wish.name)
        return None if found is None else found.value

    def _virtual(self, name: str | None, operations: int) -> messages.MetadataResponseTopic:
        """An internal topic before it is needed: some clients expect to see its name."""
        nodes = self._image.alive_nodes()
        partitions = [
            messages.MetadataResponsePartition(
                partition_index=index,
                leader_id=nodes[index % len(nodes)],
                leader_epoch=0,
                replica_nodes=nodes,
                isr_nodes=nodes,
            )
            for index in range(self._internal_partitions)
            if nodes
        ]
        return messages.MetadataResponseTopic(
            name=name,
            is_internal=True,
            partitions=partitions,
            topic_authorized_operations=operations,
        )

    def _partition(
        self, index: int, record: Versioned[PartitionRecord]
    ) -> messages.MetadataResponsePartition:
        value, alive = record.value, self._alive()
        led = alive.get(value.leader) == value.leader_incarnation
        return messages.MetadataResponsePartition(
            error_code=0 if led else errors.LEADER_NOT_AVAILABLE.number,
            partition_index=index,
            leader_id=value.leader if led else -1,
            leader_epoch=value.leader_epoch,
            replica_nodes=list(value.replicas),
            isr_nodes=list(value.isr),
            offline_replicas=[node for node in value.replicas if node not in alive],
        )

    def _alive(self) -> dict[int, int]:
        """Brokers alive and their incarnations."""
        changed, alive = self._members
        if changed != self._image.member_change:
            nodes = self._image.brokers
            found = {node: self._image.alive(node) for node in nodes}
            alive = {node: now for node, now in found.items() if now is not None}
            self._members = (self._image.member_change, alive)
        return alive

    # -- topics that a question makes ---------------------------------------------------------

    def _to_create(self, call: Call) -> list[str]:
        """Topics that this question makes: only Kafka's clients expect that."""
        request: messages.MetadataRequest = call.body
        wanted = self._defaults.auto_create and request.allow_auto_topic_creation
        if call.native or not wanted or _everything(call) or request.topics is None:
            return []
        names = [topic.name for topic in request.topics if topic.name is not None]
        return [
            name
            for name in dict.fromkeys(names)
            if name not in self._image.topics
            and name not in INTERNAL_TOPICS
            and bad_name(name) is None
        ][:AUTO_CREATES_MAX]

    def _begin(self, waiting: _Waiting, names: Sequence[str]) -> None:
        wishes = [
            messages.CreatableTopic(name=name, num_partitions=-1, replication_factor=-1)
            for name in names
        ]
        body = messages.CreateTopicsRequest(topics=wishes)
        version = apis.APIS[apis.CREATE_TOPICS].version_max
        frame = codec.encode_request(apis.CREATE_TOPICS, version, 0, None, body)
        header = codec.RequestHeader(apis.CREATE_TOPICS, version, 0, None)
        call = waiting.call

        def made(frame: bytes) -> None:
            _, response = codec.decode_response(apis.CREATE_TOPICS, version, frame)
            assert isinstance(response, messages.CreateTopicsResponse)
            exists = errors.TOPIC_ALREADY_EXISTS.number
            for result in response.topics:
                if result.error_code not in (0, exists):
                    waiting.refused[result.name] = _refusal(result.error_code)
                    waiting.missing.discard(result.name)

        self._create(
            Call(
                body=body,
                header=header,
                connection=b"",
                native=True,
                now_ms=call.now_ms,
                frame=frame,
                out=call.out,
                reply=made,
            )
        )

    def advance(self, now_ms: int) -> None:
        """Answer the questions whose topics and leaders are there, or whose time is up."""
        if self._leaderless:
            self._answer_elected(now_ms)
        if not self._waiting:
            return
        still = []
        for waiting in self._waiting:
            waiting.missing = {n for n in waiting.missing if n not in self._image.topics}
            if waiting.missing and now_ms < waiting.deadline_ms:
                still.append(waiting)
                continue
            late = dict.fromkeys(waiting.missing, errors.LEADER_NOT_AVAILABLE.number)
            waiting.call.answer(self._answer(waiting.call, waiting.refused | late))
        self._waiting = still

    def _answer_elected(self, now_ms: int) -> None:
        still = []
        for waiting in self._leaderless:
            if now_ms < waiting.deadline_ms and not self.losses.decided(waiting.partitions):
                still.append(waiting)
            else:
                waiting.call.answer(self._answer(waiting.call, {}))
        self._leaderless = still

    def next_deadline_ms(self) -> int | None:
        """When a question must be answered as things are then; topics are looked for anyhow."""
        return min((waiting.deadline_ms for waiting in self._leaderless), default=None)


def address_of(broker: Registration, *, native: bool) -> tuple[str, int] | None:
    """Where clients find a broker: by ZeroMQ, or by its listener for Kafka's if it has one."""
    if native:
        return broker.host, broker.port
    if broker.kafka is None:
        return None
    host, _, port = broker.kafka.rpartition(":")
    return host, int(port)


def _refusal(error_code: int) -> int:
    """What a client is told of a topic that could not be made: settings are not its affair."""
    passing = (errors.NOT_CONTROLLER.number, errors.REQUEST_TIMED_OUT.number)
    return errors.LEADER_NOT_AVAILABLE.number if error_code in passing else error_code


def _everything(call: Call) -> bool:
    """Whether all topics are asked for: null, or none in version 0, which has no null."""
    topics = call.body.topics
    return topics is None or (not topics and call.header.api_version == 0)
