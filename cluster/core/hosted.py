"""What the stages of a record's way see of a partition, and what they hand one another.

The stages know no roles and not one another: they see a partition that may be led here, and what
a turn appended. `partition` and `leader` are what stands behind these shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from cluster.core.replica import Replica
from cluster.core.sweep import Sweep


class Led(Protocol):
    """A partition that this broker leads, in one term."""

    replica: Replica
    epoch: int
    epoch_start: int
    sweep: Sweep

    @property
    def members_present(self) -> bool:
        """Whether enough in-sync members are here for a new acks=all write."""

    def confirm(self) -> None:
        """Ask every member whether it still follows: an answer of the term waits for that."""

    def when_committed(self, end: int, done: Callable[[int], None]) -> None:
        """Call `done(0)` once everything below `end` is committed, `done(error)` if the term ends
        first: then the outcome is not known.
        """

    def delete_records(
        self, offset: int, done: Callable[[int, int], None], deadline_ms: int
    ) -> None:
        """Delete everything below `offset`; `done` gets an error, 0 for none, and the start."""

    def stir(self) -> None:
        """Something has changed here: it is looked at, and settled at the step's end."""

    def suspect(self, offset: int) -> None:
        """What is stored here could not be made sense of: look whether it is damaged."""

    def appended(self, base_offset: int, next_offset: int, data: memoryview) -> None:
        """The turn's batches are in the log: push them to whoever is at the tail."""


class Hosted(Protocol):
    """A partition that this broker has a replica of."""

    replica: Replica

    @property
    def leader(self) -> Led | None:
        """The term, if this broker leads the partition."""


Find = Callable[[str, int], Hosted | None]
"""The partition of a topic, if this broker has it."""


class Appended(NamedTuple):
    """One partition's part of a turn's arena, in the log now."""

    led: Led
    base_offset: int
    next_offset: int
    data: memoryview
