"""Memory of producers over all partitions that a broker leads: none is new beyond the budget.

Owns the sharing of one budget among the producer tables: each may grow by what is left of it. A
producer that is new to a partition is refused for the moment while nothing is left (rule 12), with
an error that its client retries; whoever is known stays known, since forgetting a live producer
would take a retry for a new record. Between two looks several tables may use the same rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from _fastseq.table import ProducerTable
from cluster.limits import PRODUCER_BUDGET_MS


class ProducerBudget:
    """The budget of one broker."""

    def __init__(self, bytes_max: int) -> None:
        """At most so many bytes, in all."""
        self.bytes_max = bytes_max
        self.bytes = 0
        """What producers took when last looked at."""
        self._next_ms = 0

    def due(self, now_ms: int) -> bool:
        """Whether it is time to share again; from then on it is not, for a while."""
        if now_ms < self._next_ms:
            return False
        self._next_ms = now_ms + PRODUCER_BUDGET_MS
        return True

    def share(self, tables: Sequence[ProducerTable]) -> None:
        """Let each table grow by what is left; `tables` are those of the partitions led here."""
        sizes = [table.bytes for table in tables]
        self.bytes = sum(sizes)
        left = max(0, self.bytes_max - self.bytes)
        for table, size in zip(tables, sizes, strict=True):
            table.budget_bytes = size + left
