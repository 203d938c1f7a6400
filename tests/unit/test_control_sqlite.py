"""The SQLite store: the contract of all stores, and locks, boots and failing disks of its own."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.control import database
from cluster.control.sqlite import Options, SqliteStore
from cluster.control.store import (
    Committed,
    Condition,
    Conflict,
    Delete,
    Put,
    StoreBusy,
    StoreError,
    Unknown,
)
from cluster.errors import ConfigError
from tests.unit.store_contract import Follower, OpenStore, StoreContract, put

NFS = "36 35 0:31 / / rw,relatime - nfs4 server:/export rw"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.db"


@pytest.fixture
async def open_store(path: Path) -> AsyncIterator[OpenStore]:
    stores: list[SqliteStore] = []

    async def open_one() -> SqliteStore:
        stores.append(await SqliteStore.open(path))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.close()


class TestSqliteStore(StoreContract):
    pass


class Machine:
    """A clock and a boot that tests move by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self.boot = "first boot"

    def options(self) -> Options:
        return Options(clock_ms=lambda: self.now_ms, boot_id=lambda: self.boot, poll_ms=10)


async def leased(store: SqliteStore, key: str, ttl_ms: int) -> int:
    lease = await store.grant(ttl_ms)
    assert isinstance(await store.transact([], [Put(key, b"x", lease)]), Committed)
    return lease


async def test_another_boot_ends_every_lease(path: Path) -> None:
    machine = Machine()
    store = await SqliteStore.open(path, machine.options())
    await leased(store, "a", 60_000)
    await store.close()
    machine.boot, machine.now_ms = "second boot", 5
    store = await SqliteStore.open(path, machine.options())
    assert await store.list("") == []
    await store.close()


async def test_a_lease_survives_a_restart_of_the_process(path: Path) -> None:
    machine = Machine()
    store = await SqliteStore.open(path, machine.options())
    lease = await leased(store, "a", 60_000)
    await store.close()
    machine.now_ms += 59_999
    store = await SqliteStore.open(path, machine.options())
    assert await store.keep_alive(lease)
    await store.close()


async def test_an_ended_lease_fails_conditions_before_anybody_noticed(path: Path) -> None:
    machine = Machine()
    options = replace(machine.options(), poll_ms=60_000)
    store = await SqliteStore.open(path, options)
    await leased(store, "a", 1_000)
    stored = await store.get("a")
    assert stored is not None
    machine.now_ms += 1_000
    outcome = await store.transact([Condition("a", stored.version)], [Put("b", b"x")])
    assert outcome == Conflict("a")
    await store.close()


async def test_a_lock_does_not_end_leases_but_silence_does(path: Path) -> None:
    machine = Machine()
    store = await SqliteStore.open(path, machine.options())
    lease = await leased(store, "a", 500)
    with Lock(path):
        for _ in range(5):
            machine.now_ms += 400
            assert await store.keep_alive(lease)
    assert await store.get("a") is not None
    machine.now_ms += 500
    assert not await store.keep_alive(lease)
    await store.close()


class Lock:
    """Another connection that holds the write lock, or with `read` keeps others from committing."""

    def __init__(self, path: Path, statement: str = "BEGIN IMMEDIATE") -> None:
        self._path = path
        self._statement = statement

    def __enter__(self) -> None:
        self._connection = sqlite3.connect(self._path, isolation_level=None)
        self._connection.execute(self._statement)
        self._connection.execute("SELECT * FROM keys").fetchone()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE", "BEGIN"])
async def test_a_locked_store_is_busy_and_nothing_was_written(path: Path, statement: str) -> None:
    blocked: list[float] = []
    options = Options(busy_ms=300)
    store = await SqliteStore.open(path, options, on_blocked=blocked.append)
    with Lock(path, statement):
        for _ in range(2):
            with pytest.raises(StoreBusy, match="another process has locked the store"):
                await store.transact([], [Put("a", b"x")])
    assert blocked[0] >= 0.25
    await store.refresh()
    assert await store.get("a") is None
    await put(store, "a")
    assert blocked[-1] == 0.0
    await store.close()


async def test_calls_that_wait_for_a_lock_succeed_when_it_is_given_back(path: Path) -> None:
    reported = asyncio.Event()
    store = await SqliteStore.open(path, on_blocked=lambda _: reported.set())
    with Lock(path):
        calls = [asyncio.create_task(put(store, f"k{n}")) for n in range(100)]
        await reported.wait()
    assert len(set(await asyncio.gather(*calls))) == len(calls)
    await store.close()


