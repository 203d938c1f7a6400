"""A cluster with a group's coordinator, and a member's requests to it.

Owns the short forms that tests of coordinators share, on the obedient world of `core_world`.
"""

from __future__ import annotations

from cluster import errors
from cluster.wire import messages
from cluster.wire.group_records import TOPIC as GROUPS_TOPIC
from tests.unit.core_world import TOPIC, World, ready

GROUP = "g"
PLACE = (TOPIC, 0)


def cluster(brokers: int = 3) -> World:
    """A world whose internal topic is there and led."""
    world = ready(brokers)
    find(world)
    world.run(1_500)
    assert find(world).error_code == 0
    return world


def find(world: World, group: str = GROUP, node_id: int | None = None) -> messages.Coordinator:
    """Who coordinates a group, as one broker says."""
    asked = min(world.nodes) if node_id is None else node_id
    request = messages.FindCoordinatorRequest(coordinator_keys=[group])
    (answer,) = world.ask(asked, request)
    assert isinstance(answer, messages.FindCoordinatorResponse)
    return answer.coordinators[0]


def home(world: World, group: str = GROUP) -> int:
    """The node that coordinates a group."""
    found = find(world, group)
    assert found.error_code == 0
    return found.node_id


def commit(
    world: World, node_id: int, offset: int, *, member_id: str = "", generation: int = -1,
    metadata: str = "", group: str = GROUP, place: tuple[str, int] = PLACE, wait_ms: int = 300,
    version: int = 8,
) -> int | None:  # fmt: skip
    """Commit one offset; the error, None while there is no answer."""
    part = messages.OffsetCommitRequestPartition(
        partition_index=place[1], committed_offset=offset, committed_metadata=metadata
    )
    body = messages.OffsetCommitRequest(
        group_id=group, generation_id_or_member_epoch=generation, member_id=member_id,
        topics=[messages.OffsetCommitRequestTopic(name=place[0], partitions=[part])],
    )  # fmt: skip
    answers = world.ask(node_id, body, wait_ms=wait_ms, version=version)
    if not answers:
        return None
    (answer,) = answers
    assert isinstance(answer, messages.OffsetCommitResponse)
    return answer.topics[0].partitions[0].error_code


def committed(
    world: World, node_id: int, group: str = GROUP, place: tuple[str, int] = PLACE
) -> tuple[int, int, str | None]:  # fmt: skip
    """(error of the group, offset, metadata) of one place."""
    topic = messages.OffsetFetchRequestTopic(name=place[0], partition_indexes=[place[1]])
    asked = messages.OffsetFetchRequestGroup(group_id=group, topics=[topic])
    (answer,) = world.ask(node_id, messages.OffsetFetchRequest(groups=[asked]), wait_ms=20)
    assert isinstance(answer, messages.OffsetFetchResponse)
    (found,) = answer.groups
    if found.error_code:
        return found.error_code, -1, None
    part = found.topics[0].partitions[0]
    return part.error_code, part.committed_offset, part.metadata


def join(
    world: World, node_id: int, member_id: str = "", *, version: int = 9, group: str = GROUP,
    session_ms: int = 10_000, wait_ms: int = 4_000, metadata: bytes = b"",
) -> messages.JoinGroupResponse | None:  # fmt: skip
    """Ask to join; None while the request is parked."""
    body = messages.JoinGroupRequest(
        group_id=group, session_timeout_ms=session_ms, rebalance_timeout_ms=20_000,
        member_id=member_id, protocol_type="consumer",
        protocols=[messages.JoinGroupProtocol(name="range", metadata=metadata)],
    )  # fmt: skip
    answers = world.ask(node_id, body, version=version, wait_ms=wait_ms)
    if not answers:
        return None
    assert isinstance(answers[0], messages.JoinGroupResponse)
    return answers[0]


def member(world: World, node_id: int, *, metadata: bytes = b"") -> tuple[str, int]:
    """A stable group of one member; its id and generation."""
    first = join(world, node_id, wait_ms=20)
    assert first is not None and first.error_code == errors.MEMBER_ID_REQUIRED.number
    joined = join(world, node_id, first.member_id, metadata=metadata)
    assert joined is not None and joined.error_code == 0
    assert sync(world, node_id, joined.member_id, joined.generation_id, b"mine") == (0, b"mine")
    return joined.member_id, joined.generation_id


def sync(
    world: World, node_id: int, member_id: str, generation: int, assignment: bytes
) -> tuple[int, bytes]:
    """Sync as the leader of a group of one; (error, assignment)."""
    body = messages.SyncGroupRequest(
        group_id=GROUP, generation_id=generation, member_id=member_id,
        assignments=[messages.SyncGroupRequestAssignment(member_id, assignment)],
    )  # fmt: skip
    (answer,) = world.ask(node_id, body)
    assert isinstance(answer, messages.SyncGroupResponse)
    return answer.error_code, answer.assignment


def beat(world: World, node_id: int, member_id: str, generation: int) -> int:
    """A heartbeat; the error."""
    body = messages.HeartbeatRequest(
        group_id=GROUP, generation_id=generation, member_id=member_id
    )  # fmt: skip
    (answer,) = world.ask(node_id, body, wait_ms=20)
    assert isinstance(answer, messages.HeartbeatResponse)
    return answer.error_code


def partition_of(world: World, group: str = GROUP) -> int:
    """The partition of the internal topic that a group belongs to."""
    index = next(iter(world.nodes.values())).coordinator.groups.partition_of(group)
    assert index is not None
    return index


def log_of(world: World, node_id: int, group: str = GROUP) -> tuple[int, int]:
    """(start, end) of the log that a group is in, on one node."""
    log = world.partition(node_id, partition_of(world, group), GROUPS_TOPIC).replica.log
    return log.start_offset, log.next_offset
