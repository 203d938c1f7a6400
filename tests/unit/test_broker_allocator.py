"""The allocator: freed buffers are used again without asking the system for pages."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cluster.broker.allocator import keep_freed_memory

TURNS = """
import resource
from cluster.broker.allocator import keep_freed_memory
def turns(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        buffers = [b"x" * 1_000_000 for _ in range(4)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
keep_freed_memory()
turns(2)
print(turns(100))
"""
PAGES_OF_A_TURN = 4 * 1_000_000 // 4096


def test_freed_buffers_are_used_again_without_new_pages() -> None:
    if not keep_freed_memory():
        pytest.skip("malloc is not glibc's here: nothing to set")
    out = subprocess.run(
        [sys.executable, "-c", TURNS], capture_output=True, text=True, check=True, timeout=30
    )
    assert int(out.stdout) < PAGES_OF_A_TURN
