"""Counters read from the brokers' /metrics, and kept when a broker dies with them.

Owns: the highest value seen per broker process. A counter starts at zero in every process, so the
sum over all processes of their last values is what the cluster has counted, short of what a
killed one counted after it was last read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

SCRAPE_EVERY_S = 0.5  # s between rounds: what a killed broker counted since is not known
SCRAPE_WITHIN_S = 2.0  # s a broker has to answer; a paused one never does


@dataclass(frozen=True, slots=True)
class Target:
    """One broker process and where it shows its metrics."""

    node_id: int
    pid: int
    url: str


class Scraper:
    """Reads one counter, summed over the series that carry `label`, from all of `targets`."""

    def __init__(self, counter: str, label: str, targets: Callable[[], Iterable[Target]]) -> None:
        self._counter = counter
        self._label = label
        self._targets = targets
        self._highest: dict[tuple[int, int], float] = {}

    @property
    def total(self) -> int:
        """The counter over all processes there were."""
        return round(sum(self._highest.values()))

    async def scrape(self) -> None:
        """Read every process once; those that do not answer keep their last value."""
        await asyncio.gather(*map(self._read, self._targets()))

    async def watch(self) -> None:
        """Read again and again, until cancelled."""
        while True:
            await self.scrape()
            await asyncio.sleep(SCRAPE_EVERY_S)

    async def _read(self, target: Target) -> None:
        try:
            body = await asyncio.wait_for(_get(target.url), SCRAPE_WITHIN_S)
        except (OSError, TimeoutError):
            return
        process = (target.node_id, target.pid)
        value = counter_sum(body, self._counter, self._label)
        self._highest[process] = max(value, self._highest.get(process, 0.0))


async def _get(url: str) -> str:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    reader, writer = await asyncio.open_connection(host, port)
    try:
        request = f"GET {parts.path or '/'} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
        writer.write(request.encode())
        answer = await reader.read(-1)
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode(errors="replace")


def counter_sum(text: str, name: str, label: str) -> float:
    """Sum of the counter `name` over its series with `label`, in Prometheus' text format."""
    total = 0.0
    for line in text.splitlines():
        labels, brace, value = line.partition("} ")
        if brace and labels.startswith(f"{name}{{") and label in labels:
            total += float(value.split()[0])
    return total
