"""Which APIs exist, which versions of each are served, and which messages they exchange.

Owns the table. Ranges start low and have no holes because clients expect both; version 0 of
Produce is listed only since older librdkafka looks for it before it compresses (its batches are
refused later, as Kafka does). Keys from 1000 are our own.
"""

from __future__ import annotations

import msgspec

from cluster.wire import messages
from cluster.wire.schema import VERSION_MAX, Message

PRODUCE = 0
FETCH = 1
LIST_OFFSETS = 2
METADATA = 3
OFFSET_COMMIT = 8
OFFSET_FETCH = 9
FIND_COORDINATOR = 10
JOIN_GROUP = 11
HEARTBEAT = 12
LEAVE_GROUP = 13
SYNC_GROUP = 14
DESCRIBE_GROUPS = 15
LIST_GROUPS = 16
API_VERSIONS = 18
CREATE_TOPICS = 19
DELETE_TOPICS = 20
DELETE_RECORDS = 21
INIT_PRODUCER_ID = 22
OFFSET_FOR_LEADER_EPOCH = 23
DESCRIBE_CONFIGS = 32
ALTER_CONFIGS = 33
CREATE_PARTITIONS = 37
DELETE_GROUPS = 42
INCREMENTAL_ALTER_CONFIGS = 44
OFFSET_DELETE = 47
DESCRIBE_CLUSTER = 60
DESCRIBE_PRODUCERS = 61
FAULT = 1000
OURS_FROM = 1000
"""Keys from here on are our own; only the native client is told of them."""


class Api(msgspec.Struct, frozen=True):
    """One API: its messages, the versions served (both ends included), the first compact one."""

    request: type[Message]
    response: type[Message]
    version_min: int
    version_max: int
    flexible_since: int


APIS: dict[int, Api] = {
    PRODUCE: Api(messages.ProduceRequest, messages.ProduceResponse, 0, 11, 9),
    FETCH: Api(messages.FetchRequest, messages.FetchResponse, 4, 12, 12),
    LIST_OFFSETS: Api(messages.ListOffsetsRequest, messages.ListOffsetsResponse, 1, 7, 6),
    METADATA: Api(messages.MetadataRequest, messages.MetadataResponse, 0, 12, 9),
    OFFSET_COMMIT: Api(messages.OffsetCommitRequest, messages.OffsetCommitResponse, 2, 8, 8),
    OFFSET_FETCH: Api(messages.OffsetFetchRequest, messages.OffsetFetchResponse, 1, 8, 6),
    FIND_COORDINATOR: Api(
        messages.FindCoordinatorRequest, messages.FindCoordinatorResponse, 0, 4, 3
    ),
    JOIN_GROUP: Api(messages.JoinGroupRequest, messages.JoinGroupResponse, 0, 9, 6),
    HEARTBEAT: Api(messages.HeartbeatRequest, messages.HeartbeatResponse, 0, 4, 4),
    LEAVE_GROUP: Api(messages.LeaveGroupRequest, messages.LeaveGroupResponse, 0, 5, 4),
    SYNC_GROUP: Api(messages.SyncGroupRequest, messages.SyncGroupResponse, 0, 5, 4),
    DESCRIBE_GROUPS: Api(messages.DescribeGroupsRequest, messages.DescribeGroupsResponse, 0, 5, 5),
    LIST_GROUPS: Api(messages.ListGroupsRequest, messages.ListGroupsResponse, 0, 4, 3),
    API_VERSIONS: Api(messages.ApiVersionsRequest, messages.ApiVersionsResponse, 0, 4, 3),
    CREATE_TOPICS: Api(messages.CreateTopicsRequest, messages.CreateTopicsResponse, 2, 7, 5),
    DELETE_TOPICS: Api(messages.DeleteTopicsRequest, messages.DeleteTopicsResponse, 1, 6, 4),
    DELETE_RECORDS: Api(messages.DeleteRecordsRequest, messages.DeleteRecordsResponse, 0, 2, 2),
    INIT_PRODUCER_ID: Api(messages.InitProducerIdRequest, messages.InitProducerIdResponse, 0, 4, 2),
    OFFSET_FOR_LEADER_EPOCH: Api(
        messages.OffsetForLeaderEpochRequest, messages.OffsetForLeaderEpochResponse, 2, 4, 4
    ),
    DESCRIBE_CONFIGS: Api(
        messages.DescribeConfigsRequest, messages.DescribeConfigsResponse, 1, 4, 4
    ),
    DELETE_GROUPS: Api(messages.DeleteGroupsRequest, messages.DeleteGroupsResponse, 0, 2, 2),
    OFFSET_DELETE: Api(
        messages.OffsetDeleteRequest, messages.OffsetDeleteResponse, 0, 0, VERSION_MAX
    ),
    ALTER_CONFIGS: Api(messages.AlterConfigsRequest, messages.AlterConfigsResponse, 0, 2, 2),
    CREATE_PARTITIONS: Api(
        messages.CreatePartitionsRequest, messages.CreatePartitionsResponse, 0, 3, 2
    ),
    INCREMENTAL_ALTER_CONFIGS: Api(
        messages.IncrementalAlterConfigsRequest, messages.IncrementalAlterConfigsResponse, 0, 1, 1
    ),
    DESCRIBE_PRODUCERS: Api(
        messages.DescribeProducersRequest, messages.DescribeProducersResponse, 0, 0, 0
    ),
    DESCRIBE_CLUSTER: Api(
        messages.DescribeClusterRequest, messages.DescribeClusterResponse, 0, 1, 0
    ),
    FAULT: Api(messages.FaultRequest, messages.FaultResponse, 0, 0, 0),
}

SUPPORTED: dict[int, tuple[int, int]] = {
    key: (api.version_min, api.version_max) for key, api in APIS.items()
}
"""What ApiVersions advertises: first and last version by key."""
