"""Simulate a cluster: `python -m tests.sim --seed N [--trace] [--digest]`, or `--seeds A-B`."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim.run import Result, run


def main() -> int:
    """Run what the command line asks for; 1 if a guarantee was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one")
    parser.add_argument("--seeds", default="1-20", help="run these, as 1-100")
    parser.add_argument("--trace", action="store_true", help="print everything that happened")
    parser.add_argument("--digest", action="store_true", help="print only the trace's digest")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options.seed, trace=options.trace, digest=options.digest)
    first, _, last = options.seeds.partition("-")
    return _many(int(first), int(last or first), digest=options.digest)


def _one(seed: int, *, trace: bool, digest: bool) -> int:
    result = run(seed, keep_trace=trace)
    for line in result.lines:
        print(line)
    if digest:
        print(result.digest)
    else:
        _tell(result)
        print(result.shape, result.counts)
    return int(result.failure is not None)


def _many(first: int, last: int, *, digest: bool) -> int:
    failed, began = [], time.monotonic()
    for seed in range(first, last + 1):
        result = run(seed)
        if digest:
            print(seed, result.digest)
        if result.failure is not None:
            failed.append(seed)
            _tell(result)
    seconds = time.monotonic() - began
    print(f"{last + 1 - first} seeds in {seconds:.1f} s, {len(failed)} failed: {failed}")
    return int(bool(failed))


def _tell(result: Result) -> None:
    verdict = result.failure or "every guarantee held"
    print(f"seed {result.seed} digest {result.digest}: {verdict}")
    if result.detail:
        print(result.detail, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
