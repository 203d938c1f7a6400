"""What is measured: each measure takes one entrant once and returns one figure by name.

An entrant is a system with the configuration of its topics: Apache Kafka, which hands a record to
the operating system before it is acknowledged, and ours with flush=os, which does the same, and
with flush=batch, our default, which syncs it first.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from benchmarks.cluster.brokers import PARTITIONS
from benchmarks.cluster.processes import cpu_seconds
from benchmarks.kafka import load
from benchmarks.kafka.system import System, create_topic, delete_topic, leader, until_in_sync

KILL_AFTER_S = 1.5  # s of load before the leader is killed: past the client's start
GAP_RATE = 500  # records a second while a leader dies
PLAIN = {"enable.idempotence": "false", "max.in.flight": "5"}

BULK_100, BULK_1K = "100 B records, linger 5 ms", "1 KB records, linger 5 ms"
SINGLES = "one record a request, pipelined"
P50, P99 = "latency at a fixed rate, p50", "latency at a fixed rate, p99"
CONSUMED = "consumer"
GAP = "leader killed, longest gap in acks"
CPU = "broker CPU a record of 100 B"
RATIO = "CPU, idempotence on : off"

_numbers = itertools.count()


class Entrant(NamedTuple):
    """A system, and the configuration of the topics it is measured with."""

    label: str
    system: System
    config: dict[str, str]


class Sizes(NamedTuple):
    """How much each measure does in one round."""

    bulk_bytes: int
    singles: int
    rate: int
    rate_s: int
    rounds: int
    warm_up_s: float
    kills: int
    kafka_kills: int
    gap_s: int
    idle_s: float


FULL = Sizes(
    bulk_bytes=100_000_000,
    singles=4_000,
    rate=2_000,
    rate_s=5,
    rounds=5,
    warm_up_s=60.0,
    kills=5,
    kafka_kills=2,
    gap_s=20,
    idle_s=5.0,
)
SMOKE = Sizes(
    bulk_bytes=100_000,
    singles=30,
    rate=200,
    rate_s=1,
    rounds=1,
    warm_up_s=0.0,
    kills=1,
    kafka_kills=0,  # Kafka takes ten seconds to notice
    gap_s=4,
    idle_s=0.1,
)

Figures = dict[str, float]
Measure = Callable[[Entrant, Sizes], Awaitable[Figures]]


async def bulk(entrant: Entrant, sizes: Sizes) -> Figures:
    """Full batches of both sizes, the smaller ones read back, and written again without ids."""
    small, large = sizes.bulk_bytes // 100, sizes.bulk_bytes // 1024
    figures = {}
    topic = await _topic(entrant)
    brokers = entrant.system.pids()
    cpu = cpu_seconds(brokers).total()
    found = await load.produce(
        entrant.system.bootstrap, topic, (PARTITIONS, small, 100, 0), bulk=load.BULK
    )
    figures[BULK_100] = found.rate
    figures[CPU] = with_ids = (cpu_seconds(brokers).total() - cpu) * 1e6 / small
    read = await load.consume(entrant.system.bootstrap, topic, PARTITIONS, small)
    figures[CONSUMED] = read.rate
    cpu = cpu_seconds(brokers).total()
    shape = (PARTITIONS, small, 100, 0)
    await load.produce(entrant.system.bootstrap, topic, shape, bulk=load.BULK, plain=PLAIN)
    figures[RATIO] = with_ids / ((cpu_seconds(brokers).total() - cpu) * 1e6 / small)
    found = await load.produce(
        entrant.system.bootstrap, topic, (PARTITIONS, large, 1024, 0), bulk=load.BULK
    )
    figures[BULK_1K] = found.rate
    await delete_topic(entrant.system, topic)
    return figures


async def singles(entrant: Entrant, sizes: Sizes) -> Figures:
    """One record in each request, as many under way as the client allows."""
    topic = await _topic(entrant)
    shape = (PARTITIONS, sizes.singles, 100, 0)
    found = await load.produce(entrant.system.bootstrap, topic, shape, one=load.SINGLES)
    await delete_topic(entrant.system, topic)
    return {SINGLES: found.rate}


async def latency(entrant: Entrant, sizes: Sizes) -> Figures:
    """A steady trickle, each record sent at once."""
    topic = await _topic(entrant)
    shape = (PARTITIONS, sizes.rate * sizes.rate_s, 100, sizes.rate)
    found = await load.produce(entrant.system.bootstrap, topic, shape, at_once=load.AT_ONCE)
    await delete_topic(entrant.system, topic)
    return {P50: found.p50_ms, P99: found.p99_ms}


async def failover(entrant: Entrant, sizes: Sizes) -> Figures:
    """The leader of the only partition is killed under load, and started again afterwards."""
    topic = await _topic(entrant, partitions=1)
    shape = (1, GAP_RATE * sizes.gap_s, 100, GAP_RATE)
    bootstrap = entrant.system.bootstrap
    sending = asyncio.create_task(load.produce(bootstrap, topic, shape, at_once=load.AT_ONCE))
    try:
        await asyncio.sleep(KILL_AFTER_S)
        killed = await leader(entrant.system, topic)
        await entrant.system.kill(killed)
        found = await sending
    finally:
        sending.cancel()
    await entrant.system.restart(killed)
    await until_in_sync(entrant.system, topic)
    await delete_topic(entrant.system, topic)
    return {GAP: found.gap_ms}


async def _topic(entrant: Entrant, *, partitions: int = PARTITIONS) -> str:
    name = f"bench-{next(_numbers)}"
    await create_topic(entrant.system, name, partitions=partitions, **entrant.config)
    return name
