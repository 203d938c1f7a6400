"""Memory that the logs of one broker share for reading: whoever was used longest ago lets go.

Owns the sum of what its holders (tails of logs, loaded indexes) keep alive, and their order of use.

Invariant: after every call the sum is within the bound.
"""

from __future__ import annotations

from typing import Protocol


class Holder(Protocol):
    """Something that can do without what it keeps in memory."""

    def let_go(self) -> None:
        """Forget it; the budget has already."""


class Budget:
    """At most `bytes_max` bytes over all holders."""

    def __init__(self, bytes_max: int) -> None:
        self.used = 0
        self._bytes_max = bytes_max
        self._holders: dict[Holder, int] = {}  # used longest ago first

    def use(self, holder: Holder, size: int) -> None:
        """Note that a holder is in use and keeps `size` bytes now; it may be told to let go."""
        self.used += size - self._holders.pop(holder, 0)
        self._holders[holder] = size
        while self.used > self._bytes_max:
            oldest = next(iter(self._holders))
            self.forget(oldest)
            oldest.let_go()

    def forget(self, holder: Holder) -> None:
        """A holder keeps nothing any more."""
        self.used -= self._holders.pop(holder, 0)
