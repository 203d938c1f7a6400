"""One broker's machine with its disk, as processes come and go on it.

Owns the process: it is started on whatever the disk holds, paused, killed (what was written stays,
the page cache survives a process) or cut off from power (what was not synced is at the disk's
mercy). What arrives is gathered into turns as a loop does; effects are carried out late and syncs
end in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from _fastseq.batch import scan
from cluster.core import effects, events
from cluster.core.defaults import TopicDefaults
from cluster.core.group_state import GroupSettings
from cluster.core.logs import NewIds
from cluster.core.node import Node
from cluster.core.settings import NodeSettings
from cluster.storage.budget import Budget
from cluster.storage.disk import DiskError
from cluster.storage.names import parse_replica_directory
from tests.sim.committed import placed_batches
from tests.sim.disk import SimulatedDisk
from tests.sim.network import Network
from tests.sim.scheduler import MS, SECOND, Scheduler
from tests.sim.store import Session, SimulatedStore

LEASE = 2 * SECOND
TURN = 300  # microseconds that a turn gathers, at most
SLOW_SYNC = 50 * MS
RETENTION_CHECK_MS = 200  # every log is asked once in this time what may go
UNCHECKED = 21  # bytes at the start of a batch that its checksum does not cover


@dataclass
class Hands:
    """Who hears of a broker's doings."""

    observe: Callable[[Broker], None]
    """A step was taken and its effects are under way."""
    answer: Callable[[Broker, bytes, bytes], None]
    """(broker, connection, frame): a reply to a client left."""
    seen: Callable[[int, bool], None]
    """(node, up): a process has begun to listen, or has ended."""


