"""The one thread of a process that touches the SQLite file, between the loop and the database.

Owns: the queue of calls and the `Database`. Its turn: wait for calls or the next look; carry out
up to STORE_GROUP_MAX calls in one commit; read what changed; send changes, then answers, to the
loop in that order. Between calls it looks for other processes' commits and ends due leases.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cluster.control.database import Answer, Call, CommitUnknown, Database, Delta
from cluster.control.patience import Patience, is_busy
from cluster.control.pulses import Pulses
from cluster.control.store import StoreBusy, StoreError
from cluster.limits import STORE_GROUP_MAX, STORE_SURE_LOOK_MS

T = TypeVar("T")

log = logging.getLogger(__name__)

_RETRY_READ_S = 0.005  # a commit of another process kept us out; it is over by then


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A call, or None to only look for changes; who waits for the answer, if anybody."""

    call: Call | None
    answer: asyncio.Future[Answer] | None
    deadline: float
    """On time.monotonic: when to stop waiting for other processes."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How often to look and how long to wait, with the clock that leases go by."""

    poll_ms: int
    busy_ms: int
    clock_ms: Callable[[], int]


class StoreThread:
    """Made, started, fed and stopped on the loop, which also runs `moved` and `blocked`."""

    def __init__(
        self,
        database: Database,
        pulses: Pulses,
        pace: Pace,
        *,
        moved: Callable[[Delta], None],
        blocked: Callable[[float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._database = database
        self._pace = pace
        self._moved = moved
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._backlog: deque[Job] = deque()
        self._closing = threading.Event()
        self._patience = Patience(lambda seconds: self._post(blocked, seconds), self._closing)
        self._seen = 0
        self._leases: tuple[int, ...] = ()
        self._announced = 0
        self._sure_look_s = 0.0
        self._pulses = pulses
        self._read_late = False
        self._unwell = False
        self._thread = threading.Thread(target=self._main, name="metadata-store", daemon=True)

    def start(self) -> None:
        """Open the file on the thread; `opened` tells how that went."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Queue a job and wake the thread. Raises StoreError once stopped, if anybody waits."""
        if self._closing.is_set():
            if job.answer is None:
                return
            raise StoreError("the store is closed")
        self._jobs.put(job)

    def stop(self) -> asyncio.Future[None]:
        """Ask the thread to end; the future is done when it has."""
        if not self._closing.is_set():
            self._closing.set()
            self._jobs.put(Job(None, None, 0.0))
        return self._ended

    # On the thread from here on.

    def _main(self) -> None:
        with suppress(OSError):  # for whoever looks at threads; Python gives them no such name
            Path("/proc/thread-self/comm").write_text("store", encoding="ascii")
        try:
            self._open()
        except BaseException as error:
            self._post(_fail, self.opened, error)
        else:
            self._post(_resolve, self.opened, None)
            while not self._closing.is_set():
                self._turn()
        self._database.drop()
        self._closing.set()
        self._take()
        self._fail_all(self._backlog, StoreError("the store was closed"))
        self._post(_resolve, self._ended, None)

    def _open(self) -> None:
        """Connect, end leases of an earlier boot, and read everything."""
        deadline = self._later()
        self._database.open(self._patience, deadline)
        self._database.run((), self._patience, deadline)
        self._read(deadline)

    def _turn(self) -> None:
        if not self._backlog:
            try:
                self._backlog.append(self._jobs.get(timeout=self._pause_s()))
            except queue.Empty:
                self._look()
                return
        self._take()
        group = [self._backlog.popleft() for _ in range(min(len(self._backlog), STORE_GROUP_MAX))]
        try:
            self._do(group)
        except Exception as error:
            log.exception("the metadata store failed")
            self._fail_all(group, error)

    def _take(self) -> None:
        while not self._jobs.empty():
            self._backlog.append(self._jobs.get_nowait())

    def _pause_s(self) -> float:
        """Until the next look: less if a lease may end, or a writer kept us from reading."""
        pause = _RETRY_READ_S if self._read_late else self._pace.poll_ms / 1000
        due = self._next_expiry_ms()
        if due is not None and not self._unwell:
            pause = min(pause, (due - self._pace.clock_ms()) / 1000)
        return max(pause, 0.001)

    def _next_expiry_ms(self) -> int | None:
        """When the first lease ends unless it is kept alive."""
        return min((self._pulses.until(lease) for lease in self._leases), default=None)

    def _later(self) -> float:
        return time.monotonic() + self._pace.busy_ms / 1000

    def _look(self) -> None:
        """Read what other processes committed; end leases that are due."""
        try:
            if self._news():
                self._database.open(self._patience, self._later())
                self._read_late = not self._read_if_moved()
            due = self._next_expiry_ms()
            if due is not None and due <= self._pace.clock_ms():
                self._database.open(self._patience, self._later())
                self._database.run((), self._patience, self._later())
                self._read(self._later())
            self._unwell = False
        except (StoreError, sqlite3.Error) as error:
            if not self._unwell:  # once is enough: it is tried again every few milliseconds
                log.warning("looking for changes of the metadata store failed: %s", error)
            self._unwell = True
            if not isinstance(error, StoreBusy):
                self._database.drop()

    def _news(self) -> bool:
        """Whether to ask the database, which takes its lock: after an announcement, and now and
        then, since whoever committed may have died before announcing it."""
        announced, now = self._pulses.announced(), time.monotonic()
        if announced == self._announced and now < self._sure_look_s and not self._read_late:
            return False
        self._announced = announced
        self._sure_look_s = now + STORE_SURE_LOOK_MS / 1000
        return True

    def _read_if_moved(self) -> bool:
        """False when a commit that is under way kept us out."""
        try:
            if self._database.moved():
                self._send(self._database.changes_since(self._seen))
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            return False
        return True

    def _read(self, deadline: float) -> None:
        """Send the loop what changed since the last read."""
        changes = self._patience.insist(lambda: self._database.changes_since(self._seen), deadline)
        self._send(changes)

    def _send(self, delta: Delta) -> None:
        if delta.full or delta.revision != self._seen or delta.leases != self._leases:
            if delta.revision > self._seen:
                self._pulses.announce(delta.revision)
            self._seen, self._leases = delta.revision, delta.leases
            self._post(self._moved, delta)

    def _do(self, group: Sequence[Job]) -> None:
        """Carry out a group of jobs in one commit, and answer them after their changes."""
        deadline = min(job.deadline for job in group)
        calls = [job.call for job in group if job.call is not None]
        try:
            self._database.open(self._patience, deadline)
            answers = iter(self._database.run(calls, self._patience, deadline) if calls else ())
        except StoreBusy as error:
            self._postpone(group, error)
            return
        except StoreError as error:
            self._fail_all(group, error)
            return
        try:
            self._read(self._later())
        except (StoreError, sqlite3.Error) as error:
            self._database.drop()
            self._fail_all(group, CommitUnknown(f"committed, but not read back: {error}"))
            return
        for job in group:
            self._post(_resolve, job.answer, True if job.call is None else next(answers))

    def _postpone(self, group: Sequence[Job], error: StoreBusy) -> None:
        """Nothing was written: fail whoever waited long enough, keep the others in line."""
        now = time.monotonic()
        self._fail_all([job for job in group if job.deadline <= now], error)
        self._backlog.extendleft(job for job in reversed(group) if job.deadline > now)

    def _fail_all(self, group: Sequence[Job] | deque[Job], error: Exception) -> None:
        for job in group:
            self._post(_fail, job.answer, error)

    def _post(self, action: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(action, *args)
        except RuntimeError:
            # The loop was closed first: nobody is left to hear of it.
            self._closing.set()


def _resolve(future: asyncio.Future[T] | None, value: T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T] | None, error: BaseException) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
