"""Metadata and DescribeCluster: each kind of client its own addresses; a question makes topics."""

from __future__ import annotations

import struct

import pytest

from cluster import errors
from cluster.core import events, metadata
from cluster.core.defaults import TopicDefaults
from cluster.core.effects import Hangup
from cluster.core.metadata import CLUSTER_OPERATIONS, TOPIC_OPERATIONS
from cluster.limits import AUTO_CREATE_MS, LEADER_WAIT_MS
from cluster.wire import messages
from cluster.wire.messages.metadata import OPERATIONS_UNKNOWN
from tests.unit.core_world import CONFIG, TOPIC, World, batch, ready

DEFAULTS = TopicDefaults(4, 3, CONFIG, auto_create=True)
INTERNAL = "__consumer_offsets"


@pytest.fixture
def world() -> World:
    return ready(defaults=DEFAULTS)


def ask(
    world: World, *names: str, node_id: int = 1, version: int = 12, native: bool = False,
    allowed: bool = True, everything: bool = False, wait_ms: int = 300, operations: bool = False,
) -> messages.MetadataResponse:  # fmt: skip
    topics = None if everything else [messages.MetadataRequestTopic(name=name) for name in names]
    body = messages.MetadataRequest(
        topics=topics,
        allow_auto_topic_creation=allowed,
        include_cluster_authorized_operations=operations,
        include_topic_authorized_operations=operations,
    )
    (answer,) = world.ask(node_id, body, version=version, native=native, wait_ms=wait_ms)
    assert isinstance(answer, messages.MetadataResponse)
    return answer


def codes(answer: messages.MetadataResponse) -> dict[str | None, int]:
    return {topic.name: topic.error_code for topic in answer.topics}


def test_each_kind_of_client_is_told_where_its_listener_is(world: World) -> None:
    assert [broker.port for broker in ask(world).brokers] == [9092, 9093, 9094]
    assert [broker.port for broker in ask(world, native=True).brokers] == [5550, 5551, 5552]
    for native, ports in ((False, [9092, 9093, 9094]), (True, [5550, 5551, 5552])):
        (answer,) = world.ask(1, messages.DescribeClusterRequest(), native=native)
        assert isinstance(answer, messages.DescribeClusterResponse)
        assert [broker.port for broker in answer.brokers] == ports
        assert answer.controller_id == world.controller()


def test_the_controller_that_is_named_is_a_broker_alive(world: World) -> None:
    assert ask(world).controller_id == world.controller()
    away = world.controller()
    asked = next(node_id for node_id in world.nodes if node_id != away)
    world.store.unknown = True
    world.kill(away)
    answer = ask(world, node_id=asked, wait_ms=5)
    assert answer.controller_id in {broker.node_id for broker in answer.brokers}


@pytest.mark.parametrize("version", range(13))
def test_a_question_makes_the_topic_and_the_answer_names_its_leaders(
    world: World, version: int
) -> None:
    for node_id in world.nodes:
        answer = ask(world, f"new{node_id}", node_id=node_id, version=version)
        (topic,) = answer.topics
        assert (topic.name, topic.error_code) == (f"new{node_id}", 0)
        assert len(topic.partitions) == DEFAULTS.partitions
        assert all(part.leader_id > 0 and not part.error_code for part in topic.partitions)


def test_a_topic_is_made_by_no_question_that_does_not_allow_it(world: World) -> None:
    unknown = errors.UNKNOWN_TOPIC_OR_PARTITION.number
    assert codes(ask(world, "new", allowed=False)) == {"new": unknown}
    assert codes(ask(world, "new", native=True)) == {"new": unknown}
    assert "topics/new" not in world.store.values
    strict = ready()
    assert codes(ask(strict, "new")) == {"new": unknown}


def test_a_name_that_no_topic_can_have_is_told_to_be_invalid(world: World) -> None:
    bad = {"..": errors.INVALID_TOPIC_EXCEPTION.number, "a b": 17, "x" * 250: 17}
    assert codes(ask(world, *bad, "new")) == {**bad, "new": 0}


def test_a_topic_that_cannot_be_made_says_why() -> None:
    world = ready(defaults=TopicDefaults(1, 5, CONFIG, auto_create=True))
    assert codes(ask(world, "new")) == {"new": errors.INVALID_REPLICATION_FACTOR.number}


