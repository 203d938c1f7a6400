"""The metadata store of one machine: a SQLite file that the processes of all its brokers share.

Owns: a copy of all keys, on the broker's loop, which serves reads and watchers; and the thread
that alone touches the file (`cluster.control.store_thread`), which looks for other processes'
commits every STORE_POLL_MS and gathers waiting calls into one commit.

Invariants: the copy moves from one revision to a later one in a single step, before any call that
could depend on it is answered; a call is answered once, and raises only when nothing was written.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cluster.control.database import (
    Answer,
    Call,
    CommitUnknown,
    Database,
    Delta,
    Grant,
    Revoke,
    Transact,
)
from cluster.control.machine import boot_id, boottime_ms, refuse_network_filesystem
from cluster.control.pulses import Pulses
from cluster.control.store import (
    Change,
    Committed,
    Condition,
    Conflict,
    Outcome,
    Put,
    StoreBusy,
    Stored,
    StoreError,
    Unknown,
    Watcher,
    Write,
)
from cluster.control.store_thread import Job, Pace, StoreThread
from cluster.limits import (
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    STORE_BUSY_MS,
    STORE_KEY_LENGTH_MAX,
    STORE_POLL_MS,
    STORE_QUEUE_MAX,
    STORE_VALUE_BYTES_MAX,
    STORE_WRITES_MAX,
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What only tests, and operators with a reason, change."""

    wal: bool = False
    """Write-ahead logging; refused below SQLite 3.51.3."""
    busy_ms: int = STORE_BUSY_MS
    poll_ms: int = STORE_POLL_MS
    clock_ms: Callable[[], int] = boottime_ms
    boot_id: Callable[[], str] = boot_id
    mountinfo: str | None = None
    """Text to use in place of /proc/self/mountinfo."""


