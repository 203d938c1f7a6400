"""Sends a workload through one producer, breaking the cluster at fixed record numbers.

Owns: how far the sending is and what was not acknowledged. Between two looks at the fault plan
goes one block of records; how many are under way at once is the producer's own bound.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Any

from cluster.client import BatchDelivery, PartlyProduced, Producer
from cluster.errors import Outcome
from cluster.load.faults import FaultRunner
from cluster.load.report import RunReport
from cluster.load.workload import Span, Workload

BLOCK_RECORDS = 6_000  # records between looks at the plan: about a batch for each of 6 partitions


class Settlement:
    """One run of `workload` into `topic`; read the attributes while it goes on."""

    def __init__(
        self, producer: Producer, topic: str, workload: Workload, faults: FaultRunner
    ) -> None:
        self.producer = producer
        self.workload = workload
        self.sent = 0
        self.acked = 0
        self.unacknowledged: list[Span] = []
        self.error: BaseException | None = None
        """The first reason why records were not acknowledged."""
        self.seconds = 0.0
        self._topic = topic
        self._faults = faults

    async def run(self) -> None:
        """Send everything, wait until it is settled, and mend what was broken.

        Whoever leaves by an exception has no use for a cluster that is mended first.
        """
        began = time.monotonic()
        try:
            await self._send()
            await self.producer.flush()
            self.seconds = time.monotonic() - began
            await self._faults.finish()
        finally:
            self._faults.stop()

    def report(self, findings: dict[str, Any], *, duplicates_rejected: int) -> RunReport:
        """The figures of the run, with what auditor and brokers counted."""
        stats = self.producer.stats
        return RunReport(
            sent=self.sent,
            acked=self.acked,
            retries=stats.retries,
            duplicate_acks=stats.duplicates,
            duplicates_rejected=duplicates_rejected,
            longest_gap_ms=round(stats.longest_gap_ms),
            seconds=self.seconds,
            findings=findings,
        )

    async def _send(self) -> None:
        producer, workload, faults = self.producer, self.workload, self._faults
        await faults.reach(0)
        while self.sent < workload.records:
            block_end = min(self.sent + BLOCK_RECORDS, workload.records)
            end = faults.next_stop(self.sent, block_end)
            for span, pairs in workload.batches(self.sent, end):
                await producer.ready()
                future = producer.submit_many(self._topic, span.partition, pairs)
                future.add_done_callback(partial(self._settled, span, len(pairs)))
            self.sent = end
            await faults.reach(end)

    def _settled(self, span: Span, count: int, future: asyncio.Future[list[BatchDelivery]]) -> None:
        error = asyncio.CancelledError() if future.cancelled() else future.exception()
        if error is None:
            self.acked += count
            return
        self.error = self.error or error
        if not isinstance(error, PartlyProduced):
            self.unacknowledged.append(span)
            return
        numbers = list(self.workload.numbers(span))
        for piece in error.deliveries:
            if piece.outcome is Outcome.STORED:
                self.acked += piece.count
            else:
                mine = numbers[piece.start : piece.start + piece.count]
                self.unacknowledged.append(Span(mine[0], mine[-1] + 1, span.partition))
