"""The exactly-once checker: every record of a run judged, none sampled.

Owns: for each number of the workload the offset at which it was first seen, for each partition
the highest number seen, how often each row moved its money, and a mark for each offence. Eight
bytes a record; nothing else grows while the run is clean.

A record read is exactly one of these:
- as sent, and in its place;
- duplicated: its number was seen before;
- reordered: first seen behind a higher number of its partition;
- altered: its bytes, its key or its partition are not those of any record sent. It counts for no
  number, so what it replaced is lost as well.
Lost is what was acknowledged and never read. Balances follow what was read, offences included.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cluster.load.findings import Altered, Findings, Mark
from cluster.load.workload import ID_OPENS, Span, Workload

if TYPE_CHECKING:
    from _fastseq.batch import Record

ALTERED_BYTES_SHOWN = 120  # bytes of an altered record that its offence quotes
ROUND_DIGITS_MAX = 18  # digits: any longer number is no round, and costly to convert


class Checker:
    """Feed it every record of every partition in log order, then ask for the findings."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._first = array("q", [-1]) * workload.records
        self._highest = [-1] * workload.partitions
        self._row_of_tail = {tail: row for row, tail in enumerate(workload.tails)}
        self._times = [0] * workload.rows
        """How often each row was read: what moved between accounts, multiplied out at the end."""
        self._altered_balances: dict[str, int] = {}
        self._duplicated: list[Mark] = []
        self._reordered: list[Mark] = []
        self._altered: list[Altered] = []
        self.read = 0

    def see(self, partition: int, records: Sequence[Record]) -> None:
        """Judge the next `records` of `partition`, which follow those seen before."""
        workload, first, row_of_tail = self._workload, self._first, self._row_of_tail
        keys, home, total = workload.keys, workload.partition_of_row, workload.records
        times = self._times
        highest = self._highest[partition]
        head_before, base = b"", -1
        self.read += len(records)
        for record in records:
            offset, _, key, value, headers = record
            head, _, tail = (value or b"").partition(b"/")
            row = row_of_tail.get(tail, -1)
            if head != head_before:
                head_before, base = head, self._first_number(head)
            number = base + row
            if (
                highest < number < total
                and base >= 0
                and row >= 0
                and home[row] == partition
                and key == keys[row]
                and not headers
            ):
                first[number] = offset
                highest = number
                times[row] += 1
            else:
                highest = self._odd(partition, record, base, row, highest)
        self._highest[partition] = highest

    def _first_number(self, head: bytes) -> int:
        """Number of the first transfer of the round that `head` names, -1 if it names none."""
        digits = head[len(ID_OPENS) :]
        if not head.startswith(ID_OPENS) or not digits.isdigit() or len(digits) > ROUND_DIGITS_MAX:
            return -1
        # Exactly as sent: "07" is not the round 7.
        round_ = int(digits)
        return round_ * self._workload.rows if b"%d" % round_ == digits else -1

    def _odd(self, partition: int, record: Record, base: int, row: int, highest: int) -> int:
        """Say what is wrong with a record; returns the highest number of its partition."""
        workload, number = self._workload, base + row
        if base < 0 or row < 0 or number >= workload.records:
            self._alter(partition, record, "no such transfer was sent: ")
            self._book_bytes(record.value)
            return highest
        self._times[row] += 1
        if workload.partition_of_row[row] != partition:
            home = workload.partition_of_row[row]
            self._alter(partition, record, f"belongs on partition {home}: ")
            return highest
        if record.key != workload.keys[row] or record.headers:
            self._alter(partition, record, f"key {record.key!r}, headers {record.headers!r}: ")
            return highest
        mark = Mark(number, partition, record.offset)
        if self._first[number] >= 0:
            self._duplicated.append(mark)
            return highest
        self._first[number] = record.offset
        self._reordered.append(mark)
        return highest

    def _alter(self, partition: int, record: Record, why: str) -> None:
        value = record.value or b""
        text = value[:ALTERED_BYTES_SHOWN].decode(errors="backslashreplace")
        name = text[len(ID_OPENS) :].partition('"')[0] if value.startswith(ID_OPENS) else "?"
        self._altered.append(Altered(partition, record.offset, name, why + text))

    def _book_bytes(self, value: bytes | None) -> None:
        """Book what an altered record says, if it still says a transfer at all."""
        try:
            said = json.loads(value or b"")
            cents = int(said["amount_cents"])
            accounts = (str(said["account"]), str(said["counter_account"]))
        except (ValueError, KeyError, TypeError):
            return
        for account, change in zip(accounts, (-cents, cents), strict=True):
            self._altered_balances[account] = self._altered_balances.get(account, 0) + change

    def findings(self, unacknowledged: Iterable[Span] = ()) -> Findings:
        """The verdict, once everything was read; `unacknowledged` is what the producer gave up."""
        workload, first = self._workload, self._first
        unacked = {n for span in unacknowledged for n in workload.numbers(span)}
        missing = [number for number, offset in enumerate(first) if offset < 0]
        left_out = [number for number in missing if number in unacked]
        return Findings(
            workload=workload,
            read=self.read,
            stored=workload.records - len(missing),
            lost=[number for number in missing if number not in unacked],
            unacknowledged=sorted(unacked),
            duplicated=self._duplicated,
            reordered=self._reordered,
            altered=self._altered,
            first_offsets=first,
            balances_off=self._balances_off(left_out),
        )

    def _balances_off(self, left_out: Sequence[int]) -> dict[str, int]:
        """Accounts whose balance is not what all transfers but `left_out` come to."""
        off = self._workload.balances(self._times)
        for account, cents in self._altered_balances.items():
            off[account] = off.get(account, 0) + cents
        for account, cents in self._workload.balances(self._workload.times(left_out)).items():
            off[account] -= cents
        return {account: cents for account, cents in off.items() if cents}
