"""The table of metrics, its bounds, and the page that Prometheus reads."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cluster.broker.exposition import MetricsServer, render
from cluster.broker.metrics import (
    BROKER_METRICS,
    METRICS,
    partition_samples,
    sync_buckets,
)
from cluster.broker.observed import BrokerMetric, Observed, PartitionMetric, Sockets
from cluster.broker.partition_metrics import PARTITION_METRICS
from cluster.core.logs import NewIds
from cluster.core.node import Node, SyncTimes
from cluster.core.partition import Partition
from cluster.core.settings import NodeSettings
from cluster.limits import METRIC_PARTITIONS_MAX, METRICS_REQUEST_BYTES_MAX
from tests.sim.disk import SimulatedDisk


def partition(topic: str, index: int, **counts: int) -> Partition:
    names = ("records", "batches", "bytes", "duplicates", "gaps", "fenced", "unknown_producers",
             "invalid", "above_bound", "conflicts", "stale")  # fmt: skip
    lane = SimpleNamespace(**dict.fromkeys(names, 0) | counts)
    log = SimpleNamespace(lane=lane, table=[], next_offset=10 * (index + 1), doubtful=False)
    replica = SimpleNamespace(
        topic=SimpleNamespace(name=topic), index=index, log=log, high_watermark=4
    )
    found = SimpleNamespace(replica=replica, leader=None, record=None, terms_led=index, dropped=0)
    return cast(Partition, found)


def by_name(name: str) -> Any:
    return next(metric for metric in PARTITION_METRICS if metric.name == name)


def test_names_are_unique_prefixed_and_of_their_kind() -> None:
    table: list[PartitionMetric | BrokerMetric] = [*PARTITION_METRICS, *BROKER_METRICS]
    assert len({metric.name for metric in table}) == len(table)
    assert all(name.startswith("oncelog_") for name in METRICS)
    for metric in table:
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric.name
        assert metric.text.endswith("."), metric.name


def test_partition_has_its_own_series() -> None:
    samples = list(
        partition_samples(
            by_name("oncelog_duplicates_rejected_total"),
            [partition("t", 0, duplicates=3), partition("t", 1)],
        )
    )
    assert [(sample.labels, sample.value) for sample in samples] == [
        (("t", "0"), 3),
        (("t", "1"), 0),
    ]


def test_partitions_beyond_the_bound_share_one_series() -> None:
    many = [partition("t", index, records=1) for index in range(METRIC_PARTITIONS_MAX + 3)]
    samples = list(partition_samples(by_name("oncelog_records_appended_total"), many))
    assert len(samples) == METRIC_PARTITIONS_MAX + 1
    assert samples[-1].labels == ("other", "")
    assert samples[-1].value == 3
    lag = list(partition_samples(by_name("oncelog_high_watermark_lag"), many))
    assert lag[-1].value == 10 * len(many) - 4


def test_follower_says_nothing_of_the_in_sync_set() -> None:
    assert not list(partition_samples(by_name("oncelog_in_sync_replicas"), [partition("t", 0)]))


def test_sync_buckets_are_cumulative() -> None:
    syncs = SyncTimes()
    for nanoseconds in (50_000, 90_000, 200_000, 10**10):
        syncs.add(nanoseconds)
    buckets = dict(sync_buckets(syncs))
    assert buckets["0.0001"] == 2
    assert buckets["0.00025"] == 3
    assert buckets["1.0"] == 3
    assert buckets["+Inf"] == 4


def observed() -> Observed:
    ids = NewIds("a" * 22, "b" * 22, "c" * 22)
    settings = NodeSettings(1, "127.0.0.1", 5550, "boot", ids)
    node = Node(settings, SimulatedDisk(), 0)
    node.syncs.add(1_000)
    return Observed(node, Sockets(malformed=2, hangups=3, unreachable=4, unsent=5))


def test_every_metric_of_the_table_is_exported_and_no_other() -> None:
    _, text = render(observed())
    families = {
        line.split()[2]
        for line in text.decode().splitlines()
        if line.startswith("# TYPE oncelog_") and not line.split()[2].endswith("_created")
    }
    assert families == {
        "oncelog_sync_seconds",
        *(metric.name for metric in PARTITION_METRICS),
        *(metric.name for metric in BROKER_METRICS),
    }
    assert b'oncelog_requests_rejected_total{reason="FrameCount"} 2.0' in text
    assert b"oncelog_hangups_total 3.0" in text
    assert b"oncelog_sync_seconds_count 1.0" in text
    assert b"process_resident_memory_bytes" in text


@pytest.fixture
async def server() -> AsyncIterator[MetricsServer]:
    made = MetricsServer()
    made.observe = observed
    yield made
    made.close()


async def ask(url: str, request: bytes) -> bytes:
    host, _, port = url.removeprefix("http://").removesuffix("/metrics").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


async def test_scrape_gets_the_text_and_the_connection_ends(server: MetricsServer) -> None:
    url = await server.start("127.0.0.1:0")
    answer = await ask(url, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"oncelog_is_controller 0.0" in body


async def test_other_requests_are_refused(server: MetricsServer) -> None:
    url = await server.start("127.0.0.1:0")
    for request in (b"GET / HTTP/1.1\r\n\r\n", b"POST /metrics HTTP/1.1\r\n\r\n"):
        assert (await ask(url, request)).startswith(b"HTTP/1.1 404 ")
    endless = b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 3 * METRICS_REQUEST_BYTES_MAX
    with suppress(ConnectionError):  # closed with what it had not read
        assert await ask(url, endless) == b""


async def test_scrape_before_the_broker_serves_says_so() -> None:
    server = MetricsServer()
    url = await server.start("127.0.0.1:0")
    assert (await ask(url, b"GET /metrics HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 503 ")
    server.close()
