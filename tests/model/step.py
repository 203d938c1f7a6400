"""One step of the protocol: every action that may happen next, from any state."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model import control, deleting, faults, leading, streams
from tests.model.state import (
    ALL,
    NOBODY,
    Bounds,
    Producer,
    Replica,
    State,
    Step,
    Store,
    Term,
)
from tests.model.table import EMPTY


def initial(bounds: Bounds) -> State:
    """r0 leads epoch 1 over an empty log, all three in sync and connected."""
    term = Term(1, 0, 0, ALL, 0, True, None, (-1, 0, 0), 0)
    follower = Replica(True, (), 0, False, False, EMPTY, 1, 0, None, ())
    leader = follower._replace(stream=NOBODY, term=term)
    producer = Producer(bounds.copies, False, 0, 0)
    store = Store(0, True, 1, ALL, 0)
    return State((leader, follower, follower), store, (), producer, bounds.budget, ())


def successors(state: State, bounds: Bounds, off: frozenset[str]) -> Iterator[Step]:
    """Every next step; `off` is the set of open holes (rules.py), empty when all rules hold."""
    yield from leading.requests(state, bounds, off)
    yield from leading.commits(state, off)
    yield from leading.expiries(state, off)
    yield from deleting.deletions(state, off)
    yield from deleting.taken(state)
    yield from deleting.granted(state, off)
    yield from streams.opens(state, off)
    yield from streams.pushes(state, off)
    yield from streams.acks(state)
    yield from control.proposals(state, off)
    yield from control.arrivals(state, off)
    yield from control.reads(state, off)
    yield from control.elections(state, off)
    yield from control.restarts(state, off)
    yield from faults.crashes(state, off)
    yield from faults.power_loss(state, off)
    yield from faults.losses(state, off)
    yield from faults.rots(state, off)
    yield from faults.wipes(state, off)
    yield from faults.failed_syncs(state, off)
    if off:
        yield from _without_rules(state, off)


def _without_rules(state: State, off: frozenset[str]) -> Iterator[Step]:
    if "1b" in off:
        yield from leading.late_table(state)
    if "9" in off:
        yield from control.resumed(state)
    if state.late:
        yield from streams.late_acks(state)
