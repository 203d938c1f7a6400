"""A cluster for tests whose clients block: it runs on a loop in a thread of its own.

Owns that thread and the brokers in it. What is stored is read with our own consumer, or as raw
batches: neither believes any client about what it did.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Self, TypeVar

import uvloop
from confluent_kafka.admin import AdminClient

from _fastseq.batch import Record
from cluster.client import Admin, Consumer
from cluster.testing.layout import Settings, prepare
from cluster.testing.local import LocalCluster
from cluster.testing.process import CONFIG_NAME
from tests.interop.proxy import Proxy

WITHIN_S = 60
LOOK_S = 0.01

T = TypeVar("T")


class Brokers:
    """Three brokers that may be broken on purpose: `with Brokers(directory) as brokers`."""

    def __init__(self, directory: Path, *, proxied: bool = False) -> None:
        """With `proxied`, Kafka clients come through a network that can lose answers."""
        self._directory = directory
        self._proxies: dict[int, Proxy] = {}
        self._proxied = proxied
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._topics = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._start())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        homes = prepare(self._directory, Settings(brokers=3, base_port=0, allow_faults=True))
        for node_id, home in enumerate(homes if self._proxied else [], start=1):
            self._proxies[node_id] = proxy = Proxy()
            with (home / CONFIG_NAME).open("a") as config:
                config.write(f'advertised_kafka = "{await proxy.start()}"\n')
        self.cluster = LocalCluster(self._directory, homes)
        self._place()
        try:
            await self.cluster.start()
        except BaseException:
            await self._stop()
            raise
        for member in self.cluster.members():
            assert member.kafka is not None
            if self._proxied:
                host, _, port = member.kafka.rpartition(":")
                self._proxies[member.id].target = (host, int(port))
        self._bootstrap = ",".join(one.kafka for one in self.cluster.members() if one.kafka)

    def _place(self) -> None:
        """What else there is to do before the brokers start."""

    async def _stop(self) -> None:
        await self.cluster.stop()
        for proxy in self._proxies.values():
            await proxy.stop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run on the loop of the cluster, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WITHIN_S)

    @property
    def kafka(self) -> str:
        """Where Kafka clients begin, brokers that are down included."""
        return self._bootstrap

    def topic(self, *, partitions: int = 1, **config: str) -> str:
        """A new topic with three replicas."""
        self._topics += 1
        name = f"topic-{self._topics}"
        settings = {key.replace("_", "."): value for key, value in config.items()}
        self.run(self._create(name, partitions, settings))
        return name

    async def _create(self, name: str, partitions: int, config: dict[str, str]) -> None:
        async with Admin(self.cluster.bootstrap) as admin:
            await admin.create_topic(name, partitions=partitions, replicas=3, config=config)

    def address(self, node_id: int) -> str:
        """Where Kafka clients reach a broker that runs."""
        (found,) = (one.kafka for one in self.cluster.members() if one.id == node_id)
        assert found is not None
        return found

    def leader(self, topic: str, partition: int = 0) -> int:
        """Node id."""
        return self.run(self._leader(topic, partition))

    async def _leader(self, topic: str, partition: int) -> int:
        async with Admin(self.cluster.bootstrap) as admin:
            return (await admin.describe_topic(topic)).partitions[partition].leader

    def in_sync(self, topic: str, partition: int = 0) -> list[int]:
        """Node ids of the replicas in sync."""
        return self.run(self._in_sync(topic, partition))

    async def _in_sync(self, topic: str, partition: int) -> list[int]:
        async with Admin(self.cluster.bootstrap) as admin:
            return list((await admin.describe_topic(topic)).partitions[partition].in_sync)

    def coordinator(self, group: str) -> int:
        """Node id of the broker that coordinates a group, as a Kafka client is told."""
        client = AdminClient({"bootstrap.servers": self.kafka, "log_level": 0})
        (described,) = client.describe_consumer_groups([group]).values()
        return int(described.result().coordinator.id)

    def kill(self, node_id: int) -> None:
        """End a broker with SIGKILL."""
        self.run(self.cluster.kill(node_id))

    def pause(self, node_id: int) -> None:
        """Stop a broker with SIGSTOP: its connections stay, and nothing answers on them."""
        self.cluster.pause(node_id)

    def resume(self, node_id: int) -> None:
        """Let it go on."""
        self.cluster.resume(node_id)

    def restart(self, node_id: int) -> None:
        """Start it where it was."""
        self.run(self.cluster.restart(node_id))

    def lose_answers(self) -> None:
        """From now on nothing comes back to the clients."""
        for proxy in self._proxies.values():
            proxy.deaf = True

    def hang_up(self) -> None:
        """Close what clients have open; new connections are answered again."""
        for proxy in self._proxies.values():
            self.run(proxy.hang_up())
            proxy.deaf = False

    def drop_acks(self, percent: int) -> None:
        """Every broker loses this part of its acknowledgements, after the append."""
        self.run(self._drop_acks(percent))

    async def _drop_acks(self, percent: int) -> None:
        async with Admin(self.cluster.bootstrap) as admin:
            for member in self.cluster.members():
                await admin.fault(member.id, "drop-acks", percent=percent, seed=member.id)

    def stored(self, topic: str) -> dict[int, list[Record]]:
        """Every record of a topic, by partition."""
        return self.run(self._stored(topic))

    async def _stored(self, topic: str) -> dict[int, list[Record]]:
        async with asyncio.timeout(WITHIN_S), Consumer(self.cluster.bootstrap) as consumer:
            partitions = await consumer.partitions(topic)
            found: dict[int, list[Record]] = {number: [] for _, number in partitions}
            ends = await consumer.end_offsets(partitions)
            consumer.assign(dict.fromkeys(partitions, 0))
            while any(consumer.position(where) < ends[where] for where in partitions):
                for fetched in await consumer.poll(1_000):
                    found[fetched.partition] += fetched.records
            return found


def until(claim: Callable[[], bool], what: str = "it") -> None:
    """Wait for what nothing announces; fails with `what` after a minute."""
    end = time.monotonic() + WITHIN_S
    while not claim():
        assert time.monotonic() < end, f"{what} did not happen within {WITHIN_S} s"
        time.sleep(LOOK_S)
