"""Consumer groups of the native client against real brokers: sharing, resuming, failing over."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.client import Admin, Consumer, GroupOptions, Policy, Producer
from cluster.client.offsets import TopicPartition
from cluster.errors import RequestError
from cluster.testing.local import LocalCluster
from tests.integration.running import TOPIC, WITHIN_S, cluster, create

EXAMPLE = Path(__file__).parents[2] / "examples" / "exactly_once_sqlite.py"
OPTIONS = GroupOptions("g", session_timeout_ms=3_000, heartbeat_ms=100)
Seen = Counter[tuple[int, bytes | None]]


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[LocalCluster]:
    async with cluster(tmp_path) as brokers:
        await create(brokers)
        yield brokers


async def produce(running: LocalCluster, first: int, count: int, topic: str = TOPIC) -> None:
    async with Producer(running.bootstrap) as producer:
        await producer.partitions(topic)
        for number in range(first, first + count):
            producer.submit(topic, b"%d" % number, key=b"%d" % number)
        await producer.flush()


async def read(consumer: Consumer, seen: Seen, count: int) -> None:
    """Poll until so many records have been seen in all."""
    async with asyncio.timeout(WITHIN_S):
        while seen.total() < count:
            for fetched in await consumer.poll(100):
                seen.update((fetched.partition, record.value) for record in fetched.records)


async def test_next_member_goes_on_where_the_last_one_left_off(running: LocalCluster) -> None:
    await produce(running, 0, 100)
    seen: Seen = Counter()
    async with Consumer(running.bootstrap) as consumer:
        consumer.subscribe([TOPIC], group=OPTIONS)
        await read(consumer, seen, 100)
        await consumer.commit()
        assert sum((await consumer.committed(consumer.positions)).values()) == 100
    await produce(running, 100, 20)
    async with Consumer(running.bootstrap) as consumer:
        consumer.subscribe([TOPIC], group=OPTIONS)
        await read(consumer, seen, 120)
    assert len(seen) == 120
    assert set(seen.values()) == {1}


async def test_two_members_share_the_partitions_and_one_takes_over(running: LocalCluster) -> None:
    told: list[tuple[str, list[TopicPartition]]] = []
    policy = Policy(
        on_assigned=lambda places: told.append(("assigned", list(places))),
        on_revoked=lambda places: told.append(("revoked", list(places))),
    )
    async with Consumer(running.bootstrap) as first:
        first.subscribe([TOPIC], group=OPTIONS, policy=policy)
        async with asyncio.timeout(WITHIN_S):
            while len(first.positions) < 6:
                await first.poll(100)
            async with Consumer(running.bootstrap) as second:
                second.subscribe([TOPIC], group=OPTIONS)
                while not (len(first.positions) == len(second.positions) == 3):
                    await asyncio.gather(first.poll(50), second.poll(50))
                assert not set(first.positions) & set(second.positions)
            while len(first.positions) < 6:
                await first.poll(100)
    sizes = [(what, len(places)) for what, places in told]
    assert sizes[:5] == [
        ("assigned", 6), ("revoked", 6), ("assigned", 3), ("revoked", 3), ("assigned", 6),
    ]  # fmt: skip


async def test_killed_coordinator_costs_neither_offsets_nor_membership(
    running: LocalCluster,
) -> None:
    await produce(running, 0, 50)
    seen: Seen = Counter()
    async with Consumer(running.bootstrap) as consumer:
        consumer.subscribe([TOPIC], group=OPTIONS, policy=Policy(auto_commit_ms=None))
        await read(consumer, seen, 50)
        await consumer.commit()
        positions = consumer.positions
        membership = consumer._subscribed().membership
        generation = membership.generation
        await running.kill(membership.coordinator.node_id)
        await produce(running, 50, 50)
        await read(consumer, seen, 100)
        assert (await consumer.committed(positions)) == positions
        await consumer.commit()
        assert membership.generation == generation
    assert set(seen.values()) == {1}


async def test_replaced_member_cannot_commit(running: LocalCluster) -> None:
    await produce(running, 0, 10)
    async with (
        Consumer(running.bootstrap) as frozen, Consumer(running.bootstrap) as other,
    ):  # fmt: skip
        frozen.subscribe([TOPIC], group=OPTIONS)
        seen: Seen = Counter()
        await read(frozen, seen, 10)
        beats = frozen._subscribed().membership._beats
        assert beats is not None
        beats.cancel()  # the process stands still for longer than its session
        other.subscribe([TOPIC], group=OPTIONS)
        async with asyncio.timeout(WITHIN_S):
            while len(other.positions) < 6:
                await other.poll(100)
        with pytest.raises(RequestError, match="UNKNOWN_MEMBER_ID"):
            await frozen.commit()


async def balances(running: LocalCluster, database: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), str(database), *running.bootstrap,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])},
    )  # fmt: skip


def booked(database: Path) -> int:
    try:
        with sqlite3.connect(database) as connection:
            return int(connection.execute("SELECT transfers FROM counted").fetchone()[0])
    except (sqlite3.Error, TypeError):
        return 0


async def test_killed_in_the_middle_every_transfer_is_booked_once(
    running: LocalCluster, tmp_path: Path
) -> None:
    transfers, database = 3_000, tmp_path / "balances.db"
    async with Producer(running.bootstrap) as producer:
        producer_topic = "transfers"
        await create_topic(running, producer_topic)
        await producer.partitions(producer_topic)
        for number in range(transfers):
            await producer.ready()
            value = b'{"account": "a%d", "counter_account": "b", "amount_cents": 1}' % (number % 7)
            producer.submit(producer_topic, value, key=b"%d" % number)
            if number % 100 == 0:  # many small batches: many transactions to be killed in
                await producer.flush()
        await producer.flush()
    kills = 0
    while kills < 3:
        process = await balances(running, database)
        before = booked(database)
        async with asyncio.timeout(WITHIN_S):
            while booked(database) == before and process.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.002)
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
        kills += 1
    process = await balances(running, database)
    async with asyncio.timeout(WITHIN_S):
        output, _ = await process.communicate()
    assert output == b"%d transfers booked, all balances together 0 cents\n" % transfers
    with sqlite3.connect(database) as connection:
        (cents,) = connection.execute("SELECT cents FROM balances WHERE account = 'b'").fetchone()
    assert cents == transfers


async def create_topic(running: LocalCluster, name: str) -> None:
    async with Admin(running.bootstrap) as admin:
        await admin.create_topic(name, partitions=3)


async def oncelog(running: LocalCluster, *words: str) -> tuple[int | None, str]:
    """(exit status, output) of the command, asked of this cluster."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cluster.cli", "group", *words,
        "--bootstrap", ",".join(running.bootstrap),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=EXAMPLE.parents[1],
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_command_shows_moves_and_deletes_a_group(running: LocalCluster) -> None:
    await produce(running, 0, 60)
    async with Consumer(running.bootstrap) as consumer:
        consumer.subscribe([TOPIC], group=OPTIONS)
        await read(consumer, Counter(), 60)
        await consumer.commit()
        status, output = await oncelog(running, "describe", "g")
        assert (status, output.split(",")[0]) == (0, "g: Stable")
        assert f"{TOPIC}-0 {TOPIC}-1" in output
        assert (await oncelog(running, "delete", "g"))[0] == 1
    status, output = await oncelog(running, "list")
    assert (status, output.split("  ")[:2]) == (0, ["g", "Empty"])
    status, output = await oncelog(running, "offsets", "g")
    assert output.count("  lag 0\n") == 6
    status, output = await oncelog(running, "offsets", "g", "--to", "earliest")
    assert output.count("committed 0") == 6
    assert (await oncelog(running, "delete", "g")) == (0, "group g deleted\n")
    status, output = await oncelog(running, "describe", "g")
    assert (status, "GROUP_ID_NOT_FOUND" in output) == (1, True)
