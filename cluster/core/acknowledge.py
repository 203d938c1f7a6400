"""The fifth step of a record's way: how far everything is committed.

Owns the arithmetic of the high watermark (rule 10): who counts, and what is the least that they all
hold. The acknowledgements that wait for it are `_fastseq.waiters`'.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cluster.core import insync
from cluster.core.records import PartitionRecord


class Quorum(msgspec.Struct, frozen=True, gc=False):
    """What a record and the proposal under way say of acknowledgements, worked out once."""

    record: PartitionRecord
    proposed: PartitionRecord | None
    members: tuple[int, ...]
    """In sync by the record, the leader left out."""
    counting: tuple[int, ...]
    """Whoever counts in the high watermark (rule 10), the leader left out."""
    minimum: int
    """Members that must be present, the leader included, for a new acks=all write."""
    enough: bool
    """Whether so many members there are."""

    @classmethod
    def of(
        cls,
        record: PartitionRecord,
        proposed: PartitionRecord | None,
        leader: int,
        min_insync: int,
    ) -> Quorum:
        """As the leader sees it."""
        maximal = insync.maximal(record, proposed)
        minimum = insync.minimum(record, min_insync)
        return cls(
            record,
            proposed,
            members=tuple(node for node in record.isr if node != leader),
            counting=tuple(node for node in maximal if node != leader),
            minimum=minimum,
            enough=len(maximal) >= minimum,
        )


def high_watermark(
    current: int, own_end: int, member_ends: Iterable[int | None], *, enough: bool
) -> int:
    """The high watermark after looking at every member of the maximal in-sync set.

    `own_end` is the leader's durable end; a member whose end is None has not opened a stream in
    this epoch and holds the watermark where it is. `enough` is false while fewer members are
    present than the topic's minimum. The result is never below `current` (G4).
    """
    if not enough:
        return current
    lowest = own_end
    for end in member_ends:
        if end is None:
            return current
        lowest = min(lowest, end)
    return max(current, lowest)
