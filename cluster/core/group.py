"""One consumer group by the classic protocol: members join, the leader assigns, offsets are fenced.

Owns the group's states, its generation and its timers. A generation begins when everybody who is
left has joined; it becomes stable once its leader's assignments are stored and committed; a member
that comes, goes, or changes its mind begins the next one.

    Empty --join--> Preparing --all joined, or time is up--> Completing --all assigned--> Stable
    Completing, Stable --join, leave, silence--> Preparing --nobody left--> Empty

Invariants: a generation is committed before any member hears of it, so that none is given out
twice, not by the next coordinator either; assignments are committed before anybody gets one;
every parked request is answered. Storing is `persist`'s, which says how it ended.
"""

from __future__ import annotations

from collections.abc import Callable

from cluster import errors
from cluster.core import group_access
from cluster.core.group_state import GroupSettings, State, restored_members, stored_members
from cluster.core.members import (
    Joined,
    Member,
    Members,
    Synced,
    Wish,
    protocols_of,
    rebalance_timeout,
    refused_join,
    refused_sync,
)
from cluster.limits import GROUP_NEW_MEMBER_MS
from cluster.wire.group_records import GroupValue
from cluster.wire.messages import (
    JoinGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

Stored = Callable[[errors.Code, int], None]
"""Told once a record is committed (NONE), or why it is not, and when that was."""
Persist = Callable[["Group", GroupValue, Stored], None]
"""Stores a group."""
NEVER = 2**62


class Group:
    """One group on its coordinator."""

    def __init__(self, group_id: str, settings: GroupSettings, persist: Persist) -> None:
        """An empty group that nobody has heard of."""
        self.group_id = group_id
        self.state = State.EMPTY
        self.generation = 0
        self.protocol_type: str | None = None
        self.protocol: str | None = None
        self.members = Members()
        self.rebalances = 0
        self.empty_since_ms: int | None = None
        """Wall clock, as the stored record says; None before anything was stored."""
        self.due_ms = NEVER
        """When `look` has something to do, or before."""
        self.watched_ms = NEVER
        """When whoever watches it will look."""
        self.settings = settings
        self._persist = persist
        self._join_due_ms = NEVER
        self._sync_due_ms = NEVER
        self._initial = False
        """The join phase began with an empty group: it ends by its timer alone."""
        self._initial_left_ms = 0
        self._came = False
        """A member came since the timer of the first join phase was set."""

    # -- from and to the log ------------------------------------------------------------------

    def restore(self, value: GroupValue, now_ms: int) -> None:
        """Become what the log says. A generation that nobody led yet is joined anew."""
        self.members = restored_members(value, now_ms)
        self.protocol_type = value.protocol_type or None
        self.protocol = value.protocol
        self.generation = value.generation
        self._join_due_ms = self._sync_due_ms = NEVER
        self.empty_since_ms = None
        if not self.members.by_id:
            self.state = State.EMPTY
            self.empty_since_ms = value.current_state_timestamp
        else:
            self.state = State.PREPARING if value.leader is None else State.STABLE
        self.start_clocks(now_ms)

    def start_clocks(self, now_ms: int) -> None:
        """Every member has a whole session from now on: before, nobody could be heard of here."""
        for member in self.members:
            member.deadline_ms = now_ms + member.session_timeout_ms
        if self.state is State.PREPARING:
            self._join_due(now_ms + self.members.rebalance_timeout_ms)
        self._wake(min(self._dues()))

    def _value(self, *, led: bool = True) -> GroupValue:
        return GroupValue(
            protocol_type=self.protocol_type or "",
            generation=self.generation,
            protocol=self.protocol,
            leader=self.members.leader if led else None,
            members=stored_members(self.members, self.protocol),
        )

    # -- joining ------------------------------------------------------------------------------

    def join(self, wish: Wish, answer: Joined) -> None:
        """A member comes, or comes again."""
        member_id = wish.request.member_id
        code = group_access.join(self, wish.request)
        if code is errors.GROUP_MAX_SIZE_REACHED and member_id in self.members.by_id:
            self._depart([member_id], wish.now_ms)
        if code is not errors.NONE:
            answer(refused_join(code, member_id))
        elif not member_id:
            self._join_new(wish, answer)
        elif member_id in self.members.pending:
            self._add(member_id, wish, answer)
        else:
            self._join_known(wish, answer)

    def _join_new(self, wish: Wish, answer: Joined) -> None:
        request, client = wish.request, wish.client
        instance_id = request.group_instance_id
        prefix = client.client_id if instance_id is None else instance_id
        member_id = f"{prefix}-{client.fresh_id}"
        known = None if instance_id is None else self.members.instances.get(instance_id)
        if known is not None:
            self._replace(known, member_id, wish, answer)
        elif instance_id is None and wish.version >= 4:
            # A join that is sent again after its answer was lost must not leave a ghost behind.
            self.members.pending[member_id] = wish.now_ms + request.session_timeout_ms
            self._wake(wish.now_ms + request.session_timeout_ms)
            answer(refused_join(errors.MEMBER_ID_REQUIRED, member_id))
        else:
            self._add(member_id, wish, answer)

    def _add(self, member_id: str, wish: Wish, answer: Joined) -> None:
        request, client = wish.request, wish.client
        if not self.members.by_id:
            self.protocol_type = request.protocol_type
        member = Member(
            member_id, request.group_instance_id, client.client_id, client.host,
            request.session_timeout_ms, rebalance_timeout(request), protocols_of(request),
            deadline_ms=wish.now_ms + GROUP_NEW_MEMBER_MS, new=True,
        )  # fmt: skip
        self._wake(member.deadline_ms)
        self.members.add(member)
        self.members.park_join(member_id, answer)
        self._came = True
        self._rebalance_or_complete(wish.now_ms)

    def _join_known(self, wish: Wish, answer: Joined) -> None:
        request, member_id = wish.request, wish.request.member_id
        code = self.members.check(member_id, request.group_instance_id)
        if code is not errors.NONE:
            answer(refused_join(code, member_id))
            return
        member = self.members.by_id[member_id]
        same = member.protocols == protocols_of(request)
        leads, stable = member_id == self.members.leader, self.state is State.STABLE
        if self.state is State.COMPLETING and same and member_id in self.members.joining:
            self.members.park_join(member_id, answer)  # the generation is not committed yet
        elif same and (self.state is State.COMPLETING or (stable and not leads)):
            self._heard_of(member, wish.now_ms)
            answer(self._joined(member_id))
        else:
            self.members.update(member, request)
            self.members.park_join(member_id, answer)
            self._rebalance_or_complete(wish.now_ms)

    def _replace(self, old_id: str, new_id: str, wish: Wish, answer: Joined) -> None:
        """A static member is back after a restart. In a stable group whose assignor stays it goes
        on with the assignment it had, once its new id is committed."""
        old_leader = self.members.leader
        member = self.members.rename(old_id, new_id)
        self.members.update(member, wish.request)
        self._heard_of(member, wish.now_ms)
        if self.state is not State.STABLE or self.members.chosen() != self.protocol:
            self.members.park_join(new_id, answer)
            self._rebalance_or_complete(wish.now_ms)
            return
        skips = wish.version >= 9 and new_id == self.members.leader
        response = JoinGroupResponse(
            generation_id=self.generation, protocol_type=self.protocol_type,
            protocol_name=self.protocol, member_id=new_id, skip_assignment=skips,
            leader=(self.members.leader if wish.version >= 9 else old_leader) or "",
            members=self.members.listed(self.protocol) if skips else [],
        )  # fmt: skip

        def stored(code: errors.Code, _now_ms: int) -> None:
            answer(response if code is errors.NONE else refused_join(code, new_id))

        self._persist(self, self._value(), stored)

    def _joined(self, member_id: str) -> JoinGroupResponse:
        leads = member_id == self.members.leader
        return JoinGroupResponse(
            generation_id=self.generation,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol,
            leader=self.members.leader or "",
            member_id=member_id,
            members=self.members.listed(self.protocol) if leads else [],
        )

    # -- from generation to generation --------------------------------------------------------

    def _rebalance_or_complete(self, now_ms: int) -> None:
        if self.state is State.PREPARING:
            if not self._initial:
                self._complete_if_all(now_ms)
        elif self.state is not State.DEAD:
            self._prepare(now_ms)

    def _prepare(self, now_ms: int) -> None:
        """A join phase begins; whoever waits for an assignment joins again."""
        self._sync_due_ms = NEVER
        self.members.unsynced.clear()
        self.members.refuse_syncs(errors.REBALANCE_IN_PROGRESS)
        self._initial = self.state is State.EMPTY
        self.state = State.PREPARING
        self.rebalances += 1
        self._came = False
        if self._initial:
            delay = self.settings.initial_rebalance_delay_ms
            self._initial_left_ms = max(0, self.members.rebalance_timeout_ms - delay)
            self._join_due(now_ms + delay)
        elif not self._complete_if_all(now_ms):
            self._join_due(now_ms + self.members.rebalance_timeout_ms)

    def _complete_if_all(self, now_ms: int) -> bool:
        if self.members.all_joined:
            self._complete(now_ms)
        return self.state is not State.PREPARING

    def _join_time_is_up(self, now_ms: int) -> None:
        if self._initial and self._came and self._initial_left_ms > 0:
            # More may be on their way: a bit longer, within the time to rebalance.
            delay = min(self.settings.initial_rebalance_delay_ms, self._initial_left_ms)
            self._initial_left_ms -= delay
            self._came = False
            if delay:
                self._join_due(now_ms + delay)
                return
        self._complete(now_ms)

    def _complete(self, now_ms: int) -> None:
        """The join phase ends: those who joined, and static members, are the new generation."""
        members = self.members
        self._join_due_ms = NEVER
        late = [m.member_id for m in members if m.member_id not in members.joining
                and m.instance_id is None]  # fmt: skip
        for member_id in late:
            members.remove(member_id)
        if members.by_id and not members.elect():
            self._join_due(now_ms + members.rebalance_timeout_ms)
            return
        self._initial = False
        self.generation += 1
        if not members.by_id:
            self._become_empty()
            return
        self.protocol = members.chosen()
        self.state = State.COMPLETING
        generation = self.generation

        def stored(code: errors.Code, now_ms: int) -> None:
            if self.state is State.COMPLETING and self.generation == generation:
                self._begin(code, now_ms)

        self._persist(self, self._value(led=False), stored)

    def _begin(self, code: errors.Code, now_ms: int) -> None:
        """The generation is committed: its members hear of it, and have a while to sync."""
        members = self.members
        if code is not errors.NONE:
            self._refuse_joins(code)
            self._prepare(now_ms)
            return
        members.unsynced = set(members.by_id)
        self._sync_due_ms = now_ms + members.rebalance_timeout_ms
        self._wake(self._sync_due_ms)
        for member in list(members):
            member.new = False
            self._heard_of(member, now_ms)
            members.answer_join(member.member_id, self._joined(member.member_id))

    def _refuse_joins(self, code: errors.Code) -> None:
        for member_id in list(self.members.joining):
            self.members.answer_join(member_id, refused_join(code, member_id))

    def _become_empty(self) -> None:
        self.state = State.EMPTY
        self.protocol = None
        self.members.unsynced.clear()
        self._persist(self, self._value(), _nothing)

    # -- assignments --------------------------------------------------------------------------

    def sync(self, request: SyncGroupRequest, now_ms: int, answer: Synced) -> None:
        """A member asks for its assignment; the leader brings everybody's."""
        code = group_access.sync(self, request)
        if code is not errors.NONE:
            answer(refused_sync(code))
            return
        member = self.members.by_id[request.member_id]
        if self.state is State.STABLE:
            self.members.unsynced.discard(member.member_id)
            self._heard_of(member, now_ms)
            answer(self._synced(member))
            return
        self.members.park_sync(member.member_id, answer)
        if member.member_id == self.members.leader:
            self._assign({a.member_id: a.assignment for a in request.assignments})

    def _assign(self, assignments: dict[str, bytes]) -> None:
        generation = self.generation
        for member in self.members:
            member.assignment = assignments.get(member.member_id, b"")

        def stored(code: errors.Code, now_ms: int) -> None:
            if self.state is not State.COMPLETING or self.generation != generation:
                return
            if code is errors.NONE:
                self._assigned()
                return
            self.members.refuse_syncs(code)
            self._prepare(now_ms)

        self._persist(self, self._value(), stored)

    def _assigned(self) -> None:
        """The assignments are committed: everybody who waits for one gets it."""
        self.state = State.STABLE
        for member_id in list(self.members.syncing):
            self.members.answer_sync(member_id, self._synced(self.members.by_id[member_id]))

    def _synced(self, member: Member) -> SyncGroupResponse:
        return SyncGroupResponse(
            protocol_type=self.protocol_type,
            protocol_name=self.protocol,
            assignment=member.assignment,
        )

    # -- staying, leaving, falling silent -----------------------------------------------------

    def heartbeat(self, member_id: str, instance_id: str | None, generation: int,
                  now_ms: int) -> errors.Code:  # fmt: skip
        """A member is alive; REBALANCE_IN_PROGRESS asks it to join again."""
        code = group_access.member(self, member_id, instance_id, generation)
        if code is not errors.NONE:
            return code
        self._heard_of(self.members.by_id[member_id], now_ms)
        return errors.REBALANCE_IN_PROGRESS if self.state is State.PREPARING else errors.NONE

    def leave(self, member_id: str, instance_id: str | None, now_ms: int) -> errors.Code:
        """A member goes; by its instance id alone when an operator takes it out."""
        if self.state is State.DEAD:
            return errors.COORDINATOR_NOT_AVAILABLE
        if not member_id and instance_id is not None:
            member_id = self.members.instances.get(instance_id, "")
        if self.members.pending.pop(member_id, None) is not None:
            if self.state is State.PREPARING:
                self._rebalance_or_complete(now_ms)
            return errors.NONE
        code = self.members.check(member_id, instance_id)
        if code is errors.NONE:
            self._depart([member_id], now_ms)
        return code

    def may_commit(self, member_id: str, instance_id: str | None, generation: int,
                   now_ms: int) -> errors.Code:  # fmt: skip
        """Whether offsets may be committed by this member of this generation, or by nobody."""
        if generation < 0 and self.state is State.EMPTY:
            return errors.NONE
        if generation < 0 and not member_id and instance_id is None:
            dead = self.state is State.DEAD
            return errors.COORDINATOR_NOT_AVAILABLE if dead else errors.UNKNOWN_MEMBER_ID
        code = group_access.member(self, member_id, instance_id, generation)
        if code is not errors.NONE:
            return code
        if self.state is State.COMPLETING:
            return errors.REBALANCE_IN_PROGRESS
        self._heard_of(self.members.by_id[member_id], now_ms)
        return errors.NONE

    def look(self, now_ms: int) -> None:
        """What time alone brings: silent members go, phases end."""
        pending = self.members.pending
        for member_id in [one for one, due_ms in pending.items() if due_ms <= now_ms]:
            del pending[member_id]
            if self.state is State.PREPARING:
                self._rebalance_or_complete(now_ms)
        self._depart([m.member_id for m in self.members if self._silent(m, now_ms)], now_ms)
        if self._sync_due_ms <= now_ms:
            self._sync_due_ms = NEVER
            if self.state in (State.COMPLETING, State.STABLE):
                self._depart(list(self.members.unsynced), now_ms)
        if self._join_due_ms <= now_ms and self.state is State.PREPARING:
            self._join_time_is_up(now_ms)
        self.due_ms = min(self._dues(), default=NEVER)

    def _dues(self) -> list[int]:
        dues = [member.deadline_ms for member in self.members]
        return [self._join_due_ms, self._sync_due_ms, *self.members.pending.values(), *dues]

    def _silent(self, member: Member, now_ms: int) -> bool:
        if member.deadline_ms > now_ms:
            return False
        waits = member.member_id in self.members.syncing or (
            member.member_id in self.members.joining and not member.new
        )
        if waits:  # who waits for an answer of ours cannot be heard of
            member.deadline_ms = now_ms + member.session_timeout_ms
        return not waits

    def _depart(self, member_ids: list[str], now_ms: int) -> None:
        for member_id in member_ids:
            self.members.remove(member_id)
        if member_ids:
            self._rebalance_or_complete(now_ms)

    def _heard_of(self, member: Member, now_ms: int) -> None:
        if not member.new:
            member.deadline_ms = now_ms + member.session_timeout_ms
            self._wake(member.deadline_ms)

    def _join_due(self, due_ms: int) -> None:
        self._join_due_ms = due_ms
        self._wake(due_ms)

    def _wake(self, due_ms: int) -> None:
        self.due_ms = min(self.due_ms, due_ms)

    def end(self, code: errors.Code) -> None:
        """The coordinator's term is over, or the group is deleted: nobody waits here any more."""
        self.state = State.DEAD
        self.members.refuse_all(code)


def _nothing(_code: errors.Code, _now_ms: int) -> None:
    """Nobody waits for this to be stored."""
