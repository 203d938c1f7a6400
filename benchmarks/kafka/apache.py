"""Three brokers of Apache Kafka on loopback: KRaft, each broker a controller too.

The Java machine gets the options of Kafka's own start script, the brokers Kafka's defaults; only
what a cluster of three needs is set (replicas, two in sync, ports). Owns the three processes: they
end with the context, by their ids, and with the thread that started them if it is killed.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.cluster.brokers import BROKERS, PARTITIONS
from benchmarks.kafka.jars import jars, java
from benchmarks.kafka.system import until_all_serve
from cluster.testing.process import die_with_parent

CLUSTER_ID = "T25jZWxvZ0JlbmNoMDAwMQ"
STOP_WITHIN_S = 20
# As bin/kafka-run-class.sh and bin/kafka-server-start.sh of the distribution set them.
JVM = (
    *("-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20"),
    *("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent"),
    *("-XX:MaxInlineLevel=15", "-Djava.awt.headless=true"),
)

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{control}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions={partitions}
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""


class ApacheKafka:
    """A cluster in `directory`: `async with ApacheKafka(directory) as kafka`.

    Raises NoKafka where it cannot run.
    """

    name = "Kafka"

    def __init__(self, directory: Path) -> None:
        self._java = java()
        self._classpath = f"{jars()}/*"
        self._directory = directory
        ports = free_ports(2 * BROKERS)
        self._ports = dict(enumerate(ports[:BROKERS], start=1))
        self._controls = dict(enumerate(ports[BROKERS:], start=1))
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def bootstrap(self) -> str:
        """Addresses for Kafka clients, comma-separated."""
        return ",".join(f"127.0.0.1:{port}" for port in self._ports.values())

    def pids(self) -> list[int]:
        """Process ids of the brokers that run."""
        return [process.pid for process in self._running.values()]

    async def format(self) -> None:
        """Write configuration and empty storage, which `start` needs."""
        voters = ",".join(f"{node}@127.0.0.1:{port}" for node, port in self._controls.items())
        for node, port in self._ports.items():
            home = self._directory / f"kafka-{node}"
            home.mkdir(parents=True)
            text = PROPERTIES.format(
                node=node,
                voters=voters,
                port=port,
                control=self._controls[node],
                data=home / "data",
                partitions=PARTITIONS,
            )
            self._properties(node).write_text(text)
        tool = [self._java, "-cp", self._classpath, "kafka.tools.StorageTool", "format"]
        for node in self._ports:
            command = [*tool, "-t", CLUSTER_ID, "-c", str(self._properties(node))]
            await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True)

    async def start(self) -> None:
        """Start all brokers; returns once a client sees them."""
        for node in self._ports:
            self._spawn(node)
        await until_all_serve(self.bootstrap)

    async def kill(self, node_id: int) -> None:
        """End a broker with SIGKILL."""
        process = self._running.pop(node_id)
        process.kill()
        await asyncio.to_thread(process.wait)

    async def restart(self, node_id: int) -> None:
        """Start it again; returns once a client sees all three."""
        self._spawn(node_id)
        await until_all_serve(self.bootstrap)

    async def stop(self) -> None:
        """End what runs, at once if it takes long."""
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                await asyncio.to_thread(process.wait, STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.kill()  # the data goes with it: nothing is worth an orderly end
        await self.stop()

    def _spawn(self, node: int) -> None:
        command = [self._java, *JVM, "-cp", self._classpath, "kafka.Kafka"]
        with (self._directory / f"kafka-{node}" / "out.log").open("ab") as out:
            self._running[node] = subprocess.Popen(
                [*command, str(self._properties(node))],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,  # the terminal's Ctrl-C is for the benchmark to handle
                preexec_fn=die_with_parent(signal.SIGKILL),  # noqa: PLW1509 - one thread starts it
            )

    def _properties(self, node: int) -> Path:
        return self._directory / f"kafka-{node}" / "server.properties"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
