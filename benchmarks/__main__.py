"""Runs the benchmarks: `python -m benchmarks [--smoke] [PART_OF_A_NAME ...]`.

A benchmark is any module below this package with `main(smoke: bool) -> int`, the exit status.
`--smoke` asks each for inputs so small that all of them together take seconds: it proves that they
still run and measures nothing.
"""

import argparse
import importlib
import pkgutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import targets

Benchmark = Callable[[bool], int]


def discover(parts: list[str]) -> Iterator[tuple[str, Benchmark]]:
    """Benchmarks whose name holds one of `parts`, all of them without any, in order of name."""
    found = pkgutil.walk_packages([str(Path(__file__).parent)], prefix="benchmarks.")
    for module in sorted(found, key=lambda module: module.name):
        name = module.name.removeprefix("benchmarks.")
        if name == "__main__" or (parts and not any(part in name for part in parts)):
            continue
        benchmark: Benchmark | None = getattr(importlib.import_module(module.name), "main", None)
        if benchmark is not None:
            yield name, benchmark


def run(parts: list[str], smoke: bool) -> int:
    """Runs them one after another, since two at once would measure each other."""
    failed: list[str] = []
    count = 0
    for name, benchmark in discover(parts):
        print(f"== {name}{' (smoke)' if smoke else ''}", flush=True)
        count += 1
        started = time.monotonic()
        if benchmark(smoke) != 0:
            failed.append(name)
        print(f"== {name}: {time.monotonic() - started:.1f} s", flush=True)
    if not count:
        print(f"no benchmark is named {' or '.join(parts) or 'at all'}", file=sys.stderr)
        return 2
    targets.summary()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def main() -> int:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART_OF_A_NAME")
    parser.add_argument("--smoke", action="store_true", help="tiny inputs, measures nothing")
    options = parser.parse_args()
    return run(options.parts, options.smoke)


if __name__ == "__main__":
    sys.exit(main())
