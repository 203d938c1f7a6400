"""GET /metrics: the table of `metrics` in Prometheus' text format, over HTTP/1.1.

Owns: the listener. prometheus-client is imported when somebody asks for the first time, on a
thread, since it costs 80 ms that neither the start nor the loop of a broker has to spare.

Invariants: a connection is one request and ends with its answer; how long it may take, how much it
may send and how many there are is bounded.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from cluster.broker.metrics import (
    BROKER_METRICS,
    SYNC_SECONDS,
    SYNC_TEXT,
    broker_samples,
    partition_samples,
    sync_buckets,
)
from cluster.broker.observed import Observed
from cluster.broker.partition_metrics import PARTITION_METRICS
from cluster.limits import METRICS_CONNECTIONS_MAX, METRICS_REQUEST_BYTES_MAX, METRICS_REQUEST_MS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


class MetricsServer:
    """Serves what `observe` sees at the time of a request; nothing before that is set."""

    def __init__(self) -> None:
        self.observe: Callable[[], Observed] | None = None
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, address: str) -> str:
        """Listen on "host:port" and answer the URL to scrape; OSError if that cannot be."""
        host, _, port = address.rpartition(":")
        try:
            self._server = await asyncio.start_server(
                self._connected, host.strip("[]"), int(port), limit=METRICS_REQUEST_BYTES_MAX
            )
        except OSError as error:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error
            text = f"cannot listen on {address} for metrics: {why}"
            raise OSError(error.errno, text) from error
        taken = self._server.sockets[0].getsockname()[1]
        return f"http://{host}:{taken}/metrics"

    def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= METRICS_CONNECTIONS_MAX:
            writer.close()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(METRICS_REQUEST_MS / 1000):
                request = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(request))
                await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # nothing sensible was asked, or nobody waits for the answer
        finally:
            self._open.discard(writer)
            with suppress(RuntimeError):  # the loop may be closed by now
                writer.close()

    async def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if method not in (b"GET", b"HEAD") or path != b"/metrics":
            return _response("404 Not Found", "text/plain; charset=utf-8", b"GET /metrics\n")
        await asyncio.get_running_loop().run_in_executor(None, _import_client)
        if self.observe is None:
            return _response("503 Service Unavailable", "text/plain; charset=utf-8", b"starting\n")
        content_type, body = render(self.observe())
        return _response("200 OK", content_type, b"" if method == b"HEAD" else body)


def _response(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _import_client() -> None:
    import prometheus_client  # noqa: F401, PLC0415 - see the module's first lines


def render(observed: Observed) -> tuple[str, bytes]:
    """(content type, text) of all metrics, and of the process they are about."""
    from prometheus_client import (  # noqa: PLC0415
        CollectorRegistry,
        ProcessCollector,
        exposition,
    )

    registry = CollectorRegistry()
    registry.register(_Collector(observed))
    ProcessCollector(registry=registry)
    return exposition.CONTENT_TYPE_PLAIN_0_0_4, exposition.generate_latest(registry)


class _Collector:
    def __init__(self, observed: Observed) -> None:
        self._observed = observed

    def collect(self) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (  # noqa: PLC0415
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        families = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        node = self._observed.node
        for by_partition in PARTITION_METRICS:
            kind, name, text = by_partition.kind, by_partition.name, by_partition.text
            family = families[kind](name, text, None, ("topic", "partition"))
            for sample in partition_samples(by_partition, node.partitions):
                family.add_metric(sample.labels, sample.value)
            yield family
        for metric in BROKER_METRICS:
            labels = () if metric.label is None else (metric.label,)
            family = families[metric.kind](metric.name, metric.text, None, labels)
            for sample in broker_samples(metric, self._observed):
                family.add_metric(sample.labels, sample.value)
            yield family
        histogram = HistogramMetricFamily(SYNC_SECONDS, SYNC_TEXT)
        histogram.add_metric((), sync_buckets(node.syncs), node.syncs.total_ns / 1e9)
        yield histogram
