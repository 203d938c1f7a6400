"""Coordinators of groups: where they are, what they answer, and what survives them."""

from __future__ import annotations

import dataclasses

import pytest

from cluster import errors
from cluster.core import group_shard
from cluster.core.groups import java_hash
from cluster.wire import messages
from cluster.wire.group_records import TOPIC as GROUPS_TOPIC
from cluster.wire.schema import Message
from tests.unit.core_world import TOPIC, World, batch, ready
from tests.unit.group_world import (
    GROUP,
    beat,
    cluster,
    commit,
    committed,
    find,
    home,
    join,
    log_of,
    member,
    partition_of,
    sync,
)

NOT_COORDINATOR = errors.NOT_COORDINATOR.number


@pytest.fixture
def world() -> World:
    return cluster()


def ask(world: World, node_id: int, body: Message, *, version: int | None = None) -> Message:
    (answer,) = world.ask(node_id, body, version=version)
    return answer


# -- who coordinates -------------------------------------------------------------------------------


def test_hash_is_javas() -> None:
    assert java_hash("") == 0
    assert java_hash("abc") == 96_354
    assert java_hash("polygenelubricants") == 0  # Integer.MIN_VALUE, its sign taken off
    assert java_hash("\U0001f600") == 1_772_899


def test_topic_is_made_when_a_coordinator_is_first_looked_for() -> None:
    world = ready()
    assert GROUPS_TOPIC not in world.nodes[1].image.topics
    assert find(world, node_id=2).error_code == errors.COORDINATOR_NOT_AVAILABLE.number
    world.run(1_000)
    record = world.nodes[1].image.topics[GROUPS_TOPIC].value
    assert (record.partitions, record.replicas) == (8, 3)
    assert find(world, node_id=2).error_code == 0


def test_topic_has_as_many_replicas_as_there_are_brokers() -> None:
    world = cluster(1)
    assert world.nodes[1].image.topics[GROUPS_TOPIC].value.replicas == 1
    assert commit(world, 1, 5) == 0


def test_every_broker_names_the_leader_of_the_groups_partition(world: World) -> None:
    leader = world.leader(partition_of(world), GROUPS_TOPIC)
    assert {find(world, node_id=node_id).node_id for node_id in world.nodes} == {leader}


def test_groups_are_spread_over_the_brokers(world: World) -> None:
    assert {find(world, f"group-{number}").node_id for number in range(40)} == {1, 2, 3}


def test_before_version_4_one_coordinator_is_named_with_kafkas_words(world: World) -> None:
    request = messages.FindCoordinatorRequest(key=GROUP)
    answer = ask(world, 1, request, version=2)
    assert isinstance(answer, messages.FindCoordinatorResponse)
    assert (answer.error_code, answer.error_message) == (0, "NONE")
    assert answer.node_id == home(world)


def test_transactions_have_no_coordinator(world: World) -> None:
    request = messages.FindCoordinatorRequest(key_type=1, coordinator_keys=["t"])
    answer = ask(world, 1, request)
    assert isinstance(answer, messages.FindCoordinatorResponse)
    code = errors.TRANSACTIONAL_ID_AUTHORIZATION_FAILED.number
    assert answer.coordinators[0].error_code == code


def test_whoever_does_not_lead_answers_not_coordinator(world: World) -> None:
    other = next(node_id for node_id in world.nodes if node_id != home(world))
    answer = join(world, other, wait_ms=20)
    assert answer is not None and answer.error_code == NOT_COORDINATOR
    assert commit(world, other, 5) == NOT_COORDINATOR
    assert committed(world, other)[0] == NOT_COORDINATOR
    assert beat(world, other, "m", 1) == NOT_COORDINATOR


