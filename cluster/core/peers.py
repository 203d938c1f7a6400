"""What other brokers say, taken apart and handed to whom it concerns.

Owns the reading of peer messages: a frame that is none of the protocol's, or that was meant for or
sent by another incarnation, is counted and dropped (rule 8). Opinions, reports and resignations
are kept until the step's end, where membership and the controller take them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cluster.core.controller import Controller
from cluster.core.effects import LookAtStore
from cluster.core.outbox import Outbox
from cluster.core.placement import Replicas
from cluster.core.reach import none
from cluster.wire import stream

StreamMessage = (
    stream.OpenStream
    | stream.StreamOpened
    | stream.StateOffered
    | stream.StateWanted
    | stream.StatePart
    | stream.StreamRefused
    | stream.TermBegun
)


class Peers:
    """The messages of other brokers."""

    def __init__(self, replicas: Replicas, out: Outbox) -> None:
        """Nobody has spoken yet."""
        self._replicas = replicas
        self._out = out
        self.dropped: Counter[str] = Counter()
        self.stopping_nodes: dict[int, int] = {}
        self._opinions: list[tuple[int, stream.Opinion]] = []
        self._reports: list[tuple[int, int, stream.StateReport]] = []
        self._resigned: list[stream.Resign] = []
        self.groups_wanted = False
        """Another broker misses the topic of groups."""
        self._forwards: list[tuple[int, stream.Forward | stream.Forwarded]] = []

    def turn(self, messages: Sequence[tuple[bytes, bytes | memoryview]], now_ms: int) -> bool:
        """Everything that arrived in one turn, in order. True if it was more than data and acks."""
        rare = False
        for header, data in messages:
            try:
                rare = self._take(header, data, now_ms) or rare
            except stream.StreamError:
                self.dropped["malformed"] += 1
        return rare

    def _take(self, header: bytes, data: bytes | memoryview, now_ms: int) -> bool:
        opening = stream.read_envelope(header)
        link = self._out.links.get(opening.sender)
        if opening.receiver_incarnation != self._out.incarnation:
            self.dropped["for another incarnation"] += 1
        elif link is None or link.incarnation != opening.sender_incarnation:
            self.dropped["of another incarnation"] += 1
        elif opening.kind == stream.PUSH:
            self._pushes(opening.sender, stream.read_pushes(header, len(data)), data, now_ms)
        elif opening.kind == stream.ACK:
            self._acks(opening, stream.read_acks(header), now_ms)
        else:
            message = stream.read_control(header)
            self.control(opening.sender, opening.sender_incarnation, message, now_ms)
            return True
        return False

    def _pushes(
        self,
        sender: int,
        pushes: list[stream.PushHeader],
        data: bytes | memoryview,
        now_ms: int,
    ) -> None:
        view, position = memoryview(data), 0
        for push in pushes:
            partition = self._replicas.get(push.topic_id, push.partition)
            part = view[position : position + push.length]
            position += push.length
            if partition is None:
                self.dropped["unknown partition"] += 1
            else:
                partition.pushed(sender, push, part, now_ms)
                self._replicas.touch(partition.replica)

    def _acks(self, opening: stream.Envelope, acks: list[stream.AckHeader], now_ms: int) -> None:
        for ack in acks:
            partition = self._replicas.get(ack.topic_id, ack.partition)
            if partition is None:
                self.dropped["unknown partition"] += 1
                continue
            partition.acknowledged(opening.sender, opening.sender_incarnation, ack, now_ms)
            self._replicas.touch(partition.replica)

    def control(self, sender: int, incarnation: int, message: stream.Control, now_ms: int) -> None:
        """One rare message, of another broker or of this one to itself."""
        match message:
            case (
                stream.OpenStream()
                | stream.StreamOpened()
                | stream.StateOffered()
                | stream.StateWanted()
                | stream.StatePart()
                | stream.StreamRefused()
                | stream.TermBegun()
            ):
                self._stream(sender, incarnation, message, now_ms)
            case stream.StateQuery():
                self._out.control_any(sender, self._report(message))
            case stream.StateReport() | stream.Opinion() | stream.Resign():
                self._keep(sender, incarnation, message)
            case stream.WantGroups():
                self.groups_wanted = True
            case stream.Forward() | stream.Forwarded():
                self._forwards.append((sender, message))
            case stream.Stopping():
                self.stopping_nodes[sender] = incarnation
            case stream.Poke():
                self._out.emit(LookAtStore())
            case stream.Hello():
                # The sender's connection to this broker is new: it forgot the streams of the old
                # one, and may have had none yet to answer the wish for a stream on.
                for partition in self._replicas.all():
                    partition.peer_connected(sender, now_ms)

    def _keep(
        self,
        sender: int,
        incarnation: int,
        message: stream.StateReport | stream.Opinion | stream.Resign,
    ) -> None:
        match message:
            case stream.StateReport():
                self._reports.append((sender, incarnation, message))
            case stream.Opinion():
                self._opinions.append((sender, message))
            case stream.Resign():
                self._resigned.append(message)

    def _stream(
        self,
        sender: int,
        incarnation: int,
        message: StreamMessage,
        now_ms: int,
    ) -> None:
        partition = self._replicas.get(message.topic_id, message.partition)
        if partition is None:
            self.dropped["unknown partition"] += 1
            return
        match message:
            case stream.OpenStream():
                partition.open_stream(sender, incarnation, message, now_ms)
            case stream.StreamOpened():
                partition.stream_opened(sender, message, now_ms)
            case stream.StateWanted():
                partition.state_wanted(sender, incarnation, message)
            case stream.StateOffered() | stream.StatePart():
                partition.state(sender, message, now_ms)
            case stream.StreamRefused():
                partition.stream_refused(sender, message)
            case stream.TermBegun():
                partition.term_begun(sender, message, now_ms)
        self._replicas.touch(partition.replica)

    def _report(self, query: stream.StateQuery) -> stream.StateReport:
        states = []
        for topic_id, index in query.partitions:
            partition = self._replicas.get(topic_id, index)
            states.append(none(topic_id, index) if partition is None else partition.report())
        return stream.StateReport(query.query, tuple(states))

    # -- at the step's end --------------------------------------------------------------------

    def opinions(self) -> list[tuple[int, stream.Opinion]]:
        """The opinions that arrived since the last call."""
        taken, self._opinions = self._opinions, []
        return taken

    def forwards(self) -> list[tuple[int, stream.Forward | stream.Forwarded]]:
        """Requests for the controller, and its answers, that arrived since the last call."""
        taken, self._forwards = self._forwards, []
        return taken

    def hand_to(self, controller: Controller) -> None:
        """Reports and resignations are the controller's."""
        for sender, incarnation, report in self._reports:
            controller.reported(sender, incarnation, report)
        for resign in self._resigned:
            controller.resigned((resign.topic_id.hex(), resign.partition), resign.leader_epoch)
        self._reports, self._resigned = [], []

    def poke(self, revision: int) -> None:
        """Tell everybody that the store has moved."""
        self._out.broadcast(stream.Poke(revision))
