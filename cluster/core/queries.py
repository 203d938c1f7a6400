"""Requests that only read: who leads, which topics, which offsets, which settings.

Owns the answers to Metadata, DescribeCluster, DescribeConfigs, ListOffsets, OffsetForLeaderEpoch
and ApiVersions, from the image and from this broker's partitions. Nothing here changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster import errors
from cluster.core.hosted import Find, Led
from cluster.core.image import Image, Versioned
from cluster.core.records import PartitionRecord, TopicRecord
from cluster.core.replica import Replica
from cluster.storage.disk import DiskError
from cluster.wire import messages
from cluster.wire.apis import SUPPORTED

LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3
TOPIC_RESOURCE = 2
DYNAMIC_TOPIC_CONFIG, DEFAULT_CONFIG = 1, 5


class Queries:
    """Read-only requests of one broker."""

    def __init__(self, image: Image, find: Find, topic_defaults: Mapping[str, str]) -> None:
        """`topic_defaults` are the settings that a topic has unless it says otherwise."""
        self._image = image
        self._find = find
        self._defaults = topic_defaults

    @property
    def controller_id(self) -> int:
        """The controller's node id, -1 while there is none."""
        controller = self._image.controller
        return -1 if controller is None else controller.value.node_id

    def api_versions(self) -> messages.ApiVersionsResponse:
        """The APIs this broker serves."""
        keys = [
            messages.ApiVersion(api_key=key, min_version=low, max_version=high)
            for key, (low, high) in sorted(SUPPORTED.items())
        ]
        return messages.ApiVersionsResponse(api_keys=keys)

    # -- topics and brokers -------------------------------------------------------------------

    def metadata(self, request: messages.MetadataRequest) -> messages.MetadataResponse:
        """Brokers alive, and the topics asked for, all of them where none is named."""
        brokers = []
        for node_id in self._image.alive_nodes():
            value = self._image.brokers[node_id].value
            brokers.append(
                messages.MetadataResponseBroker(node_id=node_id, host=value.host, port=value.port)
            )
        cluster = self._image.cluster
        return messages.MetadataResponse(
            brokers=brokers,
            cluster_id=None if cluster is None else cluster.cluster_id,
            controller_id=self.controller_id,
            topics=self._topics(request),
        )

    def _topics(self, request: messages.MetadataRequest) -> list[messages.MetadataResponseTopic]:
        if request.topics is None:
            return [self._topic(t.value) for _, t in sorted(self._image.topics.items())]
        answers = []
        for wanted in request.topics:
            found = self._wanted(wanted)
            if found is not None:
                answers.append(self._topic(found))
                continue
            by_id = wanted.name is None
            code = errors.UNKNOWN_TOPIC_ID if by_id else errors.UNKNOWN_TOPIC_OR_PARTITION
            answers.append(
                messages.MetadataResponseTopic(
                    error_code=code.number, name=wanted.name, topic_id=wanted.topic_id
                )
            )
        return answers

    def _wanted(self, wanted: messages.MetadataRequestTopic) -> TopicRecord | None:
        if wanted.name is None:
            return self._image.topics_by_id.get(wanted.topic_id.hex())
        found = self._image.topics.get(wanted.name)
        return None if found is None else found.value

    def _topic(self, topic: TopicRecord) -> messages.MetadataResponseTopic:
        partitions = []
        for key in self._image.partitions_of(topic):
            record = self._image.partitions.get(key)
            if record is not None:
                partitions.append(self._partition(key[1], record))
        return messages.MetadataResponseTopic(
            name=topic.name, topic_id=bytes.fromhex(topic.topic_id), partitions=partitions
        )

    def _partition(
        self, index: int, record: Versioned[PartitionRecord]
    ) -> messages.MetadataResponsePartition:
        value = record.value
        led = self._image.leads(value)
        return messages.MetadataResponsePartition(
            error_code=0 if led else errors.LEADER_NOT_AVAILABLE.number,
            partition_index=index,
            leader_id=value.leader if led else -1,
            leader_epoch=value.leader_epoch,
            replica_nodes=list(value.replicas),
            isr_nodes=list(value.isr),
            offline_replicas=[n for n in value.replicas if self._image.alive(n) is None],
        )

    def describe_cluster(self) -> messages.DescribeClusterResponse:
        """Who this cluster is and who is in it."""
        brokers = []
        for node_id in self._image.alive_nodes():
            value = self._image.brokers[node_id].value
            brokers.append(
                messages.DescribeClusterBroker(broker_id=node_id, host=value.host, port=value.port)
            )
        cluster = self._image.cluster
        return messages.DescribeClusterResponse(
            cluster_id="" if cluster is None else cluster.cluster_id,
            controller_id=self.controller_id,
            brokers=brokers,
        )

    def describe_configs(
        self, request: messages.DescribeConfigsRequest
    ) -> messages.DescribeConfigsResponse:
        """The settings of topics, defaults included and marked as such."""
        return messages.DescribeConfigsResponse(
            results=[self._configs(resource) for resource in request.resources]
        )

    def _configs(
        self, resource: messages.DescribeConfigsResource
    ) -> messages.DescribeConfigsResult:
        topic = self._image.topics.get(resource.resource_name)
        if resource.resource_type != TOPIC_RESOURCE or topic is None:
            topic_asked = resource.resource_type == TOPIC_RESOURCE
            code = errors.UNKNOWN_TOPIC_OR_PARTITION if topic_asked else errors.INVALID_REQUEST
            return messages.DescribeConfigsResult(
                error_code=code.number,
                error_message=None if topic_asked else "only topics have settings here",
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
        own, asked = topic.value.config, resource.configuration_keys
        configs = [
            messages.DescribeConfigsResourceResult(
                name=name,
                value=value,
                config_source=DYNAMIC_TOPIC_CONFIG if name in own else DEFAULT_CONFIG,
            )
            for name, value in sorted({**self._defaults, **own}.items())
            if asked is None or name in asked
        ]
        return messages.DescribeConfigsResult(
            resource_type=TOPIC_RESOURCE, resource_name=resource.resource_name, configs=configs
        )

    # -- offsets ------------------------------------------------------------------------------

    def list_offsets(self, request: messages.ListOffsetsRequest) -> messages.ListOffsetsResponse:
        """Offsets by time: the end that is committed, the start, or the first not older."""
        return messages.ListOffsetsResponse(
            topics=[
                messages.ListOffsetsTopicResponse(
                    name=topic.name,
                    partitions=[self._offset(topic.name, part) for part in topic.partitions],
                )
                for topic in request.topics
            ]
        )

    def _offset(
        self, topic: str, part: messages.ListOffsetsPartition
    ) -> messages.ListOffsetsPartitionResponse:
        found = self._led(topic, part.partition_index, part.current_leader_epoch)
        if isinstance(found, errors.Code):
            return messages.ListOffsetsPartitionResponse(
                partition_index=part.partition_index, error_code=found.number
            )
        replica, code = found.replica, errors.NONE
        offset, timestamp = -1, -1
        if part.timestamp == EARLIEST:
            offset = replica.log.start_offset
        elif part.timestamp == LATEST:
            offset = replica.high_watermark
            if offset < found.epoch_start:
                # What an earlier leader committed may lie above this watermark (KIP-207).
                code, offset = errors.OFFSET_NOT_AVAILABLE, -1
        elif part.timestamp == MAX_TIMESTAMP or part.timestamp >= 0:
            code, offset, timestamp = _by_time(replica, part.timestamp)
        else:
            code = errors.INVALID_REQUEST
        return messages.ListOffsetsPartitionResponse(
            partition_index=part.partition_index,
            error_code=code.number,
            timestamp=timestamp,
            offset=offset,
            leader_epoch=found.epoch,
        )

    def offset_for_leader_epoch(
        self, request: messages.OffsetForLeaderEpochRequest
    ) -> messages.OffsetForLeaderEpochResponse:
        """Where leader epochs end in this leader's log (KIP-101)."""
        return messages.OffsetForLeaderEpochResponse(
            topics=[
                messages.OffsetForLeaderTopicResult(
                    topic=topic.topic,
                    partitions=[self._epoch_end(topic.topic, part) for part in topic.partitions],
                )
                for topic in request.topics
            ]
        )

    def _epoch_end(
        self, topic: str, part: messages.OffsetForLeaderPartition
    ) -> messages.LeaderEpochEndOffset:
        found = self._led(topic, part.partition, part.current_leader_epoch)
        if isinstance(found, errors.Code):
            return messages.LeaderEpochEndOffset(error_code=found.number, partition=part.partition)
        epoch, end = found.replica.log.epoch_end(part.leader_epoch)
        return messages.LeaderEpochEndOffset(
            partition=part.partition, leader_epoch=epoch, end_offset=end
        )

    def _led(self, topic: str, index: int, epoch: int) -> Led | errors.Code:
        partition = self._find(topic, index)
        if partition is None:
            return errors.UNKNOWN_TOPIC_OR_PARTITION
        leader = partition.leader
        if leader is None:
            return errors.NOT_LEADER_OR_FOLLOWER
        if 0 <= epoch < leader.epoch:
            return errors.FENCED_LEADER_EPOCH
        if epoch > leader.epoch:
            return errors.UNKNOWN_LEADER_EPOCH
        return leader


def _by_time(replica: Replica, timestamp: int) -> tuple[errors.Code, int, int]:
    """(error, offset, timestamp) of the first committed record not older, -1 for none.

    MAX_TIMESTAMP asks for the newest there is.
    """
    try:
        wanted = replica.log.last_timestamp if timestamp == MAX_TIMESTAMP else timestamp
        hit = replica.log.offset_for_timestamp(wanted) if wanted >= 0 else None
    except DiskError:
        return errors.KAFKA_STORAGE_ERROR, -1, -1
    if hit is None or hit[0] >= replica.high_watermark:
        return errors.NONE, -1, -1
    return errors.NONE, *hit
