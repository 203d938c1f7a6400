"""The members of one group: who they are, what assignors they know, and whose answers wait.

Owns the bookkeeping that a group's transitions rest on: members by id, static members by their
instance id, the pending ids that were handed out and not yet used, the votes for assignors, and
the requests that are parked until a join or sync phase ends. Every parked request is answered
exactly once: by the phase's end, by the member's removal, or by the request that replaces it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from cluster import errors
from cluster.wire.messages import (
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
    SyncGroupResponse,
)

Joined = Callable[[JoinGroupResponse], None]
Synced = Callable[[SyncGroupResponse], None]
Protocols = tuple[tuple[str, bytes], ...]
"""Assignors by preference, each with what the member tells the leader for it."""


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks, as the request's header and the broker's chance say."""

    client_id: str
    host: str
    fresh_id: str
    """What a new member would be called, without its prefix; never used twice."""


class Wish(NamedTuple):
    """A request to join: whose, in which version, and when."""

    request: JoinGroupRequest
    version: int
    client: Client
    now_ms: int


@dataclass(slots=True)
class Member:
    """One member of one group."""

    member_id: str
    instance_id: str | None
    client_id: str
    host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocols: Protocols
    assignment: bytes = b""
    deadline_ms: int = 0
    """When it counts as gone unless it is heard of."""
    new: bool = False
    """It has never been in a generation: its parked request alone keeps it."""

    def metadata(self, protocol: str | None) -> bytes:
        """What it tells for this assignor; nothing where it does not know it."""
        return next((data for name, data in self.protocols if name == protocol), b"")


def protocols_of(request: JoinGroupRequest) -> Protocols:
    """The assignors of a request."""
    return tuple((protocol.name, protocol.metadata) for protocol in request.protocols)


def rebalance_timeout(request: JoinGroupRequest) -> int:
    """Version 0 has none: the session's counts."""
    asked = request.rebalance_timeout_ms
    return request.session_timeout_ms if asked < 0 else asked


def refused_join(code: errors.Code, member_id: str = "") -> JoinGroupResponse:
    """A join that failed."""
    return JoinGroupResponse(error_code=code.number, member_id=member_id)


def refused_sync(code: errors.Code) -> SyncGroupResponse:
    """A sync that failed."""
    return SyncGroupResponse(error_code=code.number)


