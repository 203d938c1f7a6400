"""Fetches: what is read, what is parked, and when a parked one is answered."""

from __future__ import annotations

import pytest

from _fastseq.batch import encode_batch
from _fastseq.crc32c import crc32c
from cluster import errors
from cluster.core import fetch as fetching
from cluster.limits import BATCH_BYTES_MAX
from cluster.storage.budget import Budget
from cluster.wire import messages
from cluster.wire.records import read_records
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


# -- what is not in memory ------------------------------------------------------------------------


@pytest.fixture
def cold(world: World) -> World:
    """Twenty committed batches, none of them in memory or in the page cache of any broker."""
    for sequence in range(20):
        assert world.produce(batch(-1, -1, b"%d" % sequence * 200), wait_ms=20) == (0, 1)
    for node_id in world.nodes:
        world.partition(node_id).replica.log.share(Budget(0))
        world.disks[node_id].cold = 1.0
    return world


def values(part: messages.PartitionData) -> list[bytes]:
    return [record.value or b"" for record in read_records(memoryview(part.records or b""))]


def test_a_cold_fetch_is_answered_when_the_disk_has_been_read(cold: World) -> None:
    (part,) = fetched(cold, wish(7, part_bytes=600))
    assert part.error_code == 0
    assert values(part)[0] == b"7" * 200
    reads = cold.nodes[cold.leader()]._around.reads
    assert reads.count > 0
    assert (reads.pending, reads.bytes) == (0, 0)


def test_a_cold_fetch_waits_for_the_disk_and_not_for_its_own_time(cold: World) -> None:
    leader = cold.leader()
    cold.hold_reads(leader)
    assert fetched(cold, wish(7, wait_ms=20), wait_ms=200) == []
    assert cold.nodes[leader].requests.fetches.reading == 1
    cold.release_reads(leader)
    cold.run(10)
    assert len(cold.replies) == 1
    assert cold.nodes[leader].requests.fetches.reading == 0


def test_a_read_that_fails_is_a_storage_error_of_its_partition(cold: World) -> None:
    leader = cold.leader()
    cold.hold_reads(leader)
    assert fetched(cold, wish(7)) == []
    (answer,) = cold.fail_reads(leader)
    assert isinstance(answer, messages.FetchResponse)
    assert answer.responses[0].partitions[0].error_code == errors.KAFKA_STORAGE_ERROR.number


def test_a_leader_that_is_gone_when_the_disk_was_read_says_so(cold: World) -> None:
    leader = cold.leader()
    cold.hold_reads(leader)
    assert fetched(cold, wish(7)) == []
    cold.nodes[leader].replicas.find(TOPIC, 0).rest("gone")  # type: ignore[union-attr]
    cold.release_reads(leader)
    cold.run(10)
    (frame,) = cold.replies
    assert errors.NOT_LEADER_OR_FOLLOWER.number.to_bytes(2) in frame


def test_a_cold_partition_keeps_no_other_from_the_answer(cold: World) -> None:
    request = wish(7, times=2, part_bytes=600)
    request.topics[0].partitions[1] = messages.FetchPartition(
        partition=0, fetch_offset=20, partition_max_bytes=600
    )
    first, second = fetched(cold, request)
    assert (bool(first.records), bool(second.records)) == (True, False)


def test_a_follower_behind_is_read_for_off_the_loop(cold: World) -> None:
    leader = cold.leader()
    lagging = next(node_id for node_id in cold.nodes if node_id != leader)
    cold.kill(lagging)
    cold.run(3_000)
    for sequence in range(20, 40):
        cold.produce(batch(-1, -1, b"%d" % sequence * 200), wait_ms=20)
    cold.start(lagging)
    cold.run(3_000)
    assert cold.partition(lagging).replica.log.next_offset == 40
    assert cold.nodes[leader]._around.reads.count > 0


def test_a_read_that_fails_keeps_a_follower_behind_until_it_is_tried_again(cold: World) -> None:
    leader = cold.leader()
    lagging = next(node_id for node_id in cold.nodes if node_id != leader)
    cold.kill(lagging)
    cold.run(3_000)
    cold.produce(batch(-1, -1, b"more"), wait_ms=20)
    cold.hold_reads(leader)
    cold.start(lagging)
    cold.run(2_000)
    cold.fail_reads(leader)
    cold.run(3_000)
    assert cold.partition(lagging).replica.log.next_offset == 21


# -- what parks and what does not -----------------------------------------------------------------


def test_a_parked_fetch_is_answered_at_once_when_its_leader_is_gone(world: World) -> None:
    leader = world.leader()
    assert fetched(world, wish(wait_ms=5_000)) == []
    world.kill(next(node_id for node_id in world.nodes if node_id != leader))
    world.lose_session(leader)
    world.run(2_000)
    assert parked(world) == 0
    (frame,) = world.replies
    assert errors.NOT_LEADER_OR_FOLLOWER.number.to_bytes(2) in frame


def test_a_fetch_of_nothing_is_answered_at_once(world: World) -> None:
    request = messages.FetchRequest(max_wait_ms=5_000, min_bytes=1)
    assert len(world.ask(world.leader(), request, wait_ms=20)) == 1


def test_a_session_that_nobody_made_is_refused_at_the_top(world: World) -> None:
    request = messages.FetchRequest(session_id=7, session_epoch=3, topics=wish().topics)
    (answer,) = world.ask(world.leader(), request, wait_ms=20)
    assert isinstance(answer, messages.FetchResponse)
    assert answer.error_code == errors.FETCH_SESSION_ID_NOT_FOUND.number
    assert answer.responses == []


def test_one_error_answers_a_fetch_at_once_with_all_its_partitions(world: World) -> None:
    request = wish(wait_ms=5_000, times=2)
    request.topics.append(wish(topic="other").topics[0])
    parts = fetched(world, request)
    unknown = errors.UNKNOWN_TOPIC_OR_PARTITION.number
    assert [part.error_code for part in parts] == [0, 0, unknown]
    assert [part.records for part in parts] == [b"", b"", b""]


def test_zstd_is_refused_to_those_who_cannot_read_it(world: World) -> None:
    rows = [(None, b"v" * 300, 5, ())]
    plain = encode_batch(rows, producer_id=-1, producer_epoch=-1, base_sequence=-1)
    zstd = plain[:21] + (4).to_bytes(2) + plain[23:]
    zstd = zstd[:17] + crc32c(zstd[21:]).to_bytes(4) + zstd[21:]
    assert world.produce(zstd) == (0, 1)
    for version, code in ((9, errors.UNSUPPORTED_COMPRESSION_TYPE.number), (10, 0)):
        (answer,) = world.ask(world.leader(), wish(), version=version, wait_ms=20)
        assert isinstance(answer, messages.FetchResponse)
        assert answer.responses[0].partitions[0].error_code == code


@pytest.mark.parametrize("version", range(4, 13))
def test_an_answer_of_every_version_can_be_read(world: World, version: int) -> None:
    world.produce(batch(-1, -1, b"x" * 5_000))
    (answer,) = world.ask(world.leader(), wish(times=2), version=version, wait_ms=20)
    assert isinstance(answer, messages.FetchResponse)
    first, second = answer.responses[0].partitions
    assert (first.high_watermark, first.last_stable_offset) == (1, 1)
    assert first.preferred_read_replica == -1
    assert first.records is not None
    assert len(first.records) > 5_000
    assert second.records is not None
