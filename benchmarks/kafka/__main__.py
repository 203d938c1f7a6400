"""Runs the comparison: `python -m benchmarks.kafka [--smoke]`."""

import sys

from benchmarks.kafka import compare

if __name__ == "__main__":
    sys.exit(compare.main("--smoke" in sys.argv[1:]))
