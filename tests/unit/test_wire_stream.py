"""Messages between brokers: layouts round-trip, and whatever is not one is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.wire import stream

TOPIC = bytes(range(16))
OPENING = stream.envelope(stream.PUSH, 1, 10, 20)


def test_an_envelope_names_both_incarnations() -> None:
    opening = stream.read_envelope(OPENING)
    assert opening == (stream.VERSION, stream.PUSH, 1, 10, 20)


def test_pushes_round_trip() -> None:
    pushes = [
        stream.PushHeader(TOPIC, 3, 7, 1, 100, 40, 2**64 - 1, 90),
        stream.PushHeader(TOPIC, 4, 7, 2, 0, 60, 0, 0),
    ]
    assert stream.read_pushes(OPENING + stream.encode_pushes(pushes), 100) == pushes


def test_lengths_that_do_not_add_up_are_refused() -> None:
    pushes = [stream.PushHeader(TOPIC, 3, 7, 1, 100, 40, 0, 90)]
    with pytest.raises(stream.StreamError, match="add up"):
        stream.read_pushes(OPENING + stream.encode_pushes(pushes), 41)


def test_acknowledgements_round_trip() -> None:
    acks = [stream.AckHeader(TOPIC, 3, 7, 1, 2**62)]
    assert stream.read_acks(OPENING + stream.encode_acks(acks)) == acks


def test_control_messages_round_trip() -> None:
    message = stream.OpenStream(TOPIC, 3, 7, 1, ((0, 0), (3, 10)), 0, 25, True, "dir")
    assert stream.read_control(OPENING + stream.encode_control(message)) == message


def test_another_protocol_version_is_refused_by_name() -> None:
    with pytest.raises(stream.StreamError, match="version 9"):
        stream.read_envelope(b"\x09" + OPENING[1:])


@given(st.binary(max_size=120))
def test_random_frames_are_refused_or_read(frame: bytes) -> None:
    for read in (
        stream.read_envelope,
        stream.read_acks,
        stream.read_control,
        lambda data: stream.read_pushes(data, 0),
    ):
        try:
            read(frame)
        except stream.StreamError:
            continue
