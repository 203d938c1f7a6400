"""CreateTopics (key 19), DeleteTopics (key 20) and DescribeConfigs (key 32)."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.schema import (
    NO_UUID,
    Int8,
    Int16,
    Int32,
    Message,
    NullableSince,
    Since,
    Tag,
    Until,
    Uuid,
)


class CreatableReplicaAssignment(Message):
    """The replicas wanted for one partition, preferred leader first."""

    partition_index: Int32 = 0
    broker_ids: list[Int32] = field(default_factory=list)


class CreatableTopicConfig(Message):
    """One setting of a topic to be."""

    name: str = ""
    value: str | None = None


class CreatableTopic(Message):
    """A topic to create; -1 partitions or replicas mean the broker's default."""

    name: str = ""
    num_partitions: Int32 = 0
    replication_factor: Int16 = 0
    assignments: list[CreatableReplicaAssignment] = field(default_factory=list)
    configs: list[CreatableTopicConfig] = field(default_factory=list)


class CreateTopicsRequest(Message):
    """Create topics, or only say whether they could be created."""

    topics: list[CreatableTopic] = field(default_factory=list)
    timeout_ms: Int32 = 60_000
    validate_only: Annotated[bool, Since(1)] = False


class CreatableTopicConfigs(Message):
    """One setting of a created topic and where its value comes from."""

    name: str = ""
    value: str | None = None
    read_only: bool = False
    config_source: Int8 = -1
    is_sensitive: bool = False


class CreatableTopicResult(Message):
    """What became of one topic; `configs` is null only with an error for the configuration."""

    name: str = ""
    topic_id: Annotated[Uuid, Since(7)] = NO_UUID
    error_code: Int16 = 0
    error_message: Annotated[str | None, Since(1)] = None
    topic_config_error_code: Annotated[Int16, Since(5), Tag(0)] = 0
    num_partitions: Annotated[Int32, Since(5)] = -1
    replication_factor: Annotated[Int16, Since(5)] = -1
    configs: Annotated[list[CreatableTopicConfigs] | None, Since(5)] = field(default_factory=list)


class CreateTopicsResponse(Message):
    """One entry for every topic of the request."""

    throttle_time_ms: Annotated[Int32, Since(2)] = 0
    topics: list[CreatableTopicResult] = field(default_factory=list)


class DeleteTopicState(Message):
    """A topic to delete, by name, or by id with a null name."""

    name: str | None = None
    topic_id: Uuid = NO_UUID


class DeleteTopicsRequest(Message):
    """Delete topics; up to version 5 by name only."""

    topics: Annotated[list[DeleteTopicState], Since(6)] = field(default_factory=list)
    topic_names: Annotated[list[str], Until(5)] = field(default_factory=list)
    timeout_ms: Int32 = 0


class DeletableTopicResult(Message):
    """What became of one topic."""

    name: Annotated[str | None, NullableSince(6)] = ""
    topic_id: Annotated[Uuid, Since(6)] = NO_UUID
    error_code: Int16 = 0
    error_message: Annotated[str | None, Since(5)] = None


class DeleteTopicsResponse(Message):
    """One entry for every topic of the request."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    responses: list[DeletableTopicResult] = field(default_factory=list)


class DescribeConfigsResource(Message):
    """What to describe (type 2 a topic, 4 a broker); null keys mean all."""

    resource_type: Int8 = 0
    resource_name: str = ""
    configuration_keys: list[str] | None = field(default_factory=list)


class DescribeConfigsRequest(Message):
    """Ask for settings."""

    resources: list[DescribeConfigsResource] = field(default_factory=list)
    include_synonyms: Annotated[bool, Since(1)] = False
    include_documentation: Annotated[bool, Since(3)] = False


class DescribeConfigsSynonym(Message):
    """Another place a setting may come from."""

    name: str = ""
    value: str | None = None
    source: Int8 = 0


class DescribeConfigsResourceResult(Message):
    """One setting, where its value comes from and of what type it is."""

    name: str = ""
    value: str | None = None
    read_only: bool = False
    config_source: Annotated[Int8, Since(1)] = -1
    is_sensitive: bool = False
    synonyms: Annotated[list[DescribeConfigsSynonym], Since(1)] = field(default_factory=list)
    config_type: Annotated[Int8, Since(3)] = 0
    documentation: Annotated[str | None, Since(3)] = None


class DescribeConfigsResult(Message):
    """The settings of one resource."""

    error_code: Int16 = 0
    error_message: str | None = None
    resource_type: Int8 = 0
    resource_name: str = ""
    configs: list[DescribeConfigsResourceResult] = field(default_factory=list)


class DescribeConfigsResponse(Message):
    """One entry for every resource of the request."""

    throttle_time_ms: Int32 = 0
    results: list[DescribeConfigsResult] = field(default_factory=list)
