"""Idle producers expire by batches in the log, and a late retry is refused behind a fence."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from _fastseq.table import FENCED_EPOCH
from cluster import errors
from tests.unit.core_world import World, batch, ready

IDLE_MS = 2_000
SHORT: Mapping[str, str] = {"producer.id.expiration.ms": str(IDLE_MS)}
NEW, DUPLICATE = 1, 2
REFUSED = (errors.INVALID_PRODUCER_EPOCH.number, 0)


@pytest.fixture
def world() -> World:
    return ready(config=SHORT)


def forgotten(world: World) -> int:
    """A producer whose two batches were stored and who then expired."""
    producer = world.new_producer()
    assert world.produce(batch(producer, 0)) == (0, NEW)
    assert world.produce(batch(producer, 1)) == (0, NEW)
    world.run(2 * IDLE_MS)
    return producer


def test_every_replica_forgets_an_idle_producer_at_the_same_offset(world: World) -> None:
    producer = forgotten(world)
    tables = [world.partition(node_id).replica.log.table for node_id in world.nodes]
    assert all(table.get(producer) is None for table in tables)
    assert {table.floor(producer) for table in tables} == {(producer, 0, 2, True)}
    assert len({(table.next_offset, table.digest) for table in tables}) == 1


def test_a_producer_that_writes_does_not_expire(world: World) -> None:
    producer = world.new_producer()
    for sequence in range(10):
        assert world.produce(batch(producer, sequence)) == (0, NEW)
        world.run(IDLE_MS // 2)
    assert world.produce(batch(producer, 9)) == (0, DUPLICATE)


def test_the_sequence_after_the_floor_brings_a_producer_back(world: World) -> None:
    producer = forgotten(world)
    assert world.produce(batch(producer, 2)) == (0, NEW)
    assert world.produce(batch(producer, 2)) == (0, DUPLICATE)


def test_a_retry_after_expiry_is_not_stored_and_its_id_is_fenced(world: World) -> None:
    producer = forgotten(world)
    assert world.produce(batch(producer, 1)) == REFUSED
    tables = [world.partition(node_id).replica.log.table for node_id in world.nodes]
    world.run()
    assert {table.floor(producer).producer_epoch for table in tables} == {FENCED_EPOCH}  # type: ignore[union-attr]
    assert world.produce(batch(producer, 2)) == REFUSED
    assert world.produce(batch(producer, 0, epoch=1)) == REFUSED


def test_the_refusal_waits_until_the_fence_is_committed(world: World) -> None:
    producer = forgotten(world)
    leader = world.leader()
    for node_id in world.nodes:
        if node_id != leader:
            world.hold_syncs(node_id)
    assert world.produce(batch(producer, 1)) is None
    for node_id in world.nodes:
        if node_id != leader:
            world.release_syncs(node_id)
    world.run()
    assert world.replies
