"""What the producer machine is told and what it asks for, with its options and counts.

Owns the values only; `cluster.core.produce` is the machine. Per-batch values are cheap structs.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cluster.core.batches import Span
from cluster.errors import Code, Outcome
from cluster.limits import IN_FLIGHT_MAX

ACKS_ALL = -1
VERDICT_NONE = 0
"""No broker said whether the record was new: nothing was acknowledged, or the offset is lost."""
VERDICT_NEW = 1
VERDICT_DUPLICATE = 2


class Connected(msgspec.Struct, frozen=True, gc=False):
    """Requests to this node may be sent."""

    node: int


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The connection ended: no answer to what was sent on it will come."""

    node: int


class MetadataKnown(msgspec.Struct, frozen=True):
    """Leaders by (topic, partition), -1 for none, and the error of topics that have one."""

    leaders: dict[tuple[str, int], int]
    errors: dict[str, int] = {}


class ProducerIdKnown(msgspec.Struct, frozen=True, gc=False):
    """A producer id never handed out before."""

    producer_id: int
    epoch: int


class ProduceAnswered(msgspec.Struct, frozen=True, gc=False):
    """A broker's answer to one request."""

    request_id: int
    error: int
    base_offset: int = -1
    verdict: int = VERDICT_NONE


class Unsent(msgspec.Struct, frozen=True, gc=False):
    """The request of a `SendProduce` did not leave: it certainly stored nothing."""

    request_id: int


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed, or records were appended."""


Event = Connected | Disconnected | MetadataKnown | ProducerIdKnown | ProduceAnswered | Unsent | Tick


class SendProduce(msgspec.Struct, frozen=True, gc=False):
    """Send one batch to the leader; with acks=0 no answer comes."""

    node: int
    request_id: int
    topic: str
    partition: int
    batch: bytes
    acks: int
    timeout_ms: int


class NeedMetadata(msgspec.Struct, frozen=True):
    """Ask a broker for the leaders of these topics; `MetadataKnown` answers."""

    topics: tuple[str, ...]


class NeedProducerId(msgspec.Struct, frozen=True, gc=False):
    """Ask for a fresh producer id until there is one; asked once per id."""


class Resolved(msgspec.Struct, frozen=True):
    """The fate of all records of one batch."""

    topic: str
    partition: int
    spans: list[Span]
    outcome: Outcome
    base_offset: int
    """Of the first record, -1 when unknown."""
    verdict: int
    code: Code


Effect = SendProduce | NeedMetadata | NeedProducerId | Resolved


@dataclass(frozen=True, slots=True)
class ProducerOptions:
    """How a producer batches and retries. Raises ValueError for what cannot be right."""

    acks: int = ACKS_ALL
    idempotent: bool = True
    linger_ms: int = 5
    batch_bytes: int = 65_536
    in_flight_max: int = IN_FLIGHT_MAX
    request_timeout_ms: int = 1_000
    """Longest wait for an answer before the same bytes are sent again."""
    delivery_timeout_ms: int = 120_000

    def __post_init__(self) -> None:
        if self.acks not in (ACKS_ALL, 0, 1):
            raise ValueError(f"acks: expected -1 (all), 0 or 1, not {self.acks}")
        if self.idempotent and self.acks == 0:
            raise ValueError("acks: 0 asks for no answer, so nothing can be retried: idempotent")
        if not 1 <= self.in_flight_max <= IN_FLIGHT_MAX:
            raise ValueError(f"in_flight_max: expected 1 to {IN_FLIGHT_MAX}")
        if self.linger_ms < 0 or self.batch_bytes < 1:
            raise ValueError("linger_ms must not be negative, batch_bytes must be positive")
        if not 1 <= self.request_timeout_ms <= self.delivery_timeout_ms:
            raise ValueError("request_timeout_ms: expected 1 to delivery_timeout_ms")


@dataclass(slots=True)
class ProducerCounts:
    """What a producer has done so far."""

    records: int = 0
    batches: int = 0
    attempts: int = 0
    retries: int = 0
    duplicates: int = 0
    """Acknowledgements that said the batch had been stored before."""
    acked: int = 0
    """Records."""
    failed: int = 0
    """Records."""