def test_questions_at_the_same_time_make_a_topic_once(world: World) -> None:
    for node_id in world.nodes:
        body = messages.MetadataRequest(topics=[messages.MetadataRequestTopic(name="new")])
        world.ask(node_id, body, native=False, wait_ms=0)
    world.run(300)
    assert len(world.replies) == len(world.nodes)
    ids = {ask(world, "new", node_id=n, allowed=False).topics[0].topic_id for n in world.nodes}
    assert len(ids) == 1


def test_a_topic_that_takes_too_long_is_told_to_have_no_leader_yet(world: World) -> None:
    asked = next(node_id for node_id in world.nodes if node_id != world.controller())
    world.blocked.add((asked, world.controller()))
    body = messages.MetadataRequest(topics=[messages.MetadataRequestTopic(name="new")])
    assert world.ask(asked, body, native=False, wait_ms=AUTO_CREATE_MS - 500) == []
    world.run(1_000)
    assert errors.LEADER_NOT_AVAILABLE.number.to_bytes(2) + b"\x04new" in world.replies[-1]


def test_questions_that_wait_are_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "AUTO_CREATES_MAX", 1)
    asked = next(node_id for node_id in world.nodes if node_id != world.controller())
    world.blocked.add((asked, world.controller()))
    body = messages.MetadataRequest(topics=[messages.MetadataRequestTopic(name="one")])
    assert world.ask(asked, body, native=False, wait_ms=10) == []
    answer = ask(world, "two", node_id=asked, wait_ms=10)
    assert codes(answer) == {"two": errors.UNKNOWN_TOPIC_OR_PARTITION.number}


def test_null_asks_for_all_topics_and_none_for_none(world: World) -> None:
    assert set(codes(ask(world, everything=True))) == {TOPIC, INTERNAL}
    assert set(codes(ask(world, everything=True, native=True))) == {TOPIC}
    assert codes(ask(world)) == {}
    assert set(codes(ask(world, version=0))) == {TOPIC, INTERNAL}


def test_the_topic_of_groups_is_listed_as_internal_before_it_is_there(world: World) -> None:
    for answer in (ask(world, INTERNAL), ask(world, everything=True)):
        topic = next(topic for topic in answer.topics if topic.name == INTERNAL)
        assert (topic.error_code, topic.is_internal) == (0, True)
        assert topic.partitions[0].replica_nodes == topic.partitions[0].isr_nodes == [1, 2, 3]
    assert f"topics/{INTERNAL}" not in world.store.values


def test_operations_are_told_when_asked_for(world: World) -> None:
    told = ask(world, TOPIC, version=10, operations=True)
    assert told.cluster_authorized_operations == CLUSTER_OPERATIONS
    assert told.topics[0].topic_authorized_operations == TOPIC_OPERATIONS
    assert ask(world, TOPIC).topics[0].topic_authorized_operations == OPERATIONS_UNKNOWN
    body = messages.DescribeClusterRequest(include_cluster_authorized_operations=True)
    (answer,) = world.ask(1, body)
    assert isinstance(answer, messages.DescribeClusterResponse)
    assert answer.cluster_authorized_operations == CLUSTER_OPERATIONS


@pytest.mark.parametrize(("kind", "code"), [(2, 114), (3, 115)])
def test_controllers_are_not_to_be_asked_here(world: World, kind: int, code: int) -> None:
    (answer,) = world.ask(1, messages.DescribeClusterRequest(endpoint_type=kind))
    assert isinstance(answer, messages.DescribeClusterResponse)
    assert answer.error_code == code


def test_only_the_native_client_is_told_of_our_own_apis(world: World) -> None:
    for native in (True, False):
        request = messages.ApiVersionsRequest("client", "1.0")
        (answer,) = world.ask(1, request, version=3, native=native)
        assert isinstance(answer, messages.ApiVersionsResponse)
        assert any(entry.api_key >= 1000 for entry in answer.api_keys) is native
    world.emitted.clear()
    assert world.ask(1, messages.FaultRequest(kind="status"), native=False) == []
    assert len(world.emitted) == 1


