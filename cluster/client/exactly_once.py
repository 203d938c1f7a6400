"""Offsets in the application's own database: each record takes effect there exactly once.

Owns one small table. The application writes what it makes of records and, in the same transaction,
how far it has read; both are there after a crash, or neither. Reading begins where the table says.
A consumer that was replaced without noticing finds its offset moved by whoever has the partition
now, and its transaction fails as a whole: the table's row is changed only from the value that this
process knows (compare-and-set).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, Protocol

from cluster.client.consumer import Fetched
from cluster.client.offsets import TopicPartition
from cluster.errors import OncelogError


class OffsetsMoved(OncelogError):
    """Another process has gone on from here: roll back, and join the group again."""


class Cursor(Protocol):
    """A DB-API 2.0 cursor, as far as it is used."""

    @property
    def rowcount(self) -> int:
        """Rows that the last statement changed."""

    def fetchall(self) -> Sequence[Any]:
        """The rows of the last query."""


class Connection(Protocol):
    """A DB-API 2.0 connection whose `execute` makes a cursor: sqlite3's, or psycopg 3's."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement in the present transaction."""


class SqlOffsets:
    """How far a group of consumers has read, in a table of theirs.

    `placeholder` is the mark of the driver's paramstyle: "?" for sqlite3, "%s" for psycopg.
    Nothing here commits: the application does, when its own changes are made too.
    """

    def __init__(
        self, connection: Connection, group: str, *, table: str = "oncelog_offsets",
        placeholder: Literal["?", "%s"] = "?",
    ) -> None:  # fmt: skip
        if not table.replace("_", "").replace(".", "").isalnum():
            raise ValueError(f"table: expected a plain name, not {table!r}")
        self._connection = connection
        self._group = group
        self._table = table
        self._mark = placeholder
        self._known: dict[TopicPartition, int | None] = {}

    def create_table(self) -> None:
        """Make the table unless it is there."""
        self._execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (consumers TEXT NOT NULL,"
            " topic TEXT NOT NULL, partition_index INTEGER NOT NULL,"
            " next_offset BIGINT NOT NULL, PRIMARY KEY (consumers, topic, partition_index))"
        )

    def load(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Where to begin in these partitions: `Policy(positions=offsets.load)`."""
        self._known = dict.fromkeys(partitions)
        mark = self._mark
        for where in self._known:
            rows = self._execute(
                f"SELECT next_offset FROM {self._table} WHERE consumers = {mark}"
                f" AND topic = {mark} AND partition_index = {mark}",
                self._group, *where,
            ).fetchall()  # fmt: skip
            self._known[where] = int(rows[0][0]) if rows else None
        return {where: offset for where, offset in self._known.items() if offset is not None}

    def store(self, fetched: Fetched) -> None:
        """Note in the present transaction that these records were dealt with.

        OffsetsMoved when another process has done so, or more: roll the transaction back.
        After a rollback of the application's own, `load` and `assign` again: what was taken back
        is not read a second time by itself.
        """
        where = (fetched.topic, fetched.partition)
        after, before = fetched.records[-1].offset + 1, self._known.get(where)
        mark = self._mark
        if before is None:
            cursor = self._execute(
                f"INSERT INTO {self._table} (consumers, topic, partition_index, next_offset)"
                f" VALUES ({mark}, {mark}, {mark}, {mark}) ON CONFLICT DO NOTHING",
                self._group, *where, after,
            )  # fmt: skip
        else:
            cursor = self._execute(
                f"UPDATE {self._table} SET next_offset = {mark} WHERE consumers = {mark}"
                f" AND topic = {mark} AND partition_index = {mark} AND next_offset = {mark}",
                after, self._group, *where, before,
            )  # fmt: skip
        if cursor.rowcount != 1:
            raise OffsetsMoved(f"{where[0]}-{where[1]}: another process has read on from {before}")
        self._known[where] = after

    def _execute(self, sql: str, *values: object) -> Cursor:
        cursor: Cursor = self._connection.execute(sql, values)
        return cursor
