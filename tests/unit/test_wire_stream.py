"""Messages between brokers: layouts round-trip, and whatever is not one is refused."""

from __future__ import annotations

import msgspec
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
    acks = [stream.AckHeader(TOPIC, 3, 7, 1, 2**62, 2**61)]
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


GOOD = {
    "open": stream.OpenStream(TOPIC, 3, 7, 1, ((0, 0), (3, 10)), 0, 25, True, "dir"),
    "opened": stream.StreamOpened(TOPIC, 3, 7, 1, truncate_to=5, leader_end=9, high_watermark=4),
    "report": stream.StateReport(1, (stream.ReplicaState(TOPIC, 3, 7, 6, 5, False),)),
}


@pytest.mark.parametrize(
    ("tag", "wrong"),
    [
        ("open", {"end_offset": -1}),
        ("open", {"end_offset": 2**63}),
        ("open", {"start_offset": -5}),
        ("open", {"stream": 2**32}),
        ("open", {"stream": -1}),
        ("open", {"leader_epoch": 2**31}),
        ("open", {"epochs": ((0, -1),)}),
        ("open", {"epochs": ((2**40, 0),)}),
        ("open", {"topic_id": b"short"}),
        ("open", {"partition": -1}),
        ("opened", {"truncate_to": -1}),
        ("opened", {"high_watermark": -1}),
        ("report", {"replicas": [(TOPIC, 3, 7, 2**31 - 1, 5, False)]}),
    ],
)
def test_numbers_that_no_log_can_hold_are_refused(tag: str, wrong: dict[str, object]) -> None:
    fields = {**msgspec.to_builtins(GOOD[tag], builtin_types=(bytes,)), **wrong}
    with pytest.raises(stream.StreamError):
        stream.read_control(OPENING + msgspec.msgpack.encode(fields))
    fields = msgspec.to_builtins(GOOD[tag], builtin_types=(bytes,))
    assert stream.read_control(OPENING + msgspec.msgpack.encode(fields)) == GOOD[tag]


@pytest.mark.parametrize(
    "body",
    [
        b"\x82\xa4type\xa2\xff\xfe\xa8revision\x01",  # text that is no UTF-8
        b"\x83\xa4type\xa4poke\xa8revision\x01\xa1x" + b"\x91" * 100_000 + b"\xc0",  # deep nesting
    ],
)
def test_what_msgpack_itself_cannot_read_is_refused(body: bytes) -> None:
    with pytest.raises(stream.StreamError):
        stream.read_control(OPENING + body)