@pytest.mark.parametrize("name", ["", "-x", "x-", "a b", "é"])
def test_client_software_needs_a_name_as_kafka_takes_it(world: World, name: str) -> None:
    for version in (3, 4):
        (answer,) = world.ask(1, messages.ApiVersionsRequest(name, "1"), version=version)
        assert isinstance(answer, messages.ApiVersionsResponse)
        assert answer.error_code == errors.INVALID_REQUEST.number
    (answer,) = world.ask(1, messages.ApiVersionsRequest(), version=2)
    assert isinstance(answer, messages.ApiVersionsResponse)
    assert answer.error_code == 0


def test_what_is_kept_of_an_answer_is_made_anew_when_it_has_changed(world: World) -> None:
    asked = world.controller()
    away = next(node_id for node_id in world.nodes if node_id != asked)

    def shown() -> messages.MetadataResponseTopic:
        first, again = (ask(world, TOPIC, node_id=asked).topics[0] for _ in range(2))
        image = world.nodes[asked].image
        service = world.nodes[asked].services.metadata
        assert first == again == service._topic(image.topics[TOPIC].value, OPERATIONS_UNKNOWN)
        return first

    assert shown().partitions[0].offline_replicas == []
    world.kill(away)
    world.run(1_500)
    gone = shown().partitions[0]
    assert gone.offline_replicas == [away]
    assert gone.leader_id != away
    world.start(away)
    world.run(3_000)
    assert shown().partitions[0].offline_replicas == []
    assert sorted(shown().partitions[0].isr_nodes) == [1, 2, 3]
    wish = messages.CreatePartitionsTopic(TOPIC, 3, None)
    world.ask(1, messages.CreatePartitionsRequest([wish]))
    assert len(shown().partitions) == 3
    first_id = shown().topic_id
    state = messages.DeleteTopicState(name=TOPIC)
    world.ask(asked, messages.DeleteTopicsRequest(topics=[state]))
    assert codes(ask(world, TOPIC, allowed=False)) == {TOPIC: 3}
    assert world.create() == 0
    assert shown().topic_id != first_id


def test_nothing_is_kept_of_topics_that_are_gone(world: World) -> None:
    for number in range(40):
        name = f"t{number}"
        assert codes(ask(world, name)) == {name: 0}
        state = messages.DeleteTopicState(name=name)
        world.ask(1, messages.DeleteTopicsRequest(topics=[state]))
    assert len(world.nodes[1].services.metadata._kept) <= 20
    assert len(world.nodes[1].image.topic_changes) == 1


SERVED = """0:0-11 1:4-12 2:1-7 3:0-12 8:2-8 9:1-8 10:0-4 11:0-9 12:0-4 13:0-5 14:0-5 15:0-5 16:0-4
    18:0-4 19:2-7 20:1-6 21:0-2 22:0-4 23:2-4 32:1-4 33:0-2 37:0-3 42:0-2 44:0-1 47:0-0 60:0-1
    61:0-0"""
"""What was tried with seven clients of Kafka, without transactions and SASL."""


def test_the_versions_that_are_advertised_are_those_that_clients_were_tried_with(
    world: World,
) -> None:
    (answer,) = world.ask(1, messages.ApiVersionsRequest(), version=0, native=False)
    assert isinstance(answer, messages.ApiVersionsResponse)
    told = [f"{one.api_key}:{one.min_version}-{one.max_version}" for one in answer.api_keys]
    assert told == SERVED.split()


@pytest.mark.parametrize("key", [17, 24, 25, 26, 28, 36, 65, 66, 1000])
def test_what_is_not_advertised_ends_the_connection(world: World, key: int) -> None:
    world.emitted.clear()
    world.send(1, struct.pack(">hhih", key, 0, 1, -1), native=False)
    world.run(10)
    assert [type(effect) for _, effect in world.emitted] == [Hangup]


def test_a_transactional_producer_is_told_that_it_may_not(world: World) -> None:
    refused = errors.TRANSACTIONAL_ID_AUTHORIZATION_FAILED.number
    for version in range(5):
        body = messages.InitProducerIdRequest(transactional_id="t", transaction_timeout_ms=1_000)
        (answer,) = world.ask(1, body, version=version, native=False)
        assert isinstance(answer, messages.InitProducerIdResponse)
        assert (answer.error_code, answer.producer_id) == (refused, -1)
    for version in range(3, 12):
        part = messages.PartitionProduceData(index=0, records=batch(-1, -1))
        topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
        produce = messages.ProduceRequest("t", -1, 1_000, topics)
        (produced,) = world.ask(world.leader(), produce, version=version, native=False)
        assert isinstance(produced, messages.ProduceResponse)
        assert produced.responses[0].partition_responses[0].error_code == refused


