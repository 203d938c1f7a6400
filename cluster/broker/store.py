"""The metadata store as the machine's effects and events.

Owns: the lease of this broker and its renewal, the transactions under way, and the translation of
changes and outcomes.

Invariants: the change that shows a transaction is delivered before its outcome; "unknown" is said
only where something may have been written, everything else that failed is a conflict and may be
asked again; a lease that has ended is never named twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress

from cluster.control import store as interface
from cluster.core.effects import Transact
from cluster.core.events import Change, Commit, Event, StoreChanged, Transacted
from cluster.limits import LEASE_PULSES, STORE_RETRY_MS, STORE_TOLD_MS

log = logging.getLogger(__name__)

Deliver = Callable[[Event], None]


class _Trouble:
    """Logs what may fail many times a second: at once, then a line in STORE_TOLD_MS.

    The log may be on the disk whose being full is the trouble.
    """

    def __init__(self, text: str, now: Callable[[], float]) -> None:
        self._text = text
        self._now = now
        self._told: float | None = None
        self._untold = 0

    def tell(self, reason: object) -> None:
        """It has failed once more."""
        now = self._now()
        if self._told is not None and now - self._told < STORE_TOLD_MS / 1000:
            self._untold += 1
            return
        more = f" (and {self._untold} times since it was last told)" if self._untold else ""
        self._told, self._untold = now, 0
        log.warning("%s: %s%s", self._text, reason, more)


class Metadata:
    """One broker's view of the store; `start` delivers the first event."""

    def __init__(
        self,
        store: interface.MetadataStore,
        deliver: Deliver,
        *,
        lease_ms: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._deliver = deliver
        self._lease_ms = lease_ms
        self._lease: int | None = None
        self._pulse_ms = 0
        self._renewal: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_watching: Callable[[], None] = lambda: None
        self._unwritten = _Trouble("the metadata store did not write", now)
        self._unknown = _Trouble("whether the metadata store wrote is not known", now)
        self._unrenewed = _Trouble("the lease was not renewed", now)

    @property
    def lease(self) -> int | None:
        """The lease of this broker, None before the first leased write and after it ended."""
        return self._lease

    def start(self) -> None:
        """Deliver everything that is in the store, and from then on every change."""
        first = True

        def changed(changes: Sequence[interface.Change]) -> None:
            if changes or first:
                told = (Change(change.key, change.value, change.version) for change in changes)
                self._deliver(StoreChanged(tuple(told)))

        self._stop_watching = self._store.watch(changed)
        first = False

    def alive(self, now_ms: int) -> None:
        """A step is done, which proves that this broker lives.

        Under load a turn of the loop is many steps, and the timer of the renewal comes after all
        of them: without this, a broker that has much to do would be taken for dead.
        """
        if self._lease is not None and now_ms >= self._pulse_ms:
            self._pulse_ms = now_ms + self._lease_ms // LEASE_PULSES
            self._store.pulse(self._lease)

    def look(self) -> None:
        """Another broker says that the store has moved."""
        self._store.poke()

    def transact(self, effect: Transact) -> None:
        """Carry out a transaction; its outcome is delivered."""
        self._spawn(self._transact(effect))

    async def close(self) -> None:
        """Give up the lease, with all its keys, and the store."""
        self._stop_watching()
        if self._renewal is not None:
            self._renewal.cancel()
        for task in self._tasks:
            task.cancel()
        lease, self._lease = self._lease, None
        if lease is not None:
            with suppress(interface.StoreError, TimeoutError):
                async with asyncio.timeout(self._lease_ms / 1000):
                    await self._store.revoke(lease)
        await self._store.close()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # the loop itself keeps only a weak reference
        task.add_done_callback(self._tasks.discard)

    # -- transactions -------------------------------------------------------------------------

    async def _transact(self, effect: Transact) -> None:
        try:
            outcome = await self._write(effect)
        except interface.StoreError as error:
            self._unwritten.tell(error)
            await asyncio.sleep(STORE_RETRY_MS / 1000)
            outcome = interface.Conflict("")
        match outcome:
            case interface.Committed(revision):
                answer = Transacted(effect.request, Commit.COMMITTED, revision)
            case interface.Conflict():
                answer = Transacted(effect.request, Commit.CONFLICT)
            case interface.Unknown(reason):
                self._unknown.tell(reason)
                with suppress(interface.StoreError):
                    await self._store.refresh()
                answer = Transacted(effect.request, Commit.UNKNOWN)
        self._deliver(answer)

    async def _write(self, effect: Transact) -> interface.Outcome:
        conditions = [interface.Condition(key, version) for key, version in effect.conditions]
        writes: list[interface.Write] = [interface.Delete(key) for key in effect.deletes]
        leased = any(put.leased for put in effect.puts)
        lease = await self._alive_lease() if leased else None
        for put in effect.puts:
            writes.append(interface.Put(put.key, put.value, lease if put.leased else None))
        outcome = await self._store.transact(conditions, writes)
        if isinstance(outcome, interface.Conflict) and lease is not None:
            await self._check(lease)
        return outcome

    # -- the lease ----------------------------------------------------------------------------

    async def _alive_lease(self) -> int:
        if self._lease is None:
            lease = await self._store.grant(self._lease_ms)
            if self._lease is None:  # another transaction may have been faster
                self._lease = lease
                self._renewal = asyncio.get_running_loop().create_task(self._renew(lease))
        return self._lease

    async def _renew(self, lease: int) -> None:
        """Keep the lease alive until it has ended all the same."""
        while self._lease == lease:
            await asyncio.sleep(self._lease_ms / 1000 / LEASE_PULSES)
            try:
                await self._check(lease)
            except interface.StoreError as error:
                self._unrenewed.tell(error)

    async def _check(self, lease: int) -> None:
        if not await self._store.keep_alive(lease) and self._lease == lease:
            log.warning("the lease has ended: this broker was silent for too long")
            self._lease = None
