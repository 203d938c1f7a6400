"""Our three brokers, as the comparison drives them: by their listeners for Kafka clients."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.cluster.brokers import BROKERS
from benchmarks.kafka.system import until_all_serve
from cluster.testing.layout import Settings, prepare
from cluster.testing.local import LocalCluster


class Ours:
    """A cluster in `directory`: `async with Ours(directory) as ours`."""

    name = "oncelog"

    def __init__(self, directory: Path) -> None:
        homes = prepare(directory, Settings(BROKERS, base_port=0))
        self._cluster = LocalCluster(directory, homes)

    @property
    def bootstrap(self) -> str:
        """Addresses for Kafka clients, comma-separated."""
        return ",".join(one.kafka for one in self._cluster.members() if one.kafka)

    def pids(self) -> list[int]:
        """Process ids of the brokers that run."""
        return [member.pid for member in self._cluster.members()]

    async def start(self) -> None:
        """Start all brokers; returns once a client sees them and every partition takes writes."""
        await self._cluster.start()
        await until_all_serve(self.bootstrap)

    async def kill(self, node_id: int) -> None:
        """End a broker with SIGKILL."""
        await self._cluster.kill(node_id)

    async def restart(self, node_id: int) -> None:
        """Start it again; returns once a client sees all three."""
        await self._cluster.restart(node_id)
        await until_all_serve(self.bootstrap)

    async def stop(self) -> None:
        """End what runs."""
        await self._cluster.stop()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._cluster.stop(within_s=0)
