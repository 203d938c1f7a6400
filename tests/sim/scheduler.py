"""Virtual time: one queue of what happens next, one seeded generator for every choice.

Time is whole microseconds. Everything that happens writes one line to the trace; the digest of the
trace tells whether two runs were the same run.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from random import Random

MS = 1_000
SECOND = 1_000_000


class Scheduler:
    """The one clock and the one generator of a run."""

    def __init__(self, seed: int, *, keep_trace: bool = False) -> None:
        self.rng = Random(seed)
        self.now = SECOND
        self.lines: list[str] = []
        self._keep = keep_trace
        self._hash = hashlib.sha256()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def now_ms(self) -> int:
        """The time as machines see it."""
        return self.now // MS

    @property
    def digest(self) -> str:
        """The trace so far, as 16 hex digits."""
        return self._hash.hexdigest()[:16]

    def after(self, delay: int, act: Callable[[], None]) -> None:
        """Do this in `delay` microseconds."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + max(0, delay), self._count, act))

    def run_until(self, time: int, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until `time`, or until `done`; True when it is done."""
        while self._queue and self._queue[0][0] <= time:
            if done is not None and done():
                return True
            self.now, _, act = heapq.heappop(self._queue)
            act()
        self.now = max(self.now, time)
        return done is not None and done()

    def trace(self, text: str) -> None:
        """One line for one thing that happened."""
        line = f"{self.now:>10} {text}"
        self._hash.update(line.encode())
        if self._keep:
            self.lines.append(line)

    def chance(self, probability: float) -> bool:
        """True this often."""
        return self.rng.random() < probability
