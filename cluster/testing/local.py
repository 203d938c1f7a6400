"""A cluster of broker processes on this machine: start, pause, resume, kill, restart, stop.

Owns: one `BrokerProcess` per broker directory, DIR/cluster.json while they run, and the guard
that ends a stopped broker which holds the lock of the metadata store: the others cannot write
while it does, and it cannot give it back.

Invariant: after `stop`, however it was reached, none of the processes is left.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from cluster.client import Admin
from cluster.control.machine import lock_holders
from cluster.errors import OncelogError
from cluster.testing.layout import STORE_NAME, Member, remove_members, write_members
from cluster.testing.process import CONFIG_EXIT_STATUS, LOG_NAME, BrokerFailed, BrokerProcess

READY_WITHIN_S = 60.0  # s until every partition must take writes: recovery of large logs included
READY_POLL_S = 0.01  # s between looks at a cluster that starts
STOP_WITHIN_S = 10.0  # s a broker has to hand over its leaders and flush
GUARD_EVERY_S = 0.25  # s between looks at who holds the store's lock
GUARD_PATIENCE_S = 1.0  # s a stopped broker may hold it; all must go on within two
REVIVE_AFTER_S = 0.5  # s until a broker that died is started again
REVIVE_AFTER_MAX_S = 8.0  # s likewise when it dies again and again
STEADY_S = 10.0  # s a broker must have lived for its next death to count as the first


class NotReady(OncelogError):
    """The brokers run, but some partition does not take acks=all; they were left running."""


class LocalCluster:
    """The brokers whose directories (`cluster.testing.layout.prepare`) lie in `directory`.

    With `revive`, a broker that dies is started again. `tell` hears one line per event.
    """

    def __init__(
        self,
        directory: Path,
        homes: Sequence[Path],
        *,
        revive: bool = False,
        orphan_signal: signal.Signals = signal.SIGKILL,
        tell: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.directory = directory
        self.brokers = {
            node_id: BrokerProcess(node_id, home, orphan_signal=orphan_signal)
            for node_id, home in enumerate(homes, start=1)
        }
        self._revive = revive
        self._tell = tell
        self._tasks: list[asyncio.Task[None]] = []
        self._ending = False

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop(within_s=0)
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        # Whoever leaves by an exception or Ctrl-C wants an end, not good order.
        await self.stop(within_s=STOP_WITHIN_S if error[0] is None else 0)

    @property
    def bootstrap(self) -> list[str]:
        """ZeroMQ addresses of the brokers that run."""
        return [member.zmq for member in self.members()]

    @property
    def kafka(self) -> list[str]:
        """Addresses for Kafka's clients of the brokers that run."""
        return [member.kafka for member in self.members() if member.kafka is not None]

    def members(self) -> list[Member]:
        """The brokers that serve, with their addresses."""
        return [
            Member(node_id, broker.pid, told.zmq, told.kafka, told.metrics)
            for node_id, broker in self.brokers.items()
            if broker.running and (told := broker.addresses) is not None
        ]

    async def start(self) -> None:
        """Start every broker; returns once every partition can take acks=all.

        Raises BrokerFailed if one does not start, NotReady if they all serve and yet some
        partition stays unusable.
        """
        await asyncio.gather(*(broker.start() for broker in self.brokers.values()))
        write_members(self.directory, self.members())
        self._tasks.append(asyncio.create_task(self._guard()))
        if self._revive:
            self._tasks += [asyncio.create_task(self._keep(b)) for b in self.brokers.values()]
        try:
            await asyncio.wait_for(self._until_usable(), READY_WITHIN_S)
        except TimeoutError:
            logs = self.directory / "broker-*" / LOG_NAME
            late = f"not every partition takes acks=all after {READY_WITHIN_S:g} s"
            raise NotReady(f"{late}; see {logs}") from None

    async def stop(self, *, within_s: float = STOP_WITHIN_S) -> None:
        """End every broker in good order, those that take longer than `within_s` at once."""
        self._ending = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        running = [broker for broker in self.brokers.values() if broker.running]
        await asyncio.gather(*(broker.stop(within_s=within_s) for broker in running))
        remove_members(self.directory)

    def pause(self, node_id: int) -> None:
        """Stop the process where it is (SIGSTOP)."""
        self.brokers[node_id].send(signal.SIGSTOP)

    def resume(self, node_id: int) -> None:
        """Let a paused process go on (SIGCONT)."""
        self.brokers[node_id].send(signal.SIGCONT)

    async def kill(self, node_id: int) -> None:
        """End the process at once (SIGKILL)."""
        await self.brokers[node_id].kill()
        write_members(self.directory, self.members())

    async def restart(self, node_id: int) -> None:
        """Start a broker that has ended; returns once it serves."""
        if self._ending:
            raise OncelogError("the cluster is being stopped")
        await self.brokers[node_id].start()
        write_members(self.directory, self.members())

    async def _keep(self, broker: BrokerProcess) -> None:
        """Start `broker` again whenever it has died, ever more slowly if it keeps dying."""
        delay_s, started = REVIVE_AFTER_S, time.monotonic()
        while True:
            await broker.exited.wait()
            write_members(self.directory, self.members())
            if broker.status == CONFIG_EXIT_STATUS:
                self._tell(f"broker {broker.node_id} stays down: {broker.reason()}")
                return
            if time.monotonic() - started > STEADY_S:
                delay_s = REVIVE_AFTER_S
            how = f"signal {-broker.status}" if broker.status < 0 else f"status {broker.status}"
            self._tell(f"broker {broker.node_id} ended with {how}; again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            delay_s, started = min(2 * delay_s, REVIVE_AFTER_MAX_S), time.monotonic()
            try:
                await self.restart(broker.node_id)
            except BrokerFailed as error:
                self._tell(str(error))
            else:
                self._tell(f"broker {broker.node_id} serves again")

    async def _guard(self) -> None:
        """End a stopped broker that holds the store's lock for longer than the others can wait."""
        store = self.directory / STORE_NAME
        since: dict[int, float] = {}
        while True:
            now = time.monotonic()
            stopped = {holder.pid for holder in lock_holders(store) if holder.stopped}
            since = {pid: since.get(pid, now) for pid in stopped}
            for broker in self.brokers.values():
                if broker.running and now - since.get(broker.pid, now) >= GUARD_PATIENCE_S:
                    self._tell(f"broker {broker.node_id} is stopped and locks the store: ended")
                    broker.send(signal.SIGKILL)
            await asyncio.sleep(GUARD_EVERY_S)

    async def _until_usable(self) -> None:
        """Wait until every broker says so: their images of the store move one after another."""
        async with Admin(self.bootstrap) as admin:
            agreeing = 0
            while agreeing < len(self.brokers):
                if await self._usable(admin):
                    agreeing += 1  # the next look asks the next broker
                    continue
                agreeing = 0
                for broker in self.brokers.values():
                    if not broker.running and not self._revive:
                        text = f"broker {broker.node_id} ended: {broker.reason()}"
                        raise BrokerFailed(text, broker.status)
                await asyncio.sleep(READY_POLL_S)

    async def _usable(self, admin: Admin) -> bool:
        """True once every broker is known, one controls, and every partition takes acks=all."""
        described = await admin.describe_cluster()
        alive = described.brokers.keys()
        if described.controller not in alive or len(alive) < len(self.brokers):
            return False
        try:
            for node_id in alive:
                if await admin.brokers_at(node_id) != set(alive):
                    return False
            for name in await admin.list_topics():
                topic = await admin.describe_topic(name)
                needed = int(topic.config.get("min.insync.replicas") or 1)
                for part in topic.partitions.values():
                    present = alive & set(part.in_sync)
                    if part.leader not in alive or len(present) < min(needed, len(part.replicas)):
                        return False
        except OncelogError:  # a leader that changes while it is asked about
            return False
        return True
