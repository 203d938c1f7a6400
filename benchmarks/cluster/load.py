"""The loads of this package: records through the native client, acknowledged by all replicas.

`settle_many` sends full batches as fast as the buffer allows; `settle_singles` one record per
request, as many requests under way as the producers' windows allow.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from benchmarks.cluster.brokers import BROKERS, PARTITIONS
from cluster.client import Admin, Delivery, Producer
from cluster.testing.local import LocalCluster

BLOCK_RECORDS = 1_000  # records given to the client in one call
SINGLES_PER_LOOK = 100  # records of one producer between looks at what it has under way


async def create_topic(cluster: LocalCluster, name: str, *, flush: str) -> None:
    """A topic of six partitions, three replicas, two in sync at least."""
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic(
            name,
            partitions=PARTITIONS,
            replicas=BROKERS,
            config={"min.insync.replicas": "2", "flush": flush},
        )


async def settle_many(
    cluster: LocalCluster, topic: str, records: int, size: int, *, batch_bytes: int = 65_536
) -> float:
    """Seconds until `records` records with values of `size` bytes are acknowledged."""
    block = [(None, bytes(size))] * BLOCK_RECORDS
    async with Producer(cluster.bootstrap, batch_bytes=batch_bytes) as producer:
        await producer.partitions(topic)
        began = time.monotonic()
        futures = []
        for number in range(0, records, BLOCK_RECORDS):
            await producer.ready()
            partition = number // BLOCK_RECORDS % PARTITIONS
            futures.append(producer.submit_many(topic, partition, block[: records - number]))
        await asyncio.gather(*futures)
        return time.monotonic() - began


async def settle_singles(
    cluster: LocalCluster, topic: str, records: int, size: int, *, producers: int
) -> float:
    """Seconds until `records` records, one in each request, are acknowledged."""
    async with AsyncExitStack() as stack:
        opened = [
            # One byte is less than any batch, so each takes one record and is closed at once.
            await stack.enter_async_context(Producer(cluster.bootstrap, linger_ms=0, batch_bytes=1))
            for _ in range(producers)
        ]
        for producer in opened:
            await producer.partitions(topic)
        began = time.monotonic()
        share = records // producers
        await asyncio.gather(*(_send_singles(one, topic, share, bytes(size)) for one in opened))
        return time.monotonic() - began


async def _send_singles(producer: Producer, topic: str, records: int, value: bytes) -> None:
    under_way: Sequence[asyncio.Future[Delivery]] = ()
    for start in range(0, records, SINGLES_PER_LOOK):
        futures = [
            producer.submit(topic, value, partition=number % PARTITIONS)
            for number in range(start, min(start + SINGLES_PER_LOOK, records))
        ]
        await asyncio.gather(*under_way)  # the block before: this one is being sent meanwhile
        under_way = futures
    await asyncio.gather(*under_way)
