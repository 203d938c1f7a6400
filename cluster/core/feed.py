"""What the followers of one leader are sent in one term, and how far each has come.

Owns their streams and the producer states on their way. What a turn appended is pushed to whoever
is at the tail; who lags is sent what it lacks from the log, within the credit of its link, and what
is not in memory is read off the loop first.

Invariants: a stream's batches follow one another without a gap; nothing is pushed that cannot be
read as whole batches in their order; what was sent and not acknowledged counts against the credit.
"""

from __future__ import annotations

from contextlib import suppress

from _fastseq.batch import whole_batches
from _fastseq.waiters import Term
from cluster.core.handover import Handovers
from cluster.core.replica import Around, Replica
from cluster.core.replicate import Followers, FollowerStream, push_size
from cluster.storage.disk import DiskError
from cluster.storage.reading import Cold, Fetched, Parts
from cluster.storage.walking import check_window
from cluster.wire import stream


class Feed:
    """The streams of one term."""

    def __init__(self, replica: Replica, epoch: int, term: Term, around: Around) -> None:
        """No stream is open; the epoch starts where the log ends now."""
        self.followers = Followers()
        self.handovers = Handovers(replica, around.out)
        self.epoch_start = replica.log.next_offset
        self._replica = replica
        self._epoch = epoch
        self._term = term
        self._around = around
        self._told = -1
        self._suspected: set[int] = set()

    def close(self, node_id: int) -> None:
        """Nothing that this follower acknowledged counts any more; its credit comes back."""
        self.handovers.close(node_id)
        self._freed(node_id, self.followers.close(node_id))

    def acknowledged(self, follower: FollowerStream, ack: stream.AckHeader, now_ms: int) -> None:
        """A follower has come this far on its stream."""
        follower.compared = max(follower.compared, ack.compared)
        follower.heard = max(follower.heard, ack.question)
        follower.start = max(follower.start, ack.log_start_offset)
        freed = self.followers.acknowledge(follower, ack.end_offset, now_ms)
        self._freed(follower.node_id, freed)

    def _freed(self, node_id: int, size: int) -> None:
        link = self._around.out.links.get(node_id)
        if link is not None:
            link.in_flight_bytes = max(0, link.in_flight_bytes - size)

    # -- batches ------------------------------------------------------------------------------

    def appended(self, base_offset: int, next_offset: int, data: memoryview) -> None:
        """The turn's batches are in the log: push them to whoever is at the tail."""
        for follower in self.followers.streams():
            link = self._around.out.links.get(follower.node_id)
            if follower.sent == base_offset and link is not None and link.credit >= len(data):
                self._push(follower, base_offset, next_offset, data)

    def catch_up(self) -> None:
        """Push what followers lack, from the log, within their credit."""
        self.handovers.go_on()
        end = self._replica.log.next_offset
        for follower in self.followers.streams():
            if follower.sent >= end:
                continue  # nearly always: the turn was pushed as it was appended
            if follower.sent < self._replica.log.first_offset:
                self._lost_touch(follower)
                continue
            link = self._around.out.links.get(follower.node_id)
            while link is not None and follower.sent < end and link.credit > 0:
                parts = self._stored(follower, push_size(link.credit))
                if not parts:
                    break
                for part in parts:
                    _, upto = whole_batches(part, 0, len(part), end)
                    if check_window(part, follower.sent).reason:
                        self.suspect(follower.sent)
                        return
                    self._push(follower, follower.sent, upto, memoryview(part))

    def _lost_touch(self, follower: FollowerStream) -> None:
        """What it lacks was deleted meanwhile: it asks anew, and begins with a state."""
        replica, node_id = self._replica, follower.node_id
        self.close(node_id)
        refused = stream.StreamRefused(
            replica.topic_id, replica.index, self._epoch, follower.number, "deleted meanwhile"
        )
        self._around.out.control(node_id, refused)

    def suspect(self, offset: int) -> None:
        """Look, once, whether what is stored at an offset is damaged: the next look then ends the
        term, and nobody is given it."""
        log = self._replica.log
        if offset in self._suspected:
            return
        self._suspected.add(offset)
        with suppress(DiskError):
            place = log.scrub.examine(offset)
            if place is not None:
                log.mark_damaged(place)
                self._around.touched[self._replica.id] = None

    def _stored(self, follower: FollowerStream, size: int) -> Parts:
        """What follows in the log. Nothing yet if it is being read from the disk, and nothing if
        the disk cannot read it: whoever lacks it lags.
        """
        if follower.reading:
            return ()
        log, have = self._replica.log, follower.have
        follower.have = None
        try:
            found = log.read_now(follower.sent, size, log.next_offset, have)
        except DiskError:
            self.suspect(follower.sent)
            return ()
        if not isinstance(found, Cold):
            return found

        def then(fetched: Fetched | None) -> None:
            follower.reading = False
            # A stream that was closed meanwhile is not this one, and a term that ended closed all.
            if fetched is not None and self.followers.get(follower.node_id) is follower:
                follower.have = fetched
                self.catch_up()
                follower.have = None

        follower.reading = True
        self._around.reads.begin(log, found, then)
        return ()

    def tell_high_watermark(self) -> None:
        """Followers learn the high watermark with data; this is for when none follows.

        An empty push also asks for an acknowledgement: what a socket lost on the way shows.
        """
        told, self._told = self._told, self._replica.high_watermark
        for follower in self.followers.streams():
            end = self._replica.log.next_offset
            behind = follower.sent > follower.acked
            unsure = follower.compared < self.epoch_start
            late = follower.start < self._replica.log.start_offset
            asked = follower.heard < self._term.asking
            if behind or late or asked or (follower.sent == end and (unsure or told != self._told)):
                self.ask(follower)

    def confirm(self) -> None:
        """Ask every follower whether it still follows (rule 6)."""
        for follower in self.followers.streams():
            self.ask(follower)

    def ask(self, follower: FollowerStream) -> None:
        """An empty push: it tells what this leader knows, and wants an acknowledgement."""
        self._push(follower, follower.sent, follower.sent, memoryview(b""))

    def _push(
        self, follower: FollowerStream, base_offset: int, next_offset: int, data: memoryview
    ) -> None:
        digest = self._replica.digest if next_offset == self._replica.log.next_offset else 0
        header = stream.PushHeader(
            self._replica.topic_id, self._replica.index, self._epoch, follower.number,
            base_offset, len(data), digest, self._replica.high_watermark,
            self._replica.log.start_offset, self._term.asking,
        )  # fmt: skip
        self._around.out.push(follower.node_id, header, data)
        self.followers.sent(follower, next_offset, len(data))

    def at_rest(self, others: int) -> bool:
        """Whether all `others` have all there is, have compared equal, and know it is committed."""
        replica = self._replica
        end = replica.log.next_offset
        return replica.high_watermark == self._told == end and others == self.followers.at_rest(
            end, compared=self.epoch_start, start=replica.log.start_offset
        )
