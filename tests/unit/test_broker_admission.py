"""Requests of ZeroMQ clients are bounded per client, and nobody who left is remembered."""

from __future__ import annotations

from cluster.broker.admission import Admission
from cluster.core.events import ClientMessage


def asked(client: bytes, *frames: bytes) -> list[ClientMessage]:
    return [ClientMessage(client, frame) for frame in frames]


def test_a_client_beyond_its_bound_is_not_served_and_others_are() -> None:
    admission = Admission(bound=2)
    taken = admission.admitted(asked(b"\0a", b"1", b"2", b"3") + asked(b"\0b", b"4"))
    assert [request.frame for request in taken] == [b"1", b"2", b"4"]
    assert admission.dropped == 1
    admission.ended(b"\0a")
    assert [request.frame for request in admission.admitted(asked(b"\0a", b"5", b"6"))] == [b"5"]
    assert admission.dropped == 2


def test_whoever_has_nothing_under_way_is_forgotten() -> None:
    admission = Admission()
    admission.admitted(asked(b"\0a", b"1", b"2", b"3") + asked(b"\0b", b"4"))
    admission.ended(b"\0a", 2)
    assert len(admission) == 2
    admission.ended(b"\0a")
    admission.ended(b"\0b")
    admission.ended(b"\0b")  # an answer more than was asked changes nothing
    assert len(admission) == 0
