"""What the controller decides may be asked of any broker: passed on once, and always answered."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core import effects, events, forwarding
from cluster.limits import FORWARD_MS
from cluster.wire import apis, codec, messages, stream
from cluster.wire.schema import Message
from tests.unit.core_world import TOPIC, World, ready


@pytest.fixture
def world() -> World:
    return ready()


def other_than_controller(world: World) -> int:
    return next(node_id for node_id in world.nodes if node_id != world.controller())


def create(name: str = "new") -> messages.CreateTopicsRequest:
    wish = messages.CreatableTopic(name=name, num_partitions=1, replication_factor=1)
    return messages.CreateTopicsRequest(topics=[wish])


def code_of(answers: list[Message]) -> int | None:
    if not answers:
        return None
    (answer,) = answers
    assert isinstance(answer, messages.CreateTopicsResponse)
    return answer.topics[0].error_code


@pytest.mark.parametrize("version", [2, 4, 5, 7])
def test_the_answer_comes_back_in_the_version_of_the_question(world: World, version: int) -> None:
    assert code_of(world.ask(other_than_controller(world), create(), version=version)) == 0
    assert len(world.nodes[other_than_controller(world)].services.forwarding) == 0


def test_a_request_waits_until_there_is_a_controller(world: World) -> None:
    asked, controller = other_than_controller(world), world.controller()
    world.kill(controller)
    assert code_of(world.ask(asked, create(), wait_ms=2_000)) == 0


def test_an_outcome_that_nobody_told_is_a_time_out(world: World) -> None:
    asked, controller = other_than_controller(world), world.controller()
    world.blocked.add((controller, asked))
    assert code_of(world.ask(asked, create(), wait_ms=FORWARD_MS - 500)) is None
    world.run(1_000)
    timed_out = errors.REQUEST_TIMED_OUT.number.to_bytes(2)
    assert any(timed_out in frame for frame in world.replies)
    assert "topics/new" in world.store.values


def test_a_controller_that_dies_under_a_request_leaves_a_time_out(world: World) -> None:
    asked, controller = other_than_controller(world), world.controller()
    world.blocked.add((controller, asked))
    assert code_of(world.ask(asked, create(), wait_ms=3)) is None
    world.kill(controller)
    world.run(200)
    timed_out = errors.REQUEST_TIMED_OUT.number.to_bytes(2)
    assert any(timed_out in frame for frame in world.replies)


def test_without_any_controller_the_answer_is_that_nothing_was_done(world: World) -> None:
    asked = other_than_controller(world)
    for node_id in [n for n in world.nodes if n != asked]:
        world.kill(node_id)
    world.lose_session(asked)
    world.store.refuses = True
    assert code_of(world.ask(asked, create(), wait_ms=FORWARD_MS + 500)) == (
        errors.NOT_CONTROLLER.number
    )


def test_what_waits_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "FORWARDS_MAX", 2)
    asked, controller = other_than_controller(world), world.controller()
    world.blocked.add((asked, controller))
    for name in ("one", "two"):
        assert code_of(world.ask(asked, create(name), wait_ms=10)) is None
    assert code_of(world.ask(asked, create("three"), wait_ms=10)) == errors.NOT_CONTROLLER.number
    monkeypatch.setattr(forwarding, "FORWARD_BYTES_MAX", 10)
    monkeypatch.setattr(forwarding, "FORWARDS_MAX", 100)
    assert code_of(world.ask(asked, create("four"), wait_ms=10)) == errors.MESSAGE_TOO_LARGE.number


def test_a_deletion_is_passed_on_too(world: World) -> None:
    state = messages.DeleteTopicState(name=TOPIC)
    request = messages.DeleteTopicsRequest(topics=[state])
    (answer,) = world.ask(other_than_controller(world), request)
    assert isinstance(answer, messages.DeleteTopicsResponse)
    assert answer.responses[0].error_code == 0


def test_a_request_that_a_socket_brings_twice_is_served_once(world: World) -> None:
    controller, asked = world.controller(), other_than_controller(world)
    state = messages.DeleteTopicState(name=TOPIC)
    body = messages.DeleteTopicsRequest(topics=[state])
    frame = codec.encode_request(apis.DELETE_TOPICS, 6, 1, "test", body)
    forwarding_there = world.nodes[controller].services.forwarding
    for number, gone in ((1, True), (1, False), (2, True)):
        forwarding_there.take(asked, stream.Forward(number, frame, True), world.now)
        world.step(controller, events.Tick())
        world.run(200)
        assert (f"topics/{TOPIC}" not in world.store.values) is gone
        if gone:
            assert world.create() == 0


def test_a_request_that_makes_no_sense_here_is_sent_back(world: World) -> None:
    controller, asked = world.controller(), other_than_controller(world)
    there = world.nodes[controller].services.forwarding
    produce = codec.encode_request(apis.METADATA, 1, 1, "test", messages.MetadataRequest())
    for frame in (b"", b"nonsense", produce):
        there.take(asked, stream.Forward(9, frame, True), world.now)
    sent = [e for e in world.nodes[controller].out.drain() if isinstance(e, effects.Send)]
    assert [effect.node_id for effect in sent] == [asked] * 3
