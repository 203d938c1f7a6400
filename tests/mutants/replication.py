"""Mutants of the log, of streams, and of what a leader counts: rules 1 to 3, 6, 8, 10 and 14."""

from __future__ import annotations

from typing import Any

from _fastseq.turn import DUPLICATE
from _fastseq.waiters import Term
from cluster.core import insync, leader
from cluster.core.append import Append
from cluster.core.change import RecordChange
from cluster.core.fetch import Fetches
from cluster.core.follower import Follower
from cluster.core.leader import Leader
from cluster.core.partition import Partition
from cluster.core.replica import Replica
from cluster.core.replicate import Followers
from cluster.storage.held import HeldLog
from cluster.storage.log import Log
from tests.mutants.patching import Patch, mutant


@mutant(
    "1 ahead",
    "a failed write leaves the table ahead of the log",
    seeds=40,
    faults=("fill_disk", "fail_writes"),
)
def table_ahead(patch: Patch) -> None:
    before: list[Any] = []

    def rewind(self: HeldLog, offset: int) -> None:
        if self._segments.next_offset == offset == self.table.next_offset:
            return
        if self._book.generation == getattr(self, "_mutant_generation", 0):
            return  # not a truncation: the table keeps what was never written
        self._mutant_generation = self._book.generation  # type: ignore[attr-defined]
        before[0](self, offset)

    before.append(patch.set(HeldLog, "_rewind_table", rewind))


@mutant("2 waiters", "waiting requests outlive the leader's term", seeds=0)
def waiters_survive(patch: Patch) -> None:
    class Lasting(Term):
        """Requests whose time does not run out before the later term comes to them."""

        def expire(self, now_ms: int) -> None:
            pass

    kept: dict[int, Any] = {}
    end = patch.set(Leader, "end_term", None)

    def end_term(self: Leader, *error: int) -> None:
        kept[id(self.replica)] = self.term
        self.term = Term(self.term.lane, self._around.out.answers)
        end(self, *error)

    begin = patch.set(Leader, "__init__", None)

    def begun(self: Leader, replica: Replica, *rest: Any) -> None:
        begin(self, replica, *rest)
        lane, answers = self.term.lane, self._around.out.answers
        old = kept.pop(id(replica), None)
        self.term = Lasting(lane, answers) if old is None or old.lane is not lane else old
        self.term.owner, self.term.look = self, self._state

    patch.set(Leader, "__init__", begun)
    patch.set(Leader, "end_term", end_term)


@mutant(
    "3 table", "truncation leaves the table as it was", seeds=10, faults=("isolate", "pause_leader")
)
def table_not_rewound(patch: Patch) -> None:
    patch.set(HeldLog, "_rewind_table", lambda self, offset: None)


@mutant("6 guess", "a gap is called a duplicate", seeds=40, faults=("kill_leader", "pause"))
def gap_is_duplicate(patch: Patch) -> None:
    tell = patch.set(Append, "_tell", None)

    def guess(self: Append) -> Any:
        for number, error in enumerate(self._turn.errors):
            if error == 45:
                self._turn.settle(number)
        return tell(self)

    patch.set(Append, "_tell", guess)


@mutant(
    "6b duplicate",
    "a duplicate is acknowledged before its original",
    seeds=20,
    faults=("pause", "kill", "sever_client"),
)
def duplicate_at_once(patch: Patch) -> None:
    tell = patch.set(Append, "_tell", None)

    def hurried(self: Append) -> Any:
        for number, verdict in enumerate(self._turn.verdicts):
            if verdict == DUPLICATE:
                self._turn.settle(number)
        return tell(self)

    patch.set(Append, "_tell", hurried)


@mutant("7g early", "a record is acknowledged before it is committed", seeds=5, faults=("kill",))
def ack_before_commit(patch: Patch) -> None:
    tell = patch.set(Append, "_tell", None)

    def early(self: Append) -> Any:
        for number, error in enumerate(self._turn.errors):
            if error == 0:
                self._turn.settle(number)
        return tell(self)

    patch.set(Append, "_tell", early)


@mutant("8r read", "what was read before a cut is handed out after it", seeds=0)
def stale_read(patch: Patch) -> None:
    def believe(_self: Log, have: Any, _segment: Any) -> Any:
        return None if have is None else (have.cold.missing, have.data)

    patch.set(Log, "_still", believe)


@mutant("4g watermark", "consumers read what is not committed", seeds=10, faults=("pause",))
def read_uncommitted(patch: Patch) -> None:
    read = patch.set(Fetches, "_read", None)

    def eager(self: Fetches, fetch: Any, topic: str, wanted: Any, found: Any) -> Any:
        partition = self._find(topic, wanted.partition)
        if partition is None:
            return read(self, fetch, topic, wanted, found)
        replica, known = partition.replica, partition.replica.high_watermark
        replica.high_watermark = replica.log.next_offset
        try:
            return read(self, fetch, topic, wanted, found)
        finally:
            replica.high_watermark = known

    patch.set(Fetches, "_read", eager)


