"""Producer states on their way to followers whose log cannot be continued.

Owns, on the leader, what was offered to whom and the bytes under way. A follower that is new, that
ends below where this log begins, or that would have to cut more than it stores, gets the producer
state of exactly the offset at which its data will begin, and then opens a stream there (rule 8).
It asks for the state part by part, so each part is granted, repeated and given up like any message.

Invariants: no stream is open to a follower that is offered a state; the bytes of its last part
count against the credit of its link until it asks for the next one.
"""

from __future__ import annotations

from cluster.core.outbox import Outbox
from cluster.core.replica import Replica
from cluster.core.replicate import push_size
from cluster.storage.disk import DiskError
from cluster.wire import stream


class Handovers:
    """The states that one leader hands over in one term."""

    def __init__(self, replica: Replica, out: Outbox) -> None:
        """Nobody asks for any yet."""
        self._replica = replica
        self._out = out
        self._in_flight: dict[int, int] = {}
        self._waiting: dict[int, stream.StateWanted] = {}

    def offer(self, node_id: int, request: stream.OpenStream) -> bool:
        """Tell a follower what it can begin with. False if there is nothing whole to begin with."""
        log = self._replica.log
        try:
            size = log.states.size()
        except DiskError:
            size = None
        if size is None:
            return False
        offset = log.first_offset
        epochs = tuple((epoch, start) for epoch, start in log.epochs if start < offset)
        offered = stream.StateOffered(
            request.topic_id, request.partition, request.leader_epoch, request.stream,
            offset=offset, size=size, epochs=epochs,
        )  # fmt: skip
        self._out.control(node_id, offered)
        return True

    def wanted(self, node_id: int, wanted: stream.StateWanted) -> bool:
        """Send the part asked for, now or when credit allows. False if that state is gone."""
        self.close(node_id)
        if wanted.offset != self._replica.log.first_offset:
            return False
        self._waiting[node_id] = wanted
        return self._send(node_id)

    def go_on(self) -> None:
        """Send what waited for credit; whoever hears nothing asks again."""
        for node_id in list(self._waiting):
            self._send(node_id)

    def close(self, node_id: int) -> None:
        """What was sent arrived, or the follower is gone."""
        self._waiting.pop(node_id, None)
        sent = self._in_flight.pop(node_id, 0)
        link = self._out.links.get(node_id)
        if link is not None:
            link.in_flight_bytes = max(0, link.in_flight_bytes - sent)

    def close_all(self) -> None:
        """The term has ended."""
        for node_id in {*self._waiting, *self._in_flight}:
            self.close(node_id)

    def _send(self, node_id: int) -> bool:
        link = self._out.links.get(node_id)
        if link is None or link.credit <= 0:
            return True
        wanted = self._waiting.pop(node_id)
        try:
            data = self._replica.log.states.read(wanted.position, push_size(link.credit))
        except DiskError:
            return False
        self._in_flight[node_id] = len(data)
        link.in_flight_bytes += len(data)
        part = stream.StatePart(
            wanted.topic_id, wanted.partition, wanted.leader_epoch, wanted.stream,
            offset=wanted.offset, position=wanted.position, data=data,
        )  # fmt: skip
        self._out.control(node_id, part)
        return True
