"""What the checker found: every offence by number, and what it says about the run.

Owns: the verdict and its two forms, a summary for the table and a file of offending ids.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cluster.load.workload import Workload

PICTURE_RECORDS = 3  # records shown of those that were stored twice


class Mark(NamedTuple):
    """Where a duplicated or reordered record was read."""

    number: int
    partition: int
    offset: int


class Altered(NamedTuple):
    """A record that nobody sent like this."""

    partition: int
    offset: int
    id: str
    detail: str


class Offence(NamedTuple):
    """One line for the file of offending ids; `offset` is -1 where the record is not in the log."""

    kind: str
    id: str
    partition: int
    offset: int
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """The verdict on a run: exact if nothing is wrong and every balance matches."""

    workload: Workload
    read: int
    """Records read, whatever they were."""
    stored: int
    """Different transfers found in the log."""
    lost: list[int]
    unacknowledged: list[int]
    """Numbers whose sending failed, stored or not."""
    duplicated: list[Mark]
    reordered: list[Mark]
    altered: list[Altered]
    first_offsets: array[int]
    balances_off: dict[str, int]
    """Cents too much (or too little) per account; accounts that match are absent."""

    @property
    def exact(self) -> bool:
        """Everything sent was acknowledged, and is there once, in order, unaltered."""
        wrong = self.lost or self.unacknowledged or self.duplicated or self.reordered
        return not (wrong or self.altered or self.balances_off)

    @property
    def off_by_cents(self) -> int:
        """Sum over all accounts of how far the balance is from what it must be."""
        return sum(map(abs, self.balances_off.values()))

    @property
    def duplicated_cents(self) -> int:
        """Money that duplicated transfers moved a second time."""
        return sum(abs(self.workload.transfer(m.number).amount_cents) for m in self.duplicated)

    def offences(self) -> Iterator[Offence]:
        """Every offence by id, for the file that a failed run leaves."""
        name, partition = self.workload.name, self.workload.partition
        for number in self.lost:
            yield Offence("lost", name(number), partition(number), -1, "acknowledged, never read")
        for number in self.unacknowledged:
            offset = self.first_offsets[number]
            found = "not stored" if offset < 0 else "stored"
            yield Offence("unacknowledged", name(number), partition(number), offset, found)
        for mark in self.duplicated:
            first = f"first at offset {self.first_offsets[mark.number]}"
            yield Offence("duplicated", name(mark.number), mark.partition, mark.offset, first)
        for mark in self.reordered:
            behind = "behind a transfer sent later"
            yield Offence("reordered", name(mark.number), mark.partition, mark.offset, behind)
        for altered in self.altered:
            yield Offence("altered", altered.id, altered.partition, altered.offset, altered.detail)
        for account, cents in self.balances_off.items():
            yield Offence("balance", account, -1, -1, f"off by {cents} cents")


def summary(findings: Findings) -> dict[str, Any]:
    """What the other process shows of the findings."""
    return {
        "exact": findings.exact,
        "read": findings.read,
        "stored": findings.stored,
        "lost": len(findings.lost),
        "unacknowledged": len(findings.unacknowledged),
        "duplicated": len(findings.duplicated),
        "reordered": len(findings.reordered),
        "altered": len(findings.altered),
        "off_by_cents": findings.off_by_cents,
        "duplicated_cents": findings.duplicated_cents,
        "picture": [
            {
                "id": findings.workload.name(mark.number),
                "cents": findings.workload.transfer(mark.number).amount_cents,
                "partition": mark.partition,
                "first": findings.first_offsets[mark.number],
                "again": mark.offset,
            }
            for mark in findings.duplicated[:PICTURE_RECORDS]
        ],
    }


def write_offences(path: Path, findings: Findings) -> None:
    """Every offending id as CSV: kind, id, partition, offset (-1: not in the log), detail."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["kind", "id", "partition", "offset", "detail"])
        writer.writerows(findings.offences())