def test_clients_cannot_write_into_or_delete_the_topic(world: World) -> None:
    leader = world.leader(0, GROUPS_TOPIC)
    part = messages.PartitionProduceData(index=0, records=batch(-1, -1, b"x"))
    topics = [messages.TopicProduceData(name=GROUPS_TOPIC, partition_data=[part])]
    produced = ask(world, leader, messages.ProduceRequest(acks=-1, topic_data=topics))
    assert isinstance(produced, messages.ProduceResponse)
    code = produced.responses[0].partition_responses[0].error_code
    assert code == errors.INVALID_TOPIC_EXCEPTION.number
    state = messages.DeleteTopicState(name=GROUPS_TOPIC)
    deleted = ask(world, world.controller(), messages.DeleteTopicsRequest(topics=[state]))
    assert isinstance(deleted, messages.DeleteTopicsResponse)
    assert deleted.responses[0].error_code != 0
    assert GROUPS_TOPIC in world.nodes[1].image.topics


# -- bad requests ----------------------------------------------------------------------------------


def test_bad_joins_are_refused_as_kafka_does(world: World) -> None:
    node_id = home(world)
    for group, session_ms, member_id, code in [
        ("", 10_000, "", errors.INVALID_GROUP_ID),
        (GROUP, 5_999, "", errors.INVALID_SESSION_TIMEOUT),
        (GROUP, 1_800_001, "", errors.INVALID_SESSION_TIMEOUT),
        (GROUP, 10_000, "nobody", errors.UNKNOWN_MEMBER_ID),
    ]:
        asked = home(world, group) if group else node_id
        answer = join(world, asked, member_id, group=group, session_ms=session_ms, wait_ms=20)
        assert answer is not None and answer.error_code == code.number, code


def test_too_much_metadata_is_refused(world: World) -> None:
    answer = join(world, home(world), metadata=bytes(300_000), wait_ms=20)
    assert answer is not None and answer.error_code == errors.INVALID_REQUEST.number


def test_before_version_7_no_assignor_is_an_empty_name(world: World) -> None:
    answer = join(world, home(world), version=5, wait_ms=20)
    assert answer is not None
    assert (answer.error_code, answer.protocol_name) == (errors.MEMBER_ID_REQUIRED.number, "")


def test_unknown_group_knows_no_member(world: World) -> None:
    node_id = home(world)
    unknown = errors.UNKNOWN_MEMBER_ID.number
    assert beat(world, node_id, "m", 1) == unknown
    assert sync(world, node_id, "m", 1, b"")[0] == unknown
    left = ask(world, node_id, messages.LeaveGroupRequest(group_id=GROUP))
    assert isinstance(left, messages.LeaveGroupResponse)
    assert left.error_code == unknown


def test_leave_before_version_3_has_one_error(world: World) -> None:
    node_id = home(world)
    member_id, _ = member(world, node_id)
    request = messages.LeaveGroupRequest(group_id=GROUP, member_id=member_id)
    first, second = (ask(world, node_id, request, version=1) for _ in range(2))
    assert isinstance(first, messages.LeaveGroupResponse)
    assert isinstance(second, messages.LeaveGroupResponse)
    assert (first.error_code, second.error_code) == (0, errors.UNKNOWN_MEMBER_ID.number)


# -- offsets ---------------------------------------------------------------------------------------


def test_commit_is_found_with_its_metadata(world: World) -> None:
    node_id = home(world)
    member_id, generation = member(world, node_id)
    told = commit(
        world, node_id, 7, member_id=member_id, generation=generation, metadata="so far"
    )  # fmt: skip
    assert told == 0
    assert committed(world, node_id) == (0, 7, "so far")


def test_group_that_only_commits_needs_no_members(world: World) -> None:
    node_id = home(world)
    assert commit(world, node_id, 3) == 0
    assert committed(world, node_id)[1] == 3
    assert described(world, node_id).group_state == "Empty"


def test_nothing_was_committed_in_an_unknown_group(world: World) -> None:
    assert committed(world, home(world)) == (0, -1, "")


@pytest.mark.parametrize("version", [1, 5, 7, 8])
def test_offsets_are_fetched_in_every_version(world: World, version: int) -> None:
    node_id = home(world)
    commit(world, node_id, 9)
    topic = messages.OffsetFetchRequestTopic(name=TOPIC, partition_indexes=[0, 4])
    group = messages.OffsetFetchRequestGroup(group_id=GROUP, topics=[topic])
    request = messages.OffsetFetchRequest(group_id=GROUP, topics=[topic])
    if version >= 8:
        request = messages.OffsetFetchRequest(groups=[group])
    answer = ask(world, node_id, request, version=version)
    assert isinstance(answer, messages.OffsetFetchResponse)
    topics = answer.groups[0].topics if version >= 8 else answer.topics
    assert [part.committed_offset for part in topics[0].partitions] == [9, -1]


