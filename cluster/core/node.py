"""One broker as a deterministic machine: events in, effects out, all of it reproducible.

Composes everything below: the image of the store, membership, the controller while this broker is
it, the partitions and their roles, and the service of clients. `step` takes one event and the
time and returns what must be done, `turn` all that came in one turn of the loop; files are written
inside the step through the injected disk.

Invariants: what a step changed is settled before it returns (watermarks moved, acknowledgements
released, syncs asked for), so no work waits for an event that may not come; a message of another
incarnation, of the sender or of this broker, is dropped and counted (rule 8).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from cluster.core import effects, events, records
from cluster.core.controller import Controller
from cluster.core.coordinator import Coordinator
from cluster.core.faults import Faults
from cluster.core.forwarding import Forwarding
from cluster.core.hosted import Appended
from cluster.core.image import Image
from cluster.core.logs import Logs
from cluster.core.membership import Membership, Stage
from cluster.core.outbox import Outbox
from cluster.core.partition import Partition
from cluster.core.peers import Peers
from cluster.core.placement import Replicas
from cluster.core.producer_budget import ProducerBudget
from cluster.core.producers import ProducerIds
from cluster.core.replica import Around
from cluster.core.requests import Requests
from cluster.core.scrub import Scrubber
from cluster.core.services import Services
from cluster.core.settings import NodeSettings
from cluster.core.stopping import Stopping
from cluster.limits import LOOK_MS
from cluster.storage.disk import Disk, DiskError


class Node:
    """One broker's machine. `turn`, or `step` for one event, is its only way in."""

    def __init__(self, settings: NodeSettings, disk: Disk, now_ms: int) -> None:
        """Read whose data directory this is; raises ValueError if another node's."""
        self.settings = settings
        self.image = Image()
        self.out = Outbox(settings.node_id)
        self.logs = Logs(disk, settings.boot_id, settings.new_ids, settings.node_id)
        self.producer_ids = ProducerIds(self.image, self.out)
        self.faults = Faults(allowed=settings.allow_faults)
        self.controller: Controller | None = None
        self.controllers_begun = 0
        self._elections_before = 0
        around = self._around = Around(
            settings.node_id,
            self.image,
            self.out,
            settings.lag_ms,
            settings.retention_check_ms,
            settings.wall_offset_ms,
        )
        self.replicas = Replicas(around, self.logs)
        self.membership: Membership | None = None
        self.requests = Requests(
            self.image, self.out, self.replicas.find,
            producer_ids=self.producer_ids, faults=self.faults, reads=around.reads,
            routes=self.replicas.routes, wall_offset_ms=settings.wall_offset_ms,
        )  # fmt: skip
        self.services = Services(
            settings, self.image, self.replicas.find,
            handlers=self.requests.handlers,
            forwarding=Forwarding(self.image, self.out, lambda: self.controller),
        )  # fmt: skip
        self.coordinator = Coordinator(
            settings, self.image, self.out, self.replicas.find,
            append=self.requests.append, handlers=self.requests.handlers,
            topics=self.services.topics,
        )  # fmt: skip
        self.producer_budget = ProducerBudget(settings.producer_bytes_max)
        self.scrubber = Scrubber(
            around.reads, self.replicas.all, bytes_per_second=settings.scrub_bytes_per_second
        )
        self.peers = Peers(self.replicas, self.out)
        self.syncs = SyncTimes()
        self._stopping: Stopping | None = None
        self._claiming = self._joining = False
        self._stirred = True
        """Something other than data moved: membership and controller must look at it."""
        self._next_look_ms = now_ms

    @property
    def incarnation(self) -> int:
        """This start's incarnation, 0 before it is registered."""
        return self.out.incarnation

    @property
    def serving(self) -> bool:
        """Whether this broker is registered and has its session."""
        return self.membership is not None and self.membership.stage is Stage.SERVING

    @property
    def partitions(self) -> Sequence[Partition]:
        """Every partition that this broker has a replica of."""
        return self.replicas.all()

    @property
    def elections_held(self) -> int:
        """Leaders elected by this broker, in all its times as the controller."""
        now = 0 if self.controller is None else self.controller.elections_held
        return self._elections_before + now

    def next_deadline_ms(self) -> int:
        """When `Tick` is due, whatever else happens; in the past when there is work now."""
        closing = self._stopping is not None and self._stopping.behind
        if closing or self._joining or (self.serving and self.replicas.behind):
            return self._next_look_ms - LOOK_MS
        due = self._next_look_ms
        fetches = self.requests.fetches.next_deadline_ms()
        if fetches is not None and fetches < due:
            due = fetches
        due = min(due, self.coordinator.next_deadline_ms())
        elections = None if self.controller is None else self.controller.next_deadline_ms()
        leaders = self.services.metadata.next_deadline_ms()
        return min(at for at in (due, elections, leaders) if at is not None)

    def step(self, event: events.Event, now_ms: int) -> list[effects.Effect]:
        """Take one event; what must be done about it, in order."""
        return self.turn((event,), now_ms)

    def turn(self, happened: Sequence[events.Event], now_ms: int) -> list[effects.Effect]:
        """Take what came in one turn of the loop, in order, and settle all of it at once."""
        for event in happened:
            match event:
                case events.ClientTurn():
                    self._client_turn(event, now_ms)
                case events.PeerTurn():
                    if self.peers.turn(event.messages, now_ms):
                        self._stirred = True
                case events.Synced():
                    self._synced(event, now_ms)
                case events.ReadsDone():
                    self._around.reads.done(event.results)
                case _:
                    self._stirred = True
                    self._rare(event, now_ms)
        self._look(now_ms)
        if self._stirred or self.out.to_self or self.coordinator.wanted:
            self._stirred = False
            self._govern(now_ms)
        self.services.advance(self.peers, now_ms)
        for appended in self.coordinator.flush(now_ms):
            self._push(appended)
        self._settle(now_ms)
        return self.out.drain()

    # -- events -------------------------------------------------------------------------------

    def _rare(self, event: events.Rare, now_ms: int) -> None:
        match event:
            case events.StoreChanged():
                self._store_changed(event, now_ms)
            case events.Transacted():
                self._transacted(event)
            case events.PeerConnected():
                self._connected(event, now_ms)
            case events.PeerDisconnected():
                self._disconnected(event, now_ms)
            case events.StopRequested():
                self._stop(now_ms)
            case events.Tick():
                pass

    def _client_turn(self, event: events.ClientTurn, now_ms: int) -> None:
        self._push(self.requests.serve(event.messages, now_ms))

    def _push(self, appended: Sequence[Appended]) -> None:
        for run in appended:
            run.led.appended(run.base_offset, run.next_offset, run.data)
            self.replicas.touch(run.led.replica)

    def _synced(self, event: events.Synced, now_ms: int) -> None:
        for done in event.results:
            self.syncs.add(done.nanoseconds)
            partition = self.replicas.by_token(done.token)
            if partition is None:
                self.replicas.made(done.token, done.errno, now_ms)
                continue
            log = partition.replica.log
            log.synced(done.segment_base, done.generation, done.end, done.errno)
            if self.replicas.removed(partition):
                continue
            if log.failed:
                self.syncs.failed += 1
                partition.sync_failed(now_ms)
            self.replicas.touch(partition.replica)

    def _store_changed(self, event: events.StoreChanged, now_ms: int) -> None:
        for change in event.changes:
            self.image.apply(change)
        if self.membership is None:
            self._join(now_ms)
        changed = any(change.key.startswith(records.BROKERS) for change in event.changes)
        if changed and self.membership is not None:
            for node_id in self.membership.registrations_changed(now_ms):
                for partition in self.replicas.all():
                    partition.peer_replaced(node_id)
        if self.controller is not None:
            self.controller.image_changed()
        if self.serving:
            self.replicas.follow(event.changes)

    def _join(self, now_ms: int) -> None:
        """The store was read for the first time: open what is here, then say so (rule 9).

        That may take many steps; between them this broker can be stopped and looked at.
        """
        if not self._joining:
            self._joining = True
            self.replicas.open_known(now_ms)
        self.replicas.open_on(now_ms)
        if self.replicas.opening:
            return
        self._joining = False
        highest_epoch, highest_producer_id = self.replicas.highest()
        intro = self.settings.introduction(self.logs, highest_epoch, highest_producer_id)
        self.membership = Membership(intro, self.image, self.out, self._serve)
        self.membership.registrations_changed(now_ms)

    def _serve(self, _now_ms: int) -> None:
        """An incarnation begins: take the roles that the store gives it."""
        assert self.image.cluster is not None
        try:
            self.logs.belong_to(self.image.cluster.cluster_id)
        except DiskError as error:
            assert self.membership is not None
            self.membership.failure = str(error)
            return
        self.replicas.follow_all()

    def _transacted(self, event: events.Transacted) -> None:
        self.out.transacted(event.request, event.commit, event.revision)
        if event.commit is events.Commit.COMMITTED:
            self.peers.poke(event.revision)

    def _connected(self, event: events.PeerConnected, now_ms: int) -> None:
        if self.membership is not None and self.membership.connected(
            event.node_id, event.incarnation
        ):
            self.services.metadata.losses.found(event.node_id)
            for partition in self.replicas.all():
                partition.peer_connected(event.node_id, now_ms)

    def _disconnected(self, event: events.PeerDisconnected, now_ms: int) -> None:
        if self.membership is not None and self.membership.disconnected(
            event.node_id, event.incarnation
        ):
            self.services.metadata.losses.lost(event.node_id, event.incarnation, now_ms)
            for partition in self.replicas.all():
                partition.peer_disconnected(event.node_id)
                self.replicas.touch(partition.replica)

    def _stop(self, now_ms: int) -> None:
        if self._stopping is None and self.membership is not None:
            self.membership.stopping = True
            self._stopping = Stopping(self.replicas, self.logs, self.out, self.image, now_ms)
            self.peers.stopping_nodes[self.settings.node_id] = self.incarnation
        elif self.membership is None:
            self.out.emit(effects.Stopped(None))

    # -- after every event --------------------------------------------------------------------

    def _look(self, now_ms: int) -> None:
        """The regular look at what time alone changes."""
        self.requests.fetches.expire(now_ms)
        if self._joining:
            self._join(now_ms)
        if self.replicas.behind and self.serving:
            self.replicas.go_on(now_ms)
        self.coordinator.look(now_ms)
        if now_ms < self._next_look_ms:
            return
        self._next_look_ms = now_ms + LOOK_MS
        self._stirred = True
        if self.membership is not None:
            self.membership.look(now_ms)
        if self.serving:
            self.replicas.look(now_ms)
            self.scrubber.look(now_ms)
            self.producer_ids.refill()
            self._sweep(now_ms)
        self.coordinator.follow(now_ms)

    def _sweep(self, now_ms: int) -> None:
        """Let idle producers expire where this broker leads, each sweep a batch in the log."""
        due = []
        if self.producer_budget.due(now_ms):
            self.producer_budget.share([p.replica.log.table for p in self.replicas.led()])
        for partition in self.replicas.attention.sweeping:
            leader = partition.leader
            if leader is None:
                continue
            batch = leader.sweep.next_batch(leader.replica.log.table, now_ms)
            if batch is not None:
                due.append((leader, batch))
        appended = self.requests.append.controls(due, now_ms) if due else ()
        for run in appended:
            run.led.sweep.written()
        self._push(appended)

    def _govern(self, now_ms: int) -> None:
        """Advance membership, and the controller while this broker is it."""
        membership = self.membership
        if membership is None:
            return
        membership.advance(now_ms)
        if membership.failure is not None:
            self.out.emit(effects.Stopped(membership.failure))
            return
        if not self.serving:
            self._end_controller()
            return
        for node_id, opinion in self.peers.opinions():
            membership.heard(node_id, opinion)
        dead = membership.confirmed_dead()
        self._follow_controller(dead)
        if self.controller is not None:
            self._control(self.controller, dead, now_ms)
        if self.coordinator.wanted or self.peers.groups_wanted:
            self.peers.groups_wanted = False
            self.coordinator.advance(self.controller)

    def _control(self, controller: Controller, dead: Sequence[int], now_ms: int) -> None:
        for node_id, incarnation in self.peers.stopping_nodes.items():
            controller.stopping(node_id, incarnation)
        self.peers.hand_to(controller)
        controller.decide(dead, now_ms)
        while self.out.to_self:
            message = self.out.to_self.pop(0)
            self.peers.control(self.settings.node_id, self.incarnation, message, now_ms)
            self.peers.hand_to(controller)
            controller.decide(dead, now_ms)

    def _follow_controller(self, dead: Sequence[int]) -> None:
        stored = self.image.controller
        mine = stored is not None and (stored.value.node_id, stored.value.incarnation) == (
            self.settings.node_id,
            self.incarnation,
        )
        if mine and stored is not None:
            if self.controller is None or self.controller.record.version != stored.version:
                self._end_controller()
                self.controller = Controller(
                    self.settings.node_id, self.image, self.out, self.producer_ids
                )
                self.controllers_begun += 1
            return
        self._end_controller()
        alive = stored is not None and (
            self.image.alive(stored.value.node_id) == stored.value.incarnation
            and stored.value.node_id not in dead
        )
        if not alive and not self._claiming and self._stopping is None:
            self._claim()

    def _end_controller(self) -> None:
        if self.controller is not None:
            self._elections_before += self.controller.elections_held
            self.controller = None

    def _claim(self) -> None:
        """No controller is left: be it, unless another broker is faster."""
        self._claiming = True
        session = records.session_key(self.settings.node_id)
        epoch = self.image.revision + 1  # above all before, though the key goes with its lease
        value = records.ControllerRecord(self.settings.node_id, self.incarnation, epoch)

        def outcome(_commit: events.Commit, _revision: int) -> None:
            self._claiming = False

        key = records.CONTROLLER_KEY
        conditions = ((key, self.image.version(key)), (session, self.image.version(session)))
        put = effects.Put(key, records.encode(value), leased=True)
        self.out.transact(conditions, (put,), outcome)

    def _settle(self, now_ms: int) -> None:
        """Move what the step allows: syncs out, watermarks up, answers to whoever waits."""
        for replica in self.replicas.settle(now_ms):
            self.requests.fetches.changed(replica.topic.name, replica.index)
        ended, self._around.ended = self._around.ended, []
        for replica in ended:
            self.requests.fetches.changed(replica.topic.name, replica.index)
        if self._stopping is not None:
            self._stopping.advance(self.peers.stopping_nodes, now_ms)


class SyncTimes:
    """How long syncs took, as counts per bucket."""

    BOUNDS_NS = (100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000,
                 50_000_000, 250_000_000, 1_000_000_000)  # fmt: skip

    def __init__(self) -> None:
        """No sync yet."""
        self.buckets: Counter[int] = Counter()
        self.total_ns = 0
        self.count = 0
        self.failed = 0

    def add(self, nanoseconds: int) -> None:
        """One sync took this long."""
        self.count += 1
        self.total_ns += nanoseconds
        at = bisect_left(self.BOUNDS_NS, nanoseconds)
        if at < len(self.BOUNDS_NS):
            self.buckets[self.BOUNDS_NS[at]] += 1