@dataclass
class Broker:
    """One node id, through all its processes."""

    node_id: int
    clock: Scheduler
    store: SimulatedStore
    defaults: TopicDefaults
    hands: Hands
    groups: GroupSettings = field(default_factory=GroupSettings)
    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    node: Node | None = None
    paused: bool = False
    process: int = 0
    """Counts starts and ends: odd while a process runs."""
    starts: int = 0
    boot: int = 0
    cold: float = 0.0
    """How often a read has to wait for the device; above 0, nothing is kept in memory either."""
    frail: bool = False
    """Whether synced data may be lost here: at most on one broker of a run."""
    rotten: list[tuple[str, int, int]] = field(default_factory=list)
    """(path, byte, bit) of what went bad."""
    lost_data: bool = False
    """Synced data has gone at least once: a wiped directory, or power with flush=os."""
    stopped: str | None = None
    """How the latest process ended by itself."""
    network: Network | None = None
    _session: Session | None = None
    _waiting: list[Callable[[], None]] = field(default_factory=list)
    _peers: list[tuple[bytes, bytes]] = field(default_factory=list)
    _clients: list[events.ClientMessage] = field(default_factory=list)
    _turn_due: bool = False
    _paused_at: int = 0
    _wake_at: int = -1
    _skew_ms: int = 0

    @property
    def reachable(self) -> bool:
        """The process runs and is not paused."""
        return self.node is not None and not self.paused

    @property
    def running(self) -> Node:
        """The machine of the process that runs."""
        assert self.node is not None
        return self.node

    @property
    def now_ms(self) -> int:
        """The time on this machine's clock, which is no other's."""
        return self.clock.now_ms + self._skew_ms

    # -- processes ----------------------------------------------------------------------------

    def start(self) -> None:
        """A new process on whatever the disk holds; none if the disk does not let it."""
        if self.node is not None:
            return
        if self.frail:
            self.lost_data = self.lost_data or self.disk.faults.sync_probability > 0
        else:
            # A sync that fails while a log is opened has everything cut that is not known to be
            # synced, and what was acknowledged may be among it (rule 14).
            self.disk.faults.sync_probability = 0.0
        self.starts += 1
        self.paused, self.stopped = False, None
        self._skew_ms = self.clock.rng.randrange(1_000_000)
        mark = f"{self.node_id}-{self.starts}"
        settings = NodeSettings(
            self.node_id,
            "sim",
            self.node_id,
            boot_id=f"boot{self.boot}",
            new_ids=NewIds(*(f"{kind}{mark}".ljust(22, "x") for kind in ("c", "d", "u"))),
            topics=self.defaults,
            retention_check_ms=RETENTION_CHECK_MS,
            wall_offset_ms=-self._skew_ms,
            groups=self.groups,
            chance=1_000 * self.node_id + self.starts,
            allow_faults=True,
        )
        try:
            self.node = Node(settings, self.disk, self.now_ms)
        except DiskError as error:
            self.clock.trace(f"broker {self.node_id} cannot start: {error}")
            self.disk.kill()
            return
        self.disk.cold = self.cold
        if self.cold:
            self.node.logs.budget = Budget(0)
        self.process += 1
        self._wake_at = -1
        self.clock.trace(f"broker {self.node_id} start {self.starts}")
        process = self.process
        self._session = self.store.open(
            self.node_id, lambda event: self._for(process, lambda: self.step(event))
        )
        self._keep_alive(process)
        self.hands.seen(self.node_id, True)

    def kill(self) -> None:
        """The process ends now; what it wrote is still in the page cache."""
        if self.node is not None:
            self.clock.trace(f"broker {self.node_id} killed")
            self._end()

    def lose_power(self) -> None:
        """The machine goes dark: unsynced writes survive as the disk pleases."""
        self.clock.trace(f"broker {self.node_id} power lost")
        if self.node is not None:
            self._end()
        self.boot += 1
        self.disk.crash(self.clock.rng)

    def wipe(self) -> None:
        """The data directory is empty at the next start."""
        self.kill()
        self.clock.trace(f"broker {self.node_id} wiped")
        self.disk = SimulatedDisk()
        self.lost_data = True

    def damage(self) -> None:
        """A bit in the newest segment of a log goes bad, if the next start will look.

        After an orderly stop it would not: what was synced then is believed. Only what a batch's
        checksum covers is damaged.
        """
        rng, newest = self.clock.rng, self._newest_segments()
        if self.node is not None or self.stopped is not None or not newest:
            return
        path = rng.choice(newest)
        batches = placed_batches(self.disk.contents(path))
        if batches:
            position, size = rng.choice(batches)
            harm = path, rng.randrange(position + UNCHECKED, position + size), rng.randrange(8)
            self.disk.rot(*harm)
            self.rotten.append(harm)
            self.clock.trace(f"broker {self.node_id} damaged: {path} in {position}")
            self.lost_data = True

    def restore(self) -> bool:
        """What an operator does where nobody else has what cannot be read: the files of before."""
        if self.node is None:
            return False
        waiting = [
            f"{partition.replica.topic.name}-{partition.replica.index}/"
            for partition in self.node.partitions
            if partition.replica.log.damage is not None
        ]
        if not waiting:
            return False
        self.kill()
        self.clock.trace(f"broker {self.node_id} restored: {waiting}")
        for path, byte, bit in self.rotten:
            if path.startswith(tuple(waiting)):
                before = _sound(self.disk.contents(path))
                self.disk.rot(path, byte, bit)
                if _sound(self.disk.contents(path)) <= before:
                    self.disk.rot(path, byte, bit)  # it was cut since, and another batch is there
        return True

    def _newest_segments(self) -> list[str]:
        newest = []
        for directory in self.disk.list(""):
            if parse_replica_directory(directory) is not None:
                logs = [name for name in self.disk.list(directory) if name.endswith(".log")]
                newest += [f"{directory}/{name}" for name in logs[-1:]]
        return newest

    def delete_records(self, index: int, offset: int, granted: Callable[[int], None]) -> None:
        """Delete what the leader of a partition has below an offset, if it is here."""

        def act() -> None:
            partitions = [] if self.node is None else self.node.partitions
            mine = [p.leader for p in partitions if p.replica.index == index]
            for leader in (leader for leader in mine if leader is not None):
                mark = min(offset, leader.replica.high_watermark)
                leader.delete_records(
                    mark, lambda error, low: None if error else granted(low), self.now_ms + 1_000
                )
                self.step(events.Tick())

        self._for(self.process, act)

    def stop(self) -> None:
        """Ask for an orderly stop."""
        if self.node is not None:
            self.clock.trace(f"broker {self.node_id} asked to stop")
            process = self.process
            self._for(process, lambda: self.step(events.StopRequested()))

    def pause(self) -> None:
        """Nothing runs in the process until it is resumed."""
        if self.node is not None and not self.paused:
            self.clock.trace(f"broker {self.node_id} paused")
            self.paused, self._paused_at = True, self.clock.now

    def resume(self) -> None:
        """The process goes on where it was, with all that arrived since."""
        if self.node is not None and self.paused:
            self.clock.trace(f"broker {self.node_id} resumed")
            self.paused = False
            waiting, self._waiting = self._waiting, []
            for act in waiting:
                act()
            self._soon()
            self._arm()

    def _end(self) -> None:
        self.node = None
        self.paused = False
        self.process += 1
        self.disk.kill()
        for queue in (self._waiting, self._peers, self._clients):
            queue.clear()
        session = self._session
        assert session is not None
        self.store.close(session)
        self.clock.after(LEASE, lambda: self.store.expire(session))
        assert self.network is not None
        self.network.forget(self.node_id)
        self.network.died(self.node_id)
        self.hands.seen(self.node_id, False)

    def _keep_alive(self, process: int) -> None:
        """The lease of a process that is paused for too long runs out."""
        if process != self.process or self._session is None:
            return
        if self.paused and self.clock.now - self._paused_at > LEASE:
            self.store.expire(self._session)
        self.clock.after(LEASE // 4, lambda: self._keep_alive(process))

    # -- events -------------------------------------------------------------------------------

    def _for(self, process: int, act: Callable[[], None]) -> None:
        """Do this in that process: now, when it is resumed, or never if it has ended."""
        if process != self.process:
            return
        if self.paused:
            self._waiting.append(lambda: self._for(process, act))
        else:
            act()

    def receive(self, header: bytes, data: bytes) -> None:
        """A message of another broker, for the next turn."""
        if self.node is not None:
            self._peers.append((header, data))
            self._soon()

    def connected(self, peer: int, incarnation: int) -> None:
        """The connection to another broker stands."""
        self._for(self.process, lambda: self.step(events.PeerConnected(peer, incarnation)))

    def disconnected(self, peer: int, incarnation: int) -> None:
        """The connection to another broker is lost."""
        self._for(self.process, lambda: self.step(events.PeerDisconnected(peer, incarnation)))

    def ask(self, message: events.ClientMessage) -> None:
        """A request of a client, for the next turn."""
        if self.node is not None:
            self._clients.append(message)
            self._soon()

    def _soon(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self.clock.after(self.clock.rng.randrange(20, TURN), self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        if not self.reachable:
            return
        peers, self._peers = self._peers, []
        clients, self._clients = self._clients, []
        if peers:
            self.step(events.PeerTurn(peers))
        if clients and self.node is not None:
            self.step(events.ClientTurn(clients))

    def step(self, event: events.Event) -> None:
        """One event for the machine, and what it wants done."""
        assert self.node is not None
        process = self.process
        for effect in self.node.step(event, self.now_ms):
            if process == self.process:
                self._do(effect, process)
        if process == self.process:
            self.hands.observe(self)
            self._arm()

    def _do(self, effect: effects.Effect, process: int) -> None:
        assert self.network is not None
        match effect:
            case effects.Reply():
                self.hands.answer(self, effect.connection, effect.joined())
            case effects.Send():
                self.network.send(self.node_id, effect.node_id, effect.header, bytes(effect.data))
            case effects.Sync():
                self._sync(effect, process)
            case effects.Read():
                self._read(effect, process)
            case effects.Transact():
                assert self._session is not None
                self.store.transact(self._session, effect)
            case effects.ConnectPeers():
                peers = {peer.node_id: peer.incarnation for peer in effect.peers}
                self.network.want(self.node_id, peers)
            case effects.Stopped():
                self.clock.trace(f"broker {self.node_id} stopped: {effect.failure}")
                self.stopped = effect.failure or "in order"
                self._end()
            case effects.NoReply() | effects.Hangup() | effects.LookAtStore() | effects.Harm():
                pass

    def _sync(self, effect: effects.Sync, process: int) -> None:
        rng, disk = self.clock.rng, self.disk
        delay = rng.randrange(100, 2 * MS) if rng.random() < 0.95 else rng.randrange(SLOW_SYNC)
        ticket = disk.begin_sync(effect.handle)

        def done() -> None:
            # What the worker learns and what the machine is told are one moment: a process that
            # dies in between would take the only report of a failed sync with it.
            errno = disk.finish_sync(ticket)
            result = events.SyncDone(
                effect.token, effect.segment_base, effect.generation, effect.end, errno, delay
            )
            self.step(events.Synced((result,)))

        self.clock.after(delay, lambda: self._for(process, done))

    def _read(self, effect: effects.Read, process: int) -> None:
        """A read worker sees the file as it was at any moment until it answers."""
        rng, disk = self.clock.rng, self.disk
        delay = rng.randrange(50, 2 * MS) if rng.random() < 0.95 else rng.randrange(SLOW_SYNC)
        ticket = disk.begin_read(effect.handle, effect.position, effect.length)

        def done() -> None:
            data, errno = disk.finish_read(ticket)
            result = events.ReadDone(effect.number, data, errno, delay)
            self.step(events.ReadsDone((result,)))

        self.clock.after(delay, lambda: self._for(process, done))

    def _arm(self) -> None:
        """Wake the machine at its deadline, once."""
        if self.node is None:
            return
        due_ms = self.node.next_deadline_ms() - self._skew_ms
        due = max(due_ms * MS, self.clock.now + MS)
        if self._wake_at > self.clock.now and self._wake_at <= due:
            return
        self._wake_at = due
        process = self.process
        self.clock.after(due - self.clock.now, lambda: self._tick(process, due))

    def _tick(self, process: int, due: int) -> None:
        if process == self.process and not self.paused and self._wake_at == due:
            self._wake_at = -1
            self.step(events.Tick())


def _sound(data: bytes) -> int:
    """How many bytes of a segment can be read."""
    return scan(data, 0, len(data), 0).end_position