def test_null_topics_ask_for_everything_committed(world: World) -> None:
    node_id = home(world)
    commit(world, node_id, 9)
    group = messages.OffsetFetchRequestGroup(group_id=GROUP, topics=None)
    answer = ask(world, node_id, messages.OffsetFetchRequest(groups=[group]))
    assert isinstance(answer, messages.OffsetFetchResponse)
    (topic,) = answer.groups[0].topics
    assert (topic.name, topic.partitions[0].committed_offset) == (TOPIC, 9)


def test_commit_is_refused_by_whatever_is_wrong_with_it(world: World) -> None:
    node_id = home(world)
    unknown, illegal = errors.UNKNOWN_MEMBER_ID.number, errors.ILLEGAL_GENERATION.number
    assert commit(world, node_id, 1, member_id="m", generation=1) == illegal  # no such group
    member_id, generation = member(world, node_id)
    assert commit(world, node_id, 1) == unknown
    assert commit(world, node_id, 1, member_id="m", generation=generation) == unknown
    assert commit(world, node_id, 1, member_id=member_id, generation=generation + 1) == illegal
    good = {"member_id": member_id, "generation": generation}
    missing = errors.UNKNOWN_TOPIC_OR_PARTITION.number
    assert commit(world, node_id, 1, place=(TOPIC, 1), **good) == missing  # type: ignore[arg-type]
    assert commit(world, node_id, 1, place=("none", 0), **good) == missing  # type: ignore[arg-type]
    long = errors.OFFSET_METADATA_TOO_LARGE.number
    assert commit(world, node_id, 1, metadata="x" * 4_097, **good) == long  # type: ignore[arg-type]
    assert commit(world, node_id, 1, metadata="x" * 4_096, **good) == 0  # type: ignore[arg-type]


def test_commit_is_not_answered_before_the_replicas_have_it(world: World) -> None:
    node_id = home(world)
    for other in world.nodes:
        if other != node_id:
            world.hold_syncs(other)
    assert commit(world, node_id, 5, wait_ms=200) is None
    assert committed(world, node_id)[1] == -1
    for other in world.nodes:
        if other != node_id:
            world.release_syncs(other)
    world.run(300)
    assert committed(world, node_id)[1] == 5


def test_commit_that_the_replicas_never_confirm_is_told_after_a_while(world: World) -> None:
    node_id = home(world)
    for other in list(world.nodes):
        if other != node_id:
            world.kill(other, silently=True)
    told = commit(world, node_id, 5, wait_ms=10_000)
    assert told in (errors.COORDINATOR_NOT_AVAILABLE.number, NOT_COORDINATOR)


def test_deleted_offsets_are_gone_unless_somebody_reads_the_topic(world: World) -> None:
    node_id = home(world)
    commit(world, node_id, 5)
    place = messages.OffsetDeleteRequestPartition(partition_index=0)
    other = messages.OffsetDeleteRequestPartition(partition_index=7)
    topic = messages.OffsetDeleteRequestTopic(name=TOPIC, partitions=[place, other])
    request = messages.OffsetDeleteRequest(group_id=GROUP, topics=[topic])
    answer = ask(world, node_id, request)
    assert isinstance(answer, messages.OffsetDeleteResponse)
    codes = [part.error_code for part in answer.topics[0].partitions]
    assert codes == [0, errors.UNKNOWN_TOPIC_OR_PARTITION.number]
    assert committed(world, node_id)[1] == -1
    subscription = b"\x00\x00\x00\x00\x00\x01\x00\x01t\xff\xff\xff\xff"
    member_id, generation = member(world, node_id, metadata=subscription)
    commit(world, node_id, 6, member_id=member_id, generation=generation)
    answer = ask(world, node_id, request)
    assert isinstance(answer, messages.OffsetDeleteResponse)
    subscribed = errors.GROUP_SUBSCRIBED_TO_TOPIC.number
    assert answer.topics[0].partitions[0].error_code == subscribed


