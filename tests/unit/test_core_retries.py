"""Retries while the cluster is in a bad state: each is stored once and told the truth."""

from __future__ import annotations

from cluster import errors
from cluster.core import events
from cluster.wire import apis, codec, messages
from tests.unit.core_world import TOPIC, World, batch, ready

NEW, DUPLICATE = (0, 1), (0, 2)
TIMED_OUT = errors.REQUEST_TIMED_OUT.number
TOO_FEW = errors.NOT_ENOUGH_REPLICAS.number
GAP = errors.OUT_OF_ORDER_SEQUENCE_NUMBER.number


def frame(number: int, data: bytes) -> bytes:
    """A produce request of a Kafka client."""
    part = messages.PartitionProduceData(index=0, records=data)
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    body = messages.ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=topics)
    return codec.encode_request(apis.PRODUCE, 9, number, "test", body)


def told(world: World) -> list[tuple[int, int, int]]:
    """(correlation id, error, base offset) of each answer, in the order in which they left."""
    found = []
    for answer in world.replies:
        body = codec.decode_response(apis.PRODUCE, 9, answer)[1]
        assert isinstance(body, messages.ProduceResponse)
        part = body.responses[0].partition_responses[0]
        found.append((int.from_bytes(answer[:4]), part.error_code, part.base_offset))
    return found


def silence_followers(world: World) -> int:
    """Nothing that the leader sends arrives; the leader."""
    leader = world.leader()
    world.blocked |= {(leader, other) for other in world.nodes if other != leader}
    return leader


def test_duplicate_waits_for_its_original_while_the_followers_are_frozen() -> None:
    world = ready()
    producer = world.new_producer()
    leader = silence_followers(world)
    for node_id in world.nodes:
        world.hold_syncs(node_id)
    sent = frame(1, batch(producer, 0))
    world.replies.clear()
    for number in (1, 2):
        again = sent[:4] + number.to_bytes(4) + sent[8:]
        world.send(leader, again, native=False)
        world.run(20)
    assert told(world) == [], "the original is not committed, so its retry is not acknowledged"
    assert world.partition(leader).replica.log.next_offset == 1
    world.run(1_500)
    assert [error for _, error, _ in told(world)] == [TIMED_OUT] * 2
    world.blocked.clear()
    for node_id in world.nodes:
        world.release_syncs(node_id)
    world.run(3_000)
    assert world.produce(batch(producer, 0)) == DUPLICATE
    assert world.partition(world.leader()).replica.log.next_offset == 1


def test_committed_batch_is_a_duplicate_though_too_few_members_are_left() -> None:
    world = ready()
    producer = world.new_producer()
    assert world.produce(batch(producer, 0)) == NEW
    leader = world.leader()
    for other in [node_id for node_id in world.nodes if node_id != leader]:
        world.kill(other)
    world.run(3_000)
    assert world.leader() == leader
    assert world.produce(batch(producer, 1)) == (TOO_FEW, 0)
    assert world.produce(batch(producer, 0)) == DUPLICATE


def test_next_leader_recognises_all_five_batches_of_the_one_that_died() -> None:
    world = ready()
    producer = world.new_producer()
    sent = [batch(producer, sequence) for sequence in range(5)]
    assert [world.produce(one) for one in sent] == [NEW] * 5
    dead = world.leader()
    world.kill(dead)
    world.run(3_000)
    assert world.leader() != dead
    assert [world.produce(one) for one in sent] == [DUPLICATE] * 5


def test_batch_that_overtook_another_is_a_gap_and_stored_when_sent_again() -> None:
    """Pipelined as 1, 3, 2."""
    world = ready()
    leader, producer = world.leader(), world.new_producer()
    one, two, three = (batch(producer, sequence) for sequence in range(3))
    world.replies.clear()
    world.send(leader, frame(1, one), frame(2, three), frame(3, two), native=False)
    world.run(300)
    assert sorted(told(world)) == [(1, 0, 0), (2, GAP, -1), (3, 0, 1)]
    assert world.produce(three) == NEW
    assert world.partition(leader).replica.log.next_offset == 3


def test_same_request_on_two_connections_is_stored_once() -> None:
    world = ready()
    leader, producer = world.leader(), world.new_producer()
    data = batch(producer, 0)
    world.replies.clear()
    asked = [
        events.ClientMessage(bytes([0, number]), frame(number, data), native=False)
        for number in (1, 2)
    ]
    world.post(leader, events.ClientTurn(asked))
    world.run(300)
    assert sorted(told(world)) == [(1, 0, 0), (2, 0, 0)]
    assert world.partition(leader).replica.log.next_offset == 1
