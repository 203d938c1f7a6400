"""Offsets by time and by epoch, and reading from the middle of a batch."""

from __future__ import annotations

import pytest

from _fastseq.batch import encode_batch
from cluster import errors
from cluster.core.queries import EARLIEST, LATEST, MAX_TIMESTAMP
from cluster.wire import messages
from cluster.wire.records import read_records
from tests.unit.core_world import TOPIC, World, ready

NOTHING = (0, -1, -1)


@pytest.fixture
def world() -> World:
    """Offsets 0 to 5 in two batches; record n is of time 100 + 10 n, but the last is of 105."""
    made = ready()
    for times in ((100, 110, 120), (130, 140, 105)):
        rows = [(None, b"v", time, ()) for time in times]
        data = encode_batch(rows, producer_id=-1, producer_epoch=-1, base_sequence=-1)
        assert made.produce(data) == (0, 1)
    return made


def offset(world: World, timestamp: int, *, version: int = 7, epoch: int = -1) -> tuple[int, ...]:
    """(error, offset, timestamp) that the leader tells."""
    part = messages.ListOffsetsPartition(0, epoch, timestamp)
    body = messages.ListOffsetsRequest(-1, 0, [messages.ListOffsetsTopic(TOPIC, [part])])
    (answer,) = world.ask(world.leader(), body, version=version)
    assert isinstance(answer, messages.ListOffsetsResponse)
    found = answer.topics[0].partitions[0]
    return found.error_code, found.offset, found.timestamp


def test_special_timestamps_stand_for_start_end_and_newest(world: World) -> None:
    assert offset(world, EARLIEST) == (0, 0, -1)
    assert offset(world, LATEST) == (0, 6, -1)
    assert offset(world, MAX_TIMESTAMP) == (0, 4, 140)


def test_first_record_that_is_not_older_is_found_with_its_time(world: World) -> None:
    assert offset(world, 0) == (0, 0, 100)
    assert offset(world, 111) == (0, 2, 120)
    assert offset(world, 121) == (0, 3, 130)
    assert offset(world, 141) == NOTHING


def test_special_timestamps_of_later_versions_are_refused(world: World) -> None:
    unsupported = errors.UNSUPPORTED_VERSION.number
    assert offset(world, MAX_TIMESTAMP, version=6)[0] == unsupported
    assert offset(world, -4)[0] == unsupported


def test_epoch_of_the_question_tells_who_knows_less(world: World) -> None:
    epoch = world.record().leader_epoch
    assert offset(world, LATEST, epoch=epoch)[0] == 0
    assert offset(world, LATEST, epoch=epoch + 1)[0] == errors.UNKNOWN_LEADER_EPOCH.number
    world.kill(world.leader())
    world.run(3_000)
    assert offset(world, LATEST, epoch=epoch)[0] == errors.FENCED_LEADER_EPOCH.number


def test_epochs_end_where_the_next_begins(world: World) -> None:
    first = world.record().leader_epoch
    world.kill(world.leader())
    world.run(3_000)
    data = encode_batch([(None, b"v", 1, ())], producer_id=-1, producer_epoch=-1, base_sequence=-1)
    assert world.produce(data) == (0, 1)
    second = world.record().leader_epoch
    for epoch, end in ((first, 6), (second, 7)):
        part = messages.OffsetForLeaderPartition(0, second, epoch)
        topics = [messages.OffsetForLeaderTopic(TOPIC, [part])]
        body = messages.OffsetForLeaderEpochRequest(topics=topics)
        (answer,) = world.ask(world.leader(), body)
        assert isinstance(answer, messages.OffsetForLeaderEpochResponse)
        found = answer.topics[0].partitions[0]
        assert (found.error_code, found.leader_epoch, found.end_offset) == (0, epoch, end)


def test_offset_inside_a_batch_brings_the_whole_batch(world: World) -> None:
    part = messages.FetchPartition(partition=0, fetch_offset=4, partition_max_bytes=1 << 20)
    topics = [messages.FetchTopic(topic=TOPIC, partitions=[part])]
    (answer,) = world.ask(world.leader(), messages.FetchRequest(topics=topics))
    assert isinstance(answer, messages.FetchResponse)
    found = answer.responses[0].partitions[0]
    assert found.records is not None
    assert [record.offset for record in read_records(bytes(found.records))] == [3, 4, 5]
