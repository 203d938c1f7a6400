"""Effects and events of the metadata store: order, outcomes and the lease."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from cluster.broker.store import Metadata
from cluster.control.sqlite import Options, SqliteStore
from cluster.control.store import (
    Condition,
    Outcome,
    StoreBusy,
    Unknown,
    Write,
)
from cluster.core.effects import Put, Transact
from cluster.core.events import Change, Commit, Event, StoreChanged, Transacted
from cluster.limits import STORE_TOLD_MS

LEASE_MS = 200


class Machine:
    """Keeps the events in the order in which a broker's machine would get them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._changed = asyncio.Event()

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not claim():
                await self._changed.wait()
                self._changed.clear()

    async def outcome(self, request: int) -> Transacted:
        await self.until(lambda: self._find(request) is not None)
        found = self._find(request)
        assert found is not None
        return found

    def _find(self, request: int) -> Transacted | None:
        for event in self.events:
            if isinstance(event, Transacted) and event.request == request:
                return event
        return None

    def changes(self) -> list[Change]:
        return [
            c for event in self.events if isinstance(event, StoreChanged) for c in event.changes
        ]


class Unreliable(SqliteStore):
    """A store that fails as ordered."""

    fails: list[Exception | Outcome]
    refreshed = 0

    async def transact(self, conditions: Sequence[Condition], writes: Sequence[Write]) -> Outcome:
        if self.fails:
            failure = self.fails.pop(0)
            if isinstance(failure, Exception):
                raise failure
            return failure
        return await super().transact(conditions, writes)

    async def refresh(self) -> int:
        self.refreshed += 1
        return await super().refresh()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Unreliable]:
    opened = await Unreliable.open(tmp_path / "metadata.db")
    assert isinstance(opened, Unreliable)
    opened.fails = []
    yield opened
    await opened.close()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def metadata(store: Unreliable, machine: Machine) -> AsyncIterator[Metadata]:
    made = Metadata(store, machine.deliver, lease_ms=LEASE_MS)
    made.start()
    yield made
    await made.close()


def put(request: int, key: str, version: int = 0, *, leased: bool = False) -> Transact:
    return Transact(request, ((key, version),), (Put(key, b"value", leased),))


async def test_first_event_is_the_whole_store_even_when_empty(
    metadata: Metadata, machine: Machine
) -> None:
    assert machine.events == [StoreChanged(())]


async def test_a_broker_in_long_steps_keeps_its_lease_though_no_timer_rings(
    tmp_path: Path, machine: Machine
) -> None:
    now_ms = 0
    store = await SqliteStore.open(tmp_path / "metadata.db", Options(clock_ms=lambda: now_ms))
    metadata = Metadata(store, machine.deliver, lease_ms=LEASE_MS)
    metadata.start()
    metadata.transact(put(1, "a", leased=True))
    await machine.outcome(1)
    assert metadata.lease is not None
    while now_ms < 10 * LEASE_MS:  # the loop is not let go on meanwhile
        now_ms += LEASE_MS // 2
        metadata.alive(now_ms)
    assert await store.keep_alive(metadata.lease)
    await metadata.close()


async def test_first_event_has_everything_that_others_wrote(
    store: Unreliable, machine: Machine
) -> None:
    before = Machine()
    first = Metadata(store, before.deliver, lease_ms=LEASE_MS)
    first.start()
    first.transact(put(1, "a"))
    await before.outcome(1)
    Metadata(store, machine.deliver, lease_ms=LEASE_MS).start()
    assert machine.events == [StoreChanged((Change("a", b"value", 1),))]


async def test_change_is_delivered_before_the_outcome_that_made_it(
    metadata: Metadata, machine: Machine
) -> None:
    metadata.transact(put(1, "a"))
    outcome = await machine.outcome(1)
    assert outcome == Transacted(1, Commit.COMMITTED, 1)
    assert machine.events[1:] == [StoreChanged((Change("a", b"value", 1),)), outcome]


