"""A metadata store in one place: compare-and-set at one revision, leases, late and lost answers.

What a real store guarantees and no more: transactions are atomic and ordered, every process sees
changes in order but late, an answer may be lost whether its transaction took effect, never will,
or will after the answer was given up. A process sees the change that a transaction of its own
made before it hears that it committed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.core import effects, events
from tests.sim.scheduler import MS, Scheduler

SLOWEST = 5 * MS
GIVEN_UP_FOR = 100 * MS

Deliver = Callable[[events.Event], None]
Wrote = Callable[["Session", events.Change, bytes | None], None]
"""Takes who wrote, the change, and what stood there before."""


@dataclass
class Session:
    """One process's connection to the store."""

    node_id: int
    deliver: Deliver
    busy_until: int = 0
    closed: bool = False


@dataclass
class SimulatedStore:
    """The store of one run; `unknown` is how often an answer is lost, `slowest` the delay."""

    clock: Scheduler
    wrote: Wrote
    unknown: float = 0.0
    slowest: int = SLOWEST
    revision: int = 0
    values: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    leased: dict[str, Session] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)

    def open(self, node_id: int, deliver: Deliver) -> Session:
        """Connect a process; it is told everything there is."""
        session = Session(node_id, deliver)
        self.sessions.append(session)
        now = tuple(
            events.Change(key, value, version) for key, (value, version) in self.values.items()
        )
        self._tell(session, events.StoreChanged(now))
        return session

    def close(self, session: Session) -> None:
        """The process is gone: it hears nothing any more."""
        session.closed = True
        self.sessions.remove(session)

    def transact(self, session: Session, effect: effects.Transact) -> None:
        """Run a transaction after a while, and answer after another."""
        self.clock.after(self._delay(), lambda: self._run(session, effect))

    def expire(self, session: Session) -> None:
        """The session's lease has run out: its keys vanish."""
        gone = [key for key, owner in self.leased.items() if owner is session]
        if gone:
            self.clock.trace(f"store lease-expired {' '.join(gone)}")
            self._write((), tuple(gone), session)

    def hurry(self) -> None:
        """As quick as ever again."""
        self.slowest = SLOWEST

    def _run(self, session: Session, effect: effects.Transact) -> None:
        if not self.clock.chance(self.unknown):
            self._answer(session, effect, self._try(session, effect))
            return
        self._answer(session, effect, events.Commit.UNKNOWN)
        match self.clock.rng.randrange(3):
            case 0:
                self._try(session, effect)
            case 1:
                delay = self.clock.rng.randrange(GIVEN_UP_FOR)
                self.clock.after(delay, lambda: self._late(session, effect))
            case _:
                pass

    def _late(self, session: Session, effect: effects.Transact) -> None:
        self._try(session, effect)

    def _try(self, session: Session, effect: effects.Transact) -> events.Commit:
        for key, version in effect.conditions:
            if self.values.get(key, (b"", 0))[1] != version:
                return events.Commit.CONFLICT
        if effect.puts or effect.deletes:
            self._write(effect.puts, effect.deletes, session)
        return events.Commit.COMMITTED

    def _write(
        self, puts: tuple[effects.Put, ...], deletes: tuple[str, ...], session: Session
    ) -> None:
        self.revision += 1
        changes = []
        for key in (*(put.key for put in puts), *deletes):
            self.leased.pop(key, None)
        for put in puts:
            changes.append(events.Change(put.key, put.value, self.revision))
            if put.leased:
                self.leased[put.key] = session
        changes += [events.Change(key, None, self.revision) for key in deletes]
        for change in changes:
            before, _ = self.values.get(change.key, (None, 0))
            self.wrote(session, change, before)
            if change.value is None:
                self.values.pop(change.key, None)
            else:
                self.values[change.key] = (change.value, self.revision)
        for watcher in self.sessions:
            self._tell(watcher, events.StoreChanged(tuple(changes)))

    def _answer(self, session: Session, effect: effects.Transact, commit: events.Commit) -> None:
        self._tell(session, events.Transacted(effect.request, commit, self.revision))

    def _tell(self, session: Session, event: events.Event) -> None:
        """In order per session, and never at once."""
        if session.closed:
            return
        arrival = max(self.clock.now + self._delay(), session.busy_until + 1)
        session.busy_until = arrival
        self.clock.after(arrival - self.clock.now, lambda: session.deliver(event))

    def _delay(self) -> int:
        return self.clock.rng.randrange(100, self.slowest)
