"""Frames of other brokers, and of whoever says to be one: dropped and counted, never fatal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from cluster.core import events
from cluster.core.leader import Leader
from cluster.wire import stream
from tests.unit.core_world import World, batch, ready


@pytest.fixture
def world() -> World:
    world = ready()
    assert world.produce(batch(-1, -1)) == (0, 1)
    return world


def follower_of(world: World) -> int:
    return next(node_id for node_id in world.nodes if node_id != world.leader())


def stream_of(world: World, follower: int) -> tuple[Leader, int]:
    """The leader, and the number of the stream that it has open to a follower."""
    led = world.partition(world.leader()).role
    assert isinstance(led, Leader)
    found = led.followers.get(follower)
    assert found is not None
    return led, found.number


def envelope(world: World, kind: int, sender: int, receiver: int) -> bytes:
    to, of = world.nodes[receiver].incarnation, world.nodes[sender].incarnation
    return stream.envelope(kind, sender, of, to)


def deliver(world: World, node_id: int, header: bytes, data: bytes = b"") -> None:
    world.post(node_id, events.PeerTurn([(header, data)]))
    world.run(700)


def opening(world: World, changed: Mapping[str, Any]) -> stream.OpenStream:
    """A wish for a stream such as the follower would send, with some of it changed."""
    leader, follower = world.leader(), follower_of(world)
    partition = world.partition(leader)
    assert partition.record is not None
    good = stream.OpenStream(
        partition.replica.topic_id, 0, partition.record.value.leader_epoch, 77, ((0, 0),),
        0, 1, False, partition.record.value.store_of(follower),
    )  # fmt: skip
    return msgspec.structs.replace(good, **changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"end_offset": -5},
        {"stream": 2**40},
        {"epochs": ((2**63, 1),)},
        {"leader_epoch": 2**31},
    ],
)
def test_crafted_wish_for_a_stream_is_malformed(world: World, changed: Mapping[str, Any]) -> None:
    leader = world.leader()
    header = envelope(world, stream.CONTROL, follower_of(world), leader)
    deliver(world, leader, header + stream.encode_control(opening(world, changed)))
    assert world.nodes[leader].peers.dropped["malformed"] == 1
    assert world.produce(batch(-1, -1)) == (0, 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"end_offset": 2**62},
        {"epochs": ()},
        {"epochs": ((5, 0), (2, 9), (1, 3))},
        {"end_offset": 0},
    ],
)
def test_untrue_wish_for_a_stream_costs_its_sender_its_place_at_most(
    world: World, changed: Mapping[str, Any]
) -> None:
    leader = world.leader()
    header = envelope(world, stream.CONTROL, follower_of(world), leader)
    deliver(world, leader, header + stream.encode_control(opening(world, changed)))
    world.produce(batch(-1, -1), wait_ms=2_500)
    assert world.produce(batch(-1, -1)) == (0, 1)


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        (b"", b"", "malformed"),
        (b"\x01", b"", "malformed"),
        (bytes([stream.VERSION + 1]) + bytes(25), b"", "malformed"),
        (stream.envelope(stream.CONTROL, 99, 1, 99), b"", "for another incarnation"),
    ],
)
def test_frame_of_nobody_is_dropped(world: World, header: bytes, data: bytes, reason: str) -> None:
    deliver(world, 1, header, data)
    assert world.nodes[1].peers.dropped[reason] == 1


@pytest.mark.parametrize("kind", [0, stream.PUSH, stream.ACK, stream.CONTROL, 9])
def test_body_that_is_none_is_malformed(world: World, kind: int) -> None:
    deliver(world, 1, envelope(world, kind, 2, 1) + b"\xff" * 7)
    assert world.nodes[1].peers.dropped["malformed"] == 1


def test_message_of_an_earlier_incarnation_is_dropped(world: World) -> None:
    header = stream.envelope(stream.CONTROL, 2, 1, world.nodes[1].incarnation)
    deliver(world, 1, header + stream.encode_control(stream.Stopping()))
    assert world.nodes[1].peers.dropped["of another incarnation"] == 1
    assert world.nodes[1].peers.stopping_nodes == {}


@pytest.mark.parametrize("end", [-(2**63), 0, 2**63 - 1])
def test_acknowledgement_of_any_end_counts_for_no_more_than_was_sent(
    world: World, end: int
) -> None:
    leader, follower = world.leader(), follower_of(world)
    partition = world.partition(leader)
    led, number = stream_of(world, follower)
    ack = stream.AckHeader(partition.replica.topic_id, 0, led.epoch, number, end, -1)
    header = envelope(world, stream.ACK, follower, leader) + stream.encode_acks([ack])
    deliver(world, leader, header)
    assert partition.replica.high_watermark == 1
    assert world.produce(batch(-1, -1)) == (0, 1)


@pytest.mark.parametrize("data", [b"", b"x", b"\0" * 61, batch(-1, -1) + b"x", batch(-1, -1)[:-1]])
def test_push_of_anything_but_whole_batches_changes_nothing(world: World, data: bytes) -> None:
    leader, follower = world.leader(), follower_of(world)
    led, number = stream_of(world, follower)
    push = stream.PushHeader(led.replica.topic_id, 0, led.epoch, number, 1, len(data), 0, 99)
    header = envelope(world, stream.PUSH, leader, follower) + stream.encode_pushes([push])
    deliver(world, follower, header, data)
    replica = world.partition(follower).replica
    assert (replica.log.next_offset, replica.high_watermark) == (1, 1)
    assert world.produce(batch(-1, -1), wait_ms=2_500) == (0, 1)


def test_report_of_a_partition_that_is_not_here_says_so(world: World) -> None:
    query = stream.StateQuery(5, ((bytes(16), 0), (b"x" * 16, 7)))
    deliver(world, 1, envelope(world, stream.CONTROL, 2, 1) + stream.encode_control(query))
    assert world.produce(batch(-1, -1)) == (0, 1)