@dataclass(slots=True)
class Members:
    """Everybody in one group."""

    by_id: dict[str, Member] = field(default_factory=dict)
    """In order of arrival."""
    instances: dict[str, str] = field(default_factory=dict)
    """Member ids of static members by instance id."""
    pending: dict[str, int] = field(default_factory=dict)
    """Ids that were handed out to be used in the next join, until when."""
    joining: dict[str, Joined] = field(default_factory=dict)
    syncing: dict[str, Synced] = field(default_factory=dict)
    unsynced: set[str] = field(default_factory=set)
    """Members of this generation that have not asked for their assignment yet."""
    leader: str | None = None
    support: Counter[str] = field(default_factory=Counter)
    """How many members know each assignor."""

    def __len__(self) -> int:
        """How many members there are, pending ones not counted."""
        return len(self.by_id)

    def __iter__(self) -> Iterator[Member]:
        """The members in order of arrival."""
        return iter(self.by_id.values())

    @property
    def all_joined(self) -> bool:
        """Whether every member waits for the next generation and nobody is about to come."""
        return len(self.joining) == len(self.by_id) and not self.pending

    @property
    def rebalance_timeout_ms(self) -> int:
        """How long the slowest member may take to join again."""
        return max((member.rebalance_timeout_ms for member in self), default=0)

    # -- coming and going ---------------------------------------------------------------------

    def add(self, member: Member) -> None:
        """A member comes; the first one leads."""
        self.by_id[member.member_id] = member
        self.pending.pop(member.member_id, None)
        if member.instance_id is not None:
            self.instances[member.instance_id] = member.member_id
        if self.leader is None:
            self.leader = member.member_id
        self.support.update({name for name, _ in member.protocols})

    def remove(self, member_id: str, code: errors.Code = errors.UNKNOWN_MEMBER_ID) -> None:
        """A member goes; whatever it waits for is answered with the error."""
        member = self.by_id.pop(member_id)
        if member.instance_id is not None and self.instances.get(member.instance_id) == member_id:
            del self.instances[member.instance_id]
        self._forget_votes(member)
        self.unsynced.discard(member_id)
        if self.leader == member_id:
            self.leader = next(iter(self.by_id), None)
        self.answer_join(member_id, refused_join(code))
        self.answer_sync(member_id, refused_sync(code))

    def update(self, member: Member, request: JoinGroupRequest) -> None:
        """A member says anew what it knows and how patient it is."""
        self._forget_votes(member)
        member.protocols = protocols_of(request)
        member.session_timeout_ms = request.session_timeout_ms
        member.rebalance_timeout_ms = rebalance_timeout(request)
        self.support.update({name for name, _ in member.protocols})

    def rename(self, old_id: str, new_id: str) -> Member:
        """A static member is back under a new id; whoever still uses the old one is fenced."""
        renamed = {}
        for member_id, member in self.by_id.items():
            if member_id == old_id:
                member.member_id = new_id
            renamed[member.member_id] = member
        self.by_id = renamed
        member = renamed[new_id]
        assert member.instance_id is not None
        self.instances[member.instance_id] = new_id
        if self.leader == old_id:
            self.leader = new_id
        if old_id in self.unsynced:
            self.unsynced.remove(old_id)
            self.unsynced.add(new_id)
        self.answer_join(old_id, refused_join(errors.FENCED_INSTANCE_ID, old_id))
        self.answer_sync(old_id, refused_sync(errors.FENCED_INSTANCE_ID))
        return member

    def _forget_votes(self, member: Member) -> None:
        self.support.subtract({name for name, _ in member.protocols})
        self.support += Counter()  # drops what nobody knows any more

    # -- questions ----------------------------------------------------------------------------

    def check(self, member_id: str, instance_id: str | None) -> errors.Code:
        """Whether this is a member, and still the one of its instance id."""
        if instance_id is not None:
            known = self.instances.get(instance_id)
            if known is None:
                return errors.UNKNOWN_MEMBER_ID
            if known != member_id:
                return errors.FENCED_INSTANCE_ID
        return errors.NONE if member_id in self.by_id else errors.UNKNOWN_MEMBER_ID

    def shares(self, protocols: Protocols) -> bool:
        """Whether one of these assignors is known to every member."""
        count = len(self.by_id)
        return any(self.support[name] == count for name, _ in protocols)

    def chosen(self) -> str | None:
        """The assignor with most votes among those that all know; each votes for its first."""
        count = len(self.by_id)
        votes: Counter[str] = Counter()
        for member in self:
            for name, _ in member.protocols:
                if self.support[name] == count:
                    votes[name] += 1
                    break
        return votes.most_common(1)[0][0] if votes else None

    def listed(self, protocol: str | None) -> list[JoinGroupResponseMember]:
        """What the leader must know to assign."""
        return [
            JoinGroupResponseMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                metadata=member.metadata(protocol),
            )
            for member in self
        ]

    def elect(self) -> bool:
        """Whether a member that has joined leads: the old leader, or else who joined first."""
        if self.leader is None:
            return False
        if self.leader not in self.joining:
            joined = next((member_id for member_id in self.by_id if member_id in self.joining), "")
            if not joined:
                return False
            self.leader = joined
        return True

    # -- parked requests ----------------------------------------------------------------------

    def park_join(self, member_id: str, answer: Joined) -> None:
        """Answer once the join phase ends; a member that asks again is answered there alone."""
        self.answer_join(member_id, refused_join(errors.REBALANCE_IN_PROGRESS, member_id))
        self.joining[member_id] = answer

    def park_sync(self, member_id: str, answer: Synced) -> None:
        """Answer once the assignments are stored; likewise."""
        self.answer_sync(member_id, refused_sync(errors.REBALANCE_IN_PROGRESS))
        self.syncing[member_id] = answer
        self.unsynced.discard(member_id)

    def answer_join(self, member_id: str, response: JoinGroupResponse) -> None:
        """Answer a parked join, if there is one."""
        answer = self.joining.pop(member_id, None)
        if answer is not None:
            answer(response)

    def answer_sync(self, member_id: str, response: SyncGroupResponse) -> None:
        """Answer a parked sync, if there is one."""
        answer = self.syncing.pop(member_id, None)
        if answer is not None:
            answer(response)

    def refuse_all(self, code: errors.Code) -> None:
        """Answer everything that is parked with an error."""
        for member_id in list(self.joining):
            self.answer_join(member_id, refused_join(code, member_id))
        self.refuse_syncs(code)

    def refuse_syncs(self, code: errors.Code) -> None:
        """Answer every parked sync with an error."""
        for member_id in list(self.syncing):
            self.answer_sync(member_id, refused_sync(code))
