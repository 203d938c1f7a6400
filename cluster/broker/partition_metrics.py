"""The metrics that have a series for each partition: how far its log is, and who leads it.

Owns their names, kinds and meanings. What only a leader knows is told by the leader alone, so that
sums over brokers count nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from cluster.broker.observed import PartitionMetric
from cluster.core.partition import Partition
from cluster.storage.disk import DiskError


def _led(read: Callable[[Partition], int]) -> Callable[[Partition], int | None]:
    """Only the leader of a partition knows."""
    return lambda partition: None if partition.leader is None else read(partition)


def _log_size(partition: Partition) -> int | None:
    """Nothing if the disk does not tell."""
    log = partition.replica.log
    with suppress(DiskError):
        return None if log.closed else log.size
    return None


def _in_sync(partition: Partition) -> int:
    assert partition.record is not None
    return len(partition.record.value.isr)


PARTITION_METRICS: Sequence[PartitionMetric] = (
    PartitionMetric(
        "oncelog_records_appended_total", "counter",
        "Records that this broker appended as the leader.",
        lambda p: p.replica.log.lane.records,
    ),
    PartitionMetric(
        "oncelog_batches_appended_total", "counter",
        "Batches that this broker appended as the leader.",
        lambda p: p.replica.log.lane.batches,
    ),
    PartitionMetric(
        "oncelog_bytes_appended_total", "counter",
        "Bytes of batches that this broker appended as the leader.",
        lambda p: p.replica.log.lane.bytes,
    ),
    PartitionMetric(
        "oncelog_duplicates_rejected_total", "counter",
        "Batches that were stored already and were acknowledged without being stored again.",
        lambda p: p.replica.log.lane.duplicates,
    ),
    PartitionMetric(
        "oncelog_sequence_gaps_total", "counter",
        "Batches refused because an earlier one of their producer is missing.",
        lambda p: p.replica.log.lane.gaps,
    ),
    PartitionMetric(
        "oncelog_fenced_epochs_total", "counter",
        "Batches refused because their producer epoch is an older one.",
        lambda p: p.replica.log.lane.fenced,
    ),
    PartitionMetric(
        "oncelog_unknown_producers_total", "counter",
        "Batches refused because their producer is not known and they are not its first.",
        lambda p: p.replica.log.lane.unknown_producers,
    ),
    PartitionMetric(
        "oncelog_invalid_batches_total", "counter",
        "Batches refused as malformed: checksum, length, counts, sequence or producer id.",
        lambda p: p.replica.log.lane.invalid + p.replica.log.lane.above_bound,
    ),
    PartitionMetric(
        "oncelog_sequence_conflicts_total", "counter",
        "Batches with the sequences of a stored one but other bytes.",
        lambda p: p.replica.log.lane.conflicts,
    ),
    PartitionMetric(
        "oncelog_stale_batches_total", "counter",
        "Batches older than all that are remembered of their producer.",
        lambda p: p.replica.log.lane.stale,
    ),
    PartitionMetric(
        "oncelog_batches_refused_total", "counter",
        "Batches refused for the moment: too few members in sync, or no memory for new producers.",
        lambda p: p.replica.log.lane.refused,
    ),
    PartitionMetric(
        "oncelog_producers_tracked", "gauge",
        "Producers whose state the replica keeps.",
        lambda p: len(p.replica.log.table),
    ),
    PartitionMetric(
        "oncelog_log_start_offset", "gauge",
        "Where the log begins; records below were deleted.",
        lambda p: p.replica.log.start_offset,
    ),
    PartitionMetric(
        "oncelog_log_size_bytes", "gauge", "Bytes of the log's segments.", _log_size,
    ),
    PartitionMetric(
        "oncelog_log_end_offset", "gauge",
        "One past the last offset of the replica's log.",
        lambda p: p.replica.log.next_offset,
    ),
    PartitionMetric(
        "oncelog_high_watermark", "gauge",
        "One past the last offset that consumers may read.",
        lambda p: p.replica.high_watermark,
    ),
    PartitionMetric(
        "oncelog_high_watermark_lag", "gauge",
        "Records in the replica's log that are not known to be committed.",
        lambda p: p.replica.log.next_offset - p.replica.high_watermark,
        max,
    ),
    PartitionMetric(
        "oncelog_in_sync_replicas", "gauge",
        "Members of the in-sync set, told by the leader.",
        _led(_in_sync),
        min,
    ),
    PartitionMetric(
        "oncelog_under_min_in_sync", "gauge",
        "1 while the leader refuses acks=all writes for want of members, else 0.",
        lambda p: None if p.leader is None else int(not p.leader.members_present),
    ),
    PartitionMetric(
        "oncelog_leader_terms_total", "counter",
        "Times this broker became the leader.",
        lambda p: p.terms_led,
    ),
    PartitionMetric(
        "oncelog_producer_state_differs_total", "counter",
        "Times a follower's producer state was not its leader's.",
        lambda p: p.replica.differed,
    ),
    PartitionMetric(
        "oncelog_stream_messages_dropped_total", "counter",
        "Replication messages of another stream or term, which were dropped.",
        lambda p: p.dropped,
    ),
)  # fmt: skip
