"""The broker's clock and its one timer.

Owns: the milliseconds that the machine is told, and the timer that wakes it at its next deadline.
The clock never goes back and stands for nothing but durations; record timestamps are the clients'.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, TimerHandle


def now_ms() -> int:
    """Milliseconds of CLOCK_MONOTONIC."""
    return time.monotonic_ns() // 1_000_000


class Alarm:
    """One timer. Setting it later than it already is costs nothing: it rings early, to be set anew.

    That is what makes it cheap to set after every step.
    """

    def __init__(self, loop: AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._timer: TimerHandle | None = None
        self._due_ms = 0

    def set(self, due_ms: int) -> None:
        """Ring at `due_ms` or before."""
        if self._timer is not None:
            if self._due_ms <= due_ms:
                return
            self._timer.cancel()
        self._due_ms = due_ms
        self._timer = self._loop.call_later(max(due_ms - now_ms(), 0) / 1000, self._rang)

    def cancel(self) -> None:
        """Do not ring any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rang(self) -> None:
        self._timer = None
        self._ring()
