"""Apache Kafka 4.3.1 and oncelog side by side, and how far we are from our targets.

Three brokers each on this machine, three replicas, two in sync at least, acks=all, idempotent, the
same librdkafka. Both clusters run all the time and take turns, round by round, so that a busy
moment of the machine hits both; Kafka's Java machines are warmed up first. Told are medians of the
rounds. Without Java, Maven or Kafka's jars ours alone is measured, and nothing judged.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack

from benchmarks.cluster.brokers import directory, run
from benchmarks.cluster.processes import cpu_seconds, resident_megabytes
from benchmarks.kafka import measures, table
from benchmarks.kafka.apache import ApacheKafka
from benchmarks.kafka.jars import NoKafka
from benchmarks.kafka.measures import Entrant, Figures, Measure, Sizes
from benchmarks.kafka.ours import Ours
from benchmarks.kafka.system import System

STEPS: tuple[Measure, ...] = (measures.bulk, measures.singles, measures.latency)


class Results:
    """Every figure of every round, by entrant and name."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, list[float]]] = {}

    def add(self, label: str, figures: Figures) -> None:
        """Keep the figures of one round."""
        for name, figure in figures.items():
            self._found.setdefault(label, {}).setdefault(name, []).append(figure)

    def medians(self) -> dict[str, Figures]:
        """The middle of each."""
        return {
            label: {name: statistics.median(values) for name, values in named.items()}
            for label, named in self._found.items()
        }


async def compare(sizes: Sizes) -> dict[str, Figures]:
    """All measures on all entrants; the medians by entrant and name."""
    results = Results()
    async with AsyncExitStack() as stack:
        home = stack.enter_context(directory())
        systems: list[System] = []
        try:
            kafka = await stack.enter_async_context(ApacheKafka(home / "kafka"))
        except NoKafka as error:
            print(f"Apache Kafka is left out: {error}", flush=True)
        else:
            await kafka.format()
            results.add(table.KAFKA, await _started(kafka))
            systems.append(kafka)
        ours = await stack.enter_async_context(Ours(home / "ours"))
        started = await _started(ours)
        systems.append(ours)
        entrants = [Entrant(table.KAFKA, kafka, {})] if len(systems) > 1 else []
        for label, flush in ((table.OS, "os"), (table.BATCH, "batch")):
            results.add(label, started)
            entrants.append(Entrant(label, ours, {"flush": flush}))
        await _idle(results, entrants, sizes.idle_s)
        await _warm_up(entrants, sizes)
        await _rounds(results, entrants, sizes)
    return results.medians()


async def _started(system: ApacheKafka | Ours) -> Figures:
    began = time.monotonic()
    await system.start()
    return {table.START: time.monotonic() - began}


async def _idle(results: Results, entrants: list[Entrant], idle_s: float) -> None:
    before = [cpu_seconds(entrant.system.pids()).total() for entrant in entrants]
    await asyncio.sleep(idle_s)
    for entrant, spent in zip(entrants, before, strict=True):
        pids = entrant.system.pids()
        busy = (cpu_seconds(pids).total() - spent) / idle_s
        memory = max(resident_megabytes(pid) for pid in pids)
        results.add(entrant.label, {table.IDLE: memory, table.IDLE_CPU: 100 * busy})


async def _warm_up(entrants: list[Entrant], sizes: Sizes) -> None:
    """Kafka's compilers need a while, ours is warm after one round."""
    for entrant in entrants:
        end = time.monotonic() + sizes.warm_up_s
        while time.monotonic() < end:
            for step in STEPS:
                await step(entrant, sizes)
            if entrant.label != table.KAFKA:
                break


async def _rounds(results: Results, entrants: list[Entrant], sizes: Sizes) -> None:
    for number in range(sizes.rounds):
        for step in STEPS:
            for entrant in entrants:
                results.add(entrant.label, await step(entrant, sizes))
        print(f"round {number + 1} of {sizes.rounds}", flush=True)
    for entrant in entrants:
        memory = max(resident_megabytes(pid) for pid in entrant.system.pids())
        results.add(entrant.label, {table.LOADED: memory})
    for entrant in entrants:
        for _ in range(sizes.kafka_kills if entrant.label == table.KAFKA else sizes.kills):
            results.add(entrant.label, await measures.failover(entrant, sizes))


def main(smoke: bool) -> int:
    """Print the table; 1 if a target is missed."""
    found = run(compare(measures.SMOKE if smoke else measures.FULL))
    table.show(found)
    return 0 if smoke or table.KAFKA not in found else table.judged(found)


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv[1:]))
