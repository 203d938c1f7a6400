"""Targets of the benchmarks: what was asked for, what was reached, and the shortfall.

Every benchmark ends by judging its own figures; the run of all prints them again as one table.
"""

from __future__ import annotations

from typing import NamedTuple


class Target(NamedTuple):
    """One figure that must be at least `wanted`, or with `at_most` no more than it."""

    name: str
    reached: float
    wanted: float
    unit: str
    at_most: bool = False

    @property
    def shortfall(self) -> float:
        """How far the figure is from its target, in its unit; 0 when it holds."""
        gap = self.reached - self.wanted if self.at_most else self.wanted - self.reached
        return max(gap, 0.0)

    def __str__(self) -> str:
        sign = "<=" if self.at_most else ">="
        verdict = f"MISSED by {_figure(self.shortfall)}" if self.shortfall else "holds"
        return (
            f"  {self.name:<46} {_figure(self.reached):>10}  {sign} {_figure(self.wanted):<8}"
            f" {self.unit:<12} {verdict}"
        )


_judged: list[Target] = []


def judge(*targets: Target) -> int:
    """Print the figures beside their targets; 1 if one is missed, else 0."""
    _judged.extend(targets)
    return _told(targets)


def summary() -> int:
    """Print everything that was judged in this process; 1 if anything was missed."""
    if _judged:
        print("targets")
    return _told(_judged)


def _told(targets: tuple[Target, ...] | list[Target]) -> int:
    for target in targets:
        print(target)
    return int(any(target.shortfall for target in targets))


def _figure(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:,.2f}"
