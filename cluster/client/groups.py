"""Consumer groups as an operator sees them: which there are, who is in them, how far they read.

Owns the questions to all brokers (each lists the groups that it coordinates) and to one group's
coordinator, for `Admin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.client.coordinator import MOVED, Coordinator
from cluster.client.membership import GroupOptions, Membership
from cluster.client.offsets import TopicPartition
from cluster.client.session import Session
from cluster.errors import GROUP_ID_NOT_FOUND, RequestError, code
from cluster.limits import CLIENT_REQUEST_MS
from cluster.wire import apis, messages
from cluster.wire.assignments import PROTOCOL_TYPE, decode_assignment
from cluster.wire.primitives import WireError

_DEAD = "Dead"


@dataclass(frozen=True, slots=True)
class GroupListing:
    """One group, by name."""

    group: str
    state: str
    """Empty, PreparingRebalance, CompletingRebalance or Stable, as Kafka names them."""
    protocol_type: str
    coordinator: int


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member and the partitions that it has; none where nobody can tell."""

    member_id: str
    instance_id: str | None
    client_id: str
    partitions: tuple[TopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """One group with its members."""

    group: str
    state: str
    assignor: str
    coordinator: int
    members: tuple[GroupMember, ...]


async def list_groups(session: Session) -> list[GroupListing]:
    """All groups, by name; asks every broker, again while one is reading what it coordinates."""
    await session.refresh()
    nodes = sorted(session.metadata.brokers)
    found = await asyncio.gather(*(_listed(session, node) for node in nodes))
    return sorted((one for listed in found for one in listed), key=lambda one: one.group)


async def _listed(session: Session, node: int) -> list[GroupListing]:
    deadline = session.deadline()
    while True:
        answer = await session.ask_node(
            node, apis.LIST_GROUPS, messages.ListGroupsRequest(), messages.ListGroupsResponse,
            timeout_ms=CLIENT_REQUEST_MS,
        )  # fmt: skip
        if not answer.error_code:
            return [
                GroupListing(one.group_id, one.group_state, one.protocol_type, node)
                for one in answer.groups
            ]
        failure = RequestError(code(answer.error_code), f"groups of broker {node}")
        if answer.error_code not in MOVED:
            raise failure
        await session.pause(deadline, failure)


async def describe_group(session: Session, group: str) -> GroupDescription:
    """One group; RequestError with GROUP_ID_NOT_FOUND if there is none of this name."""
    coordinator = Coordinator(session, group)
    answer = await coordinator.settled(
        apis.DESCRIBE_GROUPS, messages.DescribeGroupsRequest(groups=[group]),
        messages.DescribeGroupsResponse, lambda found: found.groups[0].error_code,
    )  # fmt: skip
    found = answer.groups[0]
    if found.error_code:
        raise RequestError(code(found.error_code), group)
    if found.group_state == _DEAD:
        raise RequestError(GROUP_ID_NOT_FOUND, group)
    return GroupDescription(
        group, found.group_state, found.protocol_data, coordinator.node_id,
        tuple(_member(one, found.protocol_type) for one in found.members),
    )  # fmt: skip


def _member(member: messages.DescribedGroupMember, protocol_type: str) -> GroupMember:
    places: tuple[TopicPartition, ...] = ()
    if protocol_type == PROTOCOL_TYPE:
        try:
            given = decode_assignment(member.member_assignment)
        except WireError:
            given = {}
        places = tuple((topic, index) for topic, indexes in given.items() for index in indexes)
    return GroupMember(member.member_id, member.group_instance_id, member.client_id, places)


async def delete_group(session: Session, group: str) -> None:
    """Delete a group and its offsets; RequestError with NON_EMPTY_GROUP while it has members."""
    answer = await Coordinator(session, group).settled(
        apis.DELETE_GROUPS, messages.DeleteGroupsRequest(groups_names=[group]),
        messages.DeleteGroupsResponse, lambda found: found.results[0].error_code,
    )  # fmt: skip
    if answer.results[0].error_code:
        raise RequestError(code(answer.results[0].error_code), group)


async def group_offsets(session: Session, group: str) -> dict[TopicPartition, int]:
    """Everything that a group has committed."""
    request = messages.OffsetFetchRequest(
        groups=[messages.OffsetFetchRequestGroup(group_id=group, topics=None)]
    )
    answer = await Coordinator(session, group).settled(
        apis.OFFSET_FETCH, request, messages.OffsetFetchResponse,
        lambda found: found.groups[0].error_code,
    )  # fmt: skip
    found = answer.groups[0]
    if found.error_code:
        raise RequestError(code(found.error_code), group)
    return {
        (topic.name, part.partition_index): part.committed_offset
        for topic in found.topics
        for part in topic.partitions
    }


async def set_group_offsets(
    session: Session, group: str, offsets: Mapping[TopicPartition, int]
) -> None:  # fmt: skip
    """Commit offsets for a group without members; UNKNOWN_MEMBER_ID while it has some."""
    await Membership(session, (), GroupOptions(group), lambda: None).commit(offsets)
