"""Metadata (key 3), ApiVersions (key 18) and DescribeCluster (key 60)."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import field

from cluster.wire.schema import (
    NO_UUID,
    Int8,
    Int16,
    Int32,
    Int64,
    Message,
    NullableSince,
    Since,
    Tag,
    Until,
    Uuid,
)

OPERATIONS_UNKNOWN = -(2**31)
"""Authorized operations that nobody computed."""


class MetadataRequestTopic(Message):
    """A topic asked for, by name, or by id with a null name."""

    topic_id: Annotated[Uuid, Since(10)] = NO_UUID
    name: Annotated[str | None, NullableSince(10)] = ""


class MetadataRequest(Message):
    """Ask who leads what; null topics mean all (in version 0 an empty list does)."""

    topics: Annotated[list[MetadataRequestTopic] | None, NullableSince(1)] = field(
        default_factory=list
    )
    allow_auto_topic_creation: Annotated[bool, Since(4)] = True
    include_cluster_authorized_operations: Annotated[bool, Since(8), Until(10)] = False
    include_topic_authorized_operations: Annotated[bool, Since(8)] = False


class MetadataResponseBroker(Message):
    """A live broker and where it listens."""

    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: Annotated[str | None, Since(1)] = None


class MetadataResponsePartition(Message):
    """Who leads a partition and who replicates it; a leader of -1 is none."""

    error_code: Int16 = 0
    partition_index: Int32 = 0
    leader_id: Int32 = 0
    leader_epoch: Annotated[Int32, Since(7)] = -1
    replica_nodes: list[Int32] = field(default_factory=list)
    isr_nodes: list[Int32] = field(default_factory=list)
    offline_replicas: Annotated[list[Int32], Since(5)] = field(default_factory=list)


class MetadataResponseTopic(Message):
    """One topic with all its partitions."""

    spliced: ClassVar[bool] = True
    error_code: Int16 = 0
    name: Annotated[str | None, NullableSince(12)] = ""
    topic_id: Annotated[Uuid, Since(10)] = NO_UUID
    is_internal: Annotated[bool, Since(1)] = False
    partitions: list[MetadataResponsePartition] = field(default_factory=list)
    topic_authorized_operations: Annotated[Int32, Since(8)] = OPERATIONS_UNKNOWN


class MetadataResponse(Message):
    """The cluster as this broker knows it."""

    throttle_time_ms: Annotated[Int32, Since(3)] = 0
    brokers: list[MetadataResponseBroker] = field(default_factory=list)
    cluster_id: Annotated[str | None, Since(2)] = None
    controller_id: Annotated[Int32, Since(1)] = -1
    topics: list[MetadataResponseTopic] = field(default_factory=list)
    cluster_authorized_operations: Annotated[Int32, Since(8), Until(10)] = OPERATIONS_UNKNOWN


class ApiVersionsRequest(Message):
    """Ask which APIs the broker serves."""

    client_software_name: Annotated[str, Since(3)] = ""
    client_software_version: Annotated[str, Since(3)] = ""


class ApiVersion(Message):
    """The versions served of one API, both ends included."""

    api_key: Int16 = 0
    min_version: Int16 = 0
    max_version: Int16 = 0


class SupportedFeatureKey(Message):
    """A feature the broker could finalize."""

    name: str = ""
    min_version: Int16 = 0
    max_version: Int16 = 0


class FinalizedFeatureKey(Message):
    """A feature the cluster has finalized."""

    name: str = ""
    max_version_level: Int16 = 0
    min_version_level: Int16 = 0


class ApiVersionsResponse(Message):
    """Which APIs the broker serves; its response header never has tagged fields."""

    error_code: Int16 = 0
    api_keys: list[ApiVersion] = field(default_factory=list)
    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    supported_features: Annotated[list[SupportedFeatureKey], Since(3), Tag(0)] = field(
        default_factory=list
    )
    finalized_features_epoch: Annotated[Int64, Since(3), Tag(1)] = -1
    finalized_features: Annotated[list[FinalizedFeatureKey], Since(3), Tag(2)] = field(
        default_factory=list
    )
    zk_migration_ready: Annotated[bool, Since(3), Tag(3)] = False


class DescribeClusterRequest(Message):
    """Ask for brokers and controller; endpoint type 1 means brokers."""

    include_cluster_authorized_operations: bool = False
    endpoint_type: Annotated[Int8, Since(1)] = 1


class DescribeClusterBroker(Message):
    """A broker and where it listens."""

    broker_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None


class DescribeClusterResponse(Message):
    """The brokers of the cluster."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    endpoint_type: Annotated[Int8, Since(1)] = 1
    cluster_id: str = ""
    controller_id: Int32 = -1
    brokers: list[DescribeClusterBroker] = field(default_factory=list)
    cluster_authorized_operations: Int32 = OPERATIONS_UNKNOWN
