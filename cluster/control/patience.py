"""Waiting for a lock that another process holds: bounded and reported.

Owns: when this process began to wait. SQLite's own busy handler would wait as long, but it cannot
tell anybody, and it cannot be told to stop.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from cluster.control.store import StoreBusy
from cluster.limits import STORE_BLOCKED_MS

T = TypeVar("T")

_PAUSE_MIN_S = 0.000_5  # about one commit of another process
_PAUSE_MAX_S = 0.01
_LONG_S = STORE_BLOCKED_MS / 1000


class Patience:
    """One thread's waits. `report(seconds)` is called while a wait is long, `report(0)` after."""

    def __init__(self, report: Callable[[float], None], closing: threading.Event) -> None:
        self._report = report
        self._closing = closing
        self._since: float | None = None
        self._next_report = 0.0

    def insist(self, action: Callable[[], T], deadline: float) -> T:
        """Repeat `action` while the database is locked, until `deadline` (time.monotonic).

        Raises StoreBusy after it, and whatever else `action` raises.
        """
        pause = _PAUSE_MIN_S
        while True:
            try:
                result = action()
            except sqlite3.OperationalError as error:
                if not is_busy(error):
                    raise
            else:
                self._end()
                return result
            self._wait(deadline, pause)
            pause = min(2 * pause, _PAUSE_MAX_S)

    def _wait(self, deadline: float, pause: float) -> None:
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._next_report = now + _LONG_S
        if now >= self._next_report:
            self._report(now - self._since)
            self._next_report = now + _LONG_S
        if now >= deadline or self._closing.is_set():
            raise StoreBusy(f"another process has locked the store for {now - self._since:.1f} s")
        self._closing.wait(pause)

    def _end(self) -> None:
        """The wait is over; one that was given up and taken up again counts from its start."""
        if self._since is None:
            return
        if time.monotonic() - self._since >= _LONG_S:
            self._report(0.0)
        self._since = None


def is_busy(error: sqlite3.Error) -> bool:
    """True if another connection holds a lock; trying again is all that is needed."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
