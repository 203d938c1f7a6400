"""How long an acknowledgement takes with 1, 6, 60 and 600 partitions written at once.

Two loads on one cluster of three brokers, acks=all: the same number of records a second whatever
they are spread over (each sync is of one file, so more files are more syncs), and a burst, one
record to every partition at the same moment, the next when all are acknowledged.
"""

from __future__ import annotations

import asyncio
import sys
import time

from benchmarks.cluster.brokers import BROKERS, run, three_brokers
from benchmarks.targets import Target, judge
from cluster.client import Admin, Producer
from cluster.testing.local import LocalCluster

SPREADS = (1, 6, 60, 600)
FLUSHES = ("batch", "os")
RATE = 1_200  # records a second of the steady load
VALUE = bytes(200)


async def create(cluster: LocalCluster, flush: str, partitions: int) -> float:
    """Make a topic; seconds until it was there."""
    began = time.monotonic()
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic(
            f"{flush}-{partitions}",
            partitions=partitions,
            replicas=BROKERS,
            config={"min.insync.replicas": "2", "flush": flush},
        )
    return time.monotonic() - began


class Acks:
    """Milliseconds from submission to acknowledgement."""

    def __init__(self, producer: Producer, topic: str) -> None:
        self.took: list[float] = []
        self._producer = producer
        self._topic = topic

    def send(self, partition: int) -> asyncio.Future[object]:
        """One record."""
        began = time.perf_counter()
        future = self._producer.submit(self._topic, VALUE, partition=partition)
        future.add_done_callback(lambda _: self.took.append(1_000 * (time.perf_counter() - began)))
        return future  # type: ignore[return-value]

    async def steady(self, partitions: int, seconds: float) -> None:
        """RATE records a second over all partitions in turn."""
        began, sent, futures = time.perf_counter(), 0, []
        while (now := time.perf_counter() - began) < seconds:
            while sent < now * RATE:
                futures.append(self.send(sent % partitions))
                sent += 1
            await asyncio.sleep(0.001)
        await asyncio.gather(*futures)

    async def burst(self, partitions: int, seconds: float) -> None:
        """All partitions at once, again and again."""
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            await asyncio.gather(*[self.send(partition) for partition in range(partitions)])


def percentile(values: list[float], percent: int) -> float:
    """Of unsorted values."""
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


async def measure(
    spreads: tuple[int, ...], seconds: float, rounds: int
) -> dict[tuple[str, str, int], list[float]]:
    """p99 in ms of each load, flush and spread, the lowest of its rounds, and the median there."""
    best: dict[tuple[str, str, int], list[float]] = {}
    async with three_brokers() as cluster:
        for flush in FLUSHES:
            for partitions in spreads:
                took = await create(cluster, flush, partitions)
                print(f"a topic of {partitions} partitions was made in {1_000 * took:.0f} ms")
        async with Producer(cluster.bootstrap, linger_ms=0) as producer:
            for number in range(rounds + 1):
                for flush in FLUSHES:
                    for partitions in spreads:
                        for load in ("steady", "burst"):
                            acks = Acks(producer, f"{flush}-{partitions}")
                            await producer.partitions(f"{flush}-{partitions}")
                            await getattr(acks, load)(partitions, seconds)
                            found = [percentile(acks.took, 99), percentile(acks.took, 50)]
                            key = (load, flush, partitions)
                            if number and found < best.get(key, [float("inf")]):
                                best[key] = found
    return best


def main(smoke: bool) -> int:
    """Print the table and judge how flat it is."""
    spreads = (1, 6) if smoke else SPREADS
    best = run(measure(spreads, 0.1 if smoke else 3.0, 1 if smoke else 3))
    print(f"ack p99 (median) in ms, three brokers, acks=all; steady: {RATE} records a second")
    print("  load    flush  " + "".join(f"{spread:>18}" for spread in spreads))
    targets = []
    for load in ("steady", "burst"):
        for flush in FLUSHES:
            row = [best[load, flush, spread] for spread in spreads]
            cells = "".join(f"{p99:>9.2f} ({p50:6.2f})" for p99, p50 in row)
            print(f"  {load:<7} {flush:<6} {cells}")
            if load == "steady":
                ratio = max(p99 for p99, _ in row) / min(p99 for p99, _ in row)
                name = f"ack p99 over {spreads[-1]} partitions, flush={flush}"
                targets.append(Target(name, ratio, 3, "x", at_most=True))
    return 0 if smoke else judge(*targets)


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
