"""Partitions added, and records deleted, as clients ask for it."""

from __future__ import annotations

import pytest

from cluster import errors
from cluster.core import placing
from cluster.limits import PARTITIONS_PER_TOPIC_MAX
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready


@pytest.fixture
def world() -> World:
    return ready()


def grow(
    world: World, count: int, *assigned: list[int], name: str = TOPIC, dry: bool = False,
    node_id: int = 1,
) -> messages.CreatePartitionsTopicResult:  # fmt: skip
    assignments = [messages.CreatePartitionsAssignment(nodes) for nodes in assigned] or None
    wish = messages.CreatePartitionsTopic(name, count, assignments)
    (answer,) = world.ask(node_id, messages.CreatePartitionsRequest([wish], 1_000, dry))
    assert isinstance(answer, messages.CreatePartitionsResponse)
    (result,) = answer.results
    return result


def test_new_partitions_take_records_and_the_old_ones_keep_theirs(world: World) -> None:
    assert world.produce(batch(-1, -1)) == (0, 1)
    for node_id in world.nodes:
        count = 1 + node_id
        assert grow(world, count, node_id=node_id).error_code == 0
        assert world.record(count - 1).isr == world.record(count - 1).replicas
    world.run(500)
    assert {world.partition(n, 3).replica.topic.partitions for n in world.nodes} == {4}
    part = messages.PartitionProduceData(index=3, records=batch(-1, -1))
    data = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    (answer,) = world.ask(world.leader(3), messages.ProduceRequest(None, -1, 1_000, data))
    assert isinstance(answer, messages.ProduceResponse)
    assert answer.responses[0].partition_responses[0].error_code == 0
    assert world.partition(world.leader()).replica.high_watermark == 1


def test_partitions_survive_a_restart_of_everybody(world: World) -> None:
    assert grow(world, 3).error_code == 0
    for node_id in list(world.nodes):
        world.kill(node_id)
    for node_id in world.disks:
        world.start(node_id)
    world.run(3_000)
    assert world.leader(2) in world.nodes


@pytest.mark.parametrize("count", [1, 0, -1, PARTITIONS_PER_TOPIC_MAX + 1])
def test_a_number_that_is_not_more_or_too_much_is_refused(world: World, count: int) -> None:
    for dry in (True, False):
        assert grow(world, count, dry=dry).error_code == errors.INVALID_PARTITIONS.number


def test_replicas_are_placed_where_the_wish_says(world: World) -> None:
    assert grow(world, 3, [3, 1, 2], [2, 3, 1]).error_code == 0
    assert [world.record(index).leader for index in (1, 2)] == [3, 2]


@pytest.mark.parametrize(
    "assigned", [([1, 2, 3],), ([1, 2], [2, 3]), ([1, 2, 9], [1, 2, 3]), ([1, 1, 2], [1, 2, 3])]
)
def test_an_assignment_that_cannot_be_is_refused(
    world: World, assigned: tuple[list[int], ...]
) -> None:
    result = grow(world, 3, *assigned)
    assert result.error_code == errors.INVALID_REPLICA_ASSIGNMENT.number


def test_what_is_only_tried_or_unknown_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.store.revision
    assert grow(world, 3, dry=True).error_code == 0
    unknown = errors.UNKNOWN_TOPIC_OR_PARTITION.number
    assert grow(world, 3, name="nobody").error_code == unknown
    invalid = errors.INVALID_TOPIC_EXCEPTION.number
    monkeypatch.setattr(placing, "REPLICAS_PER_BROKER_MAX", 2)
    assert grow(world, 3).error_code == errors.INVALID_PARTITIONS.number
    assert grow(world, 3, name="__consumer_offsets").error_code in (unknown, invalid)
    assert world.store.revision == before


def test_a_topic_named_twice_is_refused(world: World) -> None:
    wishes = [messages.CreatePartitionsTopic(TOPIC, count, None) for count in (2, 3)]
    (answer,) = world.ask(1, messages.CreatePartitionsRequest(wishes))
    assert isinstance(answer, messages.CreatePartitionsResponse)
    assert [r.error_code for r in answer.results] == [errors.INVALID_REQUEST.number]


# -- deleting records -----------------------------------------------------------------------------


def delete_records(
    world: World, *offsets: tuple[int, int], name: str = TOPIC, node_id: int = 0
) -> list[tuple[int, int]]:
    parts = [messages.DeleteRecordsPartition(*offset) for offset in offsets]
    request = messages.DeleteRecordsRequest([messages.DeleteRecordsTopic(name, parts)], 1_000)
    (answer,) = world.ask(node_id or world.leader(), request)
    assert isinstance(answer, messages.DeleteRecordsResponse)
    return [(p.error_code, p.low_watermark) for t in answer.topics for p in t.partitions]


def test_records_before_an_offset_go_and_the_answer_says_where_the_log_begins(
    world: World,
) -> None:
    assert world.produce(batch(-1, -1, b"a", b"b", b"c")) == (0, 1)
    assert world.produce(batch(-1, -1, b"d")) == (0, 1)
    assert delete_records(world, (0, 2)) == [(0, 2)]
    assert delete_records(world, (0, -1)) == [(0, 4)]
    starts = {world.partition(node_id).replica.log.start_offset for node_id in world.nodes}
    assert starts == {4}


def test_each_partition_of_a_deletion_is_answered(world: World) -> None:
    out_of_range = errors.OFFSET_OUT_OF_RANGE.number
    unknown = errors.UNKNOWN_TOPIC_OR_PARTITION.number
    assert delete_records(world, (0, 9), (7, 0)) == [(out_of_range, -1), (unknown, -1)]
    other = next(n for n in world.nodes if n != world.leader())
    not_leader = errors.NOT_LEADER_OR_FOLLOWER.number
    assert delete_records(world, (0, 0), node_id=other) == [(not_leader, -1)]
    internal = errors.INVALID_TOPIC_EXCEPTION.number
    assert delete_records(world, (0, 0), name="__consumer_offsets") == [(internal, -1)]
    (answer,) = world.ask(1, messages.DeleteRecordsRequest())
    assert answer == messages.DeleteRecordsResponse()
