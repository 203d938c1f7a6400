"""CPU of one replicated one-record batch of 300 bytes over three broker processes, part by part.

Native producers keep their windows full of requests with one record each, acks=all, flush=batch.
What counts is the CPU that the brokers' threads spent, divided by the batches; the cheapest of
several rounds is reported, since other load on the machine can only add. More requests under way
make larger turns, and what a turn costs is shared by more batches. Beside it stands what the
machines alone cost in one process (`micro.core`): the rest is sockets, loop and disk.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from benchmarks.cluster.brokers import PARTITIONS, pids, run, three_brokers
from benchmarks.cluster.load import create_topic, settle_singles
from benchmarks.cluster.processes import KINDS, cpu_seconds
from benchmarks.micro import core
from cluster.limits import IN_FLIGHT_MAX
from cluster.testing.local import LocalCluster

VALUE_BYTES = 220  # makes a batch of 300
PRODUCERS = (4, 16)  # five requests a partition each: 120 and 480 under way


class Round(NamedTuple):
    """Microseconds per batch, and batches per second."""

    parts: dict[str, float]
    client: float
    rate: float

    @property
    def brokers(self) -> float:
        """All threads of all brokers."""
        return sum(self.parts.values())


async def measure(batches: int, rounds: int) -> dict[int, list[Round]]:
    """Rounds of `batches` batches by number of producers, after one each that warms up."""
    measured: dict[int, list[Round]] = {producers: [] for producers in PRODUCERS}
    async with three_brokers() as cluster:
        await create_topic(cluster, "singles", flush="batch")
        for number in range(rounds + 1):
            for producers, found in measured.items():
                one = await one_round(cluster, batches, producers)
                if number:
                    found.append(one)
    return measured


async def one_round(cluster: LocalCluster, batches: int, producers: int) -> Round:
    """`batches` batches, and what they cost."""
    before, client = cpu_seconds(pids(cluster)), cpu_seconds([os.getpid()]).total()
    seconds = await settle_singles(cluster, "singles", batches, VALUE_BYTES, producers=producers)
    spent = cpu_seconds(pids(cluster))
    client = cpu_seconds([os.getpid()]).total() - client
    parts = {kind: (spent[kind] - before[kind]) * 1e6 / batches for kind in KINDS}
    return Round(parts, client * 1e6 / batches, batches / seconds)


def main(smoke: bool) -> int:
    """Print the parts of the cheapest rounds and the spread of all."""
    batches, rounds = (240, 1) if smoke else (24_000, 7)
    measured = run(measure(batches, rounds))
    cheapest = [min(found, key=lambda one: one.brokers) for found in measured.values()]
    print(f"CPU per replicated 300-byte batch, one a request, three brokers, {rounds} rounds")
    _row("requests under way", [f"{IN_FLIGHT_MAX * PARTITIONS * count}" for count in measured])
    for kind in KINDS:
        _row(kind, [f"{one.parts[kind]:.1f} us" for one in cheapest])
    _row("all brokers, cheapest round", [f"{one.brokers:.1f} us" for one in cheapest])
    worst = [max(one.brokers for one in found) for found in measured.values()]
    _row("all brokers, dearest round", [f"{brokers:.1f} us" for brokers in worst])
    _row("the client beside them", [f"{one.client:.1f} us" for one in cheapest])
    rates = [max(one.rate for one in found) for found in measured.values()]
    _row("requests a second, best round", [f"{rate:,.0f}" for rate in rates])
    return core.main(smoke)


def _row(name: str, figures: list[str]) -> None:
    print(f"  {name:<36}{''.join(f'{figure:>12}' for figure in figures)}")


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
