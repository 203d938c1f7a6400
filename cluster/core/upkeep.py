"""What a log needs once in a while although nobody asks: retention, and space given back.

Owns: which partitions are visited next. Every one is visited once in `retention_check_ms`, a few at
a time, so that ten thousand idle partitions cost no timer and no step has to visit all; whoever is
known to have something to give away comes sooner. The leader decides what is deleted; each replica
takes its own segments away once they lie below the log start.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from cluster.core.defaults import INTERNAL_TOPICS
from cluster.core.image import PartitionId
from cluster.core.logs import Logs
from cluster.core.partition import Partition
from cluster.core.replica import Around
from cluster.limits import SEGMENTS_DROPPED_PER_LOOK


class Upkeep:
    """The visits of one broker."""

    def __init__(self, around: Around, logs: Logs, partitions: Mapping[PartitionId, Partition]):
        """Visit what is in `partitions` then."""
        self._around = around
        self._logs = logs
        self._partitions = partitions
        self._round: list[PartitionId] = []
        """Who is still to be visited in this round, the next one last."""
        self._visits_due = 0.0
        self._looked_ms: int | None = None
        self._soon: dict[PartitionId, None] = {}
        self.segments_dropped = 0

    def soon(self, key: PartitionId) -> None:
        """This one may have segments to take away."""
        self._soon[key] = None

    def look(self, now_ms: int) -> None:
        """The regular look: whose turn it is."""
        since, self._looked_ms = self._looked_ms, now_ms
        elapsed = 0 if since is None else now_ms - since
        self._visits_due += len(self._partitions) * elapsed / self._around.retention_check_ms
        self._visits_due = min(self._visits_due, len(self._partitions))
        for key in list(islice(self._soon, SEGMENTS_DROPPED_PER_LOOK)):
            del self._soon[key]
            self._visit(key, now_ms)
        while self._visits_due >= 1:
            self._visits_due -= 1
            self._round = self._round or list(self._partitions)
            self._visit(self._round.pop(), now_ms)
        self._logs.unlink_deleted(now_ms)

    def _visit(self, key: PartitionId, now_ms: int) -> None:
        partition = self._partitions.get(key)
        if partition is None or partition.unable or partition.replica.log.rebuilding:
            return
        replica = partition.replica
        kept = replica.topic.name in INTERNAL_TOPICS  # who writes there deletes there
        if (
            partition.leader is not None
            and not kept
            and replica.retain(now_ms, now_ms + self._around.wall_offset_ms)
        ):
            self._around.touched[key] = None
        replica.ask_syncs(self._around.out, idle=True)  # with flush=os it would never be closed
        replica.roll_deleted(now_ms)
        if replica.log.failed:
            partition.stir()
        if self.drop(key, partition, now_ms):
            self._around.touched[key] = None

    def drop(self, key: PartitionId, partition: Partition, now_ms: int) -> bool:
        """Take away one segment below the log start, if there is one that may go."""
        log = partition.replica.log
        if log.first_offset == log.start_offset or not self._logs.drop_oldest(log, now_ms):
            return False
        self.segments_dropped += 1
        self.soon(key)  # it may not be the only one
        return True
