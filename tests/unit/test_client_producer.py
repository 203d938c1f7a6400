"""The producer against fake brokers over real sockets: lost acks, moved leaders, dead nodes."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.client import (
    BrokerUnavailable,
    BufferFull,
    Delivery,
    Outcome,
    PartlyProduced,
    ProduceError,
    Producer,
    RequestError,
    Verdict,
)
from cluster.errors import OncelogError
from cluster.wire import messages as m
from cluster.wire.schema import Message
from tests.unit.fake_broker import FakeCluster
from tests.unit.ports import freed


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = await FakeCluster(nodes=3).start()
    cluster.create("t", 3)
    yield cluster
    await cluster.close()


async def test_a_record_is_stored_where_the_delivery_says(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap) as producer:
        first = await producer.send("t", b"a", partition=0, timestamp_ms=5)
        second = await producer.send("t", b"b", key=b"k", partition=0, headers=[("h", b"x")])
    assert first == Delivery("t", 0, 0, Verdict.NEW, 5)
    assert (second.offset, second.verdict) == (1, Verdict.NEW)
    stored = cluster.topics["t"][0].records()
    assert [(r.offset, r.key, r.value, r.headers) for r in stored] == [
        (0, None, b"a", ()), (1, b"k", b"b", (("h", b"x"),)),
    ]  # fmt: skip
    assert stored[0].timestamp == 5


async def test_many_submitted_at_once_share_batches_and_keep_their_order(
    cluster: FakeCluster,
) -> None:
    async with Producer(cluster.bootstrap) as producer:
        await producer.partitions("t")
        futures = [producer.submit("t", b"%d" % n, partition=n % 3) for n in range(3_000)]
        deliveries = await asyncio.gather(*futures)
        stats = producer.stats
    assert cluster.produced < 30
    for partition in range(3):
        expected = [b"%d" % n for n in range(3_000) if n % 3 == partition]
        assert cluster.values("t", partition) == expected
        offsets = [d.offset for d in deliveries if d.partition == partition]
        assert offsets == list(range(1_000))
    assert (stats.records, stats.acked, stats.failed, stats.duplicates) == (3_000, 3_000, 0, 0)
    assert stats.longest_gap_ms > 0


async def test_submit_many_tells_where_each_piece_is(cluster: FakeCluster) -> None:
    records = [(b"k", b"%07d" % n) for n in range(5_000)]
    async with Producer(cluster.bootstrap, batch_bytes=8_192) as producer:
        pieces = await producer.submit_many("t", 1, records)
        assert await producer.submit_many("t", 1, []) == []
    assert [piece.start for piece in pieces] == [piece.offset for piece in pieces]
    assert sum(piece.count for piece in pieces) == 5_000
    assert len(pieces) > 5
    assert cluster.values("t", 1) == [value for _, value in records]


async def test_lost_acks_become_duplicates_not_second_records(cluster: FakeCluster) -> None:
    answers = 0

    def every_third(body: Message) -> bool:
        nonlocal answers
        if isinstance(body, m.ProduceRequest):
            answers += 1
        return isinstance(body, m.ProduceRequest) and answers % 3 == 0

    cluster.lose_answer = every_third
    async with Producer(cluster.bootstrap, batch_bytes=512, linger_ms=0) as producer:
        await asyncio.gather(
            *(producer.submit_many("t", p, [(None, b"%d" % n) for n in range(150)])
              for p in range(3))
        )  # fmt: skip
        stats = producer.stats
    for partition in range(3):
        assert cluster.values("t", partition) == [b"%d" % n for n in range(150)]
    assert stats.duplicates > 0
    assert stats.retries >= stats.duplicates
    assert sum(p.lane.duplicates for p in cluster.topics["t"]) >= stats.duplicates


async def test_without_idempotence_lost_acks_store_records_twice(cluster: FakeCluster) -> None:
    lost = iter([True])

    def first(body: Message) -> bool:
        return isinstance(body, m.ProduceRequest) and next(lost, False)

    cluster.lose_answer = first
    async with Producer(
        cluster.bootstrap, idempotent=False, request_timeout_ms=50, linger_ms=0
    ) as producer:
        await producer.send("t", b"once", partition=0)
    assert cluster.values("t", 0) == [b"once", b"once"]


async def test_a_moved_leader_is_found_and_order_kept(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap, batch_bytes=256, linger_ms=0) as producer:
        await producer.send("t", b"first", partition=0)
        cluster.move("t", 0, 2)
        run = producer.submit_many("t", 0, [(None, b"%d" % n) for n in range(100)])
        await run
    assert cluster.values("t", 0) == [b"first", *(b"%d" % n for n in range(100))]


async def test_a_broker_that_vanishes_and_returns_costs_no_record(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap, batch_bytes=256, linger_ms=0) as producer:
        await producer.send("t", b"first", partition=0)
        cluster.stop(1)
        run = producer.submit_many("t", 0, [(None, b"%d" % n) for n in range(100)])
        await freed(cluster.addresses[1])
        cluster.listen(1)
        await run
    assert cluster.values("t", 0) == [b"first", *(b"%d" % n for n in range(100))]


async def test_a_dead_leader_is_left_for_the_new_one(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap, batch_bytes=256, linger_ms=0) as producer:
        await producer.send("t", b"first", partition=0)
        run = producer.submit_many("t", 0, [(None, b"%d" % n) for n in range(100)])
        cluster.stop(1)
        cluster.move("t", 0, 3)
        await run
    assert cluster.values("t", 0) == [b"first", *(b"%d" % n for n in range(100))]


async def test_a_final_refusal_names_code_and_outcome(cluster: FakeCluster) -> None:
    cluster.refuse = lambda body: 87 if isinstance(body, m.ProduceRequest) else 0
    async with Producer(cluster.bootstrap) as producer:
        with pytest.raises(ProduceError, match=r"INVALID_RECORD.*not stored") as caught:
            await producer.send("t", b"a", partition=0)
        with pytest.raises(PartlyProduced) as partly:
            await producer.submit_many("t", 1, [(None, b"a"), (None, b"b")])
        cluster.refuse = lambda body: 0
        assert (await producer.send("t", b"b", partition=0)).offset == 0
    assert caught.value.outcome is Outcome.NOT_STORED
    assert caught.value.code.number == 87
    assert [piece.outcome for piece in partly.value.deliveries] == [Outcome.NOT_STORED]


async def test_what_is_never_answered_is_possibly_stored(cluster: FakeCluster) -> None:
    cluster.lose_answer = lambda body: isinstance(body, m.ProduceRequest)
    async with Producer(
        cluster.bootstrap, request_timeout_ms=30, delivery_timeout_ms=100
    ) as producer:
        with pytest.raises(ProduceError) as caught:
            await producer.send("t", b"a", partition=0)
        cluster.lose_answer = lambda body: False
        delivery = await producer.send("t", b"b", partition=0)
    assert caught.value.outcome is Outcome.POSSIBLY_STORED
    assert cluster.values("t", 0) == [b"a", b"b"]
    assert delivery.offset == 1


async def test_acks_zero_promises_nothing(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap, acks=0, idempotent=False) as producer:
        delivery = await producer.send("t", b"a", partition=0)
    assert (delivery.offset, delivery.verdict) == (-1, Verdict.NONE)


async def test_records_with_a_key_go_where_kafka_sends_them(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap) as producer:
        partitions = {(await producer.send("t", b"v", key=b"21")).partition for _ in range(3)}
    assert partitions == {(-973932308 & 0x7FFFFFFF) % 3}


async def test_records_without_a_key_reach_every_partition(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap, batch_bytes=256) as producer:
        deliveries = await asyncio.gather(*(producer.send("t", bytes(50)) for _ in range(40)))
    assert {delivery.partition for delivery in deliveries} == {0, 1, 2}


async def test_a_full_buffer_refuses_submit_and_holds_send_until_there_is_room(
    cluster: FakeCluster,
) -> None:
    async with Producer(cluster.bootstrap, buffer_bytes=1_000) as producer:
        await producer.partitions("t")
        producer.submit("t", bytes(2_000), partition=0)
        with pytest.raises(BufferFull):
            producer.submit("t", b"x", partition=0)
        with pytest.raises(BufferFull):
            producer.submit_many("t", 0, [(None, b"x")])
        assert (await producer.send("t", b"later", partition=0)).offset == 1


async def test_a_record_no_batch_can_hold_is_refused_at_once(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap) as producer:
        with pytest.raises(ProduceError, match=r"MESSAGE_TOO_LARGE.*not stored"):
            await producer.send("t", bytes(1_048_588), partition=0)
        with pytest.raises(ProduceError, match="MESSAGE_TOO_LARGE"):
            producer.submit_many("t", 0, [(None, b"fine"), (bytes(1_048_588), None)])
    assert cluster.values("t", 0) == []


async def test_an_unknown_topic_or_partition_is_refused(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap) as producer:
        with pytest.raises(RequestError, match="UNKNOWN_TOPIC_OR_PARTITION: nope"):
            await producer.send("nope", b"a")
        with pytest.raises(RequestError, match="t has 3 partitions"):
            await producer.send("t", b"a", partition=3)
        with pytest.raises(OncelogError, match=r"await producer\.partitions"):
            producer.submit("nope", b"a")


async def test_a_producer_id_is_asked_for_until_there_is_one(cluster: FakeCluster) -> None:
    refusals = iter([14, 14])
    cluster.refuse = lambda body: (
        next(refusals, 0) if isinstance(body, m.InitProducerIdRequest) else 0
    )
    async with Producer(cluster.bootstrap) as producer:
        assert (await producer.send("t", b"a", partition=0)).offset == 0


async def test_leaving_with_an_exception_abandons_what_is_under_way(cluster: FakeCluster) -> None:
    cluster.lose_answer = lambda body: isinstance(body, m.ProduceRequest)
    with pytest.raises(KeyError):
        async with Producer(cluster.bootstrap, linger_ms=0) as producer:
            await producer.partitions("t")
            future = producer.submit("t", b"a", partition=0)
            raise KeyError
    with pytest.raises(ProduceError):
        await future
    with pytest.raises(OncelogError, match="closed"):
        producer.submit("t", b"a", partition=0)


async def test_a_cancelled_send_leaves_the_producer_working(cluster: FakeCluster) -> None:
    async with Producer(cluster.bootstrap) as producer:
        await producer.partitions("t")
        producer.submit("t", b"a", partition=0).cancel()
        assert (await producer.send("t", b"b", partition=0)).offset == 1


def test_the_client_runs_on_any_event_loop() -> None:
    async def exchange() -> int:
        cluster = await FakeCluster().start()
        cluster.create("t")
        async with Producer(cluster.bootstrap) as producer:
            await asyncio.gather(*(producer.send("t", b"%d" % n) for n in range(50)))
        await cluster.close()
        return len(cluster.values("t"))

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        assert runner.run(exchange()) == 50


async def test_no_broker_at_all_is_said_clearly() -> None:
    cluster = await FakeCluster().start()
    address = cluster.addresses[1]
    await cluster.close()
    producer = Producer([address])
    producer._session.patience_ms = 50
    with pytest.raises(BrokerUnavailable, match=f"no broker answers at {address}"):
        await producer.start()


@pytest.mark.parametrize("bootstrap", ["", "host", "host:", ":5", "host:99999", "a:1,b"])
def test_a_malformed_bootstrap_is_refused(bootstrap: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        Producer(bootstrap)
