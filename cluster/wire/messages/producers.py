"""DescribeProducers (key 61), with what Kafka does not tell in tagged fields of our own."""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.schema import Int16, Int32, Int64, Message, Tag


class DescribeProducersTopic(Message):
    """The partitions of one topic."""

    name: str = ""
    partition_indexes: list[Int32] = field(default_factory=list)


class DescribeProducersRequest(Message):
    """Which producers are known; a page of them, or one, where our tagged fields say so."""

    topics: list[DescribeProducersTopic] = field(default_factory=list)
    producer_id: Annotated[Int64, Tag(1000)] = -1
    """Ours: only this producer, its floor too; -1 is all."""
    cursor: Annotated[Int64, Tag(1001)] = 0
    """Ours: where the page begins, as the answer before said."""


class RememberedBatch(Message):
    """Ours: one batch of a producer's window; the sequence range is inclusive."""

    first_sequence: Int32 = 0
    last_sequence: Int32 = 0
    base_offset: Int64 = 0
    next_offset: Int64 = 0
    crc: Int64 = 0
    """As stored, 0 to 2^32 - 1."""


class ProducerState(Message):
    """One producer of a partition."""

    producer_id: Int64 = 0
    producer_epoch: Int32 = 0
    last_sequence: Int32 = -1
    last_timestamp: Int64 = -1
    coordinator_epoch: Int32 = 0
    current_txn_start_offset: Int64 = -1
    batches: Annotated[list[RememberedBatch], Tag(1000)] = field(default_factory=list)
    """Ours: the window, oldest batch first."""
    idle_ms: Annotated[Int64, Tag(1001)] = -1
    """Ours: how long ago it last appended by the leader's clock, or how long this leader has led
    if it has appended nothing since."""
    bytes: Annotated[Int32, Tag(1002)] = 0
    """Ours: memory of its entry and window."""
    accepted: Annotated[Int64, Tag(1003)] = 0
    """Ours: records accepted in this epoch."""


class ProducerFloor(Message):
    """Ours: what is left of an expired producer; the next sequence revives it."""

    producer_id: Int64 = 0
    producer_epoch: Int32 = 0
    next_sequence: Int32 = 0


class DescribeProducersPartitionResponse(Message):
    """The producers of one partition, as its leader remembers them."""

    partition_index: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None
    active_producers: list[ProducerState] = field(default_factory=list)
    next_cursor: Annotated[Int64, Tag(1000)] = -1
    """Ours: where the next page begins, -1 at the end."""
    floors: Annotated[list[ProducerFloor], Tag(1001)] = field(default_factory=list)
    """Ours: floors, in answers about one producer."""
    producers: Annotated[Int64, Tag(1002)] = 0
    """Ours: how many producers there are in all."""
    floor_count: Annotated[Int64, Tag(1003)] = 0
    table_bytes: Annotated[Int64, Tag(1004)] = 0
    """Ours: memory of all producers and floors."""
    budget_bytes: Annotated[Int64, Tag(1005)] = 0
    mark_id: Annotated[Int64, Tag(1006)] = 0
    """Ours: unknown ids below are refused up to the epoch below."""
    mark_epoch: Annotated[Int32, Tag(1007)] = -1


class DescribeProducersTopicResponse(Message):
    """The partitions of one topic."""

    name: str = ""
    partitions: list[DescribeProducersPartitionResponse] = field(default_factory=list)


class DescribeProducersResponse(Message):
    """One entry for every partition of the request."""

    throttle_time_ms: Int32 = 0
    topics: list[DescribeProducersTopicResponse] = field(default_factory=list)
