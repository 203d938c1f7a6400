"""ListOffsets (key 2) and OffsetForLeaderEpoch (key 23)."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.schema import Int8, Int16, Int32, Int64, Message, Since


class ListOffsetsPartition(Message):
    """Which offset: `timestamp` in ms, or -1 the end, -2 the start, -3 the largest timestamp."""

    partition_index: Int32 = 0
    current_leader_epoch: Annotated[Int32, Since(4)] = -1
    timestamp: Int64 = 0


class ListOffsetsTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[ListOffsetsPartition] = field(default_factory=list)


class ListOffsetsRequest(Message):
    """Ask for offsets by time; `replica_id` is -1 for consumers."""

    replica_id: Int32 = 0
    isolation_level: Annotated[Int8, Since(2)] = 0
    topics: list[ListOffsetsTopic] = field(default_factory=list)


class ListOffsetsPartitionResponse(Message):
    """The offset found and its record's timestamp; both -1 if there is none."""

    partition_index: Int32 = 0
    error_code: Int16 = 0
    timestamp: Annotated[Int64, Since(1)] = -1
    offset: Annotated[Int64, Since(1)] = -1
    leader_epoch: Annotated[Int32, Since(4)] = -1


class ListOffsetsTopicResponse(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[ListOffsetsPartitionResponse] = field(default_factory=list)


class ListOffsetsResponse(Message):
    """One entry for every partition of the request."""

    throttle_time_ms: Annotated[Int32, Since(2)] = 0
    topics: list[ListOffsetsTopicResponse] = field(default_factory=list)


class OffsetForLeaderPartition(Message):
    """Of which leader epoch the end is asked."""

    partition: Int32 = 0
    current_leader_epoch: Annotated[Int32, Since(2)] = -1
    leader_epoch: Int32 = 0


class OffsetForLeaderTopic(Message):
    """The partitions of one topic."""

    topic: str = ""
    partitions: list[OffsetForLeaderPartition] = field(default_factory=list)


class OffsetForLeaderEpochRequest(Message):
    """Ask where leader epochs end."""

    replica_id: Annotated[Int32, Since(3)] = -2
    topics: list[OffsetForLeaderTopic] = field(default_factory=list)


class LeaderEpochEndOffset(Message):
    """The largest epoch not above the one asked, and its end (Kafka's EpochEndOffset here)."""

    error_code: Int16 = 0
    partition: Int32 = 0
    leader_epoch: Annotated[Int32, Since(1)] = -1
    end_offset: Int64 = -1


class OffsetForLeaderTopicResult(Message):
    """The partitions of one topic."""

    topic: str = ""
    partitions: list[LeaderEpochEndOffset] = field(default_factory=list)


class OffsetForLeaderEpochResponse(Message):
    """One entry for every partition of the request."""

    throttle_time_ms: Annotated[Int32, Since(2)] = 0
    topics: list[OffsetForLeaderTopicResult] = field(default_factory=list)
