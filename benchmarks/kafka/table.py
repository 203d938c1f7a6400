"""The table of the comparison, and the targets that are judged by it."""

from __future__ import annotations

import math
from typing import NamedTuple

from benchmarks.kafka import measures
from benchmarks.kafka.measures import Figures
from benchmarks.targets import Target, judge

KAFKA, OS, BATCH = "Kafka", "flush=os", "flush=batch"
LABELS = (KAFKA, OS, BATCH)
START = "three brokers ready from nothing"
IDLE, LOADED = "memory of a broker, idle", "memory of a broker, after load"
IDLE_CPU = "CPU of three idle brokers"


class Row(NamedTuple):
    """One line: its name, unit, and whether less is better."""

    name: str
    unit: str
    less: bool = False


ROWS = (
    Row(START, "s", less=True),
    Row(IDLE, "MB", less=True),
    Row(LOADED, "MB", less=True),
    Row(IDLE_CPU, "% of a core", less=True),
    Row(measures.BULK_100, "records/s"),
    Row(measures.BULK_1K, "records/s"),
    Row(measures.SINGLES, "requests/s"),
    Row(measures.P50, "ms", less=True),
    Row(measures.P99, "ms", less=True),
    Row(measures.CONSUMED, "records/s"),
    Row(measures.GAP, "ms", less=True),
    Row(measures.CPU, "us", less=True),
    Row(measures.RATIO, "times", less=True),
)


def show(found: dict[str, Figures]) -> None:
    """Print one line per measure: the figure of each entrant, and ours divided by Kafka's."""
    heads = [label for label in LABELS if label in found]
    ratios = heads[1:] if KAFKA in found else []
    print(f"  {'':<38}" + "".join(f"{head:>14}" for head in [*heads, *ratios]))
    for row in ROWS:
        figures = [found[label].get(row.name, math.nan) for label in heads]
        cells = [_figure(figure) for figure in figures]
        if ratios:
            cells += [f"{figure / figures[0]:.2f} x Kafka" for figure in figures[1:]]
        print(f"  {row.name:<38}" + "".join(f"{cell:>14}" for cell in cells) + f"  {row.unit}")


def judged(found: dict[str, Figures]) -> int:
    """Judge ours beside Kafka of the same run; 1 if a target is missed."""

    def ratio(name: str, label: str) -> float:
        return found[label][name] / found[KAFKA][name]

    targets = []
    for name in (measures.BULK_100, measures.BULK_1K):
        targets.append(Target(f"{name}, flush=os : Kafka", ratio(name, OS), 1.5, "times"))
        targets.append(Target(f"{name}, flush=batch : Kafka", ratio(name, BATCH), 1.1, "times"))
    for label in (OS, BATCH):
        name = measures.SINGLES
        targets.append(Target(f"{name}, {label} : Kafka", ratio(name, label), 3.0, "times"))
        p99 = ratio(measures.P99, label)
        targets.append(Target(f"p99, {label} : Kafka", p99, 0.5, "times", at_most=True))
    targets += [
        Target("consumer : Kafka", ratio(measures.CONSUMED, BATCH), 0.8, "times"),
        Target("memory of an idle broker", found[BATCH][IDLE], 60, "MB", at_most=True),
    ]
    return judge(*targets)


def _figure(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:,.2f}"
