"""The consumer against fake brokers: every committed record once, in order, from any offset."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from _fastseq.batch import Record, encode_batch
from cluster.client import BrokerUnavailable, Consumer, Fetched, RequestError
from cluster.wire import messages as m
from tests.unit.fake_broker import FakeCluster


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = await FakeCluster(nodes=2).start()
    cluster.create("t", 3)
    yield cluster
    await cluster.close()


def fill(cluster: FakeCluster, partition: int, *values: bytes, timestamp: int = 1) -> None:
    """Appends the values as one batch."""
    records = [(None, value, timestamp + n, ()) for n, value in enumerate(values)]
    cluster.topics["t"][partition].append(encode_batch(records))


def flat(fetched: list[Fetched]) -> list[tuple[int, int, bytes | None]]:
    return [(one.partition, r.offset, r.value) for one in fetched for r in one.records]


async def read(consumer: Consumer, count: int) -> list[tuple[int, int, bytes | None]]:
    found: list[tuple[int, int, bytes | None]] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += flat(await consumer.poll())
    return sorted(found)


async def test_records_come_from_every_partition_in_order(cluster: FakeCluster) -> None:
    for n in range(30):
        fill(cluster, n % 3, b"a%d" % n, b"b%d" % n)
    async with Consumer(cluster.bootstrap) as consumer:
        partitions = await consumer.partitions("t")
        consumer.assign(dict.fromkeys(partitions, 0))
        found = await read(consumer, 60)
        positions = [consumer.position(where) for where in partitions]
        ends = [consumer.high_watermark(where) for where in partitions]
    for partition in range(3):
        mine = [(offset, value) for p, offset, value in found if p == partition]
        stored = cluster.topics["t"][partition].records()
        assert mine == [(r.offset, r.value) for r in stored]
    assert positions == ends == [20, 20, 20]


async def test_reading_begins_inside_a_batch(cluster: FakeCluster) -> None:
    fill(cluster, 0, b"0", b"1", b"2")
    fill(cluster, 0, b"3")
    async with Consumer(cluster.bootstrap) as consumer:
        consumer.assign({("t", 0): 2})
        assert await read(consumer, 2) == [(0, 2, b"2"), (0, 3, b"3")]


async def test_records_carry_key_timestamp_and_headers(cluster: FakeCluster) -> None:
    batch = encode_batch([(b"k", None, 42, (("h", b"v"), ("n", None)))])
    cluster.topics["t"][1].append(batch)
    async with Consumer(cluster.bootstrap) as consumer:
        consumer.assign({("t", 1): 0})
        (fetched,) = await consumer.poll()
    assert (fetched.topic, fetched.partition, fetched.high_watermark) == ("t", 1, 1)
    assert fetched.records == [Record(0, 42, b"k", None, (("h", b"v"), ("n", None)))]


async def test_poll_waits_for_records_that_come_later(cluster: FakeCluster) -> None:
    async with Consumer(cluster.bootstrap, max_wait_ms=5_000) as consumer:
        consumer.assign({("t", 0): 0})
        polling = asyncio.get_running_loop().create_task(consumer.poll())
        while not cluster._parked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        fill(cluster, 0, b"late")
        assert flat(await polling) == [(0, 0, b"late")]


async def test_an_empty_poll_ends_in_time(cluster: FakeCluster) -> None:
    async with Consumer(cluster.bootstrap) as consumer:
        consumer.assign({("t", 0): 0})
        assert await consumer.poll(timeout_ms=30) == []
        assert await consumer.poll(timeout_ms=0) == []
        fill(cluster, 0, b"x")
        assert await read(consumer, 1) == [(0, 0, b"x")]


async def test_small_bounds_still_bring_whole_batches(cluster: FakeCluster) -> None:
    for n in range(20):
        fill(cluster, 0, bytes(100), b"%d" % n)
    async with Consumer(cluster.bootstrap, max_bytes=10, partition_max_bytes=10) as consumer:
        consumer.assign({("t", 0): 0})
        found = await read(consumer, 40)
    assert [offset for _, offset, _ in found] == list(range(40))


async def test_a_moved_leader_is_followed(cluster: FakeCluster) -> None:
    fill(cluster, 0, b"a")
    async with Consumer(cluster.bootstrap, max_wait_ms=100) as consumer:
        consumer.assign({("t", 0): 0})
        assert await read(consumer, 1) == [(0, 0, b"a")]
        cluster.move("t", 0, 2)
        fill(cluster, 0, b"b")
        assert await read(consumer, 1) == [(0, 1, b"b")]


async def test_a_dead_leader_is_left_for_the_new_one(cluster: FakeCluster) -> None:
    fill(cluster, 0, b"a")
    async with Consumer(cluster.bootstrap, max_wait_ms=100) as consumer:
        consumer.assign({("t", 0): 0})
        assert await read(consumer, 1) == [(0, 0, b"a")]
        cluster.stop(1)
        cluster.move("t", 0, 2)
        fill(cluster, 0, b"b")
        assert await read(consumer, 1) == [(0, 1, b"b")]


async def test_an_offset_outside_the_log_raises_and_a_new_one_goes_on(
    cluster: FakeCluster,
) -> None:
    fill(cluster, 0, b"a")
    async with Consumer(cluster.bootstrap) as consumer:
        consumer.assign({("t", 0): 77})
        with pytest.raises(RequestError, match="OFFSET_OUT_OF_RANGE: t-0"):
            await read(consumer, 1)
        consumer.assign({("t", 0): 0})
        assert await read(consumer, 1) == [(0, 0, b"a")]


async def test_bytes_with_a_wrong_checksum_raise_and_are_not_skipped(
    cluster: FakeCluster,
) -> None:
    fill(cluster, 0, b"good")
    cluster.topics["t"][0].log[-2] ^= 1
    async with Consumer(cluster.bootstrap) as consumer:
        consumer.assign({("t", 0): 0})
        with pytest.raises(RequestError, match="CORRUPT_MESSAGE"):
            await read(consumer, 1)
        assert consumer.position(("t", 0)) == 0
        cluster.topics["t"][0].log[-2] ^= 1
        assert await read(consumer, 1) == [(0, 0, b"good")]


async def test_an_answer_for_a_position_left_behind_is_dropped(cluster: FakeCluster) -> None:
    async with Consumer(cluster.bootstrap, max_wait_ms=5_000) as consumer:
        await consumer.partitions("t")
        consumer.assign({("t", 0): 0})
        await consumer.poll(timeout_ms=0)
        while not cluster._parked:  # noqa: ASYNC110
            await asyncio.sleep(0)
        consumer.assign({("t", 0): 1})
        fill(cluster, 0, b"0", b"1")
        assert await read(consumer, 1) == [(0, 1, b"1")]


async def test_begin_end_and_time_find_offsets(cluster: FakeCluster) -> None:
    fill(cluster, 0, b"a", b"b", timestamp=100)
    fill(cluster, 1, b"a", timestamp=200)
    async with Consumer(cluster.bootstrap) as consumer:
        partitions = await consumer.partitions("t")
        begin = await consumer.begin_offsets(partitions)
        end = await consumer.end_offsets(partitions)
        at = await consumer.offsets_for_time(dict.fromkeys(partitions, 101))
    assert list(begin.values()) == [0, 0, 0]
    assert end == {("t", 0): 2, ("t", 1): 1, ("t", 2): 0}
    assert at == {("t", 0): 1, ("t", 1): 0, ("t", 2): -1}


async def test_offsets_are_asked_again_when_the_leader_has_moved(cluster: FakeCluster) -> None:
    fill(cluster, 0, b"a")
    async with Consumer(cluster.bootstrap) as consumer:
        await consumer.partitions("t")
        cluster.move("t", 0, 2)
        assert await consumer.end_offsets([("t", 0)]) == {("t", 0): 1}


async def test_offsets_of_an_unknown_partition_raise_when_patience_ends(
    cluster: FakeCluster,
) -> None:
    async with Consumer(cluster.bootstrap) as consumer:
        consumer._session.patience_ms = 100
        with pytest.raises(RequestError, match="UNKNOWN_TOPIC_OR_PARTITION"):
            await consumer.end_offsets([("nope", 0)])


async def test_polling_an_unreachable_cluster_says_so(cluster: FakeCluster) -> None:
    async with Consumer(cluster.bootstrap, max_wait_ms=1_000) as consumer:
        consumer._session.patience_ms = 100
        await consumer.partitions("t")
        consumer.assign({("t", 0): 0})
        for node in (1, 2):
            cluster.stop(node)
        with pytest.raises(BrokerUnavailable, match="no broker answers at"):
            for _ in range(5):
                await consumer.poll()


@pytest.mark.parametrize("wrong", [{"max_bytes": 0}, {"partition_max_bytes": 2**31}])
def test_bounds_that_cannot_be_right_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="expected 1 to"):
        Consumer("h:1", **wrong)  # type: ignore[arg-type]


async def test_a_top_level_error_is_retried(cluster: FakeCluster) -> None:
    fill(cluster, 0, b"a")
    answers = iter([m.FetchResponse(error_code=56)])
    real = cluster._fetch
    cluster._fetch = (  # type: ignore[method-assign]
        lambda node, body, last=False: next(answers, None) or real(node, body, last)
    )
    async with Consumer(cluster.bootstrap) as consumer:
        consumer.assign({("t", 0): 0})
        assert await read(consumer, 1) == [(0, 0, b"a")]
