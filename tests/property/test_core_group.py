"""A group under any order of joins, syncs, silence, failed writes and fail-overs.

The machine plays members that do as clients do, and others that do not. What must hold:
a generation never goes back for a member, and has one leader; a member of an earlier generation
cannot commit once a later one was heard of; what the next coordinator finds is what was committed;
no request is answered twice, and none is forgotten once everybody is here and time has passed.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from cluster import errors
from cluster.core.group_state import State
from cluster.wire.group_records import GroupValue
from cluster.wire.messages import JoinGroupResponse
from tests.unit.group_bench import Asked, Bench

RANGE, CHANGED = ("range", b"1"), ("range", b"2")
ASSIGNORS = st.sampled_from([(RANGE,), (CHANGED,), (RANGE, ("own", b""))])


class GroupMachine(RuleBasedStateMachine):
    """One group through all its coordinators."""

    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.asked: list[Asked] = []
        self.heard: dict[str, int] = {}
        """The newest generation that each member was told."""
        self.leaders: dict[int, str] = {}
        self.newest = 0
        self.committed: GroupValue | None = None

    # -- what members do ----------------------------------------------------------------------

    @rule(target=ids, instance=st.sampled_from([None, "i", "j"]), protocols=ASSIGNORS)
    def come(self, instance: str | None, protocols: tuple[tuple[str, bytes], ...]) -> str:
        asked = self._ask("", instance, protocols)
        return asked.joined.member_id if asked.answer is not None else ""

    @rule(member=ids, protocols=ASSIGNORS)
    def join(self, member: str, protocols: tuple[tuple[str, bytes], ...]) -> None:
        self._ask(member, self._instance_of(member), protocols)

    def _ask(
        self, member: str, instance: str | None, protocols: tuple[tuple[str, bytes], ...]
    ) -> Asked:  # fmt: skip
        asked = self.bench.join(member, instance=instance, protocols=protocols)
        self.asked.append(asked)
        return asked

    def _instance_of(self, member: str) -> str | None:
        found = self.bench.group.members.by_id.get(member)
        return None if found is None else found.instance_id

    @rule(member=ids, lag=st.integers(0, 1), brings=st.booleans())
    def sync(self, member: str, lag: int, brings: bool) -> None:
        generation = self.heard.get(member, 0) - lag
        everybody = {one: one.encode() for one in self.bench.group.members.by_id}
        asked = self.bench.sync(member, generation, everybody if brings else None)
        self.asked.append(asked)
        if asked.error == 0:
            assert generation == self.bench.group.generation

    @rule(member=ids)
    def beat(self, member: str) -> None:
        self.bench.beat(member, self.heard.get(member, 0), self._instance_of(member))

    @rule(member=consumes(ids))
    def leave(self, member: str) -> None:
        self.bench.leave(member, self._instance_of(member))

    @rule(member=ids)
    def commit(self, member: str) -> None:
        generation = self.heard.get(member, 0)
        code = self.bench.commits(member, generation, self._instance_of(member))
        if code == 0 and self.bench.group.state is not State.EMPTY:
            assert generation == self.newest, "a member of an earlier generation commits"

    # -- what happens to them -----------------------------------------------------------------

    @rule(duration_ms=st.sampled_from([1, 4_000, 11_000, 61_000, 301_000]))
    def wait(self, duration_ms: int) -> None:
        self.bench.pass_ms(duration_ms)

    @rule()
    def hold(self) -> None:
        self.bench.hold = True

    @rule(ends=st.sampled_from([errors.NONE, errors.NONE, errors.COORDINATOR_NOT_AVAILABLE]))
    def release(self, ends: errors.Code) -> None:
        self.bench.hold = False
        if ends is errors.NONE:
            self._committed()
        self.bench.release(ends)

    def _committed(self) -> None:
        if self.bench.stored:
            self.committed = self.bench.stored[-1]

    @rule(lost=st.booleans())
    def fail_over(self, lost: bool) -> None:
        """Another coordinator takes over; what was under way survives, or does not."""
        if not lost or not self.bench.hold:
            self._committed()
        self.bench.group.end(errors.NOT_COORDINATOR)
        before, self.bench = self.bench, Bench(now_ms=self.bench.now_ms)
        self.bench._ids = before._ids
        if self.committed is not None:
            self.bench.group.restore(self.committed, self.bench.now_ms)
            self.bench.stored.append(self.committed)

    # -- what must hold -----------------------------------------------------------------------

    @invariant()
    def generations_go_forward_and_have_one_leader(self) -> None:
        if not self.bench.hold:
            self._committed()
        for asked in self.asked:
            assert asked.answers <= 1
            if isinstance(asked.answer, JoinGroupResponse) and asked.answer.error_code == 0:
                self._heard(asked.answer)
        self.asked = [asked for asked in self.asked if asked.answer is None]

    def _heard(self, joined: JoinGroupResponse) -> None:
        generation, member = joined.generation_id, joined.member_id
        assert generation >= self.heard.get(member, 0), "a generation went back"
        assert self.committed is not None
        assert generation <= self.committed.generation, "told before it was committed"
        self.heard[member] = generation
        self.newest = max(self.newest, generation)
        old_words = joined.leader not in self.bench.group.members.by_id
        if not old_words and joined.members:
            leader = self.leaders.setdefault(generation, member)
            renamed = leader not in self.bench.group.members.by_id
            assert leader == member or renamed, f"generation {generation} has two leaders"

    @invariant()
    def counts_are_right(self) -> None:
        members = self.bench.group.members
        assert set(members.joining) <= set(members.by_id)
        assert set(members.syncing) <= set(members.by_id)
        assert members.unsynced <= set(members.by_id)
        assert set(members.instances.values()) <= set(members.by_id)
        known = [name for member in members for name, _ in member.protocols]
        assert {name: known.count(name) for name in known} == dict(members.support)
        assert (members.leader is None) == (not members.by_id)
        if self.bench.group.state is State.EMPTY:
            assert not members.by_id

    def teardown(self) -> None:
        """Commits arrive again and everybody is silent for long enough: nobody waits any more."""
        self.bench.hold = False
        self.bench.release()
        self.bench.pass_ms(2_000_000)
        assert all(asked.answer is not None for asked in self.asked)
        assert self.bench.group.state is State.EMPTY


TestGroup = GroupMachine.TestCase
TestGroup.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
