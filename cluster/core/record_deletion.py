"""DeleteRecords: the oldest records of partitions go, asked of each partition's leader.

Owns the gathering of what becomes of each partition into one answer. What makes a deletion final is
the leader's affair (`core/deletions.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from cluster import errors
from cluster.core.calls import Call
from cluster.core.defaults import INTERNAL_TOPICS
from cluster.core.hosted import Find
from cluster.limits import DELETE_RECORDS_MS_MAX
from cluster.wire import messages


class RecordDeletion:
    """DeleteRecords on one broker."""

    def __init__(self, find: Find) -> None:
        """`find` gives this broker's partition of a topic."""
        self._find = find

    def delete(self, call: Call) -> None:
        """Delete in each partition; answer once all are decided."""
        request: messages.DeleteRecordsRequest = call.body
        found = [(topic.name, part) for topic in request.topics for part in topic.partitions]
        results: dict[int, messages.DeleteRecordsPartitionResult] = {}

        def done(number: int, index: int) -> Callable[[int, int], None]:
            def decided(error: int, low: int) -> None:
                results[number] = messages.DeleteRecordsPartitionResult(index, low, error)
                if len(results) == len(found):
                    call.answer(_response([name for name, _ in found], results))

            return decided

        if not found:
            call.answer(messages.DeleteRecordsResponse())
        wait_ms = min(max(request.timeout_ms, 0), DELETE_RECORDS_MS_MAX)
        for number, (name, part) in enumerate(found):
            decided = done(number, part.partition_index)
            self._delete_one(name, part, call.now_ms + wait_ms, decided)

    def _delete_one(
        self,
        name: str,
        part: messages.DeleteRecordsPartition,
        deadline_ms: int,
        decided: Callable[[int, int], None],
    ) -> None:
        partition = self._find(name, part.partition_index)
        if name in INTERNAL_TOPICS:
            decided(errors.INVALID_TOPIC_EXCEPTION.number, -1)
        elif partition is None:
            decided(errors.UNKNOWN_TOPIC_OR_PARTITION.number, -1)
        elif partition.leader is None:
            decided(errors.NOT_LEADER_OR_FOLLOWER.number, -1)
        else:
            partition.leader.delete_records(part.offset, decided, deadline_ms)


def _response(
    names: list[str], results: dict[int, messages.DeleteRecordsPartitionResult]
) -> messages.DeleteRecordsResponse:
    topics: dict[str, list[messages.DeleteRecordsPartitionResult]] = {}
    for number, name in enumerate(names):
        topics.setdefault(name, []).append(results[number])
    return messages.DeleteRecordsResponse(
        topics=[messages.DeleteRecordsTopicResult(name, parts) for name, parts in topics.items()]
    )
