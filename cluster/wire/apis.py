"""Which APIs exist, which versions of each are served, and which messages they exchange.

Owns the table. Ranges start low and have no holes because clients expect both; version 0 of
Produce is listed only since older librdkafka looks for it before it compresses (its batches are
refused later, as Kafka does). Keys from 1000 are our own.
"""

from __future__ import annotations

import msgspec

from cluster.wire import messages
from cluster.wire.schema import Message

PRODUCE = 0
FETCH = 1
LIST_OFFSETS = 2
METADATA = 3
API_VERSIONS = 18
CREATE_TOPICS = 19
DELETE_TOPICS = 20
INIT_PRODUCER_ID = 22
OFFSET_FOR_LEADER_EPOCH = 23
DESCRIBE_CONFIGS = 32
DESCRIBE_CLUSTER = 60
FAULT = 1000


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
    API_VERSIONS: Api(messages.ApiVersionsRequest, messages.ApiVersionsResponse, 0, 4, 3),
    CREATE_TOPICS: Api(messages.CreateTopicsRequest, messages.CreateTopicsResponse, 2, 7, 5),
    DELETE_TOPICS: Api(messages.DeleteTopicsRequest, messages.DeleteTopicsResponse, 1, 6, 4),
    INIT_PRODUCER_ID: Api(messages.InitProducerIdRequest, messages.InitProducerIdResponse, 0, 4, 2),
    OFFSET_FOR_LEADER_EPOCH: Api(
        messages.OffsetForLeaderEpochRequest, messages.OffsetForLeaderEpochResponse, 2, 4, 4
    ),
    DESCRIBE_CONFIGS: Api(
        messages.DescribeConfigsRequest, messages.DescribeConfigsResponse, 1, 4, 4
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
