"""Requests that only read offsets: by time, and where leader epochs end.

Owns the answers to ListOffsets and OffsetForLeaderEpoch from this broker's partitions. Nothing here
changes anything.
"""

from __future__ import annotations

from collections import Counter

from cluster import errors
from cluster.core.calls import Call
from cluster.core.hosted import Find, Led
from cluster.core.replica import Replica
from cluster.storage.disk import DiskError
from cluster.wire import messages

LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3
SPECIAL_SINCE = {LATEST: 1, EARLIEST: 1, MAX_TIMESTAMP: 7}
"""The version in which each special timestamp came; the ones of tiered storage came later than
any version served.
"""
OFFSET_NOT_AVAILABLE_SINCE = 5


class Queries:
    """Read-only requests of one broker."""

    def __init__(self, find: Find) -> None:
        """`find` gives this broker's partition of a topic."""
        self._find = find

    # -- offsets ------------------------------------------------------------------------------

    def list_offsets(self, call: Call) -> messages.ListOffsetsResponse:
        """Offsets by time: the end that is committed, the start, or the first not older."""
        request: messages.ListOffsetsRequest = call.body
        named = Counter((t.name, part.partition_index) for t in request.topics
                        for part in t.partitions)  # fmt: skip
        version = call.header.api_version
        topics = []
        for topic in request.topics:
            parts = []
            for part in topic.partitions:
                if named[topic.name, part.partition_index] > 1:
                    parts.append(_no_offset(part, errors.INVALID_REQUEST))
                else:
                    parts.append(self._offset(topic.name, part, version))
            topics.append(messages.ListOffsetsTopicResponse(topic.name, parts))
        return messages.ListOffsetsResponse(topics=topics)

    def _offset(
        self, topic: str, part: messages.ListOffsetsPartition, version: int
    ) -> messages.ListOffsetsPartitionResponse:
        if part.timestamp < 0 and version < SPECIAL_SINCE.get(part.timestamp, version + 1):
            return _no_offset(part, errors.UNSUPPORTED_VERSION)
        found = self._led(topic, part.partition_index, part.current_leader_epoch)
        if isinstance(found, errors.Code):
            return _no_offset(part, found)
        replica, timestamp = found.replica, -1
        if part.timestamp == EARLIEST:
            offset = replica.log.start_offset
        elif part.timestamp == LATEST:
            offset = replica.high_watermark
            if offset < found.epoch_start:
                # What an earlier leader committed may lie above this watermark (KIP-207).
                known = version >= OFFSET_NOT_AVAILABLE_SINCE
                missing = errors.OFFSET_NOT_AVAILABLE if known else errors.LEADER_NOT_AVAILABLE
                return _no_offset(part, missing)
        else:
            code, offset, timestamp = _by_time(replica, part.timestamp)
            if code is not errors.NONE:
                return _no_offset(part, code)
        return messages.ListOffsetsPartitionResponse(
            partition_index=part.partition_index,
            timestamp=timestamp,
            offset=offset,
            leader_epoch=found.epoch if offset >= 0 else -1,
        )

    def offset_for_leader_epoch(self, call: Call) -> messages.OffsetForLeaderEpochResponse:
        """Where leader epochs end in this leader's log (KIP-101)."""
        request: messages.OffsetForLeaderEpochRequest = call.body
        return messages.OffsetForLeaderEpochResponse(
            topics=[
                messages.OffsetForLeaderTopicResult(
                    topic=topic.topic,
                    partitions=[self._epoch_end(topic.topic, part) for part in topic.partitions],
                )
                for topic in request.topics
            ]
        )

    def _epoch_end(
        self, topic: str, part: messages.OffsetForLeaderPartition
    ) -> messages.LeaderEpochEndOffset:
        found = self._led(topic, part.partition, part.current_leader_epoch)
        if isinstance(found, errors.Code):
            return messages.LeaderEpochEndOffset(error_code=found.number, partition=part.partition)
        epoch, end = found.replica.log.epoch_end(part.leader_epoch)
        return messages.LeaderEpochEndOffset(
            partition=part.partition, leader_epoch=epoch, end_offset=end
        )

    def _led(self, topic: str, index: int, epoch: int) -> Led | errors.Code:
        partition = self._find(topic, index)
        if partition is None:
            return errors.UNKNOWN_TOPIC_OR_PARTITION
        leader = partition.leader
        if leader is None:
            return errors.NOT_LEADER_OR_FOLLOWER
        if 0 <= epoch < leader.epoch:
            return errors.FENCED_LEADER_EPOCH
        if epoch > leader.epoch:
            return errors.UNKNOWN_LEADER_EPOCH
        return leader


def _no_offset(
    part: messages.ListOffsetsPartition, code: errors.Code
) -> messages.ListOffsetsPartitionResponse:
    return messages.ListOffsetsPartitionResponse(part.partition_index, code.number)


def _by_time(replica: Replica, timestamp: int) -> tuple[errors.Code, int, int]:
    """(error, offset, timestamp) of the first committed record not older, -1 for none.

    MAX_TIMESTAMP asks for the newest there is.
    """
    try:
        wanted = replica.log.last_timestamp if timestamp == MAX_TIMESTAMP else timestamp
        hit = replica.log.offset_for_timestamp(wanted) if wanted >= 0 else None
    except DiskError:
        return errors.KAFKA_STORAGE_ERROR, -1, -1
    if hit is None or hit[0] >= replica.high_watermark:
        return errors.NONE, -1, -1
    return errors.NONE, *hit
