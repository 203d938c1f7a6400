"""A gap is told to a Kafka client only by who is certainly the leader (rule 6).

Such a client takes new numbers when it hears 45. A leader that was deposed lacks what its
successor accepted, so it sees a gap where there is none.
"""

from __future__ import annotations

from cluster import errors
from cluster.core import events
from cluster.wire import apis, codec, messages
from tests.unit.core_world import TOPIC, World, batch, ready

GAP = errors.OUT_OF_ORDER_SEQUENCE_NUMBER.number
OPEN = (errors.REQUEST_TIMED_OUT.number, errors.NOT_LEADER_OR_FOLLOWER.number)


def send(world: World, node_id: int, data: bytes) -> None:
    """A produce request of a Kafka client."""
    part = messages.PartitionProduceData(index=0, records=data)
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    body = messages.ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=topics)
    frame = codec.encode_request(apis.PRODUCE, 9, 7, "test", body)
    world.replies.clear()
    world.post(node_id, events.ClientTurn([events.ClientMessage(b"\x02", frame, native=False)]))


def told(world: World) -> list[int]:
    """The errors that it got."""
    found = []
    for frame in world.replies:
        body = codec.decode_response(apis.PRODUCE, 9, frame)[1]
        assert isinstance(body, messages.ProduceResponse)
        found.append(body.responses[0].partition_responses[0].error_code)
    return found


def cut_off(world: World, node_id: int) -> None:
    """A broker hears no other and no store, and nobody hears it."""
    for other in world.nodes:
        world.blocked |= {(node_id, other), (other, node_id)}

    def tell(changes: tuple[events.Change, ...]) -> None:
        for other in world.nodes:
            if other != node_id:
                world.post(other, events.StoreChanged(changes))

    world.tell = tell  # type: ignore[method-assign]
    world.lose_session(node_id)


def test_deposed_leader_calls_nothing_a_gap() -> None:
    world = ready()
    old, producer = world.leader(), world.new_producer()
    assert world.produce(batch(producer, 0)) == (0, 1)
    cut_off(world, old)
    world.run(500)
    assert world.leader() != old
    assert world.produce(batch(producer, 1), wait_ms=2_500) == (0, 1)
    send(world, old, batch(producer, 2))
    world.run(2_000)
    (error,) = told(world)
    assert error in OPEN


def test_true_gap_is_told_without_waiting_for_the_regular_look() -> None:
    world = ready()
    producer = world.new_producer()
    assert world.produce(batch(producer, 0)) == (0, 1)
    send(world, world.leader(), batch(producer, 5))
    world.run(5)
    assert told(world) == [GAP]


def test_confirmation_of_before_the_request_is_none() -> None:
    world = ready()
    leader, producer = world.leader(), world.new_producer()
    assert world.produce(batch(producer, 0)) == (0, 1)
    send(world, leader, batch(producer, 5))
    world.run(5)
    assert told(world) == [GAP]
    for other in world.nodes:
        world.blocked.add((leader, other))
    send(world, leader, batch(producer, 5))
    world.run(50)
    assert told(world) == []


def test_question_that_is_lost_is_asked_again() -> None:
    world = ready()
    leader, producer = world.leader(), world.new_producer()
    assert world.produce(batch(producer, 0)) == (0, 1)
    blocked = {(leader, other) for other in world.nodes}
    world.blocked |= blocked
    send(world, leader, batch(producer, 5))
    world.run(5)
    world.blocked -= blocked
    world.run(400)
    assert told(world) == [GAP]


def test_leader_without_followers_needs_no_confirmation() -> None:
    world = ready(1, config={"min.insync.replicas": "1"})
    producer = world.new_producer()
    send(world, world.leader(), batch(producer, 5))
    world.run(5)
    assert told(world) == [GAP]
