"""What a group as it stands grants to whoever asks: verdicts alone, which change nothing.

Owns the order in which Kafka's coordinator looks at a request, since clients act on the first error
that applies: a coordinator whose term is over first, then the member, its generation, its protocol,
and last the phase that the group is in.
"""

from __future__ import annotations

from typing import Protocol

from cluster import errors
from cluster.core.group_state import GroupSettings, State
from cluster.core.members import Members, protocols_of
from cluster.wire.messages import JoinGroupRequest, SyncGroupRequest


class Standing(Protocol):
    """What of a group the verdicts rest on."""

    state: State
    generation: int
    protocol_type: str | None
    protocol: str | None
    members: Members
    settings: GroupSettings


def member(
    group: Standing, member_id: str, instance_id: str | None, generation: int
) -> errors.Code:
    """Whether this is a member of the present generation."""
    if group.state is State.DEAD:
        return errors.COORDINATOR_NOT_AVAILABLE
    code = group.members.check(member_id, instance_id)
    if code is errors.NONE and generation != group.generation:
        return errors.ILLEGAL_GENERATION
    return code


def join(group: Standing, request: JoinGroupRequest) -> errors.Code:
    """Whether there is room, and the member fits those that are here."""
    if group.state is State.DEAD:
        return errors.COORDINATOR_NOT_AVAILABLE
    if _full(group, request):
        return errors.GROUP_MAX_SIZE_REACHED
    protocols = protocols_of(request)
    if group.state is State.EMPTY:
        fits = bool(request.protocol_type and protocols)
    else:
        fits = request.protocol_type == group.protocol_type and group.members.shares(protocols)
    return errors.NONE if fits else errors.INCONSISTENT_GROUP_PROTOCOL


def _full(group: Standing, request: JoinGroupRequest) -> bool:
    members, member_id, most = group.members, request.member_id, group.settings.max_size
    if not member_id and len(members.pending) >= most:
        return True
    if group.state is State.EMPTY:
        return False
    if request.group_instance_id in members.instances:
        return False  # it replaces itself
    if group.state is State.PREPARING:
        return member_id not in members.joining and len(members.joining) >= most
    return member_id not in members.by_id and len(members) >= most


def sync(group: Standing, request: SyncGroupRequest) -> errors.Code:
    """Whether the member may ask for its assignment now."""
    code = member(group, request.member_id, request.group_instance_id, request.generation_id)
    if code is not errors.NONE:
        return code
    named = (
        (request.protocol_type, group.protocol_type),
        (request.protocol_name, group.protocol),
    )
    if any(theirs is not None and theirs != ours for theirs, ours in named):
        return errors.INCONSISTENT_GROUP_PROTOCOL
    preparing = group.state is State.PREPARING
    return errors.REBALANCE_IN_PROGRESS if preparing else errors.NONE
