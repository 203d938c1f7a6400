"""The demo's hands: how the faults of `cluster.load.faults` are done to a local cluster.

Owns: which broker is broken at the moment. Partition 0 decides who is a leader and who a
follower; every broker leads some partitions and follows others.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cluster.errors import OncelogError

if TYPE_CHECKING:
    from cluster.client import Admin
    from cluster.load.scrape import Scraper
    from cluster.testing.local import LocalCluster

IN_SYNC_WITHIN_S = 10.0  # s a kill waits until every replica is in sync
IN_SYNC_POLL_S = 0.05  # s between looks


class ClusterHands:
    """Breaks and mends `cluster` while `topic` is written to."""

    def __init__(
        self, cluster: LocalCluster, admin: Admin, scraper: Scraper, *, topic: str
    ) -> None:
        self._cluster = cluster
        self._admin = admin
        self._scraper = scraper
        self._topic = topic
        self._percent = 0
        self._paused = 0
        self._killed = 0
        self._reviving: asyncio.Task[None] | None = None

    async def drop_acks(self, percent: int) -> str:
        """Tell every broker that can hear it; one that is brought back is told then."""
        self._percent = percent
        for node_id, broker in self._cluster.brokers.items():
            if broker.running and not broker.paused and node_id != self._killed:
                await self._admin.fault(node_id, "drop-acks", percent=percent)
        return f"dropping {percent} % of the acks after the append" if percent else "acks kept"

    async def pause_follower(self) -> str:
        """Pause a follower of partition 0, not the controller if another will do."""
        part = (await self._admin.describe_topic(self._topic)).partitions[0]
        controller = (await self._admin.describe_cluster()).controller
        followers = [node_id for node_id in part.replicas if node_id != part.leader]
        self._paused = min(followers, key=lambda node_id: node_id == controller)
        self._cluster.pause(self._paused)
        return f"paused broker {self._paused}, a follower of partition 0"

    async def resume_follower(self) -> str:
        """Let it go on; if it was ended while it locked the store, start it again."""
        node_id, self._paused = self._paused, 0
        if not self._cluster.brokers[node_id].running:
            await self._cluster.restart(node_id)
            return f"started broker {node_id} again, which had to be ended while paused"
        self._cluster.resume(node_id)
        await self._admin.fault(node_id, "drop-acks", percent=self._percent)
        return f"resumed broker {node_id}"

    async def kill_leader(self) -> str:
        """Kill the leader of partition 0, once no second replica is missing at the same time."""
        leader = await self._leader_in_sync()
        await self._scraper.scrape()  # what it counted dies with it
        self._killed = leader
        await self._cluster.kill(leader)
        return f"killed broker {leader}, the leader of partition 0"

    async def revive_leader(self) -> str:
        """Start it in the background: sending goes on meanwhile."""
        self._reviving = asyncio.create_task(self._revive(self._killed))
        return f"bringing broker {self._killed} back"

    async def settle(self) -> None:
        """Wait until a broker that is being brought back serves."""
        if self._reviving is not None:
            await self._reviving

    async def _revive(self, node_id: int) -> None:
        await self._cluster.restart(node_id)
        self._killed = 0
        if self._percent:
            await self._admin.fault(node_id, "drop-acks", percent=self._percent)

    async def _leader_in_sync(self) -> int:
        """The leader of partition 0, when all replicas of the topic are in sync or time is up."""
        deadline = time.monotonic() + IN_SYNC_WITHIN_S
        while True:
            partitions = (await self._admin.describe_topic(self._topic)).partitions
            behind = any(len(p.in_sync) < len(p.replicas) for p in partitions.values())
            leader = partitions[0].leader
            late = time.monotonic() > deadline
            if leader >= 0 and (late or not behind):
                return leader
            if late:
                raise OncelogError(f"partition 0 has no leader for {IN_SYNC_WITHIN_S:g} s")
            await asyncio.sleep(IN_SYNC_POLL_S)
