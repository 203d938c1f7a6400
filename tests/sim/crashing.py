"""A disk that loses its power at a call chosen beforehand, whichever it is.

Owns: the count of calls. Every call of the `Disk` protocol counts, reads too, since a process may
die between any two of them; the call at which the power goes does nothing any more (what a write
that was under way leaves behind is the simulated disk's affair: it may tear what came before).
"""

from __future__ import annotations

from random import Random
from typing import Any

from tests.sim.disk import SimulatedDisk

CALLS = frozenset({
    "open", "close", "size", "write", "read", "read_cached", "truncate", "sync", "exists", "list",
    "make_directory", "remove_directory", "rename", "unlink", "sync_directory",
})  # fmt: skip


class PowerLoss(BaseException):
    """The power is gone; nobody is there to catch this but the test."""


class CrashingDisk:
    """Stands before a simulated disk, which a test can still reach as `inner`."""

    def __init__(self, inner: SimulatedDisk, at: int = 0) -> None:
        """The power goes at call number `at`; 0 is never."""
        self.inner = inner
        self.count = 0
        self.last = ""
        self._at = at

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.inner, name)
        if name not in CALLS:
            return found

        def call(*arguments: object, **named: object) -> object:
            self.count += 1
            if self._at and self.count >= self._at:
                self.last = self.last or f"{name} {arguments[0] if arguments else ''}"
                raise PowerLoss(self.last)
            return found(*arguments, **named)

        return call

    def restart(self, rng: Random, at: int = 0) -> CrashingDisk:
        """What the next process finds."""
        self.inner.crash(rng)
        return CrashingDisk(self.inner, at)
