"""A running cluster for a test, and a load whose every record is accounted for afterwards."""

from __future__ import annotations

import asyncio
import os
import socket
import urllib.request
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path

from cluster.client import Admin, Consumer, Delivery, Producer
from cluster.testing.layout import Settings, prepare
from cluster.testing.local import LocalCluster

TOPIC = "ledger"
PARTITIONS = 6
WITHIN_S = 60


@asynccontextmanager
async def cluster(
    directory: Path, *, brokers: int = 3, base_port: int = 0
) -> AsyncIterator[LocalCluster]:
    """Brokers on free ports that may be broken on purpose."""
    homes = prepare(directory, Settings(brokers=brokers, base_port=base_port, allow_faults=True))
    async with LocalCluster(directory, homes) as running:
        yield running


def free_base_port() -> int:
    """For brokers that must be found again where they were, below what the system hands out."""
    for base in range(20_000 + os.getpid() % 9_000, 30_000, 7):
        with ExitStack() as bound, suppress(OSError):
            for port in (base + step + n for step in (0, 100, 200) for n in range(3)):
                bound.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return base
    raise AssertionError("no free ports")


async def create(running: LocalCluster, *, replicas: int = 3, partitions: int = PARTITIONS) -> None:
    async with Admin(running.bootstrap) as admin:
        await admin.create_topic(TOPIC, partitions=partitions, replicas=replicas)


async def leader_of(running: LocalCluster, partition: int = 0) -> int:
    async with Admin(running.bootstrap) as admin:
        return (await admin.describe_topic(TOPIC)).partitions[partition].leader


async def in_sync(running: LocalCluster, partition: int = 0) -> set[int]:
    async with Admin(running.bootstrap) as admin:
        return set((await admin.describe_topic(TOPIC)).partitions[partition].in_sync)


async def until_in_sync(running: LocalCluster, members: int) -> None:
    async with asyncio.timeout(WITHIN_S):
        while len(await in_sync(running)) != members:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def until(claim: Callable[[], bool]) -> None:
    """Wait for what nothing announces."""
    async with asyncio.timeout(WITHIN_S):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class Load:
    """Records numbered per partition, sent until told to stop: `async with Load(...) as load`."""

    def __init__(self, running: LocalCluster, *, partitions: int = PARTITIONS, size: int = 0):
        self.sent = [0] * partitions
        self.failures: list[BaseException] = []
        self.acked = 0
        self._padding = b"." * size
        self._producer = Producer(running.bootstrap, linger_ms=1, request_timeout_ms=500)
        self._stopping = False

    async def __aenter__(self) -> Load:
        await self._producer.start()
        await self._producer.partitions(TOPIC)
        self._task = asyncio.create_task(self._send())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stopping = True
        await self._task
        await self._producer.close(abandon=kind is not None)

    @property
    def duplicates(self) -> int:
        return self._producer.stats.duplicates

    async def more(self, records: int = 600) -> None:
        """Wait until this many more records are acknowledged."""
        wanted = self.acked + records
        await until(lambda: self.acked >= wanted or bool(self.failures))
        assert not self.failures

    async def _send(self) -> None:
        while not self._stopping:
            await self._producer.ready()
            for partition, number in enumerate(self.sent):
                value = value_of(partition, number) + self._padding
                future = self._producer.submit(TOPIC, value, partition=partition)
                future.add_done_callback(self._done)
                self.sent[partition] += 1
            await asyncio.sleep(0.002)

    def _done(self, future: asyncio.Future[Delivery]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None:
            self.failures.append(error)
        self.acked += 1


def value_of(partition: int, number: int) -> bytes:
    return b"%d:%d:" % (partition, number)


async def stored(running: LocalCluster) -> dict[int, list[bytes]]:
    """Every record of the topic, by partition, without what pads it."""
    found: dict[int, list[bytes]] = defaultdict(list)
    async with asyncio.timeout(WITHIN_S), Consumer(running.bootstrap) as consumer:
        partitions = await consumer.partitions(TOPIC)
        consumer.assign(dict.fromkeys(partitions, 0))
        ends = await consumer.end_offsets(partitions)
        while any(consumer.position(where) < ends[where] for where in partitions):
            for fetched in await consumer.poll(1_000):
                values = [record.value or b"" for record in fetched.records]
                found[fetched.partition] += [value.rstrip(b".") for value in values]
    return found


async def assert_exact(running: LocalCluster, load: Load) -> None:
    """Each record sent is stored once, in order, and nothing else is."""
    assert not load.failures, load.failures[:3]
    found = await stored(running)
    for partition, count in enumerate(load.sent):
        wanted = [value_of(partition, number) for number in range(count)]
        if found[partition] != wanted:
            lost = sorted(set(wanted) - set(found[partition]))
            twice = len(found[partition]) - len(set(found[partition]))
            raise AssertionError(
                f"partition {partition}: {count} sent, {len(found[partition])} stored, "
                f"{len(lost)} lost {lost[:3]}, {twice} twice, "
                f"in order {found[partition] == sorted(found[partition], key=wanted.index)}"
            )


async def scraped(running: LocalCluster, name: str) -> float:
    """A metric, summed over its series and the brokers that run."""
    pages = [await asyncio.to_thread(_get, member.metrics) for member in running.members()]
    lines = [line for page in pages for line in page.splitlines()]
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith((f"{name}{{", f"{name} "))
    )


async def until_scraped(running: LocalCluster, name: str, least: float) -> None:
    async with asyncio.timeout(WITHIN_S):
        while await scraped(running, name) < least:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


def _get(url: str | None) -> str:
    assert url is not None
    with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
        body: bytes = answer.read()
        return body.decode()
