"""Fetches: what is read, what is parked, and when a parked one is answered."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core import fetch as fetching
from cluster.limits import BATCH_BYTES_MAX
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready


def wish(
    offset: int = 0, *, wait_ms: int = 0, times: int = 1, topic: str = TOPIC, epoch: int = -1,
    min_bytes: int = 1, part_bytes: int = BATCH_BYTES_MAX,
) -> messages.FetchRequest:  # fmt: skip
    part = messages.FetchPartition(
        partition=0,
        fetch_offset=offset,
        partition_max_bytes=part_bytes,
        current_leader_epoch=epoch,
    )
    topics = [messages.FetchTopic(topic=topic, partitions=[part] * times)]
    return messages.FetchRequest(max_wait_ms=wait_ms, min_bytes=min_bytes, topics=topics)


def fetched(
    world: World, request: messages.FetchRequest, *, wait_ms: int = 50
) -> list[messages.PartitionData]:
    """The partitions of the answer; none if it did not come in time."""
    answers = world.ask(world.leader(), request, wait_ms=wait_ms)
    parts = []
    for answer in answers:
        assert isinstance(answer, messages.FetchResponse)
        parts += [part for topic in answer.responses for part in topic.partitions]
    return parts


@pytest.fixture
def world() -> World:
    return ready()


def parked(world: World) -> int:
    return len(world.nodes[world.leader()].requests.fetches)


def test_fetch_at_the_end_waits_for_what_is_committed(world: World) -> None:
    assert fetched(world, wish(wait_ms=5_000)) == []
    assert parked(world) == 1
    assert world.produce(batch(-1, -1)) == (0, 1)
    assert parked(world) == 0
    assert len(world.replies) == 2


def test_fetch_sees_nothing_above_the_high_watermark(world: World) -> None:
    leader = world.leader()
    for node_id in world.nodes:
        world.blocked.add((leader, node_id))
    world.produce(batch(-1, -1), wait_ms=20)
    assert world.partition(leader).replica.log.next_offset == 1
    (part,) = fetched(world, wish())
    assert (part.error_code, part.high_watermark, part.records) == (0, 0, b"")
    assert fetched(world, wish(1, wait_ms=50), wait_ms=20) == []


def test_parked_fetch_is_answered_empty_when_its_time_is_up(world: World) -> None:
    assert fetched(world, wish(wait_ms=100), wait_ms=90) == []
    world.run(30)
    assert parked(world) == 0
    assert len(world.replies) == 1


def test_partition_named_twice_parks_and_is_answered_twice(world: World) -> None:
    parts = fetched(world, wish(wait_ms=30, times=2), wait_ms=60)
    assert [part.error_code for part in parts] == [0, 0]
    assert parked(world) == 0
    fetched(world, wish(wait_ms=5_000, times=2))
    world.produce(batch(-1, -1))
    assert parked(world) == 0


@pytest.mark.parametrize("bound", ["PARKED_FETCHES_MAX", "PARKED_PARTITIONS_MAX"])
def test_beyond_the_bound_a_fetch_is_answered_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(fetching, bound, 1)
    assert fetched(world, wish(wait_ms=5_000)) == []
    assert len(fetched(world, wish(wait_ms=5_000))) == 1


def test_asking_for_more_than_an_answer_holds_waits_for_what_it_holds(world: World) -> None:
    world.produce(batch(-1, -1, b"x" * 100))
    request = messages.FetchRequest(
        max_wait_ms=5_000, min_bytes=2**31 - 1, max_bytes=50, topics=wish().topics
    )
    assert len(fetched(world, request)) == 1


@pytest.mark.parametrize("offset", [-1, -(2**63), 1, 2**63 - 1])
def test_offset_outside_the_log_is_out_of_range(world: World, offset: int) -> None:
    (part,) = fetched(world, wish(offset, wait_ms=5_000))
    assert part.error_code == errors.OFFSET_OUT_OF_RANGE.number


@pytest.mark.parametrize("size", [-(2**31), 0, 1])
def test_first_batch_is_given_whatever_size_was_asked_for(world: World, size: int) -> None:
    world.produce(batch(-1, -1, b"x" * 100))
    (part,) = fetched(world, wish(part_bytes=size, min_bytes=-5))
    assert part.records is not None
    assert len(part.records) > 100


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (wish(topic=".."), errors.UNKNOWN_TOPIC_OR_PARTITION),
        (wish(epoch=7), errors.UNKNOWN_LEADER_EPOCH),
    ],
)
def test_what_cannot_be_read_is_an_error_at_once(
    world: World, request_: messages.FetchRequest, code: errors.Code
) -> None:
    (part,) = fetched(world, request_)
    assert part.error_code == code.number


def test_follower_serves_no_reads(world: World) -> None:
    follower = next(node_id for node_id in world.nodes if node_id != world.leader())
    (answer,) = world.ask(follower, wish(wait_ms=5_000), wait_ms=20)
    assert isinstance(answer, messages.FetchResponse)
    (part,) = answer.responses[0].partitions
    assert part.error_code == errors.NOT_LEADER_OR_FOLLOWER.number


def test_fetch_of_a_topic_deleted_meanwhile_is_answered_at_its_time(world: World) -> None:
    leader = world.leader()
    fetched(world, wish(wait_ms=100), wait_ms=10)
    request = messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name=TOPIC)])
    assert world.ask(world.controller(), request, wait_ms=200)
    assert world.nodes[leader].replicas.find(TOPIC, 0) is None
    assert len(world.nodes[leader].requests.fetches) == 0
