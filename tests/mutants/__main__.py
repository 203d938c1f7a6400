"""Break one rule at a time: `python -m tests.mutants [NAME ...] [--seeds N]`.

Runs seeds from 1 on, or the scenarios, until a checker catches the mutant; fails if one survives.
"""

from __future__ import annotations

import argparse
import sys

from tests.mutants import leadership, replication, retention
from tests.mutants.patching import MUTANTS, Mutant, applied
from tests.sim import test_scenarios
from tests.sim.run import run

MODULES = (replication, leadership, retention)


def caught(chosen: Mutant, seeds: int) -> str | None:
    """Which run caught it and what the checker said: of seeds from 1 on, or of the scenarios."""
    if not seeds:
        return _caught_by_scenario(chosen)
    for seed in range(1, seeds + 1):
        with applied(chosen):
            failure = run(seed, faults=chosen.faults).failure
        if failure is not None:
            return f"seed {seed}: {failure}"
    return None


def _caught_by_scenario(chosen: Mutant) -> str | None:
    for name, scenario in vars(test_scenarios).items():
        if name.startswith("test_"):
            try:
                with applied(chosen):
                    scenario()
            except AssertionError as failure:
                return f"{name}: {failure}"
    return None


def main() -> int:
    """Run the mutants whose names begin with one of those given; 1 if one survived."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, help="try so many instead of a mutant's own number")
    options = parser.parse_args()
    survived = []
    for name, chosen in MUTANTS.items():
        if options.names and not name.startswith(tuple(options.names)):
            continue
        seeds = chosen.seeds and (options.seeds or chosen.seeds)
        found = caught(chosen, seeds)
        if found is None:
            survived.append(name)
        what = found or (f"survived {seeds} seeds" if seeds else "survived every scenario")
        print(f"{name:14} {chosen.about}\n{'':14} {what[:200]}", flush=True)
    print(f"{len(survived)} survived: {survived}" if survived else "every mutant was caught")
    return int(bool(survived))


if __name__ == "__main__":
    sys.exit(main())