# -- describing and deleting -----------------------------------------------------------------------


def described(world: World, node_id: int, group: str = GROUP) -> messages.DescribedGroup:
    answer = ask(world, node_id, messages.DescribeGroupsRequest(groups=[group]))
    assert isinstance(answer, messages.DescribeGroupsResponse)
    return answer.groups[0]


def deleted(world: World, node_id: int, *groups: str) -> list[int]:
    answer = ask(world, node_id, messages.DeleteGroupsRequest(groups_names=list(groups)))
    assert isinstance(answer, messages.DeleteGroupsResponse)
    return [result.error_code for result in answer.results]


def listed(world: World, node_id: int, *states: str) -> list[str]:
    answer = ask(world, node_id, messages.ListGroupsRequest(states_filter=list(states)))
    assert isinstance(answer, messages.ListGroupsResponse)
    assert answer.error_code == 0
    return [group.group_id for group in answer.groups]


def test_unknown_group_is_dead_and_no_error(world: World) -> None:
    found = described(world, home(world))
    assert (found.error_code, found.group_state) == (0, "Dead")


def test_stable_group_is_described_with_its_members(world: World) -> None:
    node_id = home(world)
    member_id, _ = member(world, node_id, metadata=b"meta")
    found = described(world, node_id)
    assert (found.group_state, found.protocol_data) == ("Stable", "range")
    (one,) = found.members
    assert (one.member_id, one.client_id) == (member_id, "test")
    assert (one.member_metadata, one.member_assignment) == (b"meta", b"mine")


def test_groups_are_listed_by_state(world: World) -> None:
    node_id = home(world)
    member(world, node_id)
    assert listed(world, node_id) == [GROUP]
    assert listed(world, node_id, "stable") == [GROUP]
    assert listed(world, node_id, "Empty") == []


def test_only_a_group_without_members_is_deleted(world: World) -> None:
    node_id = home(world)
    member_id, _ = member(world, node_id)
    assert deleted(world, node_id, GROUP) == [errors.NON_EMPTY_GROUP.number]
    leaving = [messages.MemberIdentity(member_id=member_id)]
    ask(world, node_id, messages.LeaveGroupRequest(group_id=GROUP, members=leaving))
    commit(world, node_id, 4)
    assert deleted(world, node_id, GROUP) == [0]
    assert deleted(world, node_id, GROUP) == [errors.GROUP_ID_NOT_FOUND.number]
    assert committed(world, node_id)[1] == -1
    assert described(world, node_id).group_state == "Dead"


# -- failing over ----------------------------------------------------------------------------------


def failed_over(world: World) -> int:
    """The coordinator dies; who is it then."""
    world.kill(home(world))
    world.run(3_000)
    return home(world)


def test_next_coordinator_finds_group_and_offsets(world: World) -> None:
    node_id = home(world)
    member_id, generation = member(world, node_id)
    commit(world, node_id, 7, member_id=member_id, generation=generation, metadata="x")
    then = failed_over(world)
    assert then != node_id
    assert committed(world, then) == (0, 7, "x")
    assert beat(world, then, member_id, generation) == 0
    assert commit(world, then, 8, member_id=member_id, generation=generation) == 0


def test_deleted_group_stays_deleted(world: World) -> None:
    node_id = home(world)
    commit(world, node_id, 7)
    assert deleted(world, node_id, GROUP) == [0]
    assert committed(world, failed_over(world))[1] == -1


def test_whoever_waits_hears_that_the_coordinator_is_another(world: World) -> None:
    node_id = home(world)
    member_id, generation = member(world, node_id)
    join(world, node_id, wait_ms=20)  # somebody is about to come, so the join waits
    assert join(world, node_id, member_id, wait_ms=100) is None
    others = {other for other in world.nodes if other != node_id}
    world.replies.clear()
    world.blocked = {(node_id, other) for other in others} | {(o, node_id) for o in others}
    world.lose_session(node_id)
    world.run(2_000)
    assert any(NOT_COORDINATOR.to_bytes(2) in frame for frame in world.replies)
    assert generation == 1


