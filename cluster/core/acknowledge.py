"""The fifth step of a record's way: high watermark up, waiting acknowledgements out.

Owns the arithmetic of the high watermark (rule 10) and the acknowledgements that wait for it,
ordered by the end offset they need. Waiting acknowledgements belong to one term of one leader:
whoever ends the term fails them all (rule 2), so none can be released by a later leader's
watermark that happens to reach the same offset.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import msgspec

from cluster.core import insync
from cluster.core.answer import ProduceAnswer
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


class Waiters:
    """Acknowledgements of one partition and one term, released by the offset they wait for."""

    def __init__(self) -> None:
        """No acknowledgement waits."""
        self._heap: list[tuple[int, int, ProduceAnswer, int]] = []
        self._added = 0

    def __len__(self) -> int:
        """How many acknowledgements wait."""
        return len(self._heap)

    def add(self, end: int, answer: ProduceAnswer, slot: int) -> None:
        """`slot` of `answer` may be given once everything below `end` is committed."""
        self._added += 1
        heapq.heappush(self._heap, (end, self._added, answer, slot))

    def release(self, reached: int) -> list[ProduceAnswer]:
        """Mark what `reached` satisfies; the answers that are complete now, in append order."""
        complete = []
        while self._heap and self._heap[0][0] <= reached:
            _, _, answer, slot = heapq.heappop(self._heap)
            if answer.settle(slot):
                complete.append(answer)
        return complete

    def expire(self, now_ms: int, error: int) -> list[ProduceAnswer]:
        """Time is up for some requests: their open slots get `error`; the answers complete."""
        due = {id(answer): answer for _, _, answer, _ in self._heap if answer.deadline_ms <= now_ms}
        complete = [answer for answer in due.values() if answer.expire(error)]
        if due:  # a watermark that stands still must not gather what nobody waits for any more
            self._heap = [waiter for waiter in self._heap if id(waiter[2]) not in due]
            heapq.heapify(self._heap)
        return complete

    def fail(self, error: int) -> Sequence[ProduceAnswer]:
        """End of the term: every waiting slot gets `error`; the answers complete by that."""
        complete = []
        for _, _, answer, slot in sorted(self._heap, key=lambda waiter: waiter[:2]):
            if answer.refuse(slot, error):
                complete.append(answer)
        self._heap.clear()
        return complete
