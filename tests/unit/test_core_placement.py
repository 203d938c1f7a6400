"""Which replicas a broker has: many at once are made, led and removed in short steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cluster.core import events
from cluster.limits import DISK_WORK_OF_LOG, DISK_WORK_PER_STEP
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, ready

MANY = 50
LOGS_PER_STEP = DISK_WORK_PER_STEP // DISK_WORK_OF_LOG


@contextmanager
def counted(world: World) -> Iterator[list[tuple[int, int]]]:
    """(replicas, partitions led) that came or went in each step of any broker."""
    steps: list[tuple[int, int]] = []
    step = world.step

    def counting(node_id: int, event: events.Event) -> None:
        before = state(world, node_id)
        step(node_id, event)
        after = state(world, node_id)
        steps.append((abs(after[0] - before[0]), after[1] - before[1]))

    def state(world: World, node_id: int) -> tuple[int, int]:
        partitions = world.nodes[node_id].partitions
        return len(partitions), sum(partition.terms_led for partition in partitions)

    world.step = counting  # type: ignore[method-assign]
    yield steps
    world.step = step  # type: ignore[method-assign]


def test_topic_of_many_partitions_is_made_a_few_logs_a_step() -> None:
    world = ready()
    with counted(world) as steps:
        assert world.create("big", partitions=MANY) == 0
        world.run(1_000)
    assert max(made for made, _ in steps) == LOGS_PER_STEP
    for node in world.nodes.values():
        assert len(node.partitions) == MANY + 1
        assert not node.replicas.behind
    assert all(len(world.record(index, "big").isr) == 3 for index in range(MANY))


def test_many_leaders_are_taken_over_a_few_a_step() -> None:
    world = ready()
    assert world.create("big", partitions=3 * MANY) == 0
    world.run(1_000)
    with counted(world) as steps:
        world.kill(world.controller())
        world.run(3_000)
    assert max(led for _, led in steps) <= DISK_WORK_PER_STEP
    assert sum(led for _, led in steps) >= MANY


def test_deleted_topic_goes_a_few_logs_a_step() -> None:
    world = ready()
    assert world.create("big", partitions=MANY) == 0
    world.run(1_000)
    with counted(world) as steps:
        body = messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name="big")])
        world.ask(world.controller(), body)
        world.run(1_000)
    assert max(gone for gone, _ in steps) == LOGS_PER_STEP
    for node in world.nodes.values():
        assert {partition.replica.topic.name for partition in node.partitions} == {TOPIC}