@mutant(
    "8 forgets", "opening a stream keeps acknowledgements and comparison of the last one", seeds=0
)
def old_acks(patch: Patch) -> None:
    reached: dict[tuple[int, int], int] = {}
    opening, closing = patch.set(Followers, "open", None), patch.set(Followers, "close", None)

    def remember(self: Followers, node_id: int) -> int:
        key, last = (id(self), node_id), self.get(node_id)
        if last is not None:
            reached[key] = max(last.acked, reached.get(key, 0))
        return reached.get(key, 0)

    def opened(self: Followers, node_id: int, incarnation: int, number: int, **more: int) -> Any:
        acked = min(remember(self, node_id), more["end"])
        stream = opening(self, node_id, incarnation, number, **more)
        stream.acked = max(stream.acked, acked)
        stream.compared = acked
        return stream

    def close(self: Followers, node_id: int) -> int:
        remember(self, node_id)
        return int(closing(self, node_id))

    patch.set(Followers, "open", opened)
    patch.set(Followers, "close", close)


@mutant(
    "8 old leader",
    "a follower takes pushes of any stream and epoch",
    seeds=60,
    faults=("pause_leader", "isolate"),
)
def old_pushes(patch: Patch) -> None:
    pushed = patch.set(Follower, "pushed", None)

    def trusting(self: Follower, push: Any, data: memoryview, now_ms: int) -> bool:
        ours = push._replace(stream=self._stream, leader_epoch=self.epoch)
        return bool(pushed(self, ours, data, now_ms))

    patch.set(Follower, "pushed", trusting)
    patch.set(
        Partition,
        "pushed",
        lambda self, node_id, push, data, now_ms: (
            isinstance(self.role, Follower) and self.role.pushed(push, data, now_ms)
        ),
    )


@mutant(
    "8b unsynced", "a follower reports and counts what is not synced", seeds=5, faults=("kill",)
)
def unsynced_counts(patch: Patch) -> None:
    patch.set(Replica, "counted_end", property(lambda self: self.log.next_offset))


@mutant(
    "8e repeated",
    "an answer that is repeated opens a stream again",
    seeds=80,
    faults=("fail_writes",),
)
def reopened(patch: Patch) -> None:
    opened = patch.set(Follower, "opened", None)

    def again(self: Follower, answer: Any, now_ms: int) -> None:
        self._asked = answer.stream == self._stream
        opened(self, answer, now_ms)

    patch.set(Follower, "opened", again)


@mutant(
    "8f empty epoch",
    "an epoch without a batch stays when others are copied",
    seeds=80,
    faults=("kill_leader", "fill_disk"),
)
def empty_epoch_stays(patch: Patch) -> None:
    truncate = patch.set(Replica, "truncate", None)

    def cut(self: Replica, offset: int, now_ms: int) -> None:
        if offset < self.log.next_offset:
            truncate(self, offset, now_ms)

    patch.set(Replica, "truncate", cut)


@mutant("10 minimum", "the in-sync set may shrink to one", seeds=20, faults=("kill", "pause"))
def isr_shrinks(patch: Patch) -> None:
    patch.set(insync, "minimum", lambda record, min_insync: 1)


@mutant(
    "10b removed",
    "a member counts no more once its removal is asked for",
    seeds=40,
    faults=("kill", "slow_store"),
)
def removed_early(patch: Patch) -> None:
    def maximal(committed: Any, proposed: Any) -> tuple[int, ...]:
        record = committed if proposed is None else proposed
        return tuple(record.isr)

    patch.set(insync, "maximal", maximal)


@mutant(
    "10c added",
    "a member counts only once its addition was read back",
    seeds=60,
    faults=("kill", "slow_store"),
)
def added_late(patch: Patch) -> None:
    patch.set(insync, "maximal", lambda committed, proposed: committed.isr)


@mutant(
    "10d overwrite",
    "a leader overwrites whatever the value is now",
    seeds=60,
    faults=("kill_leader", "pause_leader", "slow_store"),
)
def overwrite(patch: Patch) -> None:
    ask = patch.set(RecordChange, "_ask", None)

    def blind(self: RecordChange) -> None:
        out = self._around.out
        transact = out.transact
        out.transact = lambda conditions, *rest: transact((), *rest)  # type: ignore[method-assign]
        try:
            ask(self)
        finally:
            del out.transact

    patch.set(RecordChange, "_ask", blind)


@mutant(
    "10e alone",
    "the high watermark does not wait for members without a stream",
    seeds=20,
    faults=("kill", "pause"),
)
def absent_do_not_count(patch: Patch) -> None:
    def high_watermark(current: int, own_end: int, ends: Any, *, enough: bool) -> int:
        known: list[int] = [end for end in ends if end is not None]
        return max(current, min([own_end, *known]))

    patch.set(leader, "high_watermark", high_watermark)


@mutant(
    "14 sync",
    "a failed sync passes for one that succeeded",
    seeds=60,
    faults=("fail_syncs", "lose_all_power"),
)
def failed_sync_counts(patch: Patch) -> None:
    synced = patch.set(Log, "synced", None)
    patch.set(
        Log,
        "synced",
        lambda self, base, generation, end, errno: synced(self, base, generation, end, 0),
    )
