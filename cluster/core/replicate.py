"""The fourth step of a record's way: streams from a leader to its followers.

Owns, on the leader, what each follower holds and was sent, on which stream (rule 8); and the
agreement on where a follower must cut its log before a stream begins. Nothing here decides who
is in sync: it answers how far each follower is and since when it keeps up.

Invariants: acknowledgements count only on the follower's current stream; `acked <= sent`; what is
in flight to a peer over all its streams is within the credit that its link grants.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.limits import PUSH_BYTES_MAX
from cluster.storage.reading import Fetched

Epochs = Sequence[tuple[int, int]]


def common_prefix(mine: Epochs, my_end: int, theirs: Epochs, their_end: int) -> int:
    """The end offset of what two logs share; each log as (leader epoch, start offset) pairs.

    One leader writes an epoch, in order, so two logs agree wherever they hold the same epoch at
    the same offset (the log matching property, Raft section 5.3). Comparing whole histories finds
    the point in one round trip, where KIP-101 walks back an epoch at a time.

    A history may lack its beginning, when it was found again in the batches of a log that lacks
    its own. What cannot be compared is shared only where both know the same; else nothing is.
    """
    limit = min(my_end, their_end)
    known = max(_begin(mine, my_end), _begin(theirs, their_end))
    if limit <= known:
        before = [[entry for entry in log if entry[1] < limit] for log in (mine, theirs)]
        return limit if before[0] == before[1] else 0
    starts = sorted({start for _, start in (*mine, *theirs) if known <= start < limit} | {known})
    for start in starts:
        if epoch_at(mine, start) != epoch_at(theirs, start):
            return start if start > known else 0
    return limit


def _begin(epochs: Epochs, end: int) -> int:
    """From where on a log's history is known."""
    return epochs[0][1] if epochs else end


def epoch_at(epochs: Epochs, offset: int) -> int:
    """The leader epoch that wrote this offset, -1 if none did."""
    after = bisect_right(epochs, offset, key=lambda entry: entry[1])
    return epochs[after - 1][0] if after else -1


@dataclass(slots=True)
class FollowerStream:
    """One follower's stream, as its leader sees it."""

    node_id: int
    incarnation: int
    number: int
    acked: int
    """The follower holds everything below this offset, durably where the topic asks so."""
    sent: int
    """Everything below this offset was pushed."""
    whole_at: int
    """The leader's end when the stream opened: a doubtful follower is whole again there."""
    progress_ms: int
    """When `acked` last moved, or there was nothing to acknowledge."""
    start: int = 0
    """Where the follower's log begins, as a restart of it would find."""
    compared: int = -1
    """Where the follower last found its producer state equal to the leader's."""
    heard: int = 0
    """The last question of this leader that it has confirmed on this stream (rule 6)."""
    keeping_up_since_ms: int | None = None
    reading: bool = False
    """What it lacks next is being read from the disk."""
    have: Fetched | None = None
    """What was read for it, in the step that brought it."""
    in_flight: deque[tuple[int, int]] = field(default_factory=deque)
    """(end offset, bytes) of every push that is not acknowledged."""


