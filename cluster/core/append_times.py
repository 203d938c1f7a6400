"""When the log ended where, by the leader's clock: how long ago a producer last appended.

Owns a bounded record of (time, end of the log) for one term, dense where it is young and thin where
it is old: the error of an age is an eighth of it, or the interval of the leader's looks. What was
appended before the term has no age here but the term's own. Nothing is decided by it.
"""

from __future__ import annotations

from bisect import bisect_left

from cluster.limits import APPEND_TIMES_MAX

PRECISION = 8
"""Neighbours are at most this part of their age apart, if appends are."""


class AppendTimes:
    """The append times of one partition in one term."""

    def __init__(self, end: int, now_ms: int) -> None:
        """The term begins with a log that ends at `end`."""
        self._times = [now_ms]
        self._ends = [end]

    def __len__(self) -> int:
        """How many points are kept."""
        return len(self._ends)

    def observe(self, end: int, now_ms: int) -> None:
        """The log ends here now."""
        if end < self._ends[-1]:
            self._cut(end)
        if end == self._ends[-1]:
            return
        self._times.append(now_ms)
        self._ends.append(end)
        if len(self._ends) > APPEND_TIMES_MAX:
            self._thin(now_ms)

    def idle_ms(self, next_offset: int, now_ms: int) -> int:
        """How long ago a record was appended at least, by the offset after it."""
        at = bisect_left(self._ends, next_offset)
        return 0 if at == len(self._ends) else now_ms - self._times[at]

    def _cut(self, end: int) -> None:
        """A failed write was taken back."""
        keep = max(1, bisect_left(self._ends, end + 1))
        del self._times[keep:], self._ends[keep:]

    def _thin(self, now_ms: int) -> None:
        """Drop what its neighbours tell well enough; beyond the bound every other one."""
        kept = [0]
        last = len(self._ends) - 1
        for number in range(1, last):
            after = self._times[number + 1]
            if (after - self._times[kept[-1]]) * PRECISION > now_ms - after:
                kept.append(number)
        kept.append(last)
        if len(kept) > APPEND_TIMES_MAX // 2:
            kept = sorted({*kept[::2], last})
        self._times = [self._times[number] for number in kept]
        self._ends = [self._ends[number] for number in kept]
