"""The follower role of one partition: copy one leader's log in one epoch.

Owns the stream that is open or asked for, and when to ask again. The stream is the only way in:
what arrives for another number, epoch or leader is counted and dropped (rule 8). Opening states
what this log holds; the leader answers where to cut; then pushes follow without a gap.

Invariants: an acknowledgement never exceeds what counts as held (synced, under `flush=batch`);
data is taken only at exactly the end of the log, and after a cut only once the checkpoints on disk
say so; the high watermark never passes that end.
"""

from __future__ import annotations

from contextlib import suppress

from cluster.core.intake import Intake
from cluster.core.records import PartitionRecord
from cluster.core.replica import Around, Replica
from cluster.limits import STREAM_RETRY_MS
from cluster.storage.disk import DiskError
from cluster.wire import stream


class Follower:
    """Following one leader in one epoch."""

    def __init__(
        self, replica: Replica, record: PartitionRecord, around: Around, now_ms: int
    ) -> None:
        """Ask the leader for a stream at once, if it can be reached."""
        self.replica = replica
        self.leader = record.leader
        self.leader_incarnation = record.leader_incarnation
        self.epoch = record.leader_epoch
        self.dropped = 0
        self._around = around
        self._stream = 0
        self._open = False
        self._asked = False
        self._compared = -1
        self._heard = 0
        self._differs = False
        self._acked = -1
        self._start = replica.log.start_offset
        """Where the leader's log begins."""
        self._start_acked = -1
        self._whole_at = 0
        self._ask_again_ms = now_ms
        self._intake: Intake | None = None
        self._anew = self._began_anew = False
        replica.log.lane.leader_epoch = self.epoch  # nothing of a later epoch may be pushed
        self.ask(now_ms)

    @property
    def following(self) -> bool:
        """Whether a stream is open."""
        return self._open

    def follows(self, value: PartitionRecord) -> bool:
        """Whether this is the role that a record gives."""
        mine = (self.epoch, self.leader, self.leader_incarnation)
        return mine == (value.leader_epoch, value.leader, value.leader_incarnation)

    @property
    def at_rest(self) -> bool:
        """Whether the stream is open and all that came on it is acknowledged."""
        return self._open and self._acked == self.replica.log.next_offset

    def ask(self, now_ms: int) -> None:
        """Open a stream: say what this log holds, durably."""
        self._open, self._acked, self._intake = False, -1, None
        replica, image = self.replica, self._around.image
        if replica.cut or replica.log.rebuilding:
            self._ask_again_ms = now_ms  # at once when the checkpoints are lowered
            return
        self._ask_again_ms = now_ms + STREAM_RETRY_MS
        store_id = image.store_id(self._around.node_id, replica.topic)
        link = self._around.out.links.get(self.leader)
        if store_id is None or link is None or link.incarnation != self.leader_incarnation:
            return
        if replica.counted_end < replica.log.next_offset:
            return  # what is reported must be durable: the sync under way brings us back here
        self._stream, self._asked = self._around.out.next_stream(), True
        request = stream.OpenStream(
            replica.topic_id, replica.index, self.epoch, self._stream,
            epochs=tuple(replica.log.epochs),
            start_offset=max(replica.start_kept, 0),
            end_offset=replica.counted_end,
            doubtful=replica.log.doubtful,
            store_id=store_id,
            differs=self._differs,
            first_offset=replica.log.first_offset,
            anew=self._anew or replica.log.stateless,
        )  # fmt: skip
        self._around.out.control(self.leader, request)

    def opened(self, answer: stream.StreamOpened, now_ms: int) -> None:
        """The leader agreed: cut to the common prefix and confirm what is left."""
        mine = answer.stream == self._stream and answer.leader_epoch == self.epoch
        if not mine or not self._asked:
            self.dropped += 1
            return
        self._asked = False  # said again, it would cut what was acknowledged since
        replica = self.replica
        if answer.truncate_to <= replica.log.next_offset:
            try:
                replica.truncate(answer.truncate_to, now_ms)
            except DiskError:
                return  # asked again later; nothing was acknowledged
        if replica.cut or replica.log.rebuilding or replica.log.next_offset != answer.truncate_to:
            self.ask(now_ms)
            return
        self._open, self._compared, self._heard = True, -1, 0
        self._whole_at = answer.leader_end
        replica.commit(answer.high_watermark)
        self.acknowledge()

    def offered(self, offered: stream.StateOffered, now_ms: int) -> None:
        """This log cannot be continued: take in the state of where the leader's data begins."""
        mine = offered.stream == self._stream and offered.leader_epoch == self.epoch
        if not mine or not self._asked:
            self.dropped += 1
            return
        self._asked, self._intake = False, Intake(self.replica, offered)
        self._go_on_taking(self._intake, now_ms)

    def state_part(self, part: stream.StatePart, now_ms: int) -> None:
        """A part of the state arrived."""
        intake = self._intake
        if intake is None or part.stream != self._stream or part.leader_epoch != self.epoch:
            self.dropped += 1
            return
        try:
            if intake.take(part):
                self._go_on_taking(intake, now_ms)
        except DiskError:
            self._intake = None  # asked anew when the time comes

    def _go_on_taking(self, intake: Intake, now_ms: int) -> None:
        """Ask for the next part, or begin the log anew: then a stream can follow."""
        if not intake.complete:
            self._around.out.control(self.leader, intake.next(now_ms))
            return
        self._intake, self._ask_again_ms = None, now_ms + STREAM_RETRY_MS
        with suppress(DiskError):
            if intake.install(now_ms):
                self._anew, self._began_anew, self._differs = False, True, False
                self._start = self.replica.log.start_offset
                self.ask(now_ms)

    def refused(self, answer: stream.StreamRefused) -> None:
        """The leader does not know this stream: ask for another when the time comes."""
        if answer.stream == self._stream:
            self._open, self._intake = False, None

    def term_begun(self, begun: stream.TermBegun, now_ms: int) -> None:
        """The leader has no stream to here: a wish came too early, or one was closed since."""
        if begun.leader_epoch != self.epoch:
            return
        if begun.stream == self._stream if self._open else begun.stream == 0:
            self.ask(now_ms)

    def pushed(self, push: stream.PushHeader, data: memoryview, now_ms: int) -> bool:
        """Take batches at the end of the log. True when something was appended."""
        replica = self.replica
        if not self._open or push.stream != self._stream or push.leader_epoch != self.epoch:
            self.dropped += 1
            return False
        before = replica.log.next_offset
        if push.base_offset > before:
            self.ask(now_ms)  # something before it was lost on the way
            return False
        if push.question > self._heard:
            self._heard, self._acked = push.question, -1
        if push.length == 0 or push.base_offset < before:
            # A question how far this log is, or data of this stream that is here already.
            self._acked = -1
        else:
            try:
                error = replica.log.apply(data, 0, len(data), now_ms)
            except DiskError:
                self._open = False
                return False
            if error:
                self.dropped += 1
                self._open = False  # asked again later, not at once: it may be wrong again
                return False
        if push.digest and push.base_offset == before and not self._same(push.digest):
            return False
        replica.commit(push.high_watermark)
        self._start = max(self._start, push.log_start_offset)
        return bool(push.length)

    def _same(self, digest: int) -> bool:
        """Whether the producer state is the leader's; if not, acknowledge nothing (rule 5).

        It is made anew from the log, and the next stream starts with that. If it differs again,
        and the log does not go back to the first record, it begins anew with the leader's state;
        if that does not help either, this replica stays out of the in-sync set, and its data is
        kept for whoever looks into it.
        """
        if digest == self.replica.digest:
            self._compared, self._differs = self.replica.log.next_offset, False
            return True
        self.replica.differed += 1
        if not self._differs:
            with suppress(DiskError):  # the log has failed then, and is recovered as such
                self.replica.log.rebuild_table()
        elif self.replica.log.first_offset > 0:
            self._anew = not self._began_anew  # what its data begins with may be what is wrong
        self._open, self._differs = False, True
        return False

    def acknowledge(self) -> None:
        """Tell the leader how far this log counts and where it begins, if either moved.

        The leader's log start is taken over below what is held for good: what a failed sync takes
        must not lie below it.
        """
        replica = self.replica
        if not self._open:
            return
        end = replica.counted_end
        if self._start > replica.log.start_offset:
            replica.advance_start(min(self._start, end))
        if end == self._acked and replica.start_kept == self._start_acked:
            return
        self._acked, self._start_acked = end, replica.start_kept
        if replica.log.doubtful and end >= self._whole_at:
            with suppress(DiskError):  # doubtful for longer than needed: tried at the next one
                replica.log.clear_doubtful()
        ack = stream.AckHeader(
            replica.topic_id, replica.index, self.epoch, self._stream, end, self._compared,
            replica.start_kept, self._heard,
        )  # fmt: skip
        self._around.out.ack(self.leader, ack)

    def settle(self, now_ms: int) -> None:
        """After something changed: acknowledge it, or see whether a stream can be asked for."""
        if self._open:
            self.acknowledge()
        else:
            self.look(now_ms)

    def disconnected(self, node_id: int) -> None:
        """The connection to a broker is lost; with the leader's goes the stream."""
        if node_id == self.leader:
            self._open, self._intake = False, None

    def look(self, now_ms: int) -> None:
        """The regular look: ask again for a stream that is not open, or for the next of a state."""
        if self._intake is not None:
            if now_ms >= self._intake.ask_again_ms:
                self._around.out.control(self.leader, self._intake.next(now_ms))
        elif not self._open and now_ms >= self._ask_again_ms:
            self.ask(now_ms)
