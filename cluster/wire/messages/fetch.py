"""Fetch (key 1), by topic name."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.messages.produce import LeaderIdAndEpoch
from cluster.wire.schema import Int8, Int16, Int32, Int64, Message, Records, Since, Tag


class FetchPartition(Message):
    """Where to read one partition; an epoch of -1 asks for no check of it."""

    partition: Int32 = 0
    current_leader_epoch: Annotated[Int32, Since(9)] = -1
    fetch_offset: Int64 = 0
    last_fetched_epoch: Annotated[Int32, Since(12)] = -1
    log_start_offset: Annotated[Int64, Since(5)] = -1
    partition_max_bytes: Int32 = 0


class FetchTopic(Message):
    """The partitions of one topic in a fetch request."""

    topic: str = ""
    partitions: list[FetchPartition] = field(default_factory=list)


class ForgottenTopic(Message):
    """Partitions to drop from the fetch session."""

    topic: str = ""
    partitions: list[Int32] = field(default_factory=list)


class FetchRequest(Message):
    """Read batches; answered when `min_bytes` are there or `max_wait_ms` have passed."""

    cluster_id: Annotated[str | None, Since(12), Tag(0)] = None
    replica_id: Int32 = -1
    max_wait_ms: Int32 = 0
    min_bytes: Int32 = 0
    max_bytes: Annotated[Int32, Since(3)] = 0x7FFFFFFF
    isolation_level: Annotated[Int8, Since(4)] = 0
    session_id: Annotated[Int32, Since(7)] = 0
    session_epoch: Annotated[Int32, Since(7)] = -1
    topics: list[FetchTopic] = field(default_factory=list)
    forgotten_topics_data: Annotated[list[ForgottenTopic], Since(7)] = field(default_factory=list)
    rack_id: Annotated[str, Since(11)] = ""


class EpochEndOffset(Message):
    """Where the reader's history ends to agree with the leader's."""

    epoch: Int32 = -1
    end_offset: Int64 = -1


class SnapshotId(Message):
    """A snapshot to fetch instead; never set by brokers of data."""

    end_offset: Int64 = -1
    epoch: Int32 = -1


class AbortedTransaction(Message):
    """A transaction whose records a read_committed reader drops."""

    producer_id: Int64 = 0
    first_offset: Int64 = 0


class PartitionData(Message):
    """What was read of one partition; `records` are whole batches, empty rather than null."""

    partition_index: Int32 = 0
    error_code: Int16 = 0
    high_watermark: Int64 = 0
    last_stable_offset: Annotated[Int64, Since(4)] = -1
    log_start_offset: Annotated[Int64, Since(5)] = -1
    diverging_epoch: Annotated[EpochEndOffset, Since(12), Tag(0)] = EpochEndOffset()
    current_leader: Annotated[LeaderIdAndEpoch, Since(12), Tag(1)] = LeaderIdAndEpoch()
    snapshot_id: Annotated[SnapshotId, Since(12), Tag(2)] = SnapshotId()
    aborted_transactions: Annotated[list[AbortedTransaction] | None, Since(4)] = field(
        default_factory=list
    )
    preferred_read_replica: Annotated[Int32, Since(11)] = -1
    records: Records | None = None


class FetchableTopicResponse(Message):
    """The partitions of one topic in a fetch response."""

    topic: str = ""
    partitions: list[PartitionData] = field(default_factory=list)


class FetchResponse(Message):
    """Without a session (id 0) every requested partition has an entry, empty or not."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    error_code: Annotated[Int16, Since(7)] = 0
    session_id: Annotated[Int32, Since(7)] = 0
    responses: list[FetchableTopicResponse] = field(default_factory=list)
