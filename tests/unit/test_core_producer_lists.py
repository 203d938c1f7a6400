"""Producers that a leader remembers: paged, by id, with their ages; the budget of their memory."""

from __future__ import annotations

import pytest

from _fastseq.table import ProducerTable
from _fastseq.turn import NEW
from cluster import errors
from cluster.core import producer_lists
from cluster.core.append_times import PRECISION, AppendTimes
from cluster.core.producer_budget import ProducerBudget
from cluster.limits import APPEND_TIMES_MAX, LOOK_MS, PRODUCER_BUDGET_MS
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)


@pytest.fixture
def world() -> World:
    return ready()


def listed(
    world: World, *, producer_id: int = -1, cursor: int = 0, index: int = 0, node_id: int = 0,
    native: bool = True,
) -> messages.DescribeProducersPartitionResponse:  # fmt: skip
    topics = [messages.DescribeProducersTopic(TOPIC, [index])]
    request = messages.DescribeProducersRequest(topics, producer_id, cursor)
    (answer,) = world.ask(node_id or world.leader(), request, native=native, wait_ms=1)
    assert isinstance(answer, messages.DescribeProducersResponse)
    return answer.topics[0].partitions[0]


def test_a_producer_is_listed_with_its_window_and_its_age(world: World) -> None:
    producer_id = world.new_producer()
    for sequence in range(7):
        assert world.produce(batch(producer_id, sequence)) == ACKED
    world.run(10_000)
    (state,) = listed(world).active_producers
    assert (state.producer_id, state.producer_epoch, state.last_sequence) == (producer_id, 0, 6)
    assert [b.base_offset for b in state.batches] == [2, 3, 4, 5, 6]
    assert state.last_timestamp == 5
    assert 10_000 - LOOK_MS <= state.idle_ms <= 10_000 + 3 * LOOK_MS
    assert state.accepted == 7
    assert 0 < state.bytes <= 200
    (plain,) = listed(world, native=False).active_producers
    assert plain == messages.ProducerState(producer_id, 0, 6, 5)


def test_pages_join_to_all_producers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_lists, "PRODUCERS_PAGE", 4)
    ids = [world.new_producer() for _ in range(10)]
    for producer_id in ids:
        assert world.produce(batch(producer_id, 0), wait_ms=20) == ACKED
    found, cursor, pages = [], 0, 0
    while cursor >= 0:
        page = listed(world, cursor=cursor)
        assert page.producers == 10
        assert page.table_bytes > 0
        found += [state.producer_id for state in page.active_producers]
        cursor, pages = page.next_cursor, pages + 1
    assert sorted(found) == ids
    assert pages == 3


def test_one_producer_is_found_by_its_id_and_so_is_a_floor(world: World) -> None:
    ids = [world.new_producer() for _ in range(3)]
    for producer_id in ids:
        assert world.produce(batch(producer_id, 0)) == ACKED
    part = listed(world, producer_id=ids[1])
    assert [state.producer_id for state in part.active_producers] == [ids[1]]
    assert listed(world, producer_id=10**9).active_producers == []
    leader = world.partition(world.leader()).leader
    assert leader is not None
    leader.sweep.expire_after(1_000)
    leader.stir()
    world.run(5_000)
    part = listed(world, producer_id=ids[1])
    assert part.active_producers == []
    assert part.floors == [messages.ProducerFloor(ids[1], 0, 1)]
    assert part.floor_count == 3


def test_only_the_leader_lists(world: World) -> None:
    other = next(node_id for node_id in world.nodes if node_id != world.leader())
    assert listed(world, node_id=other).error_code == errors.NOT_LEADER_OR_FOLLOWER.number
    assert listed(world, index=9).error_code == errors.UNKNOWN_TOPIC_OR_PARTITION.number


def test_an_answer_over_many_partitions_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_lists, "PRODUCERS_LISTED_MAX", 3)
    for _ in range(5):
        assert world.produce(batch(world.new_producer(), 0), wait_ms=20) == ACKED
    topics = [messages.DescribeProducersTopic(TOPIC, [0, 0])]
    (answer,) = world.ask(world.leader(), messages.DescribeProducersRequest(topics))
    assert isinstance(answer, messages.DescribeProducersResponse)
    first, second = answer.topics[0].partitions
    assert (len(first.active_producers), first.next_cursor) == (3, 3)
    assert (second.active_producers, second.next_cursor) == ([], 0)


# -- append times ---------------------------------------------------------------------------------


def test_ages_are_right_within_their_precision_however_long_the_term_is() -> None:
    times = AppendTimes(0, 0)
    when = []
    for end, now_ms in enumerate(range(0, 40 * 24 * 3_600_000, 600_000), 1):
        when.append(now_ms)
        times.observe(end, now_ms)
        assert len(times) <= APPEND_TIMES_MAX
    now_ms = when[-1]
    for offset, at in enumerate(when, 1):
        age = times.idle_ms(offset, now_ms)
        assert age <= now_ms - at
        assert age >= (now_ms - at) * (1 - 2 / PRECISION) - 600_000


def test_what_the_term_found_is_as_old_as_the_term() -> None:
    times = AppendTimes(100, 5_000)
    times.observe(110, 6_000)
    assert times.idle_ms(50, 7_000) == 2_000
    assert times.idle_ms(105, 7_000) == 1_000
    assert times.idle_ms(111, 7_000) == 0


def test_an_end_that_was_taken_back_is_forgotten() -> None:
    times = AppendTimes(0, 0)
    times.observe(5, 10)
    times.observe(9, 20)
    times.observe(5, 30)
    times.observe(7, 40)
    assert times.idle_ms(9, 50) == 0
    assert times.idle_ms(6, 50) == 10


# -- the budget -----------------------------------------------------------------------------------


def test_a_new_producer_is_refused_above_the_budget_and_the_known_go_on(world: World) -> None:
    known = world.new_producer()
    assert world.produce(batch(known, 0)) == ACKED
    node = world.nodes[world.leader()]
    node.producer_budget.bytes_max = 1
    world.run(PRODUCER_BUDGET_MS + LOOK_MS)
    new = world.new_producer()
    assert world.produce(batch(new, 0)) == (errors.NOT_ENOUGH_REPLICAS.number, 0)
    assert world.produce(batch(known, 1)) == ACKED
    assert world.produce(batch(-1, -1)) == ACKED
    node.producer_budget.bytes_max = 10**9
    world.run(PRODUCER_BUDGET_MS + LOOK_MS)
    assert world.produce(batch(new, 0)) == ACKED


def test_tables_share_what_is_left_of_the_budget() -> None:
    full, empty = ProducerTable(), ProducerTable()
    assert full.apply(batch(1, 0)) == NEW
    assert full.bytes > empty.bytes
    budget = ProducerBudget(full.bytes + empty.bytes + 1_000)
    assert budget.due(0)
    budget.share([full, empty])
    assert full.budget_bytes == full.bytes + 1_000
    assert empty.budget_bytes == empty.bytes + 1_000
    assert budget.bytes == full.bytes + empty.bytes
    budget.bytes_max = 10
    assert not budget.due(PRODUCER_BUDGET_MS - 1)
    assert full.budget_bytes == full.bytes + 1_000
    assert budget.due(PRODUCER_BUDGET_MS)
    budget.share([full, empty])
    assert (full.budget_bytes, empty.budget_bytes) == (full.bytes, empty.bytes)
