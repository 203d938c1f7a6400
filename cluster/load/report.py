"""What a run came to, as the rows of one table.

Owns: names, order and formatting of the figures. Amounts are cents and shown with two decimals;
"-" stands for what a run does not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class RunReport:
    """The figures of one run."""

    sent: int
    acked: int
    retries: int
    duplicate_acks: int
    """Batches whose ack said DUPLICATE, as the producer saw them."""
    duplicates_rejected: int
    """Batches that brokers recognised, as their metrics count them."""
    longest_gap_ms: int
    seconds: float
    findings: dict[str, Any]
    """What the auditor found: `cluster.load.auditor.summary`."""

    @property
    def exact(self) -> bool:
        """Everything sent was acknowledged and stored once, in order, and balances match."""
        return bool(self.findings["exact"]) and self.sent == self.acked

    @property
    def records_per_s(self) -> int:
        """Acknowledged records per second, from the first send to the last ack."""
        return round(self.acked / self.seconds) if self.seconds else 0

    def rows(self) -> list[tuple[str, str]]:
        """The table: one (name, figure) per line."""
        found = self.findings
        rows = [
            ("sent", f"{self.sent:,}"),
            ("acked", f"{self.acked:,}"),
            ("stored", f"{found['read']:,}"),
            ("retries", f"{self.retries:,} batches"),
            ("duplicates rejected", self._rejected()),
            ("lost", f"{found['lost']:,}"),
            ("duplicated", f"{found['duplicated']:,}"),
            ("reordered", f"{found['reordered']:,}"),
        ]
        if found["altered"]:
            rows.append(("altered", f"{found['altered']:,}"))
        return [
            *rows,
            ("balances off by", money(found["off_by_cents"])),
            ("longest gap in acks", f"{self.longest_gap_ms:,} ms"),
            ("records/s", f"{self.records_per_s:,}"),
        ]

    def _rejected(self) -> str:
        told = f"{self.duplicates_rejected:,} batches"
        return f"{told} ({self.duplicate_acks:,} seen by the producer)"


def money(cents: int) -> str:
    """Cents as an amount: 1234567 is 12,345.67."""
    sign = "-" if cents < 0 else ""
    whole, rest = divmod(abs(cents), 100)
    return f"{sign}{whole:,}.{rest:02d}"


def cost_lines(report: RunReport) -> list[str]:
    """What a run without idempotence would have cost, with records that are stored twice."""
    found = report.findings
    if not found["duplicated"]:
        return ["no ack was lost at a record that mattered: nothing was stored twice this time"]
    lines = [
        f"{found['duplicated']:,} transfers are stored twice:"
        f" {money(found['duplicated_cents'])} moved a second time"
    ]
    for shown in found["picture"]:
        where = f"partition {shown['partition']}, offset {shown['first']:,}"
        again = f"and again at offset {shown['again']:,}"
        lines.append(f"  transfer {shown['id']} of {money(shown['cents'])}: {where}, {again}")
    return lines
