"""This broker's place in the cluster: registration, session, and who it can reach.

Owns the way in (create the cluster record if there is none, register, open a session), the way
back in after being declared dead by mistake, and the opinions about which brokers are gone (rule
11). A broker counts as dead once two see it so: whoever lost its connection, and one more. The
opinions are exchanged whenever they change, so both sides decide without asking.

Invariants: the incarnation is the store revision of this start's registration (rule 9); being
declared dead costs a new incarnation and an epoch, never data; re-registration backs off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

import msgspec

from cluster.core import records
from cluster.core.effects import ConnectPeers, Peer, Put
from cluster.core.events import Commit
from cluster.core.image import Image
from cluster.core.outbox import Outbox, PeerLink
from cluster.limits import (
    CONNECT_MS,
    REREGISTER_MS,
    REREGISTER_MS_MAX,
    REREGISTER_STEADY_MS,
)
from cluster.wire import stream


class Stage(Enum):
    """How far the way in has come."""

    STARTING = auto()
    """The store was not read yet, or the cluster record is being created."""
    REGISTERING = auto()
    OPENING_SESSION = auto()
    SERVING = auto()
    REPLACED = auto()
    """Another process registered under this node id; this one must end."""


@dataclass(frozen=True, slots=True)
class Introduction:
    """What this broker says of itself; all but `registration` decided at start."""

    registration: records.Registration
    new_cluster_id: str
    """The cluster's id if this broker is the first ever."""
    known_cluster_id: str | None
    """What the data directory says it belongs to."""


