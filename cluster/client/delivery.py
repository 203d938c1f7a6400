"""What a producer promises about records: where they are, or why they are not.

Owns the public results, and the joining of the batches that one `submit_many` was cut into.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from cluster.core.batches import Span
from cluster.core.producer_events import VERDICT_DUPLICATE, VERDICT_NEW, VERDICT_NONE, Resolved
from cluster.errors import NONE, Code, OncelogError, Outcome, ProduceError


class BufferFull(OncelogError):
    """Too many bytes wait for acknowledgement: `await producer.ready()` before the next record."""


class Verdict(IntEnum):
    """What the broker that acknowledged a record found."""

    NONE = VERDICT_NONE
    """Nobody said: acks=0, or the acknowledgement itself was lost for good."""
    NEW = VERDICT_NEW
    DUPLICATE = VERDICT_DUPLICATE
    """It was stored already, by an attempt whose acknowledgement was lost."""


_VERDICTS = {int(verdict): verdict for verdict in Verdict}


class Delivery(NamedTuple):
    """A record that is stored."""

    topic: str
    partition: int
    offset: int
    """-1 when unknown: acks=0, or a broker that no longer remembers where the original is."""
    verdict: Verdict
    timestamp: int
    """Milliseconds, as sent."""


@dataclass(frozen=True, slots=True)
class BatchDelivery:
    """Consecutive records of one `submit_many` that share a batch, and with it their fate."""

    topic: str
    partition: int
    start: int
    """Index of the first among the records submitted."""
    count: int
    offset: int
    """Of the first record; the others follow. -1 when unknown."""
    verdict: Verdict
    outcome: Outcome


class PartlyProduced(ProduceError):
    """Some records of a `submit_many` failed; `deliveries` says which, in order.

    `outcome` is the worst: POSSIBLY_STORED if that is so for any of the failed records.
    """

    def __init__(self, code: Code, outcome: Outcome, deliveries: list[BatchDelivery]) -> None:
        failed = sum(piece.count for piece in deliveries if piece.outcome is not Outcome.STORED)
        total = sum(piece.count for piece in deliveries)
        super().__init__(code, outcome, f"{failed} of {total} records failed: {code.text}")
        self.deliveries = deliveries


class Single:
    """The token of one record."""

    __slots__ = ("future", "timestamp")

    def __init__(self, future: asyncio.Future[Delivery], timestamp: int) -> None:
        self.future = future
        self.timestamp = timestamp

    def settle(self, span: Span, effect: Resolved) -> None:
        """Completes the caller's future."""
        future = self.future
        if future.done():
            return
        if effect.code is not NONE:
            future.set_exception(ProduceError(effect.code, effect.outcome))
            return
        offset = effect.base_offset + span.first if effect.base_offset >= 0 else -1
        verdict = _VERDICTS.get(effect.verdict, Verdict.NONE)
        future.set_result(Delivery(effect.topic, effect.partition, offset, verdict, self.timestamp))


class Run:
    """The token of all records of one `submit_many`."""

    __slots__ = ("failure", "future", "pieces", "remaining")

    def __init__(self, future: asyncio.Future[list[BatchDelivery]], count: int) -> None:
        self.future = future
        self.remaining = count
        self.pieces: list[BatchDelivery] = []
        self.failure: tuple[Code, Outcome] | None = None

    def settle(self, span: Span, effect: Resolved) -> None:
        """Notes one piece, and completes the caller's future with the last."""
        outcome = effect.outcome
        if effect.code is not NONE and (self.failure is None or outcome is Outcome.POSSIBLY_STORED):
            self.failure = (effect.code, outcome)
        offset = effect.base_offset + span.first if effect.base_offset >= 0 else -1
        verdict = _VERDICTS.get(effect.verdict, Verdict.NONE)
        self.pieces.append(
            BatchDelivery(
                effect.topic, effect.partition, span.start, span.count, offset, verdict, outcome
            )
        )
        self.remaining -= span.count
        if self.remaining or self.future.done():
            return
        self.pieces.sort(key=lambda piece: piece.start)
        if self.failure is None:
            self.future.set_result(self.pieces)
        else:
            self.future.set_exception(PartlyProduced(*self.failure, self.pieces))