class SqliteStore:
    """`MetadataStore` over one file. `await SqliteStore.open(path)`, and `close()` in the end."""

    def __init__(
        self, path: Path, options: Options, on_blocked: Callable[[float], None] | None
    ) -> None:
        self._busy_s = options.busy_ms / 1000
        self._clock_ms = options.clock_ms
        self._pulses = Pulses(path)
        self._leases: frozenset[int] = frozenset()
        self._copy: dict[str, Stored] = {}
        self._revision = 0
        self._watchers: list[Watcher] = []
        self._closed = False
        self._calls_waiting = 0
        self._on_blocked = on_blocked
        self._thread = StoreThread(
            Database(
                path,
                self._pulses,
                wal=options.wal,
                boot_id=options.boot_id(),
                clock_ms=options.clock_ms,
            ),
            self._pulses,
            Pace(options.poll_ms, options.busy_ms, options.clock_ms),
            moved=self._move,
            blocked=self._report_blocked,
        )

    @classmethod
    async def open(
        cls,
        path: Path,
        options: Options | None = None,
        *,
        on_blocked: Callable[[float], None] | None = None,
    ) -> SqliteStore:
        """Open or create the store at `path` and read all of it.

        `on_blocked(seconds)` is called on the loop while another process keeps the file locked,
        and with 0 once it no longer does; `cluster.control.machine.lock_holders` says who it is.
        Raises ConfigError for a network file system, StoreError for a file that is not ours.
        """
        options = options or Options()
        refuse_network_filesystem(path, options.mountinfo)
        store = cls(path, options, on_blocked)
        store._thread.start()
        try:
            await store._thread.opened
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def revision(self) -> int:
        """The revision whose state `get` and `list` show."""
        return self._revision

    async def transact(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> Outcome:
        """See MetadataStore. Calls that wait at the same time share a commit."""
        _check_writes(writes)
        try:
            answer = await self._ask(Transact(tuple(conditions), tuple(writes)))
        except CommitUnknown as error:
            return Unknown(str(error))
        assert isinstance(answer, Committed | Conflict), answer
        return answer

    async def get(self, key: str) -> Stored | None:
        """See MetadataStore."""
        return self._copy.get(key)

    async def list(self, prefix: str) -> Sequence[Stored]:
        """See MetadataStore."""
        return [self._copy[key] for key in sorted(self._copy) if key.startswith(prefix)]

    async def refresh(self) -> int:
        """See MetadataStore."""
        await self._ask(None)
        return self._revision

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """See MetadataStore."""
        now = sorted(self._copy.values(), key=lambda stored: (stored.version, stored.key))
        callback([Change(stored.key, stored.value, stored.version) for stored in now])
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def poke(self) -> None:
        """See MetadataStore."""
        self._thread.submit(Job(None, None, self._deadline()))

    async def grant(self, ttl_ms: int) -> int:
        """See MetadataStore. Raises ValueError outside LEASE_MS_MIN..LEASE_MS_MAX."""
        if not LEASE_MS_MIN <= ttl_ms <= LEASE_MS_MAX:
            raise ValueError(f"a lease of {ttl_ms} ms, allowed {LEASE_MS_MIN}..{LEASE_MS_MAX}")
        answer = await self._ask(Grant(ttl_ms))
        assert isinstance(answer, int), answer
        return answer

    def pulse(self, lease: int) -> None:
        """See MetadataStore. One write into the page cache."""
        if lease in self._leases:
            with suppress(StoreError):  # `keep_alive` meets it, too
                self._pulses.beat(lease, self._clock_ms())

    async def keep_alive(self, lease: int) -> bool:
        """See MetadataStore. Takes no lock and waits for nobody."""
        return lease in self._leases and self._pulses.beat(lease, self._clock_ms())

    async def revoke(self, lease: int) -> None:
        """See MetadataStore."""
        await self._ask(Revoke(lease))

    async def close(self) -> None:
        """See MetadataStore. A wait for the lock is cut short."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._thread.stop())
            self._pulses.close()

    async def _ask(self, call: Call | None) -> Answer:
        if self._calls_waiting >= STORE_QUEUE_MAX:
            raise StoreBusy(f"{STORE_QUEUE_MAX} calls wait for the store already")
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._thread.submit(Job(call, answer, self._deadline()))
        self._calls_waiting += 1
        try:
            return await answer
        finally:
            self._calls_waiting -= 1

    def _deadline(self) -> float:
        return time.monotonic() + self._busy_s

    def _move(self, delta: Delta) -> None:
        """Bring the copy to the delta's revision and tell the watchers."""
        changes = [Change(key, value, version) for key, value, version in delta.rows]
        if delta.full:
            changes = _news(self._copy, changes, delta.revision)
        for change in changes:
            if change.value is None:
                self._copy.pop(change.key, None)
            else:
                self._copy[change.key] = Stored(change.key, change.value, change.version)
        self._revision = delta.revision
        self._leases = frozenset(delta.leases)
        if changes:
            self._tell(changes)

    def _tell(self, changes: Sequence[Change]) -> None:
        for watcher in tuple(self._watchers):
            try:
                watcher(changes)
            except Exception:
                log.exception("a watcher of the metadata store failed")

    def _report_blocked(self, seconds: float) -> None:
        if self._on_blocked is not None:
            self._on_blocked(seconds)


def _news(copy: Mapping[str, Stored], rows: Sequence[Change], revision: int) -> list[Change]:
    """What makes `copy` hold exactly `rows`, which are all keys of the store at `revision`."""
    there = {row.key for row in rows}
    gone = [Change(key, None, revision) for key in sorted(copy) if key not in there]
    known = {stored.key: stored.version for stored in copy.values()}
    return [row for row in rows if known.get(row.key) != row.version] + gone


def _check_writes(writes: Sequence[Write]) -> None:
    """Raise ValueError for a transaction that no store would take."""
    if len(writes) > STORE_WRITES_MAX:
        raise ValueError(f"{len(writes)} writes in one transaction, allowed {STORE_WRITES_MAX}")
    if len({write.key for write in writes}) != len(writes):
        raise ValueError("a transaction may write each key only once")
    for write in writes:
        if not 0 < len(write.key) <= STORE_KEY_LENGTH_MAX:
            raise ValueError(f"a key of {len(write.key)} characters")
        if isinstance(write, Put) and len(write.value) > STORE_VALUE_BYTES_MAX:
            raise ValueError(f"{write.key}: a value of {len(write.value)} bytes")