def test_clients_cannot_write_what_brokers_keep_for_themselves(world: World) -> None:
    world.ask(1, messages.FindCoordinatorRequest(coordinator_keys=["g"]), wait_ms=1_000)
    leader = world.leader(0, INTERNAL)
    part = messages.PartitionProduceData(index=0, records=batch(-1, -1))
    topics = [messages.TopicProduceData(name=INTERNAL, partition_data=[part])]
    (answer,) = world.ask(leader, messages.ProduceRequest(None, -1, 1_000, topics), native=False)
    assert isinstance(answer, messages.ProduceResponse)
    code = answer.responses[0].partition_responses[0].error_code
    assert code == errors.INVALID_TOPIC_EXCEPTION.number
    listed = next(topic for topic in ask(world, INTERNAL).topics)
    assert listed.is_internal
    assert listed.topic_id != bytes(16)


def lose(world: World, lost: int, *noticed_by: int) -> None:
    """Nothing reaches a broker or leaves it, and only some notice."""
    for other in set(world.nodes) - {lost}:
        world.blocked.update({(lost, other), (other, lost)})
    for other in noticed_by:
        world.post(other, events.PeerDisconnected(lost, world.nodes[lost].incarnation))


def ask_leader(
    world: World, node_id: int, *, wait_ms: int, native: bool = False, everything: bool = False
) -> list[tuple[int, int]]:
    topics = None if everything else [messages.MetadataRequestTopic(name=TOPIC)]
    body = messages.MetadataRequest(topics=topics)
    found = world.ask(node_id, body, native=native, wait_ms=wait_ms)
    return [
        (partition.leader_id, partition.error_code)
        for answer in found
        if isinstance(answer, messages.MetadataResponse)
        for topic in answer.topics
        if topic.name == TOPIC
        for partition in topic.partitions
    ]


@pytest.mark.parametrize("everything", [False, True])
def test_question_for_a_lost_leader_is_answered_with_the_next_one(
    world: World, *, everything: bool
) -> None:
    lost = world.leader()
    others = set(world.nodes) - {lost}
    asked = max(others - {world.controller()})
    lose(world, lost, *others)
    (answer,) = ask_leader(world, asked, wait_ms=50, everything=everything)
    assert answer == (world.leader(), 0)
    assert answer[0] != lost


def test_question_for_a_lost_leader_is_answered_in_time_without_an_election(world: World) -> None:
    lost = world.leader()
    asked = max(set(world.nodes) - {lost})
    lose(world, lost, asked)
    world.run(2)
    assert ask_leader(world, asked, wait_ms=LEADER_WAIT_MS - 10) == []
    assert ask_leader(world, asked, wait_ms=20) == [(lost, 0)], "nobody else has lost it"
    assert ask_leader(world, asked, wait_ms=5) == [(lost, 0)], "what was lost is no news any more"


def test_leader_that_is_back_is_named_at_once(world: World) -> None:
    lost = world.leader()
    asked = max(set(world.nodes) - {lost})
    lose(world, lost, asked)
    world.post(asked, events.PeerConnected(lost, world.nodes[lost].incarnation))
    assert ask_leader(world, asked, wait_ms=5) == [(lost, 0)]


def test_our_own_client_does_not_wait_for_an_election(world: World) -> None:
    lost = world.leader()
    asked = max(set(world.nodes) - {lost})
    lose(world, lost, asked)
    assert ask_leader(world, asked, wait_ms=5, native=True) == [(lost, 0)]


def test_questions_that_wait_for_leaders_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "LEADER_WAITS_MAX", 1)
    lost = world.leader()
    asked = max(set(world.nodes) - {lost})
    lose(world, lost, asked)
    assert ask_leader(world, asked, wait_ms=5) == []
    assert ask_leader(world, asked, wait_ms=5) == [(lost, 0)]
