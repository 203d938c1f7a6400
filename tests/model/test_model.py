"""The protocol holds with all its rules, and each rule is needed: the search tells both."""

from __future__ import annotations

import pytest

from tests.model.bounds import BOUNDS
from tests.model.rules import HOLES, SPARE
from tests.model.search import explore
from tests.model.state import REPLICAS, State, canonical, put
from tests.model.step import initial, successors

UNSETTLED = {"reuse"}  # two records under one number: the second can never be stored


@pytest.mark.parametrize("name", BOUNDS)
def test_every_rule_together_keeps_every_guarantee(name: str) -> None:
    result = explore(BOUNDS[name])
    assert not result.trace, "\n".join(result.trace)
    assert result.settled > 0 or name in UNSETTLED, "bounds too tight to commit anything"


@pytest.mark.parametrize("name", HOLES)
def test_without_this_rule_a_guarantee_breaks(name: str) -> None:
    hole = HOLES[name]
    result = explore(BOUNDS[hole.bounds], frozenset((name,)), hole.breaks)
    assert result.trace, f"nothing breaks although {hole.instead}"
    assert hole.breaks in result.trace[-1]
    assert len(result.trace) <= 16, "a counterexample is short"


def test_every_rule_of_the_protocol_has_a_switch() -> None:
    rules = {int("".join(c for c in name if c.isdigit())) for name in HOLES}
    assert rules == {*range(1, 12), 14}


@pytest.mark.parametrize("bounds", ["wipe", "damage", "alone"])
def test_leaving_before_opening_below_the_high_watermark_is_a_second_line(bounds: str) -> None:
    assert not explore(BOUNDS[bounds], frozenset(SPARE)).trace


def test_every_rule_that_can_break_says_how() -> None:
    assert all(hole.bounds in BOUNDS for hole in HOLES.values())


def _walk(*lines: str, bounds: str = "members") -> State:
    """Take the steps whose lines begin so."""
    state = initial(BOUNDS[bounds])
    for line in lines:
        steps = [s for s in successors(state, BOUNDS[bounds], frozenset()) if line in s.line]
        assert steps, f"{line}: not among the next steps"
        state = steps[0].state
    return state


def test_a_retry_after_a_leader_crash_is_recognised_by_the_next_leader() -> None:
    state = _walk(
        "r0, epoch 1, gets record 0",
        "r1 appends offset 0",
        "r0 crashes",
        "r1 is elected",
        "r1, epoch 2, gets record 0 (producer 0, epoch 0, sequence 0): a duplicate",
        "r2 opens a stream to r1",
        "r2 appends offset 0",
        "r2 syncs",
        "r0 is back",
        "r0 opens a stream to r1",
        "r1, epoch 2, commits up to 1",
        bounds="retries",
    )
    assert [batch.payload for batch in state.committed] == [0]


def test_a_renamed_state_has_the_same_representative() -> None:
    state = _walk("gets record 0", "r1 appends", "r1 syncs", "asks to remove r2", "r2 is elected")
    swapped = _swap_followers(_walk("gets record 0", "r1 appends"))
    assert canonical(swapped) == canonical(_walk("gets record 0", "r2 appends"))
    assert canonical(canonical(state)) == canonical(state)


def _swap_followers(state: State) -> State:
    _, one, two = (state.replicas[i] for i in REPLICAS)
    return put(put(state, 1, two), 2, one)