def test_fenced_after_the_next_generation(world: World) -> None:
    node_id = home(world)
    member_id, generation = member(world, node_id)
    then = failed_over(world)
    joined = join(world, then, member_id)
    assert joined is not None and joined.generation_id == generation + 1
    illegal = errors.ILLEGAL_GENERATION.number
    assert commit(world, then, 9, member_id=member_id, generation=generation) == illegal


def test_members_are_not_disturbed_while_the_next_coordinator_reads(world: World) -> None:
    node_id = home(world)
    member_id, generation = member(world, node_id)
    index = partition_of(world)
    # The others have it and have not heard that it is committed.
    assert commit(world, node_id, 1, member_id=member_id, generation=generation, wait_ms=3) is None
    world.kill(node_id)
    then = None
    while then is None:
        world.run(1)
        then = next((i for i in world.nodes if is_led(world, i, index)), None)
    (other,) = (i for i in world.nodes if i != then)
    world.blocked = {(other, then), (then, other)}  # what is committed cannot be known
    loading = errors.COORDINATOR_LOAD_IN_PROGRESS.number
    assert beat(world, then, member_id, generation) == 0
    assert commit(world, then, 1, member_id=member_id, generation=generation) == loading
    assert committed(world, then)[0] == loading
    world.blocked = set()
    world.run(3_000)
    assert commit(world, then, 1, member_id=member_id, generation=generation) == 0


def is_led(world: World, node_id: int, index: int) -> bool:
    found = world.nodes[node_id].replicas.find(GROUPS_TOPIC, index)
    return found is not None and found.leader is not None


# -- bounds ----------------------------------------------------------------------------------------


def test_log_is_written_anew_and_stays_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_shard, "GROUP_LOG_BYTES", 4_000)
    monkeypatch.setattr(group_shard, "GROUP_SLICE_BYTES", 200)
    node_id = home(world)
    member_id, generation = member(world, node_id)
    good = {"member_id": member_id, "generation": generation}
    for offset in range(120):
        assert commit(world, node_id, offset, wait_ms=20, **good) == 0  # type: ignore[arg-type]
        beat(world, node_id, member_id, generation)
    world.run(500)
    start, end = log_of(world, node_id)
    assert start > 0
    assert end - start < 120
    then = failed_over(world)
    assert committed(world, then)[1] == 119
    assert beat(world, then, member_id, generation) == 0


def test_newer_offset_is_not_overtaken_by_what_is_written_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_shard, "GROUP_LOG_BYTES", 1_000)
    node_id = home(world)
    for offset in range(20):
        commit(world, node_id, offset, wait_ms=20)
    for other in world.nodes:
        if other != node_id:
            world.hold_syncs(other)
    for offset in range(20, 30):
        commit(world, node_id, offset, wait_ms=3)
    for other in list(world.nodes):
        if other != node_id:
            world.release_syncs(other)
    world.run(1_000)
    assert committed(world, node_id)[1] == 29
    assert committed(world, failed_over(world))[1] == 29


def test_offsets_of_a_group_without_members_expire() -> None:
    world = ready()
    week = 7 * 24 * 3_600_000
    find(world)
    world.run(1_500)
    node_id = home(world)
    commit(world, node_id, 5)
    for node in world.nodes.values():  # a clock that stands a week and a bit ahead from now on
        node.coordinator.groups._wall_offset_ms += week + 120_000
    world.run(130_000)
    assert committed(world, node_id)[1] == -1
    assert described(world, node_id).group_state == "Dead"


def test_offsets_of_a_group_with_members_stay() -> None:
    world = cluster()
    node_id = home(world)
    member_id, generation = member(world, node_id)
    commit(world, node_id, 5, member_id=member_id, generation=generation)
    for node in world.nodes.values():
        node.coordinator.groups._wall_offset_ms += 8 * 24 * 3_600_000
    for _ in range(15):
        world.run(9_000)
        beat(world, node_id, member_id, generation)
    assert committed(world, node_id)[1] == 5


def test_settings_are_kafkas_by_default() -> None:
    settings = dataclasses.asdict(ready(1).nodes[1].settings.groups)
    assert settings["min_session_timeout_ms"] == 6_000
    assert settings["initial_rebalance_delay_ms"] == 3_000
