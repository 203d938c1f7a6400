"""Offsets in the application's transaction: there with its changes, or not at all."""

from __future__ import annotations

import sqlite3

import pytest

from _fastseq.batch import Record
from cluster.client import Fetched, OffsetsMoved, SqlOffsets

PLACE = ("t", 0)


@pytest.fixture
def database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    SqlOffsets(connection, "g").create_table()
    return connection


def fetched(first: int, count: int) -> Fetched:
    records = [Record(first + n, 0, None, b"", ()) for n in range(count)]
    return Fetched(*PLACE, records, first + count)


def test_reading_goes_on_behind_what_was_committed(database: sqlite3.Connection) -> None:
    offsets = SqlOffsets(database, "g")
    assert offsets.load([PLACE]) == {}
    with database:
        offsets.store(fetched(0, 3))
        offsets.store(fetched(3, 2))
    assert SqlOffsets(database, "g").load([PLACE]) == {PLACE: 5}
    assert SqlOffsets(database, "other").load([PLACE]) == {}


def test_offset_goes_back_with_the_transaction(database: sqlite3.Connection) -> None:
    offsets = SqlOffsets(database, "g")
    offsets.load([PLACE])
    offsets.store(fetched(0, 3))
    database.rollback()
    assert SqlOffsets(database, "g").load([PLACE]) == {}


@pytest.mark.parametrize("begun", [0, 2])
def test_consumer_that_was_replaced_cannot_store(database: sqlite3.Connection, begun: int) -> None:
    early, late = SqlOffsets(database, "g"), SqlOffsets(database, "g")
    early.load([PLACE])
    if begun:
        early.store(fetched(0, begun))
    late.load([PLACE])
    late.store(fetched(begun, 4))
    with pytest.raises(OffsetsMoved, match="t-0"):
        early.store(fetched(begun, 4))


def test_table_has_a_plain_name(database: sqlite3.Connection) -> None:
    with pytest.raises(ValueError, match="plain name"):
        SqlOffsets(database, "g", table="x; DROP TABLE y")
