"""The last step of a record's way: reads up to the high watermark, and fetches that wait for it.

Owns fetch requests that are parked until enough is committed or their time is up, and those whose
records are being read from the disk. A consumer sees nothing above the high watermark (G4). A
fresh leader's watermark may lag what an earlier one served; a fetch from beyond it waits, it is not
out of range.

Invariants: every requested partition is in the answer exactly once, since clients without fetch
sessions drop an answer that lacks one; a parked fetch holds its request and no data; one that reads
holds at most one answer of data.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from _fastseq.fetch import holds_zstd, pack_fetch
from cluster import errors
from cluster.core.calls import Call
from cluster.core.hosted import Find
from cluster.core.reads import Reads
from cluster.limits import (
    FETCH_BYTES_MAX,
    FETCH_WAIT_MS_MAX,
    PARKED_FETCHES_MAX,
    PARKED_PARTITIONS_MAX,
    READ_BYTES_MAX,
)
from cluster.storage.disk import EIO, PARSE, DiskError
from cluster.storage.log import Log
from cluster.storage.reading import Cold, Fetched, Parts
from cluster.wire import messages

Place = tuple[str, int]
Packed = tuple[int, int, int, int, Parts, int]
"""What `pack_fetch` takes of a partition, its bytes last."""

READ_COMMITTED = 1
SESSIONS_SINCE = 7
ZSTD_SINCE = 10

_COLD = "read for a fetch"
_DOUBTS = (PARSE, _COLD)
"""What went wrong where the log itself may be damaged: its bytes, or a file that lacks some."""


@dataclass(slots=True)
class Fetch:
    """One fetch request until it is answered."""

    call: Call
    request: messages.FetchRequest
    deadline_ms: int
    reading: int = 0
    """Reads of the disk that have not come back."""
    have: dict[Place, Fetched | None] = field(default_factory=dict)
    """What they brought, None where the disk could not."""

    @property
    def version(self) -> int:
        """The version of the request, and so of the answer."""
        return self.call.header.api_version


@dataclass(slots=True)
class _Gathered:
    """What one attempt at an answer has found so far."""

    budget: int
    bytes: int = 0
    """What is in the answer, and what will be once it was read."""
    full: bool = False
    """A partition had more than one read takes: there is no use in waiting for more."""
    failed: bool = False
    topics: list[tuple[str, list[Packed]]] = field(default_factory=list)
    cold: list[tuple[Place, Log, Cold]] = field(default_factory=list)


class Fetches:
    """Fetch requests of all connections of one broker."""

    def __init__(self, find: Find, reads: Reads) -> None:
        """`find` gives the partition that this broker has of a topic, or None."""
        self._find = find
        self._reads = reads
        self._parked: dict[int, Fetch] = {}
        self._waiting: dict[Place, dict[int, None]] = {}
        self._number = 0
        self._named = 0
        """Partitions that parked fetches name: what parking costs in memory."""
        self._earliest_ms: int | None = None
        self.reading = 0
        """Fetches that wait for the disk."""

    def __len__(self) -> int:
        """How many fetches are parked."""
        return len(self._parked)

    def serve(self, call: Call) -> None:
        """Answer at once, or park. An answer is due when there is enough, an error, or no wait."""
        request: messages.FetchRequest = call.body
        call.frame = b""  # it is read, and may keep a whole receive buffer
        if request.session_id and call.header.api_version >= SESSIONS_SINCE:
            code = errors.FETCH_SESSION_ID_NOT_FOUND.number
            call.answer_frame(pack_fetch(call.header.api_version, _correlation(call), code, ()))
            return
        wait_ms = min(request.max_wait_ms, FETCH_WAIT_MS_MAX)
        fetch = Fetch(call, request, call.now_ms + max(0, wait_ms))
        full = len(self._parked) >= PARKED_FETCHES_MAX or self._named >= PARKED_PARTITIONS_MAX
        if not self._attempt(fetch, final=wait_ms <= 0 or full):
            self._park(fetch)

    def changed(self, topic: str, index: int) -> None:
        """The watermark of a partition moved, or its leader: answer the fetches that are due."""
        numbers = self._waiting.get((topic, index))
        if numbers:
            self._retry(list(numbers), final=False)

    def expire(self, now_ms: int) -> None:
        """Answer what has waited long enough with what there is."""
        if self._earliest_ms is None or now_ms < self._earliest_ms:
            return
        due = [number for number, fetch in self._parked.items() if fetch.deadline_ms <= now_ms]
        self._retry(due, final=True)
        self._earliest_ms = min(
            (fetch.deadline_ms for fetch in self._parked.values()), default=None
        )

    def next_deadline_ms(self) -> int | None:
        """When the next parked fetch may be due; never later than that."""
        return self._earliest_ms

    # -- parking ------------------------------------------------------------------------------

    def _retry(self, numbers: list[int], *, final: bool) -> None:
        for number in numbers:
            fetch = self._parked[number]
            if self._attempt(fetch, final=final):
                self._forget(number, fetch)

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

    # -- answering ----------------------------------------------------------------------------

    def _attempt(self, fetch: Fetch, *, final: bool) -> bool:
        """Answer, or have read what the answer needs. False if it is not due yet."""
        request = fetch.request
        found = _Gathered(min(max(request.max_bytes, 1), FETCH_BYTES_MAX))
        named = 0
        for topic in request.topics:
            parts = [self._read(fetch, topic.topic, wanted, found) for wanted in topic.partitions]
            found.topics.append((topic.topic, parts))
            named += len(parts)
        # More than the answer may hold would never be there, and be read at every commit.
        enough = found.bytes >= min(max(1, request.min_bytes), found.budget) or found.full
        due = final or found.failed or enough or not named
        # What was read once is handed out; the disk is asked again only if that was nothing.
        if due and found.cold and (not fetch.have or _is_empty(found)):
            self._begin_reads(fetch, found)
            return True
        for _, log, cold in found.cold:
            log.returned(cold)
        if due:
            stable = request.isolation_level == READ_COMMITTED
            call = fetch.call
            call.answer_frame(
                pack_fetch(fetch.version, _correlation(call), 0, found.topics, stable=stable)
            )
        return due

    def _begin_reads(self, fetch: Fetch, found: _Gathered) -> None:
        fetch.have.clear()
        fetch.reading = len(found.cold)
        self.reading += 1
        for place, log, cold in found.cold:

            def then(fetched: Fetched | None, place: Place = place) -> None:
                fetch.have[place] = fetched
                fetch.reading -= 1
                if not fetch.reading:
                    self.reading -= 1
                    self._attempt(fetch, final=True)

            self._reads.begin(log, cold, then)

    def _read(
        self, fetch: Fetch, topic: str, wanted: messages.FetchPartition, found: _Gathered
    ) -> Packed:
        """One partition of the answer; what has to be read first is noted in `found`."""
        partition = self._find(topic, wanted.partition)
        if partition is None:
            return _failed(found, wanted, errors.UNKNOWN_TOPIC_OR_PARTITION)
        if partition.leader is None:
            return _failed(found, wanted, errors.NOT_LEADER_OR_FOLLOWER)
        epoch = partition.leader.epoch
        if 0 <= wanted.current_leader_epoch != epoch:
            older = wanted.current_leader_epoch < epoch
            code = errors.FENCED_LEADER_EPOCH if older else errors.UNKNOWN_LEADER_EPOCH
            return _failed(found, wanted, code)
        log, limit = partition.replica.log, partition.replica.high_watermark
        if not log.start_offset <= wanted.fetch_offset <= log.next_offset:
            return _failed(found, wanted, errors.OFFSET_OUT_OF_RANGE, limit, log.start_offset)
        size = min(wanted.partition_max_bytes, found.budget - found.bytes)
        records: Parts = ()
        if wanted.fetch_offset < limit and (size > 0 or not found.bytes):
            try:
                records = self._records(fetch, (topic, wanted), (log, limit), size, found)
            except DiskError as error:
                if error.operation in _DOUBTS and partition.leader is not None:
                    partition.leader.suspect(wanted.fetch_offset)
                return _failed(found, wanted, errors.KAFKA_STORAGE_ERROR)
        if fetch.version < ZSTD_SINCE and any(map(holds_zstd, records)):
            return _failed(found, wanted, errors.UNSUPPORTED_COMPRESSION_TYPE, limit)
        length = sum(map(len, records))
        found.bytes += length
        return wanted.partition, 0, limit, log.start_offset, records, length

    def _records(
        self,
        fetch: Fetch,
        asked: tuple[str, messages.FetchPartition],
        stored: tuple[Log, int],
        size: int,
        found: _Gathered,
    ) -> Parts:
        """Batches up to `size` bytes, or the first one if nothing else is in the answer."""
        (topic, wanted), (log, limit) = asked, stored
        place = (topic, wanted.partition)
        have = fetch.have.get(place)
        if have is None and place in fetch.have:
            raise DiskError(EIO, log.directory, _COLD)
        length = min(max(size, 1), READ_BYTES_MAX)
        records = log.read_now(wanted.fetch_offset, length, limit, have)
        if isinstance(records, Cold):
            found.cold.append((place, log, records))
            found.bytes += length if records.missing.index else min(records.length, length)
            return ()
        given = sum(map(len, records))
        if given > size and found.bytes:
            return ()
        found.full = found.full or (size > length and 2 * given > length)
        return records


def _failed(
    found: _Gathered,
    wanted: messages.FetchPartition,
    code: errors.Code,
    limit: int = -1,
    start: int = -1,
) -> Packed:
    found.failed = True
    return wanted.partition, code.number, limit, start, (), 0


def _is_empty(found: _Gathered) -> bool:
    """Whether no partition has records to give."""
    return not any(part[-1] for _, parts in found.topics for part in parts)


def _correlation(call: Call) -> int:
    return call.header.correlation_id


def _partitions(request: messages.FetchRequest) -> dict[Place, None]:
    """What a request reads, each once: nothing keeps a client from naming a partition twice."""
    return dict.fromkeys(
        (topic.topic, part.partition) for topic in request.topics for part in topic.partitions
    )
