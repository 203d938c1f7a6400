"""What a partition's leader remembers of its producers, as clients see it.

Owns the values that `Admin.producers` and `Admin.producer` return, and how answers are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.wire.messages import DescribeProducersPartitionResponse, ProducerState


@dataclass(frozen=True, slots=True)
class BatchInfo:
    """One remembered batch: sequences both ends included, offsets half-open, the CRC as stored."""

    first_sequence: int
    last_sequence: int
    base_offset: int
    next_offset: int
    crc: int


@dataclass(frozen=True, slots=True)
class ProducerInfo:
    """One producer of one partition."""

    producer_id: int
    epoch: int
    last_sequence: int
    """-1 if no batch is remembered."""
    last_offset: int
    """Of its last record, -1 if no batch is remembered."""
    idle_ms: int
    """Since its last append at least, by the leader's clock; since the leader leads, if it has
    appended nothing since; -1 if not known."""
    bytes: int
    """Memory of its entry and window."""
    accepted: int
    """Records accepted in this epoch."""
    window: tuple[BatchInfo, ...]
    """The remembered batches, oldest first: a retry of one of them is recognised."""


@dataclass(frozen=True, slots=True)
class FloorInfo:
    """What is left of an expired producer: only the next sequence is accepted."""

    producer_id: int
    epoch: int
    next_sequence: int


@dataclass(frozen=True, slots=True)
class ProducersInfo:
    """The producers of one partition, one page of them or one producer."""

    topic: str
    partition: int
    producers: tuple[ProducerInfo, ...]
    floors: tuple[FloorInfo, ...]
    """Of the one producer that was asked about."""
    next_page: int
    """Where the next page begins, -1 at the end."""
    producer_count: int
    floor_count: int
    table_bytes: int
    """Memory of all producers and floors of the partition."""
    budget_bytes: int
    """What that may reach before new producers are refused."""
    mark: tuple[int, int]
    """(id bound, epoch bound): unknown ids below the one are refused up to the other."""


def read_producers(topic: str, part: DescribeProducersPartitionResponse) -> ProducersInfo:
    """The leader's answer as values."""
    return ProducersInfo(
        topic=topic,
        partition=part.partition_index,
        producers=tuple(_producer(state) for state in part.active_producers),
        floors=tuple(
            FloorInfo(f.producer_id, f.producer_epoch, f.next_sequence) for f in part.floors
        ),
        next_page=part.next_cursor,
        producer_count=part.producers,
        floor_count=part.floor_count,
        table_bytes=part.table_bytes,
        budget_bytes=part.budget_bytes,
        mark=(part.mark_id, part.mark_epoch),
    )


def _producer(state: ProducerState) -> ProducerInfo:
    window = tuple(
        BatchInfo(b.first_sequence, b.last_sequence, b.base_offset, b.next_offset, b.crc)
        for b in state.batches
    )
    return ProducerInfo(
        producer_id=state.producer_id,
        epoch=state.producer_epoch,
        last_sequence=state.last_sequence,
        last_offset=window[-1].next_offset - 1 if window else -1,
        idle_ms=state.idle_ms,
        bytes=state.bytes,
        accepted=state.accepted,
        window=window,
    )
