"""Breadth-first search over canonical states: what it finds first is shortest."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tests.model.invariants import broken
from tests.model.state import Bounds, State, Step, canonical
from tests.model.step import initial, successors

EVERY_RULE: frozenset[str] = frozenset()


class Result(NamedTuple):
    """What was explored; `trace` is empty when every guarantee held everywhere."""

    states: int
    steps: int
    depth: int  # steps of the shortest way to the last state found
    settled: int  # states in which every record is committed: the bounds do not choke the model
    trace: tuple[str, ...]


def explore(bounds: Bounds, off: frozenset[str] = EVERY_RULE, guarantee: str = "G") -> Result:
    """All states within bounds, or up to the first that breaks the guarantee named."""
    with _uncollected():
        return _explore(bounds, off, guarantee)


@contextmanager
def _uncollected() -> Iterator[None]:
    """States are tuples of tuples, without cycles; walking them all again takes a third more."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _explore(bounds: Bounds, off: frozenset[str], guarantee: str) -> Result:
    first = canonical(initial(bounds))
    records = len({request.payload for request in bounds.requests})
    before: dict[State, State | None] = {first: None}
    frontier, depth, steps, settled = [first], 0, 0, 0
    while frontier:
        following: list[State] = []
        for state in frontier:
            for step in successors(state, bounds, off):
                steps += 1
                after, complaint = canonical(step.state), step.broken
                if complaint is None:
                    if after in before:
                        continue
                    before[after] = state
                    following.append(after)
                    settled += sum(b.payload >= 0 for b in after.committed) >= records
                    complaint = broken(after)
                if complaint is not None and guarantee in complaint:
                    path = [*_path(before, state), after]
                    trace = _told(path, bounds, off, guarantee)
                    return Result(len(before), steps, depth + 1, settled, trace)
        depth += bool(following)
        frontier = following
    return Result(len(before), steps, depth, settled, ())


def _path(before: dict[State, State | None], state: State | None) -> list[State]:
    path = []
    while state is not None:
        path.append(state)
        state = before[state]
    return path[::-1]


def _told(
    path: list[State], bounds: Bounds, off: frozenset[str], guarantee: str
) -> tuple[str, ...]:
    """The way once more with one name for each replica throughout; the last line is the harm."""

    def steps(state: State, target: State) -> list[Step]:
        return [s for s in successors(state, bounds, off) if canonical(s.state) == target]

    state, lines = initial(bounds), []
    for target in path[1:-1]:
        step = next(s for s in steps(state, target) if s.broken is None)
        lines.append(step.line)
        state = step.state
    for step in steps(state, path[-1]):
        harm = step.broken or broken(step.state)
        if harm is not None and guarantee in harm:
            return (*lines, step.line, harm)
    raise AssertionError("the last step of a counterexample can be taken again")
