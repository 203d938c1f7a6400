"""CreatePartitions (key 37) and DeleteRecords (key 21)."""

from __future__ import annotations

from msgspec import field

from cluster.wire.schema import Int16, Int32, Int64, Message


class CreatePartitionsAssignment(Message):
    """The replicas wanted for one new partition, preferred leader first."""

    broker_ids: list[Int32] = field(default_factory=list)


class CreatePartitionsTopic(Message):
    """A topic and how many partitions it shall have in all; null assignments are automatic."""

    name: str = ""
    count: Int32 = 0
    assignments: list[CreatePartitionsAssignment] | None = field(default_factory=list)


class CreatePartitionsRequest(Message):
    """Add partitions to topics, or only say whether that could be done."""

    topics: list[CreatePartitionsTopic] = field(default_factory=list)
    timeout_ms: Int32 = 0
    validate_only: bool = False


class CreatePartitionsTopicResult(Message):
    """What became of one topic."""

    name: str = ""
    error_code: Int16 = 0
    error_message: str | None = None


class CreatePartitionsResponse(Message):
    """One entry for every topic of the request."""

    throttle_time_ms: Int32 = 0
    results: list[CreatePartitionsTopicResult] = field(default_factory=list)


class DeleteRecordsPartition(Message):
    """Delete what lies before `offset`; -1 is the high watermark."""

    partition_index: Int32 = 0
    offset: Int64 = 0


class DeleteRecordsTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[DeleteRecordsPartition] = field(default_factory=list)


class DeleteRecordsRequest(Message):
    """Move the start of logs up; asked of each partition's leader."""

    topics: list[DeleteRecordsTopic] = field(default_factory=list)
    timeout_ms: Int32 = 0


class DeleteRecordsPartitionResult(Message):
    """Where the log begins now."""

    partition_index: Int32 = 0
    low_watermark: Int64 = 0
    error_code: Int16 = 0


class DeleteRecordsTopicResult(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[DeleteRecordsPartitionResult] = field(default_factory=list)


class DeleteRecordsResponse(Message):
    """One entry for every partition of the request."""

    throttle_time_ms: Int32 = 0
    topics: list[DeleteRecordsTopicResult] = field(default_factory=list)
