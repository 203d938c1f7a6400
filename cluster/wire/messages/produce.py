"""Produce (key 0) and InitProducerId (key 22)."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.schema import Int8, Int16, Int32, Int64, Message, Records, Since, Tag


class PartitionProduceData(Message):
    """One partition's batch; `records` holds exactly one batch of format v2."""

    index: Int32 = 0
    records: Records | None = None


class TopicProduceData(Message):
    """The partitions of one topic in a produce request."""

    name: str = ""
    partition_data: list[PartitionProduceData] = field(default_factory=list)


class ProduceRequest(Message):
    """Append batches; `acks` is -1 (all), 1 (leader) or 0 (no answer at all)."""

    transactional_id: Annotated[str | None, Since(3)] = None
    acks: Int16 = 0
    timeout_ms: Int32 = 0
    topic_data: list[TopicProduceData] = field(default_factory=list)


class BatchIndexAndErrorMessage(Message):
    """Why one record of a refused batch is wrong."""

    batch_index: Int32 = 0
    batch_index_error_message: str | None = None


class LeaderIdAndEpoch(Message):
    """Who leads the partition now, if the answer is that this broker does not."""

    leader_id: Int32 = -1
    leader_epoch: Int32 = -1


class PartitionProduceResponse(Message):
    """The answer for one partition; offsets are -1 where unknown."""

    index: Int32 = 0
    error_code: Int16 = 0
    base_offset: Int64 = 0
    log_append_time_ms: Annotated[Int64, Since(2)] = -1
    log_start_offset: Annotated[Int64, Since(5)] = -1
    record_errors: Annotated[list[BatchIndexAndErrorMessage], Since(8)] = field(
        default_factory=list
    )
    error_message: Annotated[str | None, Since(8)] = None
    current_leader: Annotated[LeaderIdAndEpoch, Since(10), Tag(0)] = LeaderIdAndEpoch()
    verdict: Annotated[Int8, Since(9), Tag(1000)] = 0
    """Ours: what the broker decided (NEW, DUPLICATE, ...); 0 is absent, other clients skip it."""


class TopicProduceResponse(Message):
    """The partitions of one topic in a produce response."""

    name: str = ""
    partition_responses: list[PartitionProduceResponse] = field(default_factory=list)


class NodeEndpoint(Message):
    """Where the brokers named in `current_leader` listen."""

    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    rack: str | None = None


class ProduceResponse(Message):
    """One entry for every partition of the request."""

    responses: list[TopicProduceResponse] = field(default_factory=list)
    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    node_endpoints: Annotated[list[NodeEndpoint], Since(10), Tag(0)] = field(default_factory=list)


class InitProducerIdRequest(Message):
    """Ask for a producer id; with a null transactional id it is always a fresh one."""

    transactional_id: str | None = None
    transaction_timeout_ms: Int32 = 0
    producer_id: Annotated[Int64, Since(3)] = -1
    producer_epoch: Annotated[Int16, Since(3)] = -1


class InitProducerIdResponse(Message):
    """The id and epoch to produce with."""

    throttle_time_ms: Int32 = 0
    error_code: Int16 = 0
    producer_id: Int64 = -1
    producer_epoch: Int16 = 0
