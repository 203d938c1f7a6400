"""What a producer's batch is: its records, the numbers it carries, and the attempts to store it.

Owns the values that `cluster.core.backlog` orders and `cluster.core.produce` sends. A batch counts
its doubtful attempts: those that left and were not answered that they stored nothing. Only when
there are none is the batch known not to be in the log (G6).
"""

from __future__ import annotations

from collections.abc import Hashable
from enum import Enum, auto

import msgspec

from _fastseq.batch import BatchBuilder
from cluster.limits import PRODUCER_EPOCH_MAX, SEQUENCE_COUNT

Header = tuple[str, bytes | None]
KeyValue = tuple[bytes | None, bytes | None]

NO_NODE = -1


class Identity(msgspec.Struct, frozen=True, gc=False):
    """Who a batch comes from; (-1, -1) without idempotence, where sequences are -1 as well."""

    producer_id: int
    epoch: int

    def __post_init__(self) -> None:
        assert -1 <= self.epoch <= PRODUCER_EPOCH_MAX

    @property
    def numbered(self) -> bool:
        """Batches carry sequence numbers."""
        return self.producer_id >= 0


ANONYMOUS = Identity(-1, -1)


def next_sequence(sequence: int, count: int) -> int:
    """The sequence `count` records later: after 2**31 - 1 comes 0."""
    return (sequence + count) % SEQUENCE_COUNT


class Span(msgspec.Struct, frozen=True, gc=False):
    """Records of one caller in one batch: `count` of them, under the caller's token."""

    token: Hashable
    first: int
    """Index of the first within the batch."""
    count: int
    start: int = 0
    """Index of the first within what the caller appended at once."""


class State(Enum):
    """Where a batch of the window stands."""

    DUE = auto()
    """To be sent, for the first time or again."""
    WAITING = auto()
    """Sent; the answer to its latest attempt is outstanding."""
    DONE = auto()
    """Acknowledged; it keeps its place until everything before it is resolved."""


class Batch:
    """Records that are sent, stored and acknowledged as one."""

    __slots__ = (
        "attempts",
        "base_sequence",
        "builder",
        "created_ms",
        "doubtful",
        "gaps",
        "latest",
        "node",
        "payload",
        "records",
        "requests",
        "retry_at_ms",
        "sent_ms",
        "size",
        "spans",
        "state",
    )

    def __init__(self, builder: BatchBuilder, now_ms: int) -> None:
        self.builder: BatchBuilder | None = builder
        self.created_ms = now_ms
        self.spans: list[Span] = []
        self.records = 0
        self.size = 0
        self.payload = b""
        self.base_sequence = -1
        self.state = State.DUE
        self.retry_at_ms = 0
        self.sent_ms = 0
        self.attempts = 0
        self.doubtful = 0
        """Attempts that may have stored it: sent, and not answered that they did not."""
        self.gaps = 0
        """Answers 45 that no unresolved predecessor explains."""
        self.requests: list[int] = []
        """Of every attempt."""
        self.latest = -1
        """Request id of the latest attempt."""
        self.node = NO_NODE
        """Where the latest attempt went."""

    def send(self, request_id: int, node: int, now_ms: int) -> None:
        """Notes an attempt that leaves now."""
        self.state = State.WAITING
        self.requests.append(request_id)
        self.latest = request_id
        self.node = node
        self.sent_ms = now_ms
        self.attempts += 1
        self.doubtful += 1
