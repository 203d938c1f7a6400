"""What both systems of the comparison offer, and what is asked of both through Kafka's protocol."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from benchmarks.cluster.brokers import BROKERS, PARTITIONS

READY_WITHIN_S = 120
ASK_WITHIN_S = 10
POLL_S = 0.02


class System(Protocol):
    """Three brokers on this machine."""

    name: str

    @property
    def bootstrap(self) -> str:
        """Addresses for Kafka clients, comma-separated."""
        ...

    def pids(self) -> list[int]:
        """Process ids of the brokers that run."""
        ...

    async def kill(self, node_id: int) -> None:
        """End a broker with SIGKILL."""
        ...

    async def restart(self, node_id: int) -> None:
        """Start it again; returns once it may take part."""
        ...


def admin(bootstrap: str) -> AdminClient:
    """A client of the admin APIs that says nothing on stderr."""
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})


async def until_all_serve(bootstrap: str) -> None:
    """Wait until a client sees every broker; the same look for both systems."""
    await asyncio.to_thread(_until_all_serve, bootstrap)


def _until_all_serve(bootstrap: str) -> None:
    end = time.monotonic() + READY_WITHIN_S
    client = admin(bootstrap)
    while time.monotonic() < end:
        try:
            if len(client.list_topics(timeout=1).brokers) == BROKERS:
                return
        except KafkaException:
            pass
        time.sleep(POLL_S)
    raise TimeoutError(f"no three brokers at {bootstrap} within {READY_WITHIN_S} s")


async def create_topic(
    system: System, name: str, *, partitions: int = PARTITIONS, **config: str
) -> None:
    """A topic with three replicas, two of which must be in sync; returns once it has leaders."""
    await asyncio.to_thread(_create, system.bootstrap, name, partitions, config)


def _create(bootstrap: str, name: str, partitions: int, config: dict[str, str]) -> None:
    client = admin(bootstrap)
    topic = NewTopic(name, partitions, BROKERS, config={"min.insync.replicas": "2", **config})
    client.create_topics([topic], operation_timeout=ASK_WITHIN_S)[name].result()
    _until_in_sync(bootstrap, name)


async def until_in_sync(system: System, topic: str) -> None:
    """Wait until every partition has a leader and all its replicas."""
    await asyncio.to_thread(_until_in_sync, system.bootstrap, topic)


def _until_in_sync(bootstrap: str, name: str) -> None:
    client = admin(bootstrap)
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        found = client.list_topics(name, timeout=ASK_WITHIN_S).topics[name].partitions
        if found and all(p.leader >= 0 and len(p.isrs) == BROKERS for p in found.values()):
            return
        time.sleep(POLL_S)
    raise TimeoutError(f"{name} at {bootstrap} is not in sync within {READY_WITHIN_S} s")


async def delete_topic(system: System, name: str) -> None:
    """Its files may go a little later."""
    await asyncio.to_thread(_delete, system.bootstrap, name)


def _delete(bootstrap: str, name: str) -> None:
    client = admin(bootstrap)
    client.delete_topics([name], operation_timeout=ASK_WITHIN_S)[name].result()


async def leader(system: System, topic: str) -> int:
    """Node id of the leader of partition 0."""
    return await asyncio.to_thread(_leader, system.bootstrap, topic)


def _leader(bootstrap: str, topic: str) -> int:
    described = admin(bootstrap).list_topics(topic, timeout=ASK_WITHIN_S)
    return int(described.topics[topic].partitions[0].leader)