class Followers:
    """All streams of one leader in one epoch."""

    def __init__(self) -> None:
        """Nobody follows yet."""
        self._streams: dict[int, FollowerStream] = {}
        self._reached: dict[int, tuple[int, int]] = {}
        """(acked, progress_ms) of each follower's stream before the present one."""
        self._ordered: list[FollowerStream] = []
        self._end_at_last_look = 0

    def open(
        self, node_id: int, incarnation: int, number: int, *, agreed: int, end: int, now_ms: int
    ) -> FollowerStream:
        """Begin a stream at the agreed offset; earlier acknowledgements are forgotten.

        Whoever only begins anew, again and again, makes no progress by that.
        """
        reached, progress_ms = self._reached.get(node_id, (-1, now_ms))
        stream = FollowerStream(
            node_id,
            incarnation,
            number,
            acked=agreed,
            sent=agreed,
            whole_at=end,
            progress_ms=now_ms if agreed > reached else progress_ms,
        )
        self._streams[node_id] = stream
        self._order()
        return stream

    def close(self, node_id: int) -> int:
        """Forget a follower's stream; the bytes that were in flight on it."""
        stream = self._streams.pop(node_id, None)
        if stream is None:
            return 0
        self._order()
        self._reached[node_id] = (stream.acked, stream.progress_ms)
        return sum(size for _, size in stream.in_flight)

    def get(self, node_id: int) -> FollowerStream | None:
        """The follower's current stream."""
        return self._streams.get(node_id)

    def streams(self) -> list[FollowerStream]:
        """Every open stream, by node id; a list that does not change any more."""
        return self._ordered

    def _order(self) -> None:
        self._ordered = [self._streams[node_id] for node_id in sorted(self._streams)]

    def count(self, nodes: Sequence[int]) -> int:
        """How many of these have a stream open."""
        return sum(map(self._streams.__contains__, nodes))

    def heard_by(self, nodes: Sequence[int], question: int) -> int:
        """The last question up to this one that all of these nodes have confirmed, 0 for none."""
        for node_id in nodes:
            stream = self._streams.get(node_id)
            question = min(question, 0 if stream is None else stream.heard)
        return question

    def end_of(self, node_id: int) -> int | None:
        """What the follower is known to hold, None before it opened a stream."""
        stream = self._streams.get(node_id)
        return None if stream is None else stream.acked

    def start_of(self, node_id: int) -> int | None:
        """Where the follower's log is known to begin, None before it opened a stream."""
        stream = self._streams.get(node_id)
        return None if stream is None else stream.start

    def sent(self, stream: FollowerStream, end: int, size: int) -> None:
        """A push up to `end` left."""
        stream.sent = end
        if size:
            stream.in_flight.append((end, size))

    def acknowledge(self, stream: FollowerStream, end: int, now_ms: int) -> int:
        """The follower holds everything below `end`; the bytes that are no longer in flight.

        An end beyond what was sent is not of this stream's making and is capped.
        """
        end = min(end, stream.sent)
        if end > stream.acked:
            stream.acked = end
            stream.progress_ms = now_ms
        freed = 0
        while stream.in_flight and stream.in_flight[0][0] <= stream.acked:
            freed += stream.in_flight.popleft()[1]
        return freed

    def look(self, end: int, now_ms: int) -> None:
        """A regular look: who keeps up is at least where the leader was at the last one."""
        for stream in self._streams.values():
            if stream.acked >= end:
                stream.progress_ms = now_ms
            if stream.acked < min(self._end_at_last_look, end):
                stream.keeping_up_since_ms = None
            elif stream.keeping_up_since_ms is None:
                stream.keeping_up_since_ms = now_ms
        self._end_at_last_look = end

    def at_rest(self, end: int, *, compared: int, start: int) -> int:
        """How many followers hold everything, have said so, and owe no answer."""
        return sum(
            stream.acked == stream.sent == end
            and stream.compared >= compared
            and stream.start >= start
            for stream in self._streams.values()
        )

    def wake(self, now_ms: int) -> None:
        """Nobody had anything to acknowledge until now."""
        for stream in self._streams.values():
            stream.progress_ms = now_ms

    def lagging(self, node_id: int, end: int, now_ms: int, lag_ms: int) -> bool:
        """Whether the follower has data waiting and acknowledged nothing for `lag_ms`."""
        stream = self._streams.get(node_id)
        if stream is None or stream.acked >= end:
            return False
        return now_ms - stream.progress_ms > lag_ms


def push_size(credit: int) -> int:
    """How many bytes to read for one push under this credit; 0 when it is used up."""
    return min(credit, PUSH_BYTES_MAX)
