"""Every produce request ends in exactly one effect, whatever its carrier needs."""

from __future__ import annotations

import pytest

from cluster.core import effects, events
from cluster.wire import apis, codec, messages
from tests.unit.core_world import TOPIC, World, batch, ready

TCP = b"\x02" + bytes(16)
GOOD, BAD = batch(-1, -1), b"no batch"


def endings(world: World, native: bool, acks: int, data: bytes, lost: bool = False) -> list[str]:
    """The kinds of effects for the connection of one request."""
    leader = world.leader()
    node = world.nodes[leader]
    if lost:
        order = messages.FaultRequest(kind="drop-acks", enabled=True, percent=100)
        node.faults.order(order)
    part = messages.PartitionProduceData(index=0, records=data)
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    body = messages.ProduceRequest(acks=acks, timeout_ms=1_000, topic_data=topics)
    frame = codec.encode_request(apis.PRODUCE, 11, 7, "test", body)
    world.replies.clear()
    world.emitted.clear()
    world.post(leader, events.ClientTurn([events.ClientMessage(TCP, frame, native)]))
    world.run(300)
    found = ["Reply" for _ in world.replies]
    for _, effect in world.emitted:
        if isinstance(effect, effects.NoReply | effects.Hangup):
            assert effect.connection == TCP
            assert isinstance(effect, effects.NoReply) or effect.ordered is lost
            found.append(type(effect).__name__)
    return found


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("data", [GOOD, BAD])
@pytest.mark.parametrize("acks", [-1, 1])
def test_whoever_asked_for_an_answer_gets_one(native: bool, data: bytes, acks: int) -> None:
    assert endings(ready(), native, acks, data) == ["Reply"]


@pytest.mark.parametrize(("native", "data", "ending"), [
    (True, GOOD, "NoReply"), (True, BAD, "NoReply"),
    (False, GOOD, "NoReply"), (False, BAD, "Hangup"),
])  # fmt: skip
def test_error_without_room_for_it_closes_the_connection_that_waits_in_order(
    native: bool, data: bytes, ending: str
) -> None:
    assert endings(ready(), native, 0, data) == [ending]


@pytest.mark.parametrize(("native", "data", "ending"), [
    (True, GOOD, "NoReply"), (False, GOOD, "Hangup"), (True, BAD, "Reply"), (False, BAD, "Reply"),
])  # fmt: skip
def test_lost_acknowledgement_leaves_no_request_open(
    native: bool, data: bytes, ending: str
) -> None:
    assert endings(ready(), native, -1, data, lost=True) == [ending]
