"""`python -m tests.model [--without HOLE | --all | --deep] [--bounds NAME]`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.model.bounds import BOUNDS, DEEP
from tests.model.rules import HOLES
from tests.model.search import explore
from tests.model.state import Bounds, Budget

KNOWN = BOUNDS | DEEP


def main() -> int:
    """Exit status 0 when the rules hold, or when every hole asked for was found."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.model",
        description="Search the replication protocol exhaustively within bounds.",
    )
    parser.add_argument("--without", metavar="HOLE", choices=HOLES, help="leave out one rule")
    parser.add_argument("--all", action="store_true", help="leave out each rule in turn")
    parser.add_argument("--deep", action="store_true", help="wider bounds: minutes, gigabytes")
    parser.add_argument("--bounds", choices=[*BOUNDS, *DEEP], help="search these bounds only")
    parser.add_argument("--guarantee", metavar="G", help="look for harm to this guarantee")
    options = parser.parse_args()
    if options.all or options.without is not None:
        names = [options.without] if options.without is not None else list(HOLES)
        return sum(not _without(name, options.bounds, options.guarantee) for name in names)
    chosen = list((DEEP if options.deep else BOUNDS).values())
    return _with_every_rule([KNOWN[options.bounds]] if options.bounds else chosen)


def _with_every_rule(chosen: list[Bounds]) -> int:
    say(f"{'bounds':<10} {'states':>8} {'settled':>8} {'steps':>8} {'depth':>5} {'s':>5}")
    started, states, failures = time.monotonic(), 0, 0
    for bounds in chosen:
        begun = time.monotonic()
        result = explore(bounds)
        states += result.states
        failures += bool(result.trace)
        say(
            f"{bounds.name:<10} {result.states:>8} {result.settled:>8} {result.steps:>8} "
            f"{result.depth:>5} {time.monotonic() - begun:>5.1f}  {bounds.about}"
        )
        say(f"{'':<10} {_budget(bounds)}")
        for line in result.trace:
            say("    " + line)
    say(f"{states} states in {time.monotonic() - started:.1f} s: "
        + (f"{failures} BROKEN" if failures else "G1 to G7 hold in all"))  # fmt: skip
    return failures


def _without(name: str, bounds: str | None, guarantee: str | None) -> bool:
    """Whether the counterexample was found."""
    hole, begun = HOLES[name], time.monotonic()
    result = explore(KNOWN[bounds or hole.bounds], frozenset((name,)), guarantee or hole.breaks)
    say(f"without rule {name}: {hole.instead}")
    for n, line in enumerate(result.trace[:-1], 1):
        say(f"  {n:>2}. {line}")
    say("  " + (result.trace[-1] if result.trace else "nothing is broken within these bounds"))
    say(f"  ({result.states} states, bounds {bounds or hole.bounds}, "
        f"{time.monotonic() - begun:.1f} s)\n")  # fmt: skip
    return bool(result.trace)


def _budget(bounds: Bounds) -> str:
    faults = [
        f"{name} {most}" for name, most in zip(Budget._fields, bounds.budget, strict=True) if most
    ]
    return f"copies {'+'.join(map(str, bounds.copies))}, at most: {', '.join(faults)}"


def say(line: str) -> None:
    """One line to the terminal."""
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