class Membership:
    """One broker's membership."""

    def __init__(
        self,
        intro: Introduction,
        image: Image,
        out: Outbox,
        on_serving: Callable[[int], None],
    ) -> None:
        """`on_serving` is called with the time whenever an incarnation begins to serve."""
        self._intro = intro
        self._image = image
        self._out = out
        self._on_serving = on_serving
        self.stage = Stage.STARTING
        self.failure: str | None = None
        self.stopping = False
        self._busy = False
        self._again_ms: int | None = None
        self._false_deaths = 0
        self._serving_since_ms = 0
        self._session_revision = 0
        self._unreachable: dict[int, int] = {}
        self._opinions: dict[int, dict[int, int]] = {}
        self._seen_ms: dict[int, int] = {}
        self._peers: tuple[Peer, ...] = ()

    @property
    def node_id(self) -> int:
        """This broker's id."""
        return self._intro.registration.node_id

    @property
    def incarnation(self) -> int:
        """This start's incarnation, 0 before it is registered."""
        return self._out.incarnation

    # -- the way in ---------------------------------------------------------------------------

    def advance(self, now_ms: int) -> None:
        """Take the next step of the way in, if one is due."""
        if self._busy or self.failure is not None or self.stopping:
            return
        if self.stage is Stage.STARTING:
            self._find_cluster()
        if self.stage is Stage.REGISTERING and not self._waiting(now_ms):
            self._register()
        elif self.stage is Stage.OPENING_SESSION and not self._waiting(now_ms):
            self._open_session(now_ms)
        elif self.stage is Stage.SERVING:
            self._check_standing(now_ms)

    def _waiting(self, now_ms: int) -> bool:
        return self._busy or (self._again_ms is not None and now_ms < self._again_ms)

    def _find_cluster(self) -> None:
        cluster, known = self._image.cluster, self._intro.known_cluster_id
        if cluster is None:
            value = records.ClusterRecord(known or self._intro.new_cluster_id)
            put = Put(records.CLUSTER_KEY, records.encode(value))
            self._transact(((records.CLUSTER_KEY, 0),), put)
        elif known is not None and known != cluster.cluster_id:
            self.failure = (
                f"the data directory belongs to cluster {known}, the store to {cluster.cluster_id}"
            )
        else:
            self.stage = Stage.REGISTERING

    def _register(self) -> None:
        key = records.broker_key(self.node_id)

        def outcome(commit: Commit, revision: int) -> None:
            self._busy = False
            if commit is Commit.COMMITTED:
                self._out.incarnation = revision
                self.stage = Stage.OPENING_SESSION

        put = Put(key, records.encode(self._intro.registration))
        self._busy = True
        self._out.transact(((key, self._image.version(key)),), (put,), outcome)

    def _open_session(self, now_ms: int) -> None:
        key = records.session_key(self.node_id)
        registered = (records.broker_key(self.node_id), self.incarnation)
        value = records.encode(records.Session(self.incarnation))

        def outcome(commit: Commit, revision: int) -> None:
            self._busy = False
            if commit is Commit.COMMITTED:
                self._session_revision = revision
                self.stage = Stage.SERVING
                self._serving_since_ms = now_ms
                self._again_ms = None
                self._on_serving(now_ms)

        self._busy = True
        self._out.transact((registered,), (Put(key, value, leased=True),), outcome)

    def _transact(self, conditions: tuple[tuple[str, int], ...], put: Put) -> None:
        def outcome(_commit: Commit, _revision: int) -> None:
            self._busy = False

        self._busy = True
        self._out.transact(conditions, (put,), outcome)

    def _check_standing(self, now_ms: int) -> None:
        """Whether the store still knows this incarnation, once the image reaches its session."""
        if self._image.revision < self._session_revision:
            return
        mine = self._image.brokers.get(self.node_id)
        if mine is not None and mine.version > self.incarnation:
            self.stage = Stage.REPLACED
            self.failure = f"another broker registered as node {self.node_id}"
        elif mine is not None and self._image.alive(self.node_id) != self.incarnation:
            # Declared dead by mistake, or the session's lease ran out: come back as a new
            # incarnation. Its logs were open all the time, so nothing unsynced was lost.
            steady = now_ms - self._serving_since_ms > REREGISTER_STEADY_MS
            self._false_deaths = 1 if steady else self._false_deaths + 1
            delay = min(REREGISTER_MS << min(self._false_deaths, 10), REREGISTER_MS_MAX)
            self._again_ms = now_ms + delay
            renewed = msgspec.structs.replace(self._intro.registration, clean=True)
            self._intro = Introduction(renewed, self._intro.new_cluster_id, None)
            self.stage = Stage.REGISTERING

    # -- the others ---------------------------------------------------------------------------

    def registrations_changed(self, now_ms: int) -> list[int]:
        """Connect to whoever is registered now; forget what was thought of older incarnations.

        Answers whose earlier incarnation is over: nothing may be seen of its connection's end.
        """
        peers, replaced = [], []
        for node_id, broker in sorted(self._image.brokers.items()):
            if node_id == self.node_id:
                continue
            value = broker.value
            peers.append(Peer(node_id, broker.version, value.host, value.port))
            link = self._out.links.get(node_id)
            if link is None or link.incarnation != broker.version:
                self._out.links[node_id] = PeerLink(node_id, broker.version)
                self._seen_ms[node_id] = now_ms
                self._unreachable.pop(node_id, None)
                self._opinions.pop(node_id, None)
                if link is not None:
                    replaced.append(node_id)
        if tuple(peers) != self._peers:
            self._peers = tuple(peers)
            self._out.emit(ConnectPeers(self._peers))
        return replaced

    def connected(self, node_id: int, incarnation: int) -> bool:
        """The connection stands: greet, and say who is gone. False for an older incarnation."""
        link = self._out.links.get(node_id)
        if link is None or link.incarnation != incarnation:
            return False
        link.connected, link.in_flight_bytes = True, 0
        cluster = self._image.cluster
        if cluster is not None:
            self._out.control(node_id, stream.Hello(cluster.cluster_id))
        self._out.control(node_id, self._opinion())
        if self._unreachable.pop(node_id, None) is not None:
            self._out.broadcast(self._opinion())
        return True

    def disconnected(self, node_id: int, incarnation: int) -> bool:
        """The connection is lost: this broker holds the other for gone and says so."""
        link = self._out.links.get(node_id)
        if link is None or link.incarnation != incarnation:
            return False
        link.connected, link.in_flight_bytes = False, 0
        self._opinions.pop(node_id, None)
        self._suspect(node_id, incarnation)
        return True

    def heard(self, node_id: int, opinion: stream.Opinion) -> None:
        """Another broker says whom it has lost."""
        self._opinions[node_id] = dict(opinion.unreachable)

    def look(self, now_ms: int) -> None:
        """A peer that never connected within its time counts as unreachable too."""
        for node_id, link in self._out.links.items():
            if link.connected or node_id in self._unreachable:
                continue
            if now_ms - self._seen_ms.get(node_id, now_ms) > CONNECT_MS:
                self._suspect(node_id, link.incarnation)

    def confirmed_dead(self) -> list[int]:
        """Brokers that this one and another that it can reach have both lost."""
        dead = []
        for node_id, incarnation in sorted(self._unreachable.items()):
            if self._image.alive(node_id) != incarnation:
                continue
            witnesses = [
                other
                for other, gone in self._opinions.items()
                if other != node_id and gone.get(node_id) == incarnation
            ]
            if witnesses:
                dead.append(node_id)
        return dead

    def _suspect(self, node_id: int, incarnation: int) -> None:
        if self._unreachable.get(node_id) != incarnation:
            self._unreachable[node_id] = incarnation
            self._out.broadcast(self._opinion())

    def _opinion(self) -> stream.Opinion:
        return stream.Opinion(tuple(sorted(self._unreachable.items())))