async def test_closing_cuts_a_wait_short(path: Path) -> None:
    store = await SqliteStore.open(path, Options(busy_ms=60_000))
    with Lock(path):
        call = asyncio.create_task(store.transact([], [Put("a", b"x")]))
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await store.close()
    with pytest.raises(StoreError):
        await call


async def test_too_many_waiting_calls_are_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.control.sqlite.STORE_QUEUE_MAX", 3)
    store = await SqliteStore.open(path)
    calls = [put(store, f"k{n}") for n in range(4)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(result) for result in results] == [int, int, int, StoreBusy]
    await store.close()


class FailingConnection(sqlite3.Connection):
    """Fails at one statement, before or after doing it."""

    statement = ""
    carried_out = False
    code = sqlite3.SQLITE_IOERR

    def execute(self, sql: str, *args: object) -> sqlite3.Cursor:
        if sql != FailingConnection.statement:
            return super().execute(sql, *args)  # type: ignore[arg-type]
        FailingConnection.statement = ""
        if self.carried_out:
            super().execute(sql)
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = self.code
        raise error


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool, int], None]:
    def connect(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(path, timeout=0, isolation_level=None, factory=FailingConnection)

    def arm(statement: str, carried_out: bool, code: int) -> None:
        monkeypatch.setattr(FailingConnection, "statement", statement)
        monkeypatch.setattr(FailingConnection, "carried_out", carried_out)
        monkeypatch.setattr(FailingConnection, "code", code)

    monkeypatch.setattr(database, "connect", connect)
    return arm


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_commit_that_fails_is_unknown_until_read_back(
    path: Path, fail: Callable[[str, bool, int], None], carried_out: bool
) -> None:
    store = await SqliteStore.open(path)
    fail("COMMIT", carried_out, sqlite3.SQLITE_IOERR)
    outcome = await store.transact([], [Put("a", b"x")])
    assert isinstance(outcome, Unknown)
    assert "disk I/O error" in outcome.reason
    await store.refresh()
    assert (await store.get("a") is not None) is carried_out
    await put(store, "b")
    await store.close()


@pytest.mark.parametrize("statement", ["COMMIT", "SELECT revision FROM store"])
async def test_a_full_disk_writes_nothing_and_says_so(
    path: Path, fail: Callable[[str, bool, int], None], statement: str
) -> None:
    store = await SqliteStore.open(path)
    fail(statement, False, sqlite3.SQLITE_FULL)
    with pytest.raises(StoreError, match=r"metadata\.db: disk I/O error"):
        await store.transact([], [Put("a", b"x")])
    await put(store, "b")
    assert await store.get("a") is None
    await store.close()


async def test_a_commit_that_cannot_be_read_back_is_unknown(
    path: Path, fail: Callable[[str, bool, int], None]
) -> None:
    store = await SqliteStore.open(path, Options(poll_ms=60_000))
    fail("SELECT revision, pruned FROM store", False, sqlite3.SQLITE_IOERR)
    assert isinstance(await store.transact([], [Put("a", b"x")]), Unknown)
    await store.refresh()
    assert await store.get("a") is not None
    await store.close()


async def test_a_failing_watcher_does_not_stop_the_others(path: Path) -> None:
    store = await SqliteStore.open(path)
    calls = 0

    def fails_later(_: object) -> None:
        nonlocal calls
        calls += 1
        assert calls == 1

    store.watch(fails_later)
    follower = Follower(store)
    await put(store, "a")
    assert (calls, follower.state) == (2, {"a": b"x"})
    await store.close()


async def test_a_copy_older_than_the_memory_of_deletions_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "STORE_TOMBSTONES_KEPT", 8)
    late = await SqliteStore.open(path, Options(poll_ms=60_000))
    follower = Follower(late)
    await put(late, "deleted")
    await put(late, "kept")
    await late.refresh()
    busy = await SqliteStore.open(path)
    await busy.transact([], [Delete("deleted")])
    for n in range(20):
        await put(busy, "n", b"%d" % n)
    await late.refresh()
    assert follower.state == {"kept": b"x", "n": b"19"}
    assert [change.key for change in follower.changes].count("kept") == 1
    await late.close()
    await busy.close()


async def test_a_network_file_system_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="not nfs4"):
        await SqliteStore.open(path, Options(mountinfo=NFS))


async def test_write_ahead_logging_is_refused_where_it_can_lose_commits(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 2))
    with pytest.raises(ConfigError, match=r"SQLite 3\.51\.3 or later"):
        await SqliteStore.open(path, Options(wal=True))
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 51, 3))
    store = await SqliteStore.open(path, Options(wal=True))
    await put(store, "a")
    with pytest.raises(StoreError, match=r"wal|locked"):
        await SqliteStore.open(path, Options(busy_ms=50))
    await store.close()
