"""CPU of one replicated one-record batch of 300 bytes over three broker processes, part by part.

Native producers keep their windows full of requests with one record each, acks=all, flush=batch.
What counts is the CPU that the brokers' threads spent, divided by the batches; the cheapest of
several rounds is reported, since other load on the machine can only add. Beside it stands what
the machines alone cost in one process (`micro.core`): the rest is sockets, loop and disk.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from benchmarks.cluster.brokers import pids, run, three_brokers
from benchmarks.cluster.load import create_topic, settle_singles
from benchmarks.cluster.processes import KINDS, cpu_seconds
from benchmarks.micro import core

VALUE_BYTES = 220  # makes a batch of 300
PRODUCERS = 4  # five requests a partition each: 120 under way


class Round(NamedTuple):
    """Microseconds per batch, and batches per second."""

    parts: dict[str, float]
    client: float
    rate: float

    @property
    def brokers(self) -> float:
        """All threads of all brokers."""
        return sum(self.parts.values())


async def measure(batches: int, rounds: int) -> list[Round]:
    """Rounds of `batches` batches each on one cluster, after one that warms it up."""
    async with three_brokers() as cluster:
        await create_topic(cluster, "singles", flush="batch")
        measured = []
        for number in range(rounds + 1):
            before, client = cpu_seconds(pids(cluster)), cpu_seconds([os.getpid()])
            seconds = await settle_singles(
                cluster, "singles", batches, VALUE_BYTES, producers=PRODUCERS
            )
            spent = cpu_seconds(pids(cluster))
            client = cpu_seconds([os.getpid()]) - client
            if number:
                parts = {kind: (spent[kind] - before[kind]) * 1e6 / batches for kind in KINDS}
                own = client.total() * 1e6 / batches
                measured.append(Round(parts, own, batches / seconds))
        return measured


def main(smoke: bool) -> int:
    """Print the parts of the cheapest round and the spread of all."""
    batches, rounds = (240, 1) if smoke else (24_000, 7)
    measured = run(measure(batches, rounds))
    best = min(measured, key=lambda one: one.brokers)
    sums = sorted(one.brokers for one in measured)
    print(f"CPU per replicated 300-byte batch, one a request, three brokers, {rounds} rounds")
    for kind in KINDS:
        print(f"  {kind:<44} {best.parts[kind]:7.2f} us")
    print(f"  {'all brokers, cheapest round':<44} {best.brokers:7.2f} us")
    print(f"  {'spread of the rounds':<44} {sums[0]:7.2f} to {sums[-1]:.2f} us")
    print(f"  {'the client beside it':<44} {best.client:7.2f} us")
    print(f"  {'requests a second, best round':<44} {max(r.rate for r in measured):7,.0f}")
    return core.main(smoke)


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
