"""Topics made and deleted: what is refused, what the store decides, what goes with a topic."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.config import parse_topic_config
from cluster.core import placing, records
from cluster.limits import PARTITIONS_PER_TOPIC_MAX, TOPICS_PER_REQUEST_MAX
from cluster.wire import apis, codec, messages
from tests.unit.core_world import TOPIC, World, batch, ready

OK = 0


@pytest.fixture
def world() -> World:
    return ready(check_config=parse_topic_config)


def wish(
    name: str, partitions: int = 1, replicas: int = 1, **config: str | None
) -> messages.CreatableTopic:
    return messages.CreatableTopic(
        name=name,
        num_partitions=partitions,
        replication_factor=replicas,
        configs=[
            messages.CreatableTopicConfig(name=key.replace("_", "."), value=value)
            for key, value in config.items()
        ],
    )


def create(
    world: World, *wishes: messages.CreatableTopic, node_id: int = 0, dry: bool = False
) -> list[messages.CreatableTopicResult]:
    request = messages.CreateTopicsRequest(topics=list(wishes), validate_only=dry)
    answers = world.ask(node_id or world.controller(), request)
    found: list[messages.CreatableTopicResult] = []
    for answer in answers:
        assert isinstance(answer, messages.CreateTopicsResponse)
        found += answer.topics
    return found


def delete(
    world: World, *states: messages.DeleteTopicState, node_id: int = 0
) -> list[messages.DeletableTopicResult]:
    request = messages.DeleteTopicsRequest(topics=list(states))
    (answer,) = world.ask(node_id or world.controller(), request)
    assert isinstance(answer, messages.DeleteTopicsResponse)
    return answer.responses


def named(name: str) -> messages.DeleteTopicState:
    return messages.DeleteTopicState(name=name)


def names_of(world: World) -> set[str]:
    prefix = records.TOPICS
    return {key.removeprefix(prefix) for key in world.store.values if key.startswith(prefix)}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a b", "\0", "é", "x" * 250, "../t"])
def test_name_that_could_be_no_directory_is_refused(world: World, name: str) -> None:
    (result,) = create(world, wish(name))
    assert result.error_code == errors.INVALID_TOPIC_EXCEPTION.number
    assert names_of(world) == {TOPIC}


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (wish(TOPIC), errors.TOPIC_ALREADY_EXISTS),
        (wish("new", 0), errors.INVALID_PARTITIONS),
        (wish("new", -2), errors.INVALID_PARTITIONS),
        (wish("new", PARTITIONS_PER_TOPIC_MAX + 1), errors.INVALID_PARTITIONS),
        (wish("new", 2**31 - 1), errors.INVALID_PARTITIONS),
        (wish("new", 1, 0), errors.INVALID_REPLICATION_FACTOR),
        (wish("new", 1, 4), errors.INVALID_REPLICATION_FACTOR),
        (wish("new", 1, -32_768), errors.INVALID_REPLICATION_FACTOR),
        (wish("new", flush="never"), errors.INVALID_CONFIG),
        (wish("new", flush=None), errors.INVALID_CONFIG),
        (wish("new", no_such_key="1"), errors.INVALID_CONFIG),
        (wish("new", segment_bytes="many"), errors.INVALID_CONFIG),
        (wish("new", min_insync_replicas="0"), errors.INVALID_CONFIG),
        (wish("new", segment_bytes="9" * 30), errors.INVALID_CONFIG),
    ],
)
def test_wish_that_cannot_be_is_refused_with_why(
    world: World, asked: messages.CreatableTopic, code: errors.Code
) -> None:
    for dry in (True, False):
        (result,) = create(world, asked, dry=dry)
        assert result.error_code == code.number
    assert names_of(world) == {TOPIC}


def test_replicas_placed_by_the_client_are_refused(world: World) -> None:
    placed = messages.CreatableReplicaAssignment(partition_index=0, broker_ids=[1, 99])
    asked = messages.CreatableTopic(
        name="new", num_partitions=-1, replication_factor=-1, assignments=[placed]
    )
    (result,) = create(world, asked)
    assert result.error_code == errors.INVALID_REPLICA_ASSIGNMENT.number


def test_topic_named_twice_is_not_made(world: World) -> None:
    (result,) = create(world, wish("new", 1), wish("new", 2))
    assert result.error_code == errors.INVALID_REQUEST.number
    assert names_of(world) == {TOPIC}


def test_good_and_bad_wishes_of_one_request_are_answered_each(world: World) -> None:
    results = create(world, wish("one"), wish(".."), wish(TOPIC), wish("two"))
    codes = {result.name: result.error_code for result in results}
    assert codes["one"] == codes["two"] == OK
    assert len([code for code in codes.values() if code]) == 2


def test_what_is_only_tried_is_not_made(world: World) -> None:
    (result,) = create(world, wish("new", 3, 2, flush="os"), dry=True)
    assert (result.error_code, result.num_partitions, result.replication_factor) == (OK, 3, 2)
    assert {c.name: c.value for c in result.configs or []}["flush"] == "os"
    assert names_of(world) == {TOPIC}


def test_broker_takes_no_more_replicas_than_it_can_keep_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placing, "REPLICAS_PER_BROKER_MAX", 5)
    (refused,) = create(world, wish("new", 5, 3))
    assert refused.error_code == errors.INVALID_PARTITIONS.number
    assert create(world, wish("new", 4, 3))[0].error_code == OK
    assert create(world, wish("more"))[0].error_code == errors.INVALID_PARTITIONS.number
    assert delete(world, named(TOPIC))[0].error_code == OK
    assert create(world, wish("more"))[0].error_code == OK


def test_replicas_are_placed_where_the_wish_says(world: World) -> None:
    placed = [
        messages.CreatableReplicaAssignment(partition_index=index, broker_ids=nodes)
        for index, nodes in ((1, [3, 1]), (0, [2, 3]))
    ]
    asked = messages.CreatableTopic(
        name="new", num_partitions=-1, replication_factor=-1, assignments=placed
    )
    (result,) = create(world, asked)
    assert (result.error_code, result.num_partitions, result.replication_factor) == (OK, 2, 2)
    assert world.record(0, "new").replicas == (2, 3)
    assert world.record(1, "new").replicas == (3, 1)


@pytest.mark.parametrize(
    ("placed", "counts", "code"),
    [
        ({0: [1, 1]}, (-1, -1), errors.INVALID_REPLICA_ASSIGNMENT),
        ({0: []}, (-1, -1), errors.INVALID_REPLICA_ASSIGNMENT),
        ({0: [1], 1: [1, 2]}, (-1, -1), errors.INVALID_REPLICA_ASSIGNMENT),
        ({1: [1]}, (-1, -1), errors.INVALID_REPLICA_ASSIGNMENT),
        ({0: [1]}, (1, -1), errors.INVALID_REQUEST),
        ({0: [1]}, (-1, 1), errors.INVALID_REQUEST),
    ],
)
def test_assignment_that_cannot_be_is_refused(
    world: World, placed: dict[int, list[int]], counts: tuple[int, int], code: errors.Code
) -> None:
    assignments = [
        messages.CreatableReplicaAssignment(partition_index=index, broker_ids=nodes)
        for index, nodes in placed.items()
    ]
    asked = messages.CreatableTopic(
        name="new", num_partitions=counts[0], replication_factor=counts[1], assignments=assignments
    )
    assert create(world, asked)[0].error_code == code.number
    assert names_of(world) == {TOPIC}


def test_any_broker_takes_a_wish_and_the_controller_decides_it(world: World) -> None:
    other = next(node_id for node_id in world.nodes if node_id != world.controller())
    (created,) = create(world, wish("new"), node_id=other)
    (deleted,) = delete(world, named(TOPIC), node_id=other)
    assert created.error_code == deleted.error_code == OK
    assert names_of(world) == {"new"}


def test_request_for_too_many_topics_gets_no_answer(world: World) -> None:
    many = [wish(f"t{number}") for number in range(TOPICS_PER_REQUEST_MAX + 1)]
    assert create(world, *many) == []
    states = [named(f"t{number}") for number in range(TOPICS_PER_REQUEST_MAX + 1)]
    request = messages.DeleteTopicsRequest(topics=states)
    assert world.ask(world.controller(), request) == []
    assert world.nodes[world.controller()].requests.rejected["WireError"] == 2
    assert names_of(world) == {TOPIC}


def test_outcome_that_is_not_known_is_told_by_what_the_store_holds(world: World) -> None:
    world.store.unknown = True
    (made,) = create(world, wish("new"))
    assert made.error_code == OK
    (gone,) = delete(world, named("new"))
    assert gone.error_code == OK
    assert names_of(world) == {TOPIC}


def test_topic_made_again_has_another_id_and_nothing_of_the_first(world: World) -> None:
    first = world.nodes[1].image.topics[TOPIC].value.topic_id
    assert world.produce(batch(-1, -1)) == (0, 1)
    assert [result.error_code for result in delete(world, named(TOPIC))] == [OK]
    assert create(world, wish(TOPIC, 1, 3))[0].error_code == OK
    world.run(500)
    assert world.nodes[1].image.topics[TOPIC].value.topic_id != first
    for node_id in world.nodes:
        assert world.partition(node_id).replica.log.next_offset == 0
    assert world.produce(batch(-1, -1)) == (0, 1)


@pytest.mark.parametrize(
    ("states", "codes"),
    [
        ((named("nobody"),), [errors.UNKNOWN_TOPIC_OR_PARTITION.number]),
        ((named(".."),), [errors.UNKNOWN_TOPIC_OR_PARTITION.number]),
        ((messages.DeleteTopicState(name=None),), [errors.UNKNOWN_TOPIC_ID.number]),
        ((messages.DeleteTopicState(name=None, topic_id=b"x" * 16),),
         [errors.UNKNOWN_TOPIC_ID.number]),
        ((), []),
    ],
)  # fmt: skip
def test_topic_that_is_not_there_cannot_be_deleted(
    world: World, states: tuple[messages.DeleteTopicState, ...], codes: list[int]
) -> None:
    assert [result.error_code for result in delete(world, *states)] == codes


def test_topic_is_deleted_by_its_id(world: World) -> None:
    topic_id = bytes.fromhex(world.nodes[1].image.topics[TOPIC].value.topic_id)
    (result,) = delete(world, messages.DeleteTopicState(name=None, topic_id=topic_id))
    assert result.error_code == OK
    assert names_of(world) == set()


def test_topic_named_twice_for_deletion_is_gone_and_each_is_answered(world: World) -> None:
    results = delete(world, named(TOPIC), named(TOPIC))
    assert [result.error_code for result in results] == [OK, OK]
    assert names_of(world) == set()


def test_what_waits_on_a_topic_is_answered_when_it_is_deleted(world: World) -> None:
    leader = world.leader()
    world.blocked.update((node_id, leader) for node_id in world.nodes)
    part = messages.PartitionProduceData(index=0, records=batch(-1, -1))
    data = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    body = messages.ProduceRequest(acks=-1, timeout_ms=60_000, topic_data=data)
    world.send(leader, codec.encode_request(apis.PRODUCE, 11, 4_711, "test", body))
    world.run(5)
    assert [result.error_code for result in delete(world, named(TOPIC))] == [OK]
    world.send(leader, codec.encode_request(apis.PRODUCE, 11, 4_712, "test", body))
    world.run(50)
    codes = {}
    for frame in world.replies:
        if (number := int.from_bytes(frame[:4])) in (4_711, 4_712):
            answer = codec.decode_response(apis.PRODUCE, 11, frame)[1]
            assert isinstance(answer, messages.ProduceResponse)
            codes[number] = answer.responses[0].partition_responses[0].error_code
    assert codes == {
        4_711: errors.NOT_LEADER_OR_FOLLOWER.number,
        4_712: errors.UNKNOWN_TOPIC_OR_PARTITION.number,
    }


def test_a_broker_that_is_away_for_a_moment_gets_its_replica_and_joins_later() -> None:
    world = World(3)
    world.run(1_000)
    away = next(node_id for node_id in world.nodes if node_id != world.controller())
    world.kill(away)
    world.run(1_000)
    assert world.create() == 0
    record = world.record()
    assert set(record.replicas) == {1, 2, 3}
    assert away not in record.isr
    assert record.leader in record.isr
    world.start(away)
    world.run(5_000)
    assert set(world.record().isr) == {1, 2, 3}
