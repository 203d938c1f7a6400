"""What one step of the machine sends: gathered per peer, so that a turn costs one message each.

Owns the messages under way to every other broker, the bytes granted to each (its credit), the
replies of the step and the continuations of store transactions. A ROUTER cannot stop reading one
peer and buffers without bound, so nothing is pushed to a broker beyond `PEER_CREDIT_BYTES` that
it has not acknowledged (rule 12).

Invariants: control messages leave before the pushes of the same step, so a stream's opening
precedes its first byte; a peer that is not connected gets nothing and holds no credit.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from _fastseq.answers import Answers
from cluster.core import effects
from cluster.core.events import Commit
from cluster.limits import PEER_CREDIT_BYTES
from cluster.wire import stream

Then = Callable[[Commit, int], None]
Slice = bytes | memoryview


@dataclass(slots=True)
class PeerLink:
    """The connection to one incarnation of another broker."""

    node_id: int
    incarnation: int
    connected: bool = False
    in_flight_bytes: int = 0
    control: list[stream.Control] = field(default_factory=list)
    pushes: list[stream.PushHeader] = field(default_factory=list)
    data: list[Slice] = field(default_factory=list)
    acks: list[stream.AckHeader] = field(default_factory=list)

    @property
    def credit(self) -> int:
        """Bytes that may still be pushed to this peer."""
        return PEER_CREDIT_BYTES - self.in_flight_bytes if self.connected else 0


class Outbox:
    """Effects of the step under way, and the links they leave on."""

    def __init__(self, node_id: int) -> None:
        """Nothing to send, nobody to send it to."""
        self._node_id = node_id
        self.incarnation = 0
        self.links: dict[int, PeerLink] = {}
        self.to_self: list[stream.Control] = []
        self.answers = Answers(effects.Reply, effects.NoReply, effects.Hangup)
        """Produce requests that are answered in this step."""
        self._effects: list[effects.Effect] = []
        self._syncs: list[effects.Effect] = []
        self._then: dict[int, Then] = {}
        self._request = 0
        self._stream = 0
        self._used: dict[int, PeerLink] = {}
        self._frames: list[tuple[list[Slice], bytes]] = []
        """Data frames of several parts that this step has made."""

    def emit(self, effect: effects.Effect) -> None:
        """An effect that needs no gathering."""
        self._effects.append(effect)

    def sync(self, sync: effects.Sync) -> None:
        """A file to make durable, once what the step says has left."""
        self._syncs.append(sync)

    def connected(self, node_id: int) -> bool:
        """Whether messages to this peer leave now."""
        link = self.links.get(node_id)
        return link is not None and link.connected

    def control(self, node_id: int, message: stream.Control) -> None:
        """A rare message; dropped when the peer is not connected."""
        link = self._use(node_id)
        if link is not None:
            link.control.append(message)

    def control_any(self, node_id: int, message: stream.Control) -> None:
        """A rare message to any broker, this one included."""
        if node_id == self._node_id:
            self.to_self.append(message)
        else:
            self.control(node_id, message)

    def ack(self, node_id: int, ack: stream.AckHeader) -> None:
        """Acknowledge to a leader; dropped when it is not connected."""
        link = self._use(node_id)
        if link is not None:
            link.acks.append(ack)

    def push(self, node_id: int, push: stream.PushHeader, data: Slice) -> None:
        """Batches for a follower, within its credit."""
        link = self._use(node_id)
        if link is not None:
            link.pushes.append(push)
            link.in_flight_bytes += push.length
            if push.length:
                link.data.append(data)

    def broadcast(self, message: stream.Control) -> None:
        """A rare message to every connected peer."""
        for node_id in sorted(self.links):
            self.control(node_id, message)

    def next_stream(self) -> int:
        """A stream number that this incarnation has not used."""
        self._stream += 1
        return self._stream

    def transact(
        self,
        conditions: Sequence[tuple[str, int]],
        puts: Sequence[effects.Put],
        then: Then,
        deletes: Sequence[str] = (),
    ) -> None:
        """Write to the store under conditions; `then` gets the outcome in a later step."""
        self._request += 1
        self._then[self._request] = then
        self._effects.append(
            effects.Transact(self._request, tuple(conditions), tuple(puts), tuple(deletes))
        )

    def transacted(self, request: int, commit: Commit, revision: int) -> None:
        """Hand an outcome to whoever asked."""
        then = self._then.pop(request, None)
        if then is not None:
            then(commit, revision)

    def drain(self) -> list[effects.Effect]:
        """Everything the step produced: messages are gathered per peer and come late, so that a
        stream's opening is decided, and syncs last: followers begin before this disk does.
        """
        drained, syncs = [*self.answers.drain(), *self._effects], self._syncs
        self._effects, self._syncs = [], []
        for link in self._used.values():
            drained.extend(self._messages(link))
        self._used.clear()
        self._frames.clear()
        drained.extend(syncs)
        return drained

    def _use(self, node_id: int) -> PeerLink | None:
        link = self.links.get(node_id)
        if link is None or not link.connected:
            return None
        self._used[node_id] = link
        return link

    def _messages(self, link: PeerLink) -> list[effects.Effect]:
        messages: list[effects.Effect] = []
        for control in link.control:
            body = stream.encode_control(control)
            messages.append(effects.Send(link.node_id, self._opening(stream.CONTROL, link) + body))
        if link.pushes:
            header = self._opening(stream.PUSH, link) + stream.encode_pushes(link.pushes)
            data = self._joined(link.data)
            messages.append(effects.Send(link.node_id, header, data))
        if link.acks:
            header = self._opening(stream.ACK, link) + stream.encode_acks(link.acks)
            messages.append(effects.Send(link.node_id, header))
        link.control, link.pushes, link.data, link.acks = [], [], [], []
        return messages

    def _joined(self, parts: list[Slice]) -> Slice:
        """One data frame of these; followers that get the same parts share it."""
        if len(parts) == 1:
            return parts[0]
        for others, joined in self._frames:
            if len(others) == len(parts) and all(map(operator.is_, others, parts)):
                return joined
        self._frames.append((parts, b"".join(parts)))
        return self._frames[-1][1]

    def _opening(self, kind: int, link: PeerLink) -> bytes:
        return stream.envelope(kind, self._node_id, self.incarnation, link.incarnation)