async def test_conflict_and_deletion_are_told(metadata: Metadata, machine: Machine) -> None:
    metadata.transact(put(1, "a"))
    await machine.outcome(1)
    metadata.transact(put(2, "a"))
    assert await machine.outcome(2) == Transacted(2, Commit.CONFLICT)
    metadata.transact(Transact(3, (("a", 1),), (), ("a",)))
    assert (await machine.outcome(3)).commit is Commit.COMMITTED
    assert machine.changes()[-1] == Change("a", None, 2)


async def test_store_that_did_not_write_is_a_conflict(
    metadata: Metadata, machine: Machine, store: Unreliable
) -> None:
    store.fails.append(StoreBusy("locked"))
    metadata.transact(put(1, "a"))
    assert await machine.outcome(1) == Transacted(1, Commit.CONFLICT)


async def test_a_store_that_goes_on_failing_is_logged_now_and_then_with_how_often(
    machine: Machine, store: Unreliable, caplog: pytest.LogCaptureFixture
) -> None:
    now = 1_000.0
    metadata = Metadata(store, machine.deliver, lease_ms=LEASE_MS, now=lambda: now)
    metadata.start()
    store.fails += [StoreBusy("disk is full")] * 6

    async def fail(request: int) -> None:
        metadata.transact(put(request, "a"))
        assert (await machine.outcome(request)).commit is Commit.CONFLICT

    for request in range(5):
        await fail(request)
    text = "the metadata store did not write: disk is full"
    assert [record.getMessage() for record in caplog.records] == [text]
    now += STORE_TOLD_MS / 1000
    await fail(5)
    assert [record.getMessage() for record in caplog.records[1:]] == [
        f"{text} (and 4 times since it was last told)"
    ]
    metadata.transact(put(6, "a"))
    assert (await machine.outcome(6)).commit is Commit.COMMITTED
    await metadata.close()


async def test_unknown_is_told_after_the_store_was_read_again(
    metadata: Metadata, machine: Machine, store: Unreliable
) -> None:
    store.fails.append(Unknown("the disk went away"))
    metadata.transact(put(1, "a"))
    assert await machine.outcome(1) == Transacted(1, Commit.UNKNOWN)
    assert store.refreshed == 1


async def test_leased_key_lives_while_the_broker_does_and_goes_with_it(
    tmp_path: Path, machine: Machine, store: Unreliable
) -> None:
    mine = await SqliteStore.open(tmp_path / "metadata.db")
    told = Machine()
    broker = Metadata(mine, told.deliver, lease_ms=LEASE_MS)
    broker.start()
    broker.transact(put(1, "session", leased=True))
    await told.outcome(1)
    Metadata(store, machine.deliver, lease_ms=LEASE_MS).start()
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(3 * LEASE_MS / 1000, passed.set)
    await passed.wait()
    await store.refresh()
    assert await store.get("session") is not None
    await broker.close()
    await store.refresh()
    assert await store.get("session") is None
    await machine.until(lambda: Change("session", None, 2) in machine.changes())


async def test_lease_that_was_lost_is_replaced_for_the_next_leased_key(
    metadata: Metadata, machine: Machine, store: Unreliable
) -> None:
    metadata.transact(put(1, "session", leased=True))
    await machine.outcome(1)
    lost = metadata.lease
    assert lost is not None
    await store.revoke(lost)
    await machine.until(lambda: any(change.value is None for change in machine.changes()))
    outcomes = []
    for request in range(2, 5):  # the first may find the lost lease still named
        metadata.transact(put(request, "session", leased=True))
        outcomes.append((await machine.outcome(request)).commit)
        if outcomes[-1] is Commit.COMMITTED:
            break
    assert outcomes[-1] is Commit.COMMITTED
    assert len(outcomes) <= 2
    assert metadata.lease not in (None, lost)


async def test_two_leased_writes_at_once_share_one_lease(
    metadata: Metadata, machine: Machine
) -> None:
    metadata.transact(put(1, "session", leased=True))
    metadata.transact(put(2, "controller", leased=True))
    first, second = await machine.outcome(1), await machine.outcome(2)
    assert {first.commit, second.commit} == {Commit.COMMITTED}
