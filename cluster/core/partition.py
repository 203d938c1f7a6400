"""A partition on this broker: one replica, and the role that the store gives it.

Composes the stages of a record's way. The role follows from the partition's record alone: whoever
it names as leader leads, in that incarnation only (rule 9); every other replica follows; a
replica whose log failed rests. Every role may follow every other; each ends in `_become`.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from _fastseq.produce import Route
from cluster import errors
from cluster.core.follower import Follower
from cluster.core.image import Versioned
from cluster.core.leader import Leader
from cluster.core.reach import none, reach
from cluster.core.records import PartitionRecord, TopicRecord
from cluster.core.replica import Around, Replica
from cluster.storage.disk import DiskError
from cluster.wire import stream


@dataclass(frozen=True, slots=True)
class Resting:
    """No part in the partition now, and why."""

    reason: str
    unable: bool = False
    """The disk keeps this replica from leading: others may, and it tries again."""


Role = Leader | Follower | Resting
Answered = stream.OpenStream | stream.StateWanted | stream.AckHeader


class Partition:
    """One replica and its role."""

    def __init__(self, replica: Replica, around: Around) -> None:
        """The replica rests until a record is seen."""
        self.replica = replica
        self.role: Role = Resting("no record seen")
        self.record: Versioned[PartitionRecord] | None = None
        self.terms_led = 0
        self._resigned: int | None = None
        self._cut_since_report = False
        self.dropped = 0
        self.route = Route()
        """Where produce requests for this partition go."""
        self._around = around

    @property
    def leader(self) -> Leader | None:
        """The leader role, if this broker leads the partition."""
        return self.role if isinstance(self.role, Leader) else None

    @property
    def epoch_taken_up(self) -> int:
        """The newest leader epoch that this replica has taken part in, in this process."""
        return -1 if self.record is None else self.record.value.leader_epoch

    @property
    def unable(self) -> bool:
        """Whether the disk keeps this replica from leading."""
        resting = isinstance(self.role, Resting) and self.role.unable
        log = self.replica.log
        return resting or log.failed or log.rebuilding

    def report(self) -> stream.ReplicaState:
        """How far this replica reaches, for an election (rule 7); -1 while it cannot serve."""
        if self.unable and self.replica.log.damage is None:
            return none(self.replica.topic_id, self.replica.index)
        self._cut_since_report = False
        return reach(self.replica, self.epoch_taken_up)

    def configured(self, topic: TopicRecord) -> None:
        """The topic's settings have changed."""
        self.replica.configure(topic)
        self.stir()
        if self.leader is not None:
            self.leader.configured()

    @property
    def at_rest(self) -> bool:
        """Whether time alone changes nothing here until something else does."""
        replica, log, role = self.replica, self.replica.log, self.role
        if log.failed or log.damage is not None or log.rebuilding:
            return False
        if replica.cut or replica.start_kept < log.start_offset:
            return False
        if isinstance(role, Resting):
            return self._resigned is None and not role.unable
        return role.at_rest

    def stir(self) -> None:
        """Something has changed here: settle it at the step's end, and look at it from now on."""
        self._around.touched[self.replica.id] = None

    # -- the record ---------------------------------------------------------------------------

    def reconcile(self, record: Versioned[PartitionRecord], now_ms: int) -> None:
        """Take the role that this record gives."""
        if self.record is not None and record.version < self.record.version:
            return
        self.record = record
        self.route.leader = record.value.leader
        self.route.leader_epoch = record.value.leader_epoch
        if not self._sound(record, now_ms):
            return
        role, value = self.role, record.value
        mine = self._leads(value)
        if mine and self._resigned is not None and value.leader_epoch <= self._resigned:
            self._become(Resting("resigned; waiting for the next leader"))
            return
        self._resigned = None
        if mine and self._cut_since_report:
            # Elected for what it reported, and that is not what it has any more.
            self._resigned = value.leader_epoch
            self._become(Resting("lost data after it had reported"))
            self._resign(value.leader_epoch)
            return
        if mine and isinstance(role, Leader) and role.epoch == value.leader_epoch:
            if role.record.version < record.version:
                role.read_back(record, now_ms)
        elif mine:
            self._become(None)
            self._lead(record, now_ms)
        elif value.leader != self._around.node_id and not (
            isinstance(role, Follower) and role.follows(value)
        ):
            self._become(None)
            self.role = Follower(self.replica, value, self._around, now_ms)
        elif value.leader == self._around.node_id:
            self._become(Resting("the record names an earlier incarnation of this broker"))

    def _lead(self, record: Versioned[PartitionRecord], now_ms: int) -> None:
        """Begin a term, or rest if the disk does not take its epoch: then nobody was served in it,
        so it may still begin later. What the leader of a term lacks, nobody had who could tell."""
        try:
            self.role = Leader(self.replica, record, self._around, now_ms)
            self.route.term = self.role.term
            self.terms_led += 1
            if self.replica.log.doubtful:
                with suppress(DiskError):  # doubtful for longer than needed
                    self.replica.log.clear_doubtful()
        except DiskError as error:
            self.role = Resting(str(error), unable=True)
            self._resign(record.value.leader_epoch)

    def _sound(self, record: Versioned[PartitionRecord], now_ms: int) -> bool:
        """Whether the log lets this replica take a role."""
        log = self.replica.log
        if log.damage is not None and not self._give_up_damage(record, now_ms):
            return False
        if log.failed:
            self._become(Resting("the log failed"))
        elif log.rebuilding and self._leads(record.value):
            self._become(Resting("the producer state is being made anew", unable=True))
            self._resign(record.value.leader_epoch)
        else:
            return True
        return False

    def _give_up_damage(self, record: Versioned[PartitionRecord], now_ms: int) -> bool:
        """Cut what cannot be read, once another leads and can be reached; not before (rule 7)."""
        value, said = record.value, f"damaged {self.replica.log.damage}"
        self._become(Resting(said, unable=True), errors.KAFKA_STORAGE_ERROR.number)
        if self._leads(value):
            self._resigned = value.leader_epoch
            self._resign(value.leader_epoch)
        if self._around.reaches(value.leader, value.leader_incarnation):
            with suppress(DiskError):
                self.replica.give_up_damage(now_ms)
        return self.replica.log.damage is None

    def _leads(self, value: PartitionRecord) -> bool:
        around = self._around
        return value.leader == around.node_id and value.leader_incarnation == around.out.incarnation

    def _become(
        self, role: Resting | None, error: int = errors.NOT_LEADER_OR_FOLLOWER.number
    ) -> None:
        """Leave the present role; `None` when the next one is made right after.

        Whoever waits for a leader is answered `error`.
        """
        self.stir()
        if isinstance(self.role, Leader):
            self.role.end_term(error)
            self._around.ended.append(self.replica)
        elif isinstance(self.role, Follower):
            self.dropped += self.role.dropped
        self.route.term = None
        self.role = Resting("between roles") if role is None else role

    def rest(self, reason: str) -> None:
        """Take no part any more: the broker stops, or the topic is gone."""
        self._become(Resting(reason))

    # -- the other brokers --------------------------------------------------------------------

    def peer_connected(self, node_id: int, now_ms: int) -> None:
        """A broker can be reached: if it leads, ask it for a stream."""
        if isinstance(self.role, Follower) and self.role.leader == node_id:
            self.role.ask(now_ms)
            self.stir()

    def peer_disconnected(self, node_id: int) -> None:
        """A broker can no longer be reached."""
        if not isinstance(self.role, Resting):
            self.role.disconnected(node_id)

    def peer_replaced(self, node_id: int) -> None:
        """A broker has registered anew: streams of its earlier incarnation are over (rule 8)."""
        self.stir()
        if isinstance(self.role, Follower):
            self.role.disconnected(node_id)
        elif isinstance(self.role, Leader):
            self.role.close_stream(node_id)

    def open_stream(
        self, node_id: int, incarnation: int, request: stream.OpenStream, now_ms: int
    ) -> None:
        """A follower's wish; refused where this broker does not lead."""
        if isinstance(self.role, Leader):
            self.role.open_stream(node_id, incarnation, request, now_ms)
            return
        self._refuse(node_id, request, "not the leader")

    def _refuse(self, node_id: int, about: Answered, reason: str) -> None:
        refused = stream.StreamRefused(
            about.topic_id, about.partition, about.leader_epoch, about.stream, reason
        )
        self._around.out.control(node_id, refused)

    def stream_opened(self, node_id: int, answer: stream.StreamOpened, now_ms: int) -> None:
        """The leader's answer to the wish for a stream."""
        if isinstance(self.role, Follower) and self.role.leader == node_id:
            self.role.opened(answer, now_ms)
        else:
            self.dropped += 1

    def state_wanted(self, node_id: int, incarnation: int, wanted: stream.StateWanted) -> None:
        """A follower takes in the state that it was offered; refused if that is over."""
        leader = self.leader
        if leader is not None and leader.state_wanted(node_id, incarnation, wanted):
            return
        self._refuse(node_id, wanted, "not the state of this stream")

    def state(
        self, node_id: int, message: stream.StateOffered | stream.StatePart, now_ms: int
    ) -> None:
        """The leader's answer to a log that it cannot continue, or a part of what was asked for."""
        if not isinstance(self.role, Follower) or self.role.leader != node_id:
            self.dropped += 1
        elif isinstance(message, stream.StateOffered):
            self.role.offered(message, now_ms)
        else:
            self.role.state_part(message, now_ms)

    def stream_refused(self, node_id: int, answer: stream.StreamRefused) -> None:
        """The leader will not, or no longer, push on this stream."""
        if isinstance(self.role, Follower) and self.role.leader == node_id:
            self.role.refused(answer)

    def term_begun(self, node_id: int, begun: stream.TermBegun, now_ms: int) -> None:
        """A leader has taken up its term, or closed a stream."""
        if isinstance(self.role, Follower) and self.role.leader == node_id:
            self.role.term_begun(begun, now_ms)

    def pushed(self, node_id: int, push: stream.PushHeader, data: memoryview, now_ms: int) -> bool:
        """Batches from a leader. True when something was appended."""
        if isinstance(self.role, Follower) and self.role.leader == node_id:
            return self.role.pushed(push, data, now_ms)
        self.dropped += 1
        return False

    def acknowledged(
        self, node_id: int, incarnation: int, ack: stream.AckHeader, now_ms: int
    ) -> None:
        """A follower's acknowledgement; one of no current stream is answered, so it asks anew."""
        leader = self.leader
        if leader is not None and leader.acknowledged(node_id, incarnation, ack, now_ms):
            return
        self.dropped += 1
        self._refuse(node_id, ack, "not a current stream")

    # -- the disk -----------------------------------------------------------------------------

    def sync_failed(self, now_ms: int) -> None:
        """A sync failed (rule 14): hand over, cut to what was synced, be doubtful, follow anew.

        What the page cache shows after a failed sync may never have reached the disk, so nothing
        above the last synced end is kept or reported. A write that failed and could not be taken
        back leaves the log in the same state.
        """
        if self.leader is not None:
            self._resigned = self.leader.epoch
        self._become(Resting("a sync failed"), errors.KAFKA_STORAGE_ERROR.number)
        self._look_resting(now_ms)

    def _resign(self, epoch: int) -> None:
        image = self._around.image
        if image.controller is not None:
            resign = stream.Resign(self.replica.topic_id, self.replica.index, epoch)
            self._around.out.control_any(image.controller.value.node_id, resign)

    # -- time ---------------------------------------------------------------------------------

    def settle(self, now_ms: int) -> bool:
        """After appends, acks or syncs: move what they allow. True when the watermark moved."""
        if isinstance(self.role, Leader):
            moved = self.role.settle()
            self.role.feed.catch_up()
            return moved
        if isinstance(self.role, Follower):
            self.role.settle(now_ms)
        return False

    def look(self, now_ms: int) -> None:
        """The regular look at what time alone changes, and at a log that failed in a write."""
        self.replica.log.table.tidy()
        if self.replica.log.failed and not isinstance(self.role, Resting):
            self.sync_failed(now_ms)
        if self.replica.log.damage is not None and self.record is not None:
            self.reconcile(self.record, now_ms)
        match self.role:
            case Leader() as leader:
                leader.look(now_ms)
            case Follower() as follower:
                follower.look(now_ms)
            case Resting():
                self._look_resting(now_ms)

    def _look_resting(self, now_ms: int) -> None:
        if self._resigned is not None:
            self._resign(self._resigned)  # again, until a newer record says it was heard
        if self.replica.log.failed and self.replica.log.damage is None:
            self._cut_since_report = True
            try:
                self.replica.recover(now_ms)
            except DiskError:
                return
        elif not self.unable:
            return
        if self.record is not None:
            self.reconcile(self.record, now_ms)
