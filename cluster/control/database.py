"""One SQLite file as a metadata store: schema, transactions, leases, changes. Blocking calls.

Owns: the only connection of this process to the file, used by one thread (`cluster.control.sqlite`
runs it). Several calls share one SQLite transaction and so one commit; each keeps its own revision
and its own outcome.

Invariants: the journal is a rollback journal (write-ahead logging loses commits of concurrent
connections below SQLite 3.51.3, sqlite.org/wal.html, "WAL-reset bug") and every commit is synced.
`leases` never outlive the boot they were granted in; how long one lasts is in `Pulses`, beside the
file, so that keeping it alive takes no lock. A deleted key stays as a tombstone, a row
without value, until STORE_TOMBSTONES_KEPT revisions later, so changes are one indexed query.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.control.patience import Patience
from cluster.control.pulses import Pulses
from cluster.control.store import (
    Committed,
    Condition,
    Conflict,
    Delete,
    Outcome,
    Put,
    StoreError,
    Write,
)
from cluster.errors import ConfigError
from cluster.limits import STORE_TOMBSTONES_KEPT

APPLICATION_ID = 0x6F6E636C  # "oncl" in the header of the file: what file(1) and we go by
SCHEMA_VERSION = 1
WAL_SAFE_FROM = (3, 51, 3)

_SCHEMA = (
    "CREATE TABLE store (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER NOT NULL,"
    " pruned INTEGER NOT NULL)",
    "CREATE TABLE keys (key TEXT PRIMARY KEY, value BLOB, version INTEGER NOT NULL,"
    " lease INTEGER) WITHOUT ROWID",
    "CREATE INDEX keys_by_version ON keys (version)",
    "CREATE INDEX keys_by_lease ON keys (lease) WHERE lease IS NOT NULL",
    "CREATE INDEX tombstones ON keys (version) WHERE value IS NULL",
    "CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL)",
    "INSERT INTO store VALUES (1, 0, 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)


@dataclass(frozen=True, slots=True)
class Transact:
    """Compare and set; answers an Outcome other than Unknown."""

    conditions: Sequence[Condition]
    writes: Sequence[Write]


@dataclass(frozen=True, slots=True)
class Grant:
    """A new lease; answers its id."""

    ttl_ms: int


@dataclass(frozen=True, slots=True)
class Revoke:
    """End a lease; answers whether it was alive."""

    lease: int


Call = Transact | Grant | Revoke
Answer = Outcome | int | bool


@dataclass(frozen=True, slots=True)
class Delta:
    """Rows (key, value or None, version) by version; `full` when they are all keys there are."""

    revision: int
    rows: Sequence[tuple[str, bytes | None, int]]
    full: bool
    leases: tuple[int, ...]
    """Every lease of this boot that has not ended."""


class CommitUnknown(StoreError):
    """COMMIT failed after it was sent: the calls it carried happened all or not at all."""


def is_full(error: sqlite3.Error) -> bool:
    """True if SQLite found no space; it has undone the statement or the whole transaction."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


