"""One group on a bench: members ask, time passes, the log commits when a test lets it.

Owns what a test of a group's machine needs around it. Answers come back as values, None while a
request is parked; what the group stores is kept, and is committed at once unless it is held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster import errors
from cluster.core.group import Group, Stored
from cluster.core.group_state import GroupSettings
from cluster.core.members import Client, Wish
from cluster.wire import messages
from cluster.wire.group_records import GroupValue

RANGE = (("range", b"r"),)
SETTINGS = GroupSettings(initial_rebalance_delay_ms=0, max_size=3)


@dataclass
class Asked:
    """One request's answer, once it is there."""

    answer: messages.JoinGroupResponse | messages.SyncGroupResponse | None = None
    answers: int = 0

    def take(
        self, answer: messages.JoinGroupResponse | messages.SyncGroupResponse
    ) -> None:  # fmt: skip
        self.answer = answer
        self.answers += 1

    @property
    def error(self) -> int | None:
        return None if self.answer is None else self.answer.error_code

    @property
    def joined(self) -> messages.JoinGroupResponse:
        assert isinstance(self.answer, messages.JoinGroupResponse)
        return self.answer

    @property
    def assignment(self) -> bytes:
        assert isinstance(self.answer, messages.SyncGroupResponse)
        return self.answer.assignment


@dataclass
class Bench:
    """A group and the time."""

    settings: GroupSettings = SETTINGS
    now_ms: int = 1_000
    hold: bool = False
    """Nothing is committed before `release`."""
    stored: list[GroupValue] = field(default_factory=list)
    _held: list[Stored] = field(default_factory=list)
    _ids: int = 0

    def __post_init__(self) -> None:
        self.group = Group("g", self.settings, self._persist)

    def _persist(self, _group: Group, value: GroupValue, told: Stored) -> None:
        self.stored.append(value)
        if self.hold:
            self._held.append(told)
        else:
            told(errors.NONE, self.now_ms)

    def release(self, code: errors.Code = errors.NONE) -> None:
        """What was held ends like this."""
        held, self._held = self._held, []
        for told in held:
            told(code, self.now_ms)

    def pass_ms(self, duration_ms: int) -> None:
        """Time passes, looked at whenever something is due."""
        end = self.now_ms + duration_ms
        while self.group.due_ms <= end:
            self.now_ms = max(self.now_ms, self.group.due_ms)
            self.group.look(self.now_ms)
        self.now_ms = end

    def join(
        self, member_id: str = "", *, version: int = 9, instance: str | None = None,
        protocols: tuple[tuple[str, bytes], ...] = RANGE, session_ms: int = 10_000,
        rebalance_ms: int = 60_000, protocol_type: str = "consumer",
    ) -> Asked:  # fmt: skip
        """Ask to join."""
        self._ids += 1
        asked = Asked()
        request = messages.JoinGroupRequest(
            group_id="g", session_timeout_ms=session_ms, rebalance_timeout_ms=rebalance_ms,
            member_id=member_id, group_instance_id=instance, protocol_type=protocol_type,
            protocols=[messages.JoinGroupProtocol(name, data) for name, data in protocols],
        )  # fmt: skip
        client = Client("c", "", str(self._ids))
        self.group.join(Wish(request, version, client, self.now_ms), asked.take)
        if self.group.due_ms <= self.now_ms:
            self.group.look(self.now_ms)
        return asked

    def known(self, **options: object) -> tuple[str, Asked]:
        """Join as a new dynamic member does: ask for an id, then join with it."""
        first = self.join(**options)  # type: ignore[arg-type]
        assert first.error == errors.MEMBER_ID_REQUIRED.number
        member_id = first.joined.member_id
        return member_id, self.join(member_id, **options)  # type: ignore[arg-type]

    def sync(
        self, member_id: str, generation: int, assignments: dict[str, bytes] | None = None,
        **options: str,
    ) -> Asked:  # fmt: skip
        """Ask for the assignment, or bring everybody's."""
        asked = Asked()
        request = messages.SyncGroupRequest(
            group_id="g", generation_id=generation, member_id=member_id,
            group_instance_id=options.get("instance"),
            protocol_type=options.get("protocol_type"),
            protocol_name=options.get("protocol_name"),
            assignments=[
                messages.SyncGroupRequestAssignment(member_id=one, assignment=data)
                for one, data in (assignments or {}).items()
            ],
        )  # fmt: skip
        self.group.sync(request, self.now_ms, asked.take)
        return asked

    def beat(self, member_id: str, generation: int, instance: str | None = None) -> int:
        """A heartbeat; the error."""
        return self.group.heartbeat(member_id, instance, generation, self.now_ms).number

    def leave(self, member_id: str, instance: str | None = None) -> int:
        """Leave; the error."""
        return self.group.leave(member_id, instance, self.now_ms).number

    def commits(
        self, member_id: str = "", generation: int = -1, instance: str | None = None
    ) -> int:  # fmt: skip
        """Whether offsets may be committed so; the error."""
        return self.group.may_commit(member_id, instance, generation, self.now_ms).number

    def stable(self, count: int = 1, **options: object) -> list[str]:
        """A stable group of so many dynamic members, the leader first; generation `count`."""
        members: list[str] = []
        asks: list[Asked] = []
        for _ in range(count):
            member_id, asked = self.known(**options)
            asks = [asked, *(self.join(one, **options) for one in members)]  # type: ignore[arg-type]
            members.append(member_id)
        generation = asks[0].joined.generation_id
        assigned = {one: one.encode() for one in members}
        for one in members:
            self.sync(one, generation, assigned if one == members[0] else None)
        return members


Checks = Callable[[Bench], None]
