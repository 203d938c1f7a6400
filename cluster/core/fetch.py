"""The last step of a record's way: reads up to the high watermark, and fetches that wait for it.

Owns fetch requests that are parked until enough is committed or their time is up. A consumer sees
nothing above the high watermark (G4). A fresh leader's watermark may lag what an earlier one
served; a fetch from beyond it waits, it is not out of range.

Invariants: every requested partition is in the answer exactly once, since clients without fetch
sessions drop an answer that lacks one; a parked fetch holds its request and no data.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster import errors
from cluster.core.hosted import Find
from cluster.limits import (
    FETCH_BYTES_MAX,
    FETCH_WAIT_MS_MAX,
    PARKED_FETCHES_MAX,
    PARKED_PARTITIONS_MAX,
)
from cluster.storage.disk import DiskError
from cluster.wire import codec, messages


@dataclass(slots=True)
class Fetch:
    """One fetch request until it is answered."""

    connection: bytes
    correlation_id: int
    version: int
    request: messages.FetchRequest
    deadline_ms: int


class Fetches:
    """Fetch requests of all connections of one broker."""

    def __init__(self, find: Find) -> None:
        """`find` gives the partition that this broker has of a topic, or None."""
        self._find = find
        self._parked: dict[int, Fetch] = {}
        self._waiting: dict[tuple[str, int], dict[int, None]] = {}
        self._number = 0
        self._named = 0
        """Partitions that parked fetches name: what parking costs in memory."""
        self._earliest_ms: int | None = None

    def __len__(self) -> int:
        """How many fetches are parked."""
        return len(self._parked)

    def begin(self, fetch: Fetch, now_ms: int) -> bytes | None:
        """Answer at once, or park. An answer is due when there is enough, an error, or no wait."""
        wait_ms = min(fetch.request.max_wait_ms, FETCH_WAIT_MS_MAX)
        fetch.deadline_ms = now_ms + max(0, wait_ms)
        full = len(self._parked) >= PARKED_FETCHES_MAX or self._named >= PARKED_PARTITIONS_MAX
        final = wait_ms <= 0 or full
        answer = self._attempt(fetch, final=final)
        if answer is None:
            self._park(fetch)
        return answer

    def committed(self, topic: str, index: int) -> list[tuple[bytes, bytes]]:
        """The watermark of a partition moved: the (connection, answer) pairs that are due now."""
        numbers = self._waiting.get((topic, index))
        if not numbers:
            return []
        return self._retry(list(numbers), final=False)

    def expire(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Answer what has waited long enough with what there is."""
        if self._earliest_ms is None or now_ms < self._earliest_ms:
            return []
        due = [number for number, fetch in self._parked.items() if fetch.deadline_ms <= now_ms]
        answers = self._retry(due, final=True)
        self._earliest_ms = min(
            (fetch.deadline_ms for fetch in self._parked.values()), default=None
        )
        return answers

    def next_deadline_ms(self) -> int | None:
        """When the next parked fetch may be due; never later than that."""
        return self._earliest_ms

    def _retry(self, numbers: list[int], *, final: bool) -> list[tuple[bytes, bytes]]:
        answers = []
        for number in numbers:
            fetch = self._parked[number]
            answer = self._attempt(fetch, final=final)
            if answer is not None:
                self._forget(number, fetch)
                answers.append((fetch.connection, answer))
        return answers

    def _park(self, fetch: Fetch) -> None:
        self._number += 1
        self._parked[self._number] = fetch
        if self._earliest_ms is None or fetch.deadline_ms < self._earliest_ms:
            self._earliest_ms = fetch.deadline_ms
        partitions = _partitions(fetch.request)
        self._named += len(partitions)
        for key in partitions:
            self._waiting.setdefault(key, {})[self._number] = None

    def _forget(self, number: int, fetch: Fetch) -> None:
        del self._parked[number]
        partitions = _partitions(fetch.request)
        self._named -= len(partitions)
        for key in partitions:
            waiting = self._waiting[key]
            waiting.pop(number, None)
            if not waiting:
                del self._waiting[key]

    def _attempt(self, fetch: Fetch, *, final: bool) -> bytes | None:
        request = fetch.request
        budget = min(max(request.max_bytes, 1), FETCH_BYTES_MAX)
        total, failed = 0, False
        topics = []
        for topic in request.topics:
            parts = []
            for wanted in topic.partitions:
                part = self._read(topic.topic, wanted, budget - total, first=total == 0)
                total += len(part.records) if part.records is not None else 0
                failed = failed or part.error_code != 0
                parts.append(part)
            topics.append(messages.FetchableTopicResponse(topic=topic.topic, partitions=parts))
        # More than the answer may hold would never be there, and be read at every commit.
        if not (final or failed or total >= min(max(1, request.min_bytes), budget)):
            return None
        body = messages.FetchResponse(responses=topics)
        return codec.encode_response(1, fetch.version, fetch.correlation_id, body)

    def _read(
        self, topic: str, wanted: messages.FetchPartition, budget: int, *, first: bool
    ) -> messages.PartitionData:
        partition = self._find(topic, wanted.partition)
        if partition is None:
            return _failed(wanted, errors.UNKNOWN_TOPIC_OR_PARTITION)
        leader = partition.leader
        if leader is None:
            return _failed(wanted, errors.NOT_LEADER_OR_FOLLOWER)
        if 0 <= wanted.current_leader_epoch != leader.epoch:
            older = wanted.current_leader_epoch < leader.epoch
            return _failed(
                wanted, errors.FENCED_LEADER_EPOCH if older else errors.UNKNOWN_LEADER_EPOCH
            )
        replica = partition.replica
        log, limit = replica.log, replica.high_watermark
        if not log.start_offset <= wanted.fetch_offset <= log.next_offset:
            return _failed(wanted, errors.OFFSET_OUT_OF_RANGE, limit, log.start_offset)
        size = min(wanted.partition_max_bytes, budget)
        records: bytes | bytearray | memoryview = b""
        if wanted.fetch_offset < limit and (first or size > 0):
            try:
                records = log.read(wanted.fetch_offset, max(size, 1), limit)
            except DiskError:
                return _failed(wanted, errors.KAFKA_STORAGE_ERROR)
            if len(records) > size and not first:
                records = b""
        return messages.PartitionData(
            partition_index=wanted.partition,
            high_watermark=limit,
            last_stable_offset=limit,
            log_start_offset=log.start_offset,
            records=records,
        )


def _failed(
    wanted: messages.FetchPartition, code: errors.Code, limit: int = -1, start: int = -1
) -> messages.PartitionData:
    return messages.PartitionData(
        partition_index=wanted.partition,
        error_code=code.number,
        high_watermark=limit,
        last_stable_offset=limit,
        log_start_offset=start,
        records=b"",
    )


def _partitions(request: messages.FetchRequest) -> dict[tuple[str, int], None]:
    """What a request reads, each once: nothing keeps a client from naming a partition twice."""
    return dict.fromkeys(
        (topic.topic, part.partition) for topic in request.topics for part in topic.partitions
    )
