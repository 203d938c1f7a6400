"""Records are deleted everywhere or not yet said to be; the log start never goes back."""

from __future__ import annotations

from cluster import errors
from cluster.core.leader import Leader
from cluster.limits import LOOK_MS
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED, DUPLICATE = (0, 1), (0, 2)


def leader_of(world: World) -> Leader:
    led = world.partition(world.leader()).leader
    assert isinstance(led, Leader)
    return led


def delete(world: World, offset: int, wait_ms: int = 2 * LOOK_MS) -> list[tuple[int, int]]:
    """What the leader answered within the time."""
    answers: list[tuple[int, int]] = []
    leader_of(world).delete_records(
        offset, lambda error, low: answers.append((error, low)), world.now + 1_000
    )
    world.run(wait_ms)
    return answers


def starts(world: World) -> list[int]:
    return [world.partition(node_id).replica.log.start_offset for node_id in sorted(world.nodes)]


def restarted(world: World) -> None:
    """Everybody is killed, and starts again."""
    for node_id in sorted(world.disks):
        world.kill(node_id)
    for node_id in sorted(world.disks):
        world.start(node_id)
    world.run(3_000)


def produced(world: World) -> int:
    """A producer's six batches."""
    producer_id = world.new_producer()
    for sequence in range(6):
        assert world.produce(batch(producer_id, sequence), wait_ms=50) == ACKED
    return producer_id


def filled(brokers: int = 3) -> tuple[World, int]:
    """A world with a producer's six batches in it, and the producer."""
    made = ready(brokers)
    return made, produced(made)


def test_deletion_is_answered_once_every_member_has_taken_it() -> None:
    world, _ = filled()
    assert delete(world, 4) == [(0, 4)]
    assert starts(world) == [4, 4, 4]
    assert [world.partition(n).replica.start_kept for n in sorted(world.nodes)] == [4, 4, 4]


def test_deletion_of_all_ends_at_the_high_watermark() -> None:
    world, _ = filled()
    assert delete(world, -1) == [(0, 6)]
    assert starts(world) == [6, 6, 6]


def test_deletion_above_the_high_watermark_is_out_of_range() -> None:
    world, _ = filled()
    assert delete(world, 7) == [(errors.OFFSET_OUT_OF_RANGE.number, -1)]
    assert starts(world) == [0, 0, 0]


def test_deletion_below_the_start_moves_nothing_back() -> None:
    world, _ = filled()
    delete(world, 4)
    assert delete(world, 2) == [(0, 4)]
    assert starts(world) == [4, 4, 4]


def test_deletion_waits_for_a_member_that_does_not_hear_of_it() -> None:
    world, _ = filled(2)
    leader = world.leader()
    (other,) = (node_id for node_id in world.nodes if node_id != leader)
    world.blocked.add((leader, other))
    answers: list[tuple[int, int]] = []
    leader_of(world).delete_records(3, lambda *answer: answers.append(answer), world.now + 400)
    world.run(100)
    assert answers == []
    world.run(500)
    assert answers == [(errors.REQUEST_TIMED_OUT.number, -1)]
    world.blocked.clear()
    world.run(2_000)
    assert starts(world) == [3, 3]


def test_deletion_waits_for_a_replica_that_may_be_a_member_already() -> None:
    world, _ = filled()
    leader = world.leader()
    other = next(node_id for node_id in world.nodes if node_id != leader)
    world.kill(other)
    world.run(500)
    assert other not in world.record().isr
    world.start(other)
    world.run(500)
    world.store.refuses = True  # from now on nobody hears what became of a change
    world.run(1_000)
    assert leader_of(world).changing  # it is to join, and may have
    world.blocked.add((leader, other))
    assert delete(world, 4, wait_ms=100) == []
    world.blocked.clear()
    world.store.refuses = False
    world.run(1_000)
    assert starts(world) == [4, 4, 4]


def test_end_of_the_term_answers_every_deletion() -> None:
    world, _ = filled(2)
    leader = world.leader()
    (other,) = (node_id for node_id in world.nodes if node_id != leader)
    world.blocked.add((leader, other))
    answers: list[tuple[int, int]] = []
    leader_of(world).delete_records(3, lambda *answer: answers.append(answer), world.now + 9_000)
    leader_of(world).end_term()
    assert answers == [(errors.NOT_LEADER_OR_FOLLOWER.number, -1)]


def test_deleted_records_stay_deleted_after_every_broker_was_killed() -> None:
    world, _ = filled()
    assert delete(world, 4) == [(0, 4)]
    restarted(world)
    assert starts(world) == [4, 4, 4]


def test_retry_after_deletion_of_everything_and_a_restart_is_a_duplicate() -> None:
    world, producer_id = filled()
    assert delete(world, -1) == [(0, 6)]
    restarted(world)
    assert world.produce(batch(producer_id, 5)) == DUPLICATE
    assert world.partition(world.leader()).replica.log.next_offset == 6
    assert world.produce(batch(producer_id, 6)) == ACKED


def test_reading_below_the_log_start_is_out_of_range() -> None:
    world, _ = filled()
    delete(world, 4)
    wanted = messages.FetchPartition(partition=0, fetch_offset=3, partition_max_bytes=1_000)
    topics = [messages.FetchTopic(topic=TOPIC, partitions=[wanted])]
    (answer,) = world.ask(world.leader(), messages.FetchRequest(max_wait_ms=0, topics=topics))
    assert isinstance(answer, messages.FetchResponse)
    part = answer.responses[0].partitions[0]
    assert part.error_code == errors.OFFSET_OUT_OF_RANGE.number
    assert part.log_start_offset == 4


def test_topic_made_anew_under_a_name_does_not_inherit_the_log_start() -> None:
    world, _ = filled()
    delete(world, 5)
    world.ask(
        world.controller(),
        messages.DeleteTopicsRequest(topics=[messages.DeleteTopicState(name=TOPIC)]),
        version=6,
    )
    world.run(500)
    assert world.create() == 0
    world.run(500)
    produced(world)
    restarted(world)
    assert starts(world) == [0, 0, 0]


def test_log_start_waits_for_what_a_follower_holds_for_good() -> None:
    world, producer_id = filled()
    leader = world.leader()
    other = next(node_id for node_id in world.nodes if node_id != leader)
    world.hold_syncs(other)
    assert world.produce(batch(producer_id, 6), wait_ms=50) is None
    replica = world.partition(other).replica
    assert replica.log.next_offset == 7
    assert delete(world, -1) == [(0, 6)]
    assert replica.log.start_offset == 6
    world.release_syncs(other)
    world.run(50)
    assert delete(world, -1) == [(0, 7)]
    assert starts(world) == [7, 7, 7]
