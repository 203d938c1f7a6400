"""Which producers a leader lets expire, by its own clock and nothing else (rule 4).

Owns, for one term, a bounded record of when the log ended where. A producer whose last record lies
below an offset that is old enough has been idle for at least that long. What was appended before
the term counts from its beginning: the leader has no record of its own of when that was, and
client timestamps decide nothing. Idle times are local and never replicated; what follows from them
is a batch in the log, so every replica and every replay does the same.

Invariants: cutoffs never fall within a term; no producer expires before it was idle for the whole
expiration time, and it stays at most a `SAMPLES`-th part of it longer.
"""

from __future__ import annotations

from itertools import islice

from _fastseq.batch import collapse_batch, expire_batch
from _fastseq.table import ProducerTable
from cluster.core.append_times import AppendTimes
from cluster.limits import FLOORS_COLLAPSED, FLOORS_MAX, LOOK_MS

SAMPLES = 64


class Sweep:
    """The expiry of one partition's producers during one term."""

    def __init__(self, end: int, now_ms: int, expiration_ms: int) -> None:
        """The term begins with a log that ends at `end`."""
        self.expire_after(expiration_ms)
        self._samples = [(now_ms, end)]  # a list: ten thousand idle terms have one
        self._cutoff = 0
        self._next_cutoff = 0
        """The cutoff once the batch that was given last is in the log."""
        self._again_ms = now_ms
        """A disk that refuses is not asked at every turn."""
        self.times = AppendTimes(end, now_ms)

    def expire_after(self, expiration_ms: int) -> None:
        """Producers idle for this long expire, from the next look on."""
        self.expiration_ms = expiration_ms
        self._every_ms = max(1, expiration_ms // SAMPLES)

    def next_batch(self, table: ProducerTable, now_ms: int) -> bytes | None:
        """The control batch that is due now, None if nothing is.

        Floors beyond their bound collapse first, so that an expiry never makes more room needed
        than the bound and one sweep. The same is due again until `written`.
        """
        self._observe(table.next_offset, now_ms)
        self._next_cutoff = self._cutoff
        if table.floor_count > FLOORS_MAX:
            return _collapse(table)
        cutoff = self._due(now_ms)
        if cutoff <= self._cutoff:
            return None
        self._next_cutoff, self._again_ms = cutoff, now_ms + LOOK_MS
        if len(table):
            return expire_batch(cutoff)
        self.written()
        return None

    def written(self) -> None:
        """The batch that was given last is in the log; a disk may have refused it."""
        self._cutoff = self._next_cutoff

    def due_ms(self, end: int) -> int | None:
        """When `next_batch` may have something next if the log stays at `end`; None for never."""
        due = []
        if self._samples[-1][1] != end:
            due.append(self._samples[-1][0] + self._every_ms)
        later = (at for at, sampled in self._samples if sampled > self._cutoff)
        due.extend(max(at + self.expiration_ms, self._again_ms) for at in islice(later, 1))
        return min(due, default=None)

    def _observe(self, end: int, now_ms: int) -> None:
        self.times.observe(end, now_ms)
        if now_ms - self._samples[-1][0] >= self._every_ms:
            self._samples.append((now_ms, end))

    def _due(self, now_ms: int) -> int:
        """The end of the log as it was `expiration_ms` ago, 0 if the term is younger."""
        old = now_ms - self.expiration_ms
        while len(self._samples) > 1 and self._samples[1][0] <= old:
            del self._samples[0]
        at, end = self._samples[0]
        return end if at <= old else 0


def _collapse(table: ProducerTable) -> bytes:
    """Turn the lowest ids' floors into the mark: ids grow, so these are the oldest producers."""
    oldest = table.floors_after(-1, FLOORS_COLLAPSED)
    id_bound = oldest[-1].producer_id + 1
    return collapse_batch(id_bound, max(floor.producer_epoch for floor in oldest))