class Database:
    """The file at `path`, with the clock and boot that its leases go by."""

    def __init__(
        self,
        path: Path,
        pulses: Pulses,
        *,
        wal: bool,
        boot_id: str,
        clock_ms: Callable[[], int],
    ) -> None:
        self.path = path
        self._pulses = pulses
        self._mode = "wal" if wal else "truncate"
        self._boot_id = boot_id
        self._clock_ms = clock_ms
        self._connection: sqlite3.Connection | None = None
        self._revision = 0
        self._data_version: int | None = None
        if wal and sqlite3.sqlite_version_info < WAL_SAFE_FROM:
            raise ConfigError(
                str(path),
                "store_wal",
                f"SQLite 3.51.3 or later for write-ahead logging, not {sqlite3.sqlite_version}:"
                " earlier ones can lose commits when several processes write",
            )

    def open(self, patience: Patience, deadline: float) -> None:
        """Connect, create what is missing, refuse what is not ours. Does nothing if open."""
        if self._connection is not None:
            return
        try:
            connection = self._connection = connect(self.path)
            patience.insist(lambda: self._prepare(connection), deadline)
        except BaseException as error:
            self.drop()
            if isinstance(error, sqlite3.Error):
                raise explained(self.path, error) from error
            raise

    def drop(self) -> None:
        """Close the connection after an error; the next `open` lets SQLite recover the file."""
        connection, self._connection = self._connection, None
        self._data_version = None  # numbers of two connections say nothing about each other
        if connection is not None:
            connection.close()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Settle journal and schema. May be repeated from the start when the file is locked."""
        execute = connection.execute
        (mode,) = execute(f"PRAGMA journal_mode = {self._mode}").fetchone()
        if mode != self._mode:
            raise StoreError(f"{self.path}: in journal mode {mode}; stop every broker that uses it")
        execute("PRAGMA synchronous = FULL")
        if not self._is_ours(connection):
            execute("BEGIN IMMEDIATE")
            try:
                if not self._is_ours(connection):
                    for statement in _SCHEMA:
                        execute(statement)
                execute("COMMIT")
            except BaseException:
                undo(connection)
                raise
        problems = execute("PRAGMA quick_check(1)").fetchone()
        if problems != ("ok",):
            raise StoreError(f"{self.path}: damaged: {problems[0]}; restore it from a backup")

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """False for an empty file, which may become ours; raises for anybody else's."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION_ID:
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self.path}: format {version} was written by a later version of oncelog;"
                    f" this one knows {SCHEMA_VERSION}"
                )
            return True
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or version or tables:
            raise StoreError(f"{self.path}: a SQLite database, but not an oncelog metadata store")
        return False

    def run(self, calls: Sequence[Call], patience: Patience, deadline: float) -> list[Answer]:
        """End due leases, then do `calls` in order, all in one commit.

        Raises StoreBusy or StoreError when nothing was written, CommitUnknown when all or
        nothing was.
        """
        connection = self._open_connection()
        try:
            patience.insist(lambda: connection.execute("BEGIN IMMEDIATE"), deadline)
            unchanged = connection.total_changes
            (self._revision,) = connection.execute("SELECT revision FROM store").fetchone()
            before, now_ms = self._revision, self._clock_ms()
            self._sweep(connection, now_ms)
            answers = [self._answer(connection, call, now_ms) for call in calls]
            if self._revision != before:
                self._settle(connection)
        except BaseException as error:
            self._abandon(connection)
            if isinstance(error, sqlite3.Error):
                raise explained(self.path, error) from error
            raise
        if connection.total_changes == unchanged:
            undo(connection)  # nothing to make durable: spare the syncs
        else:
            self._commit(connection, patience, deadline)
        return answers

    def _commit(self, connection: sqlite3.Connection, patience: Patience, deadline: float) -> None:
        """Make the transaction durable. A reader that was stopped inside its read can delay it."""
        try:
            patience.insist(lambda: connection.execute("COMMIT"), deadline)
        except StoreError:
            self._abandon(connection)
            raise
        except sqlite3.Error as error:
            if is_full(error):
                self._abandon(connection)
                raise explained(self.path, error) from error
            self.drop()
            raise CommitUnknown(f"{self.path}: the commit failed: {error}") from error

    def _abandon(self, connection: sqlite3.Connection) -> None:
        """Roll back; a connection that cannot is given up, and its journal undoes the rest."""
        try:
            undo(connection)
        except sqlite3.Error:
            self.drop()

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"{self.path}: not open")
        return self._connection

    # Inside a transaction.

    def _answer(self, connection: sqlite3.Connection, call: Call, now_ms: int) -> Answer:
        match call:
            case Transact(conditions, writes):
                return self._transact(connection, conditions, writes)
            case Grant(ttl_ms):
                statement = "INSERT INTO leases (boot_id) VALUES (?)"
                lease = connection.execute(statement, (self._boot_id,)).lastrowid or 0
                self._pulses.begin(lease, now_ms, ttl_ms)
                return lease
            case Revoke(lease):
                return self._end_lease(connection, lease)

    def _transact(
        self,
        connection: sqlite3.Connection,
        conditions: Sequence[Condition],
        writes: Sequence[Write],
    ) -> Committed | Conflict:
        for condition in conditions:
            if _version(connection, condition.key) != condition.version:
                return Conflict(condition.key)
        for write in writes:
            if isinstance(write, Put) and not _lease_lives(connection, write.lease):
                return Conflict(write.key)
        effective = [
            write for write in writes if isinstance(write, Put) or _version(connection, write.key)
        ]
        if effective:
            self._revision += 1
        for write in effective:
            self._write(connection, write)
        return Committed(self._revision)

    def _write(self, connection: sqlite3.Connection, write: Write) -> None:
        match write:
            case Put(key, value, lease):
                row = (key, value, self._revision, lease)
                connection.execute("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?)", row)
            case Delete(key):
                connection.execute(
                    "UPDATE keys SET value = NULL, lease = NULL, version = ? WHERE key = ?",
                    (self._revision, key),
                )

    def _sweep(self, connection: sqlite3.Connection, now_ms: int) -> None:
        """End the leases whose time or boot has passed."""
        rows = connection.execute("SELECT id, boot_id FROM leases ORDER BY id").fetchall()
        for lease, boot_id in rows:
            if boot_id != self._boot_id or self._pulses.until(lease) <= now_ms:
                self._end_lease(connection, lease)

    def _end_lease(self, connection: sqlite3.Connection, lease: int) -> bool:
        ended = connection.execute("DELETE FROM leases WHERE id = ?", (lease,)).rowcount == 1
        self._pulses.end(lease)
        deleted = connection.execute(
            "UPDATE keys SET value = NULL, lease = NULL, version = ? WHERE lease = ?",
            (self._revision + 1, lease),
        ).rowcount
        if deleted:
            self._revision += 1
        return ended

    def _settle(self, connection: sqlite3.Connection) -> None:
        """Store the revision, and now and then forget old tombstones."""
        connection.execute("UPDATE store SET revision = ?", (self._revision,))
        bound = self._revision - STORE_TOMBSTONES_KEPT
        (oldest,) = connection.execute(
            "SELECT min(version) FROM keys WHERE value IS NULL"
        ).fetchone()
        if oldest is not None and oldest <= bound - STORE_TOMBSTONES_KEPT // 4:
            connection.execute("DELETE FROM keys WHERE value IS NULL AND version <= ?", (bound,))
            connection.execute("UPDATE store SET pruned = ?", (bound,))

    # Reading.

    def moved(self) -> bool:
        """True if another connection committed since `changes_since`, or this one is new."""
        return self._look(self._open_connection()) != self._data_version

    def _look(self, connection: sqlite3.Connection) -> int:
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def changes_since(self, revision: int) -> Delta:
        """What changed after `revision`; all keys if that lies before the memory of deletions, or
        after the present, as it does once an older file was restored.
        """
        connection = self._open_connection()
        data_version = self._look(connection)
        connection.execute("BEGIN")
        try:
            now, pruned = connection.execute("SELECT revision, pruned FROM store").fetchone()
            full = revision == 0 or not pruned <= revision <= now
            rows = connection.execute(
                "SELECT key, value, version FROM keys WHERE version > ? AND (value IS NOT NULL"
                " OR NOT ?) ORDER BY version, key",
                (0 if full else revision, full),
            ).fetchall()
            leases = connection.execute(
                "SELECT id FROM leases WHERE boot_id = ? ORDER BY id", (self._boot_id,)
            ).fetchall()
        finally:
            undo(connection)
        self._data_version = data_version
        return Delta(now, rows, full, tuple(lease for (lease,) in leases))


def connect(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode that never waits for a lock by itself."""
    return sqlite3.connect(path, timeout=0, isolation_level=None, cached_statements=64)


def undo(connection: sqlite3.Connection) -> None:
    """End the transaction, if one is open, without its writes."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def explained(path: Path, error: sqlite3.Error) -> StoreError:
    """What SQLite said, as a sentence for the operator."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB:
        return StoreError(f"{path}: not a SQLite database")
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreError(f"{path}: damaged ({error}); restore it from a backup")
    return StoreError(f"{path}: {error}")


def _version(connection: sqlite3.Connection, key: str) -> int:
    row = connection.execute(
        "SELECT version FROM keys WHERE key = ? AND value IS NOT NULL", (key,)
    ).fetchone()
    return int(row[0]) if row else 0


def _lease_lives(connection: sqlite3.Connection, lease: int | None) -> bool:
    if lease is None:
        return True
    return connection.execute("SELECT 1 FROM leases WHERE id = ?", (lease,)).fetchone() is not None
