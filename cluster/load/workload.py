"""The workload: a ledger of transfers, repeated in rounds, each transfer one numbered record.

Owns: reading the ledger from a CSV file, the bytes of every record, and the balances that must
come out. Transfer number `round * rows + row` is sent as the id `round/id-of-the-row`, so that
every number has an id of its own however often the file is repeated.

Invariants: numbers are sent in increasing order, and a row always goes to the partition of its
account. Therefore numbers increase strictly within a partition, which is what lets the checker
prove order without keeping what it has read.
"""

from __future__ import annotations

import csv
import json
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cluster.client.partitioner import partition_of
from cluster.errors import OncelogError
from cluster.limits import LEDGER_ROWS_MAX

COLUMNS = ("id", "account", "counter_account", "amount_cents")
AMOUNT_MAX = 2**53  # cents: beyond it other readers of the JSON would round

ID_OPENS = b'{"id":"'
"""What every record starts with; the round follows, then "/" and the row's own bytes."""


class LedgerError(OncelogError):
    """The ledger file cannot be used: names the file, the line and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One row: `amount_cents` leave `account` and reach `counter_account`."""

    id: str
    account: str
    counter_account: str
    amount_cents: int


class Span(NamedTuple):
    """Those of the numbers [start, end) that belong to `partition`."""

    start: int
    end: int
    partition: int


def read_ledger(path: Path) -> list[Transfer]:
    """The transfers of the CSV file `path`; raises LedgerError for a row that is not one."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return _transfers(path, csv.DictReader(file, strict=True))
    except OSError as error:
        raise LedgerError(f"{path}: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise LedgerError(f"{path}: not a CSV file in UTF-8: {error}") from None


def _transfers(path: Path, rows: csv.DictReader[str]) -> list[Transfer]:
    missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
    if missing:
        raise LedgerError(f"{path}: the first line names no column {', '.join(missing)}")
    transfers: list[Transfer] = []
    seen: set[str] = set()
    for row in rows:
        transfer = _transfer(f"{path}:{rows.line_num}", row)
        if transfer.id in seen:
            raise LedgerError(f"{path}:{rows.line_num}: id {transfer.id} occurs twice")
        seen.add(transfer.id)
        transfers.append(transfer)
        if len(transfers) > LEDGER_ROWS_MAX:
            raise LedgerError(f"{path}: more than {LEDGER_ROWS_MAX:,} transfers")
    if not transfers:
        raise LedgerError(f"{path}: there is no transfer in it")
    return transfers


def _transfer(where: str, row: dict[str, str | None]) -> Transfer:
    values = [row[name] for name in COLUMNS]
    if not all(values):
        raise LedgerError(f"{where}: a transfer needs {', '.join(COLUMNS)}")
    name, account, counter_account, amount = (value or "" for value in values)
    try:
        cents = int(amount)
    except ValueError:
        raise LedgerError(f"{where}: amount_cents {amount!r} is not an integer") from None
    if abs(cents) > AMOUNT_MAX:
        raise LedgerError(f"{where}: amount_cents {amount} is beyond {AMOUNT_MAX}")
    return Transfer(name, account, counter_account, cents)


class Workload:
    """`records` numbered transfers over `partitions` partitions, from a ledger of `rows` rows."""

    def __init__(self, ledger: Sequence[Transfer], *, records: int, partitions: int) -> None:
        assert ledger, "a workload needs at least one transfer"
        assert records > 0, "a workload needs at least one record"
        self.ledger = ledger
        self.rows = len(ledger)
        self.records = records
        self.partitions = partitions
        self.keys = [transfer.account.encode() for transfer in ledger]
        self.tails = [_tail(transfer) for transfer in ledger]
        """Bytes of each row's record after the round: with them the record is told exactly."""
        homes = {key: partition_of(key, partitions) for key in set(self.keys)}
        self.partition_of_row = array("i", (homes[key] for key in self.keys))
        self._rows_in = [array("q") for _ in range(partitions)]
        self._pairs_in: list[list[tuple[bytes, bytes]]] = [[] for _ in range(partitions)]
        for row, partition in enumerate(self.partition_of_row):
            self._rows_in[partition].append(row)
            self._pairs_in[partition].append((self.keys[row], self.tails[row]))

    def batches(self, start: int, end: int) -> Iterator[tuple[Span, list[tuple[bytes, bytes]]]]:
        """The numbers [start, end) as (span, [(key, value), ...]), in order per partition."""
        for round_, first, after in self._rounds(start, end):
            head = ID_OPENS + b"%d/" % round_
            for partition, rows in enumerate(self._rows_in):
                low, high = bisect_left(rows, first), bisect_left(rows, after)
                if low < high:
                    pairs = self._pairs_in[partition][low:high]
                    base = round_ * self.rows
                    span = Span(base + first, base + after, partition)
                    yield span, [(key, head + tail) for key, tail in pairs]

    def numbers(self, span: Span) -> Iterator[int]:
        """The numbers of `span`, in the order they are sent."""
        for round_, first, after in self._rounds(span.start, span.end):
            rows = self._rows_in[span.partition]
            low, high = bisect_left(rows, first), bisect_left(rows, after)
            yield from (round_ * self.rows + row for row in rows[low:high])

    def _rounds(self, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """(round, first row, row after the last) for each round that [start, end) touches."""
        while start < end:
            round_, row = divmod(start, self.rows)
            stop = min(end, (round_ + 1) * self.rows)
            yield round_, row, row + stop - start
            start = stop

    def partition(self, number: int) -> int:
        """The partition to which the transfer `number` goes."""
        return self.partition_of_row[number % self.rows]

    def transfer(self, number: int) -> Transfer:
        """The ledger's row behind the transfer `number`."""
        return self.ledger[number % self.rows]

    def name(self, number: int) -> str:
        """The id of the transfer `number` as it stands in its record."""
        return f"{number // self.rows}/{self.transfer(number).id}"

    def value(self, number: int) -> bytes:
        """The bytes of the transfer `number`."""
        return ID_OPENS + b"%d/" % (number // self.rows) + self.tails[number % self.rows]

    def times(self, left_out: Sequence[int] = ()) -> list[int]:
        """How often each row is sent, the numbers `left_out` not counted."""
        rounds, rest = divmod(self.records, self.rows)
        times = [rounds + (row < rest) for row in range(self.rows)]
        for number in left_out:
            times[number % self.rows] -= 1
        return times

    def balances(self, times: Sequence[int]) -> dict[str, int]:
        """Cents on every account once each row was booked so many times."""
        balances: dict[str, int] = {}
        for transfer, count in zip(self.ledger, times, strict=True):
            cents = count * transfer.amount_cents
            balances[transfer.account] = balances.get(transfer.account, 0) - cents
            balances[transfer.counter_account] = balances.get(transfer.counter_account, 0) + cents
        return balances


def _tail(transfer: Transfer) -> bytes:
    """The record's JSON from behind `{"id":"<round>/` to its end."""
    row = {
        "id": transfer.id,
        "account": transfer.account,
        "counter_account": transfer.counter_account,
        "amount_cents": transfer.amount_cents,
    }
    return json.dumps(row, separators=(",", ":")).encode()[len(ID_OPENS) :]
