"""Wishes to delete the oldest records of a partition, and when they are granted.

Owns the deletions of one term that wait until every in-sync replica has taken the new log start,
durably. A deletion answered earlier could be undone by the next leader: consumers would see records
again that were said to be gone. Whoever ends the term fails them all; what was asked for may still
come true then, since the log start may have reached a follower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cluster import errors

Done = Callable[[int, int], None]
"""Called once with (error number, lowest log start of the in-sync replicas; -1 with an error)."""


class Deletion(NamedTuple):
    """Everything below `offset` shall be gone."""

    offset: int
    deadline_ms: int
    done: Done


class Deletions:
    """The deletions of one partition and one term."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._waiting: list[Deletion] = []

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def add(self, deletion: Deletion) -> None:
        """Answer this one once the log start has reached its offset everywhere."""
        self._waiting.append(deletion)

    def release(self, own_start: int, member_starts: Iterable[int | None]) -> None:
        """Answer what all have taken that are members or may be: None is one that nothing is known
        of."""
        starts = [own_start, *(-1 if start is None else start for start in member_starts)]
        low = min(starts)
        granted = [deletion for deletion in self._waiting if deletion.offset <= low]
        self._waiting = [deletion for deletion in self._waiting if deletion.offset > low]
        for deletion in granted:
            deletion.done(0, low)

    def expire(self, now_ms: int) -> None:
        """Time is up for some: the log start has moved here, and may have elsewhere."""
        due = [deletion for deletion in self._waiting if deletion.deadline_ms <= now_ms]
        self._waiting = [deletion for deletion in self._waiting if deletion.deadline_ms > now_ms]
        for deletion in due:
            deletion.done(errors.REQUEST_TIMED_OUT.number, -1)

    def fail(self, error: int) -> None:
        """The term has ended."""
        waiting, self._waiting = self._waiting, []
        for deletion in waiting:
            deletion.done(error, -1)
