"""The leader role of one partition, for one term.

Owns the term: its epoch, who may open a stream, who waits for what, and the one change of the
partition's record that may be under way; `Feed` has the streams. A term begins when the store names
this incarnation and ends with the first record that does not; then everything that waits is
answered "possibly stored" (rule 2).

Invariants: no stream opens below the high watermark for a member that still counts (rule 8); what
a follower cannot continue with is not pushed to it.
"""

from __future__ import annotations

from collections.abc import Callable

from _fastseq.waiters import Term
from cluster import errors
from cluster.core import insync, records
from cluster.core.acknowledge import high_watermark
from cluster.core.change import RecordChange
from cluster.core.deletions import Deletion, Deletions, Done
from cluster.core.feed import Feed
from cluster.core.image import Versioned
from cluster.core.replica import Around, Replica
from cluster.core.replicate import FollowerStream, common_prefix
from cluster.core.sweep import Sweep
from cluster.limits import REJOIN_MS
from cluster.wire import stream


class Leader:
    """One term of leadership."""

    def __init__(
        self,
        replica: Replica,
        record: Versioned[records.PartitionRecord],
        around: Around,
        now_ms: int,
    ) -> None:
        """The term begins: the epoch starts where the log ends, even before any append."""
        self.replica = replica
        self._change = RecordChange(replica, record, around)
        self.epoch = record.value.leader_epoch
        self.deletions = Deletions()
        self._internal: list[tuple[int, Callable[[int], None]]] = []
        """(end, done) of the broker's own batches that are not committed, in order."""
        self.began_ms = now_ms
        self._around = around
        self._rested = False
        """Nothing was under way at the last look, which may be long ago."""
        self._silent: tuple[int, ...] = ()
        """Members that lagged at the last look: some have to stay in the set all the same."""
        self._expected: tuple[int, ...] = ()
        """Members of a new partition that have not opened a stream yet: the look makes them silent
        if they let that much time pass."""
        if not replica.log.next_offset:
            alive = around.image.alive
            self._expected = tuple(node for node in record.value.isr if alive(node) is not None)
        self._numbers: dict[int, tuple[int, int]] = {}
        self._openings: dict[int, tuple[int, stream.OpenStream]] = {}
        log = replica.log
        log.assign_epoch(self.epoch, log.next_offset)
        log.lane.leader_epoch = self.epoch
        self.term = Term(log.lane, around.out.answers, self, self._state)
        """Produce requests of this term, and who of them waits."""
        self.feed = Feed(replica, self.epoch, self.term, around)
        self.followers = self.feed.followers
        self.epoch_start = self.feed.epoch_start
        self.sweep = Sweep(log.next_offset, now_ms, replica.expiration_ms)
        self._tell_term()
        self.settle()

    def configured(self) -> None:
        """The topic's settings have changed."""
        self.sweep.expire_after(self.replica.expiration_ms)
        self._change.configured()

    @property
    def members_present(self) -> bool:
        """Whether enough in-sync members are here for a new acks=all write, and acknowledge.

        Whoever is expected counts: a topic's first producer often comes before its followers. The
        write waits for them like any other.
        """
        quorum = self._change.quorum()
        heard = quorum.members
        if self._silent:
            heard = tuple(node for node in quorum.members if node not in self._silent)
        here = self.followers.count(heard)
        if self._expected:
            awaited = [node for node in heard if node in self._expected]
            here += len(awaited) - self.followers.count(awaited)
        return 1 + here >= quorum.minimum

    def _state(self) -> tuple[int, int, bool]:
        """What a turn must know: the error of new acks=all writes, the start, how to validate."""
        config, log = self.replica.topic.config, self.replica.log
        log.lane.append_time = config.get("message.timestamp.type") == "LogAppendTime"
        refuse = 0 if self.members_present else errors.NOT_ENOUGH_REPLICAS.number
        return refuse, log.start_offset, config.get("validate.records") == "full"

    @property
    def record(self) -> Versioned[records.PartitionRecord]:
        """The partition's record as it was last read."""
        return self._change.record

    @property
    def changing(self) -> bool:
        """Whether a change of the record is under way."""
        return self._change.proposed is not None

    # -- the record ---------------------------------------------------------------------------

    def read_back(self, record: Versioned[records.PartitionRecord], now_ms: int) -> None:
        """A newer record of the same term: what was proposed is now decided."""
        assert record.value.leader_epoch == self.epoch
        self._change.read_back(record)
        openings, self._openings = self._openings, {}
        for node_id, (incarnation, request) in openings.items():
            self.open_stream(node_id, incarnation, request, now_ms, again=True)
        self.settle()

    # -- streams ------------------------------------------------------------------------------

    def open_stream(
        self,
        node_id: int,
        incarnation: int,
        request: stream.OpenStream,
        now_ms: int,
        *,
        again: bool = False,
    ) -> None:
        """A follower wants to copy: agree where, or make it leave first, or refuse."""
        refusal = self._refusal(node_id, incarnation, request)
        if refusal is not None:
            self._refuse(node_id, request, refusal)
            return
        if not again and not self._is_newest(node_id, incarnation, request.stream):
            return
        log = self.replica.log
        agreed = common_prefix(log.epochs, log.next_offset, request.epochs, request.end_offset)
        self.close_stream(node_id)
        value = self.record.value
        member = node_id in insync.maximal(value, self._change.proposed)
        begins = request.anew or agreed < max(log.first_offset, request.first_offset)
        suspect = begins or request.differs or agreed < self.replica.high_watermark
        if member and suspect and node_id not in value.doubtful:
            self._openings[node_id] = (incarnation, request)
            self._change.propose(insync.distrusted(value, node_id, self.replica.min_insync))
            return
        if begins:
            if not self.feed.handovers.offer(node_id, request):
                self._refuse(node_id, request, "no producer state to begin with")
            return
        follower = self.followers.open(
            node_id,
            incarnation,
            request.stream,
            agreed=agreed,
            end=log.next_offset,
            now_ms=now_ms,
        )
        follower.start = request.start_offset
        opened = stream.StreamOpened(
            request.topic_id, request.partition, self.epoch, request.stream,
            truncate_to=agreed, leader_end=log.next_offset,
            high_watermark=self.replica.high_watermark,
        )  # fmt: skip
        self._around.out.control(node_id, opened)
        self.feed.catch_up()

    def state_wanted(self, node_id: int, incarnation: int, wanted: stream.StateWanted) -> bool:
        """A follower asks for a part of a state; False when it was not offered that one."""
        current = self._numbers.get(node_id) == (incarnation, wanted.stream)
        if not current or wanted.leader_epoch != self.epoch or self.followers.get(node_id):
            return False
        return self.feed.handovers.wanted(node_id, wanted)

    def _tell_term(self) -> None:
        """Whoever has no stream hears which one of theirs is closed, or that the term begins."""
        for node_id in self.record.value.replicas:
            if node_id == self._around.node_id or self.followers.get(node_id) is not None:
                continue
            _, number = self._numbers.get(node_id, (0, 0))
            begun = stream.TermBegun(self.replica.topic_id, self.replica.index, self.epoch, number)
            if node_id not in self._openings:
                self._around.out.control(node_id, begun)

    def _is_newest(self, node_id: int, incarnation: int, number: int) -> bool:
        """A socket may replay an older wish; what it says of the log may be untrue by now."""
        latest = self._numbers.get(node_id)
        if latest is not None and (incarnation, number) <= latest:
            return False
        self._numbers[node_id] = (incarnation, number)
        return True

    def _refusal(self, node_id: int, incarnation: int, request: stream.OpenStream) -> str | None:
        value = self.record.value
        if request.leader_epoch != self.epoch:
            return "another leader epoch"
        if node_id not in value.replicas:
            return "not a replica"
        if self._around.image.alive(node_id) != incarnation:
            return "not the registered incarnation"
        if value.store_of(node_id) != request.store_id:
            return "another data directory"
        return None

    def _refuse(self, node_id: int, request: stream.OpenStream, reason: str) -> None:
        refused = stream.StreamRefused(
            request.topic_id, request.partition, request.leader_epoch, request.stream, reason
        )
        self._around.out.control(node_id, refused)

    def close_stream(self, node_id: int) -> None:
        """The follower is gone or begins anew: nothing it acknowledged counts any more."""
        self.feed.close(node_id)
        self._openings.pop(node_id, None)
        self._expected = tuple(node for node in self._expected if node != node_id)

    def disconnected(self, node_id: int) -> None:
        """The connection to a follower is lost: it leaves at once where it may."""
        if node_id not in self.record.value.replicas:
            return
        self.close_stream(node_id)
        self._change.propose(insync.left(self.record.value, node_id, self.replica.min_insync))

    def acknowledged(
        self, node_id: int, incarnation: int, ack: stream.AckHeader, now_ms: int
    ) -> bool:
        """A follower's acknowledgement; False when it is of no current stream (rule 8)."""
        follower = self.followers.get(node_id)
        if (
            follower is None
            or ack.leader_epoch != self.epoch
            or follower.number != ack.stream
            or follower.incarnation != incarnation
        ):
            return False
        self.feed.acknowledged(follower, ack, now_ms)
        self._consider(follower, now_ms)
        return True

    def _consider(self, follower: FollowerStream, now_ms: int) -> None:
        """Whether a follower that just acknowledged may join, or be trusted again."""
        value, node_id = self.record.value, follower.node_id
        if node_id in value.isr and node_id not in value.doubtful:
            return  # as nearly every acknowledgement finds it
        if self._around.image.alive(node_id) != follower.incarnation:
            return  # what it acknowledged, an earlier start of it did
        whole = follower.acked >= max(self.replica.high_watermark, self.epoch_start)
        if not whole or follower.acked < follower.whole_at:
            return
        if follower.start < self.replica.start_kept:
            return  # what was deleted would be there again if it led
        if follower.compared < self.epoch_start:
            return  # one equal comparison in this term is asked for (rule 5)
        if node_id in value.doubtful:
            self._change.propose(insync.trusted(value, node_id), follower)
        else:
            since = follower.keeping_up_since_ms
            if since is not None and now_ms - since >= REJOIN_MS:
                self._change.propose(insync.joined(value, node_id), follower)

    def stir(self) -> None:
        """Something has changed here: it is looked at, and settled at the step's end."""
        self._around.touched[self.replica.id] = None

    def appended(self, base_offset: int, next_offset: int, data: memoryview) -> None:
        """The turn's batches are in the log: push them to whoever is at the tail."""
        self.feed.appended(base_offset, next_offset, data)

    def suspect(self, offset: int) -> None:
        """What is stored here could not be made sense of: look whether it is damaged."""
        self.feed.suspect(offset)

    def confirm(self) -> None:
        """Somebody must know whether this is still the leader: ask every member (rule 6)."""
        self.stir()
        self.feed.confirm()

    # -- the high watermark -------------------------------------------------------------------

    def settle(self) -> bool:
        """Move the high watermark and answer whom that satisfies. True when it moved."""
        replica, quorum = self.replica, self._change.quorum()
        own_end = replica.counted_end
        ends = [self.followers.end_of(node) for node in quorum.counting]
        reached = high_watermark(replica.high_watermark, own_end, ends, enough=quorum.enough)
        moved = replica.commit(reached)
        self.term.reached(own_end, replica.high_watermark)
        if moved:
            while self._internal and self._internal[0][0] <= replica.high_watermark:
                self._internal.pop(0)[1](0)
        if self.term.asking:
            self.term.confirmed(self.followers.heard_by(quorum.counting, self.term.asking))
        if self.deletions:
            starts = [self.followers.start_of(node) for node in quorum.counting]
            self.deletions.release(replica.start_kept, starts)
        return moved

    def when_committed(self, end: int, done: Callable[[int], None]) -> None:
        """Call `done(0)` once `end` is committed, or `done(error)` when the term ends."""
        if end <= self.replica.high_watermark:
            done(0)
        else:
            self._internal.append((end, done))

    def delete_records(self, offset: int, done: Done, deadline_ms: int) -> None:
        """Delete everything below `offset`, -1 for all that is committed.

        `done` is called once: with the new log start when every in-sync replica has taken it
        durably, else with OFFSET_OUT_OF_RANGE above the high watermark, REQUEST_TIMED_OUT after
        `deadline_ms`, or why the term ended.
        """
        replica = self.replica
        offset = replica.high_watermark if offset == -1 else offset
        if not 0 <= offset <= replica.high_watermark:
            done(errors.OFFSET_OUT_OF_RANGE.number, -1)
            return
        self.deletions.add(Deletion(offset, deadline_ms, done))
        self.stir()
        if replica.advance_start(offset):
            for follower in self.followers.streams():
                self.feed.ask(follower)

    # -- time ---------------------------------------------------------------------------------

    def look(self, now_ms: int) -> None:
        """The regular look: who lags, who has kept up long enough, what must be asked again."""
        end = self.replica.log.next_offset
        if self._rested:
            self.followers.wake(now_ms)
        self.followers.look(end, now_ms)
        self._change.look(now_ms)
        others = [node for node in self.record.value.isr if node != self._around.node_id]
        absent = [node_id for node_id in others if self._absent(node_id, end, now_ms)]
        self._silent = tuple(absent)
        for node_id in absent:
            self._change.propose(insync.left(self.record.value, node_id, self.replica.min_insync))
        for follower in self.followers.streams():
            self._consider(follower, now_ms)
        self._tell_term()
        self.feed.catch_up()
        self.feed.tell_high_watermark()
        self.term.expire(now_ms)
        self.deletions.expire(now_ms)
        self._rested = self.at_rest

    @property
    def at_rest(self) -> bool:
        """Whether time alone changes nothing here until something else does."""
        value = self.record.value
        if self.changing or self._openings or value.doubtful or self._silent:
            return False
        if len(self.term) or self.term.asking or self._internal or self.deletions:
            return False
        others = len(value.replicas) - 1
        return len(value.isr) == others + 1 and self.feed.at_rest(others)

    def next_expiry_ms(self) -> int | None:
        """When a producer may have been idle for long enough, if nothing is appended."""
        return self.sweep.due_ms(self.replica.log.next_offset)

    def _absent(self, node_id: int, end: int, now_ms: int) -> bool:
        lag_ms = self._around.lag_ms
        if self.followers.get(node_id) is None:
            return now_ms - self.began_ms > lag_ms
        return self.followers.lagging(node_id, end, now_ms, lag_ms)

    # -- the end ------------------------------------------------------------------------------

    def end_term(self, error: int = errors.NOT_LEADER_OR_FOLLOWER.number) -> None:
        """Leadership is over: all that waits may or may not survive, and is told so (rule 2)."""
        for node_id in self.record.value.replicas:
            self.close_stream(node_id)
        self.term.fail(error)
        self.deletions.fail(error)
        internal, self._internal = self._internal, []
        for _, done in internal:
            done(error)
