"""The SQLite file itself: transactions, changes, leases, and files that are refused."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from cluster.control.database import (
    Answer,
    Call,
    Database,
    Grant,
    Revoke,
    Transact,
)
from cluster.control.patience import Patience
from cluster.control.pulses import Pulses
from cluster.control.store import Committed, Condition, Conflict, Delete, Put, StoreError


class Bench:
    """A database with a clock moved by hand."""

    def __init__(self, path: Path) -> None:
        self.now_ms = 1_000
        self.path = path
        self._patience = Patience(lambda _: None, threading.Event())
        self.pulses = Pulses(path)
        self.database = Database(
            path, self.pulses, wal=False, boot_id="boot", clock_ms=lambda: self.now_ms
        )

    def open(self) -> None:
        self.database.open(self._patience, time.monotonic() + 1)

    def run(self, *calls: Call) -> Sequence[Answer]:
        return self.database.run(calls, self._patience, time.monotonic() + 1)

    def write(self, *writes: Put | Delete) -> Answer:
        return self.run(Transact((), writes))[0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "metadata.db")
    yield bench
    bench.database.drop()
    bench.pulses.close()


@pytest.fixture
def opened(bench: Bench) -> Bench:
    bench.open()
    return bench


def refused(bench: Bench) -> str:
    before = bench.path.read_bytes()
    with pytest.raises(StoreError) as caught:
        bench.open()
    assert bench.path.read_bytes() == before
    return str(caught.value)


def sql(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_calls_of_one_commit_see_each_other_and_keep_their_revisions(opened: Bench) -> None:
    first = Transact((), (Put("a", b"1"),))
    second = Transact((), (Put("a", b"2"), Put("b", b"2")))
    assert opened.run(first, second) == [Committed(1), Committed(2)]
    rows = opened.database.changes_since(0).rows
    assert rows == [("a", b"2", 2), ("b", b"2", 2)]


def test_a_failed_statement_undoes_the_whole_commit(opened: Bench) -> None:
    opened.write(Put("a", b"1"))
    bad = Transact((), (Put("b", object()),))  # type: ignore[arg-type]
    with pytest.raises(StoreError):
        opened.run(Transact((), (Delete("a"),)), bad)
    assert opened.write(Put("c", b"1")) == Committed(2)
    assert [row[0] for row in opened.database.changes_since(0).rows] == ["a", "c"]


def test_a_group_without_writes_leaves_the_file_alone(opened: Bench) -> None:
    opened.write(Put("a", b"1"))
    before = opened.path.stat().st_mtime_ns
    conflict = Transact((Condition("a", 9),), (Put("a", b"2"),))
    assert opened.run(conflict, Revoke(4)) == [Conflict("a"), False]
    assert opened.path.stat().st_mtime_ns == before


def test_changes_since_a_revision_include_deletions(opened: Bench) -> None:
    opened.write(Put("a", b"1"), Put("b", b"1"))
    opened.write(Delete("a"))
    delta = opened.database.changes_since(1)
    assert (delta.full, delta.rows) == (False, [("a", None, 2)])


def test_a_copy_from_the_future_of_a_restored_file_is_made_anew(opened: Bench) -> None:
    opened.write(Put("a", b"1"))
    delta = opened.database.changes_since(50)
    assert (delta.full, delta.revision, delta.rows) == (True, 1, [("a", b"1", 1)])


def test_old_tombstones_are_forgotten(opened: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.control.database.STORE_TOMBSTONES_KEPT", 8)
    opened.write(Put("a", b"1"))
    opened.write(Delete("a"))
    for _ in range(30):
        opened.write(Put("b", b"1"))
    assert opened.database.changes_since(2).full
    assert not opened.database.changes_since(30).full
    connection = sqlite3.connect(opened.path)
    assert connection.execute("SELECT key FROM keys").fetchall() == [("b",)]
    connection.close()


def test_all_keys_of_a_lease_go_at_one_revision(opened: Bench) -> None:
    (lease,) = opened.run(Grant(100))
    assert isinstance(lease, int)
    opened.write(Put("a", b"1", lease), Put("b", b"1", lease))
    assert opened.database.changes_since(0).leases == (lease,)
    assert opened.pulses.until(lease) == 1_100
    opened.now_ms = 1_099
    assert opened.pulses.beat(lease, opened.now_ms)
    opened.now_ms = 1_100
    opened.run()
    assert opened.database.changes_since(1).rows == []
    opened.now_ms = 1_199
    opened.run()
    assert not opened.pulses.beat(lease, opened.now_ms)
    assert opened.database.changes_since(1).rows == [("a", None, 2), ("b", None, 2)]


def test_lease_ids_are_not_used_again(opened: Bench) -> None:
    (first,) = opened.run(Grant(100))
    assert isinstance(first, int)
    opened.run(Revoke(first))
    assert opened.run(Grant(100)) == [first + 1]


def test_every_commit_is_synced_under_a_rollback_journal(opened: Bench) -> None:
    connection = opened.database._open_connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_file_that_is_no_database_is_refused(bench: Bench) -> None:
    bench.path.write_bytes(b"not a database, but long enough to look like something" * 50)
    assert refused(bench) == f"{bench.path}: not a SQLite database"


def test_a_database_of_somebody_else_is_refused(bench: Bench) -> None:
    sql(bench.path, "CREATE TABLE theirs (x)")
    assert "not an oncelog metadata store" in refused(bench)


def test_a_later_format_is_refused(bench: Bench) -> None:
    bench.open()
    bench.database.drop()
    sql(bench.path, "PRAGMA user_version = 2")
    assert "a later version of oncelog" in refused(bench)


def test_a_damaged_file_is_refused(bench: Bench) -> None:
    bench.open()
    bench.write(*[Put(f"k{n}", bytes(500)) for n in range(200)])
    bench.database.drop()
    data = bytearray(bench.path.read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 : page * 4096 + 40] = bytes(range(100, 140))
    bench.path.write_bytes(data)
    assert "damaged" in refused(bench)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"absent/metadata\.db-leases: No such"):
        Bench(tmp_path / "absent" / "metadata.db").open()


def test_a_crash_in_the_middle_of_a_commit_is_undone_by_the_next_to_open(
    opened: Bench, tmp_path: Path
) -> None:
    opened.write(*[Put(f"k{n}", bytes(400)) for n in range(100)])
    connection = opened.database._open_connection()
    connection.execute("PRAGMA cache_size = 1")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE keys SET value = zeroblob(401)")  # spills into the file
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in tmp_path.glob("metadata.db*"):
        (crashed / file.name).write_bytes(file.read_bytes())
    after = Bench(crashed / "metadata.db")
    after.open()
    rows = after.database.changes_since(0).rows
    after.database.drop()
    assert len(rows) == 100
    assert all(value == bytes(400) for _, value, _ in rows)
