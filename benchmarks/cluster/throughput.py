"""Records per second end to end: native client, three replicas, acks=all, flush=batch and flush=os.

Values of 100 bytes and of 1 KB, in the client's default batches, over six partitions. The four
loads take turns on one cluster, so that a busy moment of the machine hits all of them, and the
ceilings of the machine are measured between the rounds: what counts is the share of the lower one.
"""

from __future__ import annotations

import os
import statistics
import sys
from typing import NamedTuple

from benchmarks.cluster import ceilings
from benchmarks.cluster.brokers import pids, run, three_brokers
from benchmarks.cluster.load import create_topic, settle_many
from benchmarks.cluster.processes import cpu_seconds
from cluster.testing.local import LocalCluster

SIZES = (100, 1024)
FLUSHES = ("batch", "os")
LOAD_BYTES = 32 * 1024 * 1024  # bytes of values in one round of one load
CEILING_BYTES = 128 * 1024 * 1024


class Round(NamedTuple):
    """One load once."""

    records: int
    seconds: float
    brokers_cpu: float
    client_cpu: float

    @property
    def rate(self) -> float:
        """Records per second."""
        return self.records / self.seconds


async def one_round(cluster: LocalCluster, topic: str, size: int, load_bytes: int) -> Round:
    """`load_bytes` bytes of values of `size` bytes."""
    records = max(1, load_bytes // size)
    brokers, client = cpu_seconds(pids(cluster)).total(), cpu_seconds([os.getpid()]).total()
    seconds = await settle_many(cluster, topic, records, size)
    return Round(
        records,
        seconds,
        cpu_seconds(pids(cluster)).total() - brokers,
        cpu_seconds([os.getpid()]).total() - client,
    )


async def measure(
    load_bytes: int, rounds: int
) -> tuple[dict[tuple[str, int], list[Round]], list[ceilings.Ceilings]]:
    """Rounds of every load, and the ceilings found between them."""
    measured: dict[tuple[str, int], list[Round]] = {}
    ceiling_bytes = min(CEILING_BYTES, 4 * load_bytes)
    async with three_brokers() as cluster:
        for flush in FLUSHES:
            await create_topic(cluster, flush, flush=flush)
        found = []
        for number in range(rounds + 1):
            for size in SIZES:
                for flush in FLUSHES:
                    one = await one_round(cluster, flush, size, load_bytes)
                    if number:  # the first round warms up
                        measured.setdefault((flush, size), []).append(one)
            found.append(ceilings.measure(ceiling_bytes))
        return measured, found


def main(smoke: bool) -> int:
    """Print rates, CPU per record and the share of the ceiling."""
    measured, found = run(measure(64 * 1024 if smoke else LOAD_BYTES, 1 if smoke else 5))
    synced = statistics.median(one.synced for one in found)
    pushed = statistics.median(one.pushed for one in found)
    print(f"ceilings: synced write / 3 {synced / 1e6:,.0f} MB/s, push to two {pushed / 1e6:,.0f}")
    print(
        "  load              records/s, median (worst to best)     MB/s  of ceiling  CPU a record"
    )
    for (flush, size), rounds in measured.items():
        print(
            _row(flush, size, rounds, ceiling=min(synced, pushed) if flush == "batch" else pushed)
        )
    return 0


def _row(flush: str, size: int, rounds: list[Round], *, ceiling: float) -> str:
    rates = sorted(one.rate for one in rounds)
    middle = statistics.median(rates)
    cheapest = min(rounds, key=lambda one: one.brokers_cpu + one.client_cpu)
    brokers, client = (
        seconds * 1e6 / cheapest.records for seconds in (cheapest.brokers_cpu, cheapest.client_cpu)
    )
    return (
        f"  {size:>5} B flush={flush:<5}  {middle:>9,.0f} ({rates[0]:>9,.0f}, {rates[-1]:>9,.0f}) "
        f"  {middle * size / 1e6:>6,.0f}  {middle * size / ceiling:>9.0%}"
        f"  {brokers:.2f} us brokers, {client:.2f} us client"
    )


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
