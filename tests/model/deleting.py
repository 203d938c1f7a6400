"""How the oldest records go: the leader moves its log start, followers take it over.

Deleted batches stay in the model's logs as ghosts, so that a table can still be compared with what
its log says; what matters is where a log begins.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.state import State, Step, leaders, members, put, spend


def deletions(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A leader deletes all that is committed; retention does no more than that."""
    if not state.budget.deletes:
        return
    for index, leader, term in leaders(state):
        start = len(leader.log) if "8h" in off else term.hw
        if start > leader.start:
            line = f"r{index}, epoch {term.epoch}, deletes up to {start}"
            after = put(spend(state, "deletes"), index, leader._replace(start=start))
            yield Step(line, after)


def taken(state: State) -> Iterator[Step]:
    """A follower hears where its leader's log begins, and keeps that for good."""
    for i, replica in enumerate(state.replicas):
        if replica.stream < 0:
            continue
        start = min(state.replicas[replica.stream].start, replica.synced)
        if start > replica.start:
            line = f"r{i} takes the log start {start} of r{replica.stream}"
            yield Step(line, put(state, i, replica._replace(start=start)))


def granted(state: State, off: frozenset[str]) -> Iterator[Step]:
    """A deletion is answered once every member has taken it (rule 8)."""
    for index, leader, term in leaders(state):
        isr = term.isr | (term.pending[0] if term.pending is not None else 0)
        low = min(
            state.replicas[m].start if m != index and "8i" not in off else leader.start
            for m in members(isr)
        )
        heard = all(m == index or state.replicas[m].stream == index for m in members(isr))
        if low > state.gone and (heard or "8i" in off):
            yield Step(f"r{index}, epoch {term.epoch}, says that all below {low} is deleted",
                       state._replace(gone=low))  # fmt: skip
