"""The connections to other brokers, and the messages that come in from them.

Owns: one DEALER per incarnation of another broker, made and closed as the machine says, and the
telling apart of what arrives on the broker's ROUTER. Messages to a peer leave on its DEALER as a
header frame, and a data frame where there is data; its own arrive on the ROUTER under an identity
that begins with 1, since those that the ROUTER gives to clients begin with 0. A client that names
itself may not begin with 2, as the addresses of the listener for Kafka's clients do.

A client's message holds one request in each frame, gathered by whoever sent it.

Invariant: closing a DEALER drops what was queued on it, so nothing meant for a dead incarnation
reaches the next one.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cluster.core.effects import Peer, Send
from cluster.core.events import (
    ClientMessage,
    Event,
    PeerConnected,
    PeerDisconnected,
)
from cluster.limits import GATHERED_FRAMES_MAX
from cluster.net.kafka import TCP
from cluster.net.zmq import DealerEndpoint, RoutedMessage

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

log = logging.getLogger(__name__)

PEER = 1
"""First byte of the identity of another broker's DEALER."""

Deliver = Callable[[Event], None]


class Links:
    """The DEALERs of one broker."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        node_id: int,
        deliver: Deliver,
        *,
        heartbeat_ms: int,
        heartbeat_timeout_ms: int,
    ) -> None:
        self._loop = loop
        self._node_id = node_id
        self._deliver = deliver
        self._heartbeat_ms = heartbeat_ms
        self._heartbeat_timeout_ms = heartbeat_timeout_ms
        self._dealers: dict[Peer, DealerEndpoint] = {}
        self._by_node: dict[int, DealerEndpoint] = {}
        self.unsent = 0
        """Messages for a peer that was not connected any more."""

    def connect(self, peers: Iterable[Peer]) -> None:
        """Connect to exactly these incarnations."""
        wanted = dict.fromkeys(peers)
        for peer in [peer for peer in self._dealers if peer not in wanted]:
            self._dealers.pop(peer).close()
        for peer in wanted:
            if peer not in self._dealers:
                self._dealers[peer] = self._open(peer)
        self._by_node = {peer.node_id: dealer for peer, dealer in self._dealers.items()}

    def send(self, message: Send) -> None:
        """Send to the incarnation connected now; dropped, and counted, when there is none."""
        dealer = self._by_node.get(message.node_id)
        frames = (message.header, message.data) if message.data else (message.header,)
        if dealer is None or not dealer.send(frames):
            self.unsent += 1

    def close(self, linger_ms: int = 0) -> None:
        """Close every connection; what is queued has `linger_ms` to leave."""
        for dealer in self._dealers.values():
            dealer.close(linger_ms)
        self._dealers.clear()
        self._by_node.clear()

    def _open(self, peer: Peer) -> DealerEndpoint:
        def connected() -> None:
            log.info("connected to broker %d", peer.node_id)
            self._deliver(PeerConnected(peer.node_id, peer.incarnation))

        def disconnected() -> None:
            log.info("lost the connection to broker %d", peer.node_id)
            self._deliver(PeerDisconnected(peer.node_id, peer.incarnation))

        return DealerEndpoint(
            self._loop,
            f"{peer.host}:{peer.port}",
            on_turn=None,
            on_connected=connected,
            on_disconnected=disconnected,
            # Of its own for each connection: a ROUTER takes no second peer of a known identity.
            identity=struct.pack(">Bi", PEER, self._node_id) + os.urandom(8),
            heartbeat_ivl_ms=self._heartbeat_ms,
            heartbeat_timeout_ms=self._heartbeat_timeout_ms,
        )


class Sorted(NamedTuple):
    """Messages of one turn of the loop by who sent them, and how many were none."""

    peers: list[tuple[bytes, bytes | memoryview]]
    clients: list[ClientMessage]
    malformed: int


def sort(messages: Sequence[RoutedMessage]) -> Sorted:
    """Tell the messages of other brokers from those of clients."""
    clients: list[ClientMessage] = []
    peers: list[tuple[bytes, bytes | memoryview]] = []
    malformed = 0
    for identity, frames in messages:
        if identity[0] == PEER:
            if len(frames) <= 2:
                peers.append((bytes(frames[0]), frames[1] if len(frames) == 2 else b""))
            else:
                malformed += 1
        elif identity[0] != TCP and len(frames) <= GATHERED_FRAMES_MAX:
            clients += [ClientMessage(identity, frame) for frame in frames]
        else:
            malformed += 1
    return Sorted(peers, clients, malformed)
