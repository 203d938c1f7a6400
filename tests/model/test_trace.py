"""The checker lets a faithful trace pass and names the guarantee that another one breaks."""

from __future__ import annotations

import pytest

from tests.model.trace import (
    Ack,
    Append,
    Commit,
    Digest,
    Elect,
    Event,
    Refuse,
    TraceChecker,
    TraceError,
    Truncate,
)


def a(replica: int, offset: int, content: str, *, epoch: int = 1, sequence: int = 0) -> Append:
    return Append(replica, epoch, offset, offset + 1, content, (7, 0), sequence)


REPLICATED: tuple[Event, ...] = (
    Elect(0, 1),
    a(0, 0, "x"),
    a(1, 0, "x"),
    Commit(0, 1, 1),
    Ack("x", 0),
)


def observed(*events: Event) -> TraceChecker:
    checker = TraceChecker()
    for event in events:
        checker.observe(event)
    return checker


def test_a_retry_answered_after_failover_passes() -> None:
    checker = observed(
        *REPLICATED,
        Elect(1, 2),
        Ack("x", 0, duplicate=True),
        a(1, 1, "y", epoch=2, sequence=1),
        Commit(1, 2, 2),
        Digest(1, 1, 99),
        Digest(0, 1, 99),
    )
    assert checker.committed_end == 2


def test_truncation_rewinds_the_sequence_expected() -> None:
    observed(Elect(0, 1), a(0, 0, "x"), Truncate(0, 0), a(0, 0, "x"), Commit(0, 1, 1))


def test_sequences_wrap() -> None:
    half = 2**30
    first = Append(0, 1, 0, half, "x", (7, 0), 0)
    second = Append(0, 1, half, 2 * half, "y", (7, 0), half)
    observed(Elect(0, 1), first, second, Append(0, 1, 2 * half, 2 * half + 1, "z", (7, 0), 0))


def test_an_unclean_election_counts_what_it_gave_up() -> None:
    checker = observed(*REPLICATED, Elect(2, 2, unclean=True))
    assert (checker.given_up, checker.committed_end) == (1, 0)


@pytest.mark.parametrize(
    ("guarantee", "events"),
    [
        ("G1", (*REPLICATED, Elect(2, 2))),
        ("G1", (*REPLICATED, a(0, 1, "x", sequence=1))),
        ("G1", (*REPLICATED[:-1], Elect(1, 2), Truncate(1, 0), a(1, 0, "y"), Commit(1, 2, 1))),
        ("G2", (a(0, 0, "x", sequence=1),)),
        ("G4", (*REPLICATED, Commit(0, 1, 0))),
        ("G4", (Elect(0, 1), Commit(0, 1, 1))),
        ("G5", (*REPLICATED, Digest(0, 1, 99), Digest(1, 1, 98))),
        ("G6", (*REPLICATED, Ack("x", 1))),
        ("G6", (*REPLICATED, Refuse("x"))),
        ("G6", (Refuse("x"), a(0, 0, "x"))),
        ("G6", (Elect(0, 1), a(0, 0, "x"), Ack("x", 0))),
        ("G7", (Elect(0, 1), a(0, 0, "x"), Ack("x", 0, duplicate=True))),
        ("rule 9", (*REPLICATED, Commit(1, 1, 1))),
        ("rule 11", (Elect(0, 1), Elect(1, 1))),
        ("does not continue", (a(0, 1, "x"),)),
    ],
)
def test_a_trace_the_model_does_not_allow_is_refused(
    guarantee: str, events: tuple[Event, ...]
) -> None:
    with pytest.raises(TraceError, match=guarantee):
        observed(*events)
