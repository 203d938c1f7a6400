"""Requests and responses of consumer groups' membership.

FindCoordinator (10), JoinGroup (11), Heartbeat (12), LeaveGroup (13), SyncGroup (14),
DescribeGroups (15), ListGroups (16) and DeleteGroups (42).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import field

from cluster.wire.schema import Int8, Int16, Int32, Message, NullableSince, Since, Until


class FindCoordinatorRequest(Message):
    """Who coordinates a group (key type 0); from version 4 several at once."""

    key: Annotated[str, Until(3)] = ""
    key_type: Annotated[Int8, Since(1)] = 0
    coordinator_keys: Annotated[list[str], Since(4)] = field(default_factory=list)


class Coordinator(Message):
    """Who coordinates one key."""

    key: str = ""
    node_id: Int32 = 0
    host: str = ""
    port: Int32 = 0
    error_code: Int16 = 0
    error_message: str | None = None


class FindCoordinatorResponse(Message):
    """One broker, or from version 4 one entry for every key of the request."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    error_code: Annotated[Int16, Until(3)] = 0
    error_message: Annotated[str | None, Since(1), Until(3)] = None
    node_id: Annotated[Int32, Until(3)] = 0
    host: Annotated[str, Until(3)] = ""
    port: Annotated[Int32, Until(3)] = 0
    coordinators: Annotated[list[Coordinator], Since(4)] = field(default_factory=list)


class JoinGroupProtocol(Message):
    """An assignor that the member knows, and what it tells the leader for it."""

    name: str = ""
    metadata: bytes = b""


class JoinGroupRequest(Message):
    """Become, or stay, a member; answered when everybody has joined."""

    group_id: str = ""
    session_timeout_ms: Int32 = 0
    rebalance_timeout_ms: Annotated[Int32, Since(1)] = -1
    member_id: str = ""
    group_instance_id: Annotated[str | None, Since(5)] = None
    protocol_type: str = ""
    protocols: list[JoinGroupProtocol] = field(default_factory=list)
    reason: Annotated[str | None, Since(8)] = None


class JoinGroupResponseMember(Message):
    """A member as its leader must know it."""

    member_id: str = ""
    group_instance_id: Annotated[str | None, Since(5)] = None
    metadata: bytes = b""


class JoinGroupResponse(Message):
    """The generation that begins; the leader alone is told the members."""

    throttle_time_ms: Annotated[Int32, Since(2)] = 0
    error_code: Int16 = 0
    generation_id: Int32 = -1
    protocol_type: Annotated[str | None, Since(7)] = None
    protocol_name: Annotated[str | None, NullableSince(7)] = None
    leader: str = ""
    skip_assignment: Annotated[bool, Since(9)] = False
    member_id: str = ""
    members: list[JoinGroupResponseMember] = field(default_factory=list)


class HeartbeatRequest(Message):
    """A member is alive and takes part in this generation."""

    group_id: str = ""
    generation_id: Int32 = 0
    member_id: str = ""
    group_instance_id: Annotated[str | None, Since(3)] = None


class HeartbeatResponse(Message):
    """REBALANCE_IN_PROGRESS asks the member to join again."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    error_code: Int16 = 0


class MemberIdentity(Message):
    """Who leaves: by member id, or by instance id alone when an operator removes it."""

    member_id: str = ""
    group_instance_id: str | None = None
    reason: Annotated[str | None, Since(5)] = None


class LeaveGroupRequest(Message):
    """End memberships: from version 3 several at once."""

    group_id: str = ""
    member_id: Annotated[str, Until(2)] = ""
    members: Annotated[list[MemberIdentity], Since(3)] = field(default_factory=list)


class MemberResponse(Message):
    """What became of one membership."""

    member_id: str = ""
    group_instance_id: str | None = None
    error_code: Int16 = 0


class LeaveGroupResponse(Message):
    """From version 3 one entry for every member of the request."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    error_code: Int16 = 0
    members: Annotated[list[MemberResponse], Since(3)] = field(default_factory=list)


class SyncGroupRequestAssignment(Message):
    """What one member is to do, in its assignor's own format."""

    member_id: str = ""
    assignment: bytes = b""


class SyncGroupRequest(Message):
    """The leader hands in everybody's assignment, the others ask for theirs."""

    group_id: str = ""
    generation_id: Int32 = 0
    member_id: str = ""
    group_instance_id: Annotated[str | None, Since(3)] = None
    protocol_type: Annotated[str | None, Since(5)] = None
    protocol_name: Annotated[str | None, Since(5)] = None
    assignments: list[SyncGroupRequestAssignment] = field(default_factory=list)


class SyncGroupResponse(Message):
    """The member's assignment."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    error_code: Int16 = 0
    protocol_type: Annotated[str | None, Since(5)] = None
    protocol_name: Annotated[str | None, Since(5)] = None
    assignment: bytes = b""


class DescribeGroupsRequest(Message):
    """Ask for groups by name."""

    groups: list[str] = field(default_factory=list)
    include_authorized_operations: Annotated[bool, Since(3)] = False


class DescribedGroupMember(Message):
    """A member, what it asked for and what it got."""

    member_id: str = ""
    group_instance_id: Annotated[str | None, Since(4)] = None
    client_id: str = ""
    client_host: str = ""
    member_metadata: bytes = b""
    member_assignment: bytes = b""


class DescribedGroup(Message):
    """A group; one that nobody knows is Dead, without an error."""

    error_code: Int16 = 0
    group_id: str = ""
    group_state: str = ""
    protocol_type: str = ""
    protocol_data: str = ""
    members: list[DescribedGroupMember] = field(default_factory=list)
    authorized_operations: Annotated[Int32, Since(3)] = -2_147_483_648


class DescribeGroupsResponse(Message):
    """One entry for every group of the request."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    groups: list[DescribedGroup] = field(default_factory=list)


class ListGroupsRequest(Message):
    """Ask for the groups that this broker coordinates, of all states or of those named."""

    states_filter: Annotated[list[str], Since(4)] = field(default_factory=list)


class ListedGroup(Message):
    """A group by name."""

    group_id: str = ""
    protocol_type: str = ""
    group_state: Annotated[str, Since(4)] = ""


class ListGroupsResponse(Message):
    """The groups of one coordinator."""

    throttle_time_ms: Annotated[Int32, Since(1)] = 0
    error_code: Int16 = 0
    groups: list[ListedGroup] = field(default_factory=list)


class DeleteGroupsRequest(Message):
    """Delete groups without members, and their offsets."""

    groups_names: list[str] = field(default_factory=list)


class DeletableGroupResult(Message):
    """What became of one group."""

    group_id: str = ""
    error_code: Int16 = 0


class DeleteGroupsResponse(Message):
    """One entry for every group of the request."""

    throttle_time_ms: Int32 = 0
    results: list[DeletableGroupResult] = field(default_factory=list)
