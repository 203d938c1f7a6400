"""The one match over effects: what the machine wants done is done here.

Owns nothing but the hands: sockets, sync workers, store. Every effect is carried out at once, in
order, without waiting; what has an answer comes back later as an event.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, assert_never

from cluster.broker.admission import Admission
from cluster.broker.links import Links
from cluster.broker.reads import Reads
from cluster.broker.store import Metadata
from cluster.broker.syncs import Syncs
from cluster.core import effects
from cluster.limits import HARM_AFTER_MS
from cluster.net.kafka import TCP, KafkaListener
from cluster.net.zmq import RouterEndpoint, gathered

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

log = logging.getLogger(__name__)

HARMS = {"pause": signal.SIGSTOP, "kill": signal.SIGKILL}


class Executor:
    """Does what the machine of one broker says."""

    def __init__(
        self,
        loop: AbstractEventLoop,
        *,
        router: RouterEndpoint,
        admission: Admission,
        kafka: KafkaListener | None,
        links: Links,
        syncs: Syncs,
        reads: Reads,
        metadata: Metadata,
        stopped: Callable[[str | None], None],
    ) -> None:
        """`stopped` is called once the machine has ended, with what failed if anything did."""
        self._loop = loop
        self._router = router
        self._admission = admission
        self._kafka = kafka
        self._links = links
        self._syncs = syncs
        self._reads = reads
        self._metadata = metadata
        self._stopped = stopped
        self.hangups = 0

    def do(self, wanted: effects.Effects) -> None:
        """Carry out the effects of one step, the replies to each client gathered."""
        replies: dict[bytes, list[bytes]] = {}
        for effect in wanted:
            if isinstance(effect, effects.Reply):
                connection = effect.connection
                if connection[0] == TCP:
                    self._answer(connection, effect.frame)
                else:
                    replies.setdefault(connection, []).append(effect.joined())
            elif isinstance(effect, effects.NoReply):
                if effect.connection[0] == TCP:
                    self._answer(effect.connection, None)
                else:
                    self._admission.ended(effect.connection)
        for connection, frames in replies.items():
            self._admission.ended(connection, len(frames))
            for message in gathered(frames):
                self._router.send(connection, message)
        for effect in wanted:
            self._do_one(effect)

    def _answer(self, address: bytes, frame: effects.Frame | None) -> None:
        """Answer a Kafka client; they are written once the turn is over."""
        if self._kafka is not None:
            self._kafka.answer(address, frame)

    def _do_one(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Reply() | effects.NoReply():
                pass  # gone with the others
            case effects.Send():
                self._links.send(effect)
            case effects.Sync() | effects.Read():
                self._use_disk(effect)
            case effects.Transact():
                self._metadata.transact(effect)
            case effects.ConnectPeers():
                self._links.connect(effect.peers)
            case effects.LookAtStore():
                self._metadata.look()
            case effects.Hangup():
                self._hang_up(effect)
            case effects.Harm():
                self._harm(effect.kind)
            case effects.Stopped():
                self._stopped(effect.failure)
            case _ as never:
                assert_never(never)

    def _hang_up(self, effect: effects.Hangup) -> None:
        """No answer: a Kafka client's connection is closed. A ROUTER cannot close one connection,
        so there the client hears nothing.
        """
        self.hangups += 1
        log.info("a request without an answer: %s", effect.reason)
        if effect.connection[0] != TCP:
            self._admission.ended(effect.connection)
        elif self._kafka is not None:
            self._kafka.hang_up(effect.connection, ordered=effect.ordered)

    def _use_disk(self, effect: effects.Sync | effects.Read) -> None:
        if isinstance(effect, effects.Sync):
            self._syncs.submit(effect)
        else:
            self._reads.submit(effect)

    def _harm(self, kind: str) -> None:
        """Stop or kill this process, once the answer to the order has left."""
        log.warning("a fault was ordered: %s", kind)
        self._loop.call_later(HARM_AFTER_MS / 1000, os.kill, os.getpid(), HARMS[kind])
