"""Offsets that groups commit: OffsetCommit (key 8), OffsetFetch (9) and OffsetDelete (47)."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.schema import Int16, Int32, Int64, Message, NullableSince, Since, Until


class OffsetCommitRequestPartition(Message):
    """How far one partition was read."""

    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    committed_leader_epoch: Annotated[Int32, Since(6)] = -1
    committed_metadata: str | None = None


class OffsetCommitRequestTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[OffsetCommitRequestPartition] = field(default_factory=list)


class OffsetCommitRequest(Message):
    """Commit offsets as a member of a generation, or with -1 and no member id as nobody's."""

    group_id: str = ""
    generation_id_or_member_epoch: Annotated[Int32, Since(1)] = -1
    member_id: Annotated[str, Since(1)] = ""
    group_instance_id: Annotated[str | None, Since(7)] = None
    retention_time_ms: Annotated[Int64, Since(2), Until(4)] = -1
    topics: list[OffsetCommitRequestTopic] = field(default_factory=list)


class OffsetCommitResponsePartition(Message):
    """What became of one partition's offset."""

    partition_index: Int32 = 0
    error_code: Int16 = 0


class OffsetCommitResponseTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[OffsetCommitResponsePartition] = field(default_factory=list)


class OffsetCommitResponse(Message):
    """One entry for every partition of the request."""

    throttle_time_ms: Annotated[Int32, Since(3)] = 0
    topics: list[OffsetCommitResponseTopic] = field(default_factory=list)


class OffsetFetchRequestTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partition_indexes: list[Int32] = field(default_factory=list)


class OffsetFetchRequestGroup(Message):
    """A group and what is asked of it, null for everything."""

    group_id: str = ""
    topics: list[OffsetFetchRequestTopic] | None = None


class OffsetFetchRequest(Message):
    """Ask for committed offsets, of one group or from version 8 of several."""

    group_id: Annotated[str, Until(7)] = ""
    topics: Annotated[list[OffsetFetchRequestTopic] | None, NullableSince(2), Until(7)] = field(
        default_factory=list
    )
    groups: Annotated[list[OffsetFetchRequestGroup], Since(8)] = field(default_factory=list)
    require_stable: Annotated[bool, Since(7)] = False


class OffsetFetchResponsePartition(Message):
    """A committed offset, -1 where there is none."""

    partition_index: Int32 = 0
    committed_offset: Int64 = 0
    committed_leader_epoch: Annotated[Int32, Since(5)] = -1
    metadata: str | None = None
    error_code: Int16 = 0


class OffsetFetchResponseTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[OffsetFetchResponsePartition] = field(default_factory=list)


class OffsetFetchResponseGroup(Message):
    """The offsets of one group."""

    group_id: str = ""
    topics: list[OffsetFetchResponseTopic] = field(default_factory=list)
    error_code: Int16 = 0


class OffsetFetchResponse(Message):
    """What was asked for, or with null topics everything that the group has committed."""

    throttle_time_ms: Annotated[Int32, Since(3)] = 0
    topics: Annotated[list[OffsetFetchResponseTopic], Until(7)] = field(default_factory=list)
    error_code: Annotated[Int16, Since(2), Until(7)] = 0
    groups: Annotated[list[OffsetFetchResponseGroup], Since(8)] = field(default_factory=list)


class OffsetDeleteRequestPartition(Message):
    """A partition by index."""

    partition_index: Int32 = 0


class OffsetDeleteRequestTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[OffsetDeleteRequestPartition] = field(default_factory=list)


class OffsetDeleteRequest(Message):
    """Forget committed offsets of topics that nobody in the group reads."""

    group_id: str = ""
    topics: list[OffsetDeleteRequestTopic] = field(default_factory=list)


class OffsetDeleteResponsePartition(Message):
    """What became of one partition's offset."""

    partition_index: Int32 = 0
    error_code: Int16 = 0


class OffsetDeleteResponseTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[OffsetDeleteResponsePartition] = field(default_factory=list)


class OffsetDeleteResponse(Message):
    """An error for all, or one entry for every partition of the request."""

    error_code: Int16 = 0
    throttle_time_ms: Int32 = 0
    topics: list[OffsetDeleteResponseTopic] = field(default_factory=list)
