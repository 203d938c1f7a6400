"""Questions about groups, and their deletion, answered by whoever coordinates them.

Serves FindCoordinator, DescribeGroups, ListGroups and DeleteGroups.

Owns the answers from the image (who coordinates) and from the shards led here. A group that nobody
has heard of is described as dead, without an error, as Kafka does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from cluster import errors
from cluster.core.calls import Call
from cluster.core.group import Group
from cluster.core.group_state import State
from cluster.core.groups import Groups
from cluster.core.image import Image
from cluster.core.metadata import address_of
from cluster.wire import messages
from cluster.wire.group_records import TOPIC
from cluster.wire.schema import Message

_GROUP_KEY = 0
_OPERATIONS = sum(1 << operation for operation in (3, 6, 8))
"""Read, delete and describe: without authentication everybody may."""
_NO_OPERATIONS = -2_147_483_648


class GroupQueries:
    """What operators and clients ask about groups."""

    def __init__(self, image: Image, groups: Groups) -> None:
        """`groups` knows where a group is."""
        self._image = image
        self._groups = groups

    def register(self, register: Callable[..., None]) -> None:
        """Serve these questions."""
        register(messages.FindCoordinatorRequest, self._find)
        register(messages.DescribeGroupsRequest, self._describe)
        register(messages.ListGroupsRequest, self._list)
        register(messages.DeleteGroupsRequest, self._delete)

    # -- who coordinates ----------------------------------------------------------------------

    def _find(self, call: Call) -> Message:
        request: messages.FindCoordinatorRequest = call.body
        if call.header.api_version >= 4:
            return messages.FindCoordinatorResponse(
                coordinators=[
                    self._coordinator(key, request.key_type, call)
                    for key in request.coordinator_keys
                ]
            )
        found = self._coordinator(request.key, request.key_type, call)
        return messages.FindCoordinatorResponse(
            error_code=found.error_code,
            error_message=found.error_message or "NONE",
            node_id=found.node_id,
            host=found.host,
            port=found.port,
        )

    def _coordinator(self, key: str, key_type: int, call: Call) -> messages.Coordinator:
        if key_type != _GROUP_KEY:
            return _nobody(
                key, errors.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "there are no transactions yet"
            )
        index = self._groups.partition_of(key)
        if index is None:
            return _nobody(key, errors.COORDINATOR_NOT_AVAILABLE)
        topic = self._image.topics[TOPIC].value
        record = self._image.partitions.get((topic.topic_id, index))
        if record is None or not self._image.leads(record.value):
            return _nobody(key, errors.COORDINATOR_NOT_AVAILABLE)
        node_id = record.value.leader
        address = address_of(self._image.brokers[node_id].value, native=call.native)
        if address is None:
            return _nobody(key, errors.COORDINATOR_NOT_AVAILABLE)
        return messages.Coordinator(
            key=key, node_id=node_id, host=address[0], port=address[1], error_message=""
        )

    # -- describing ---------------------------------------------------------------------------

    def _describe(self, call: Call) -> Message:
        request: messages.DescribeGroupsRequest = call.body
        asked = request.include_authorized_operations
        operations = _OPERATIONS if asked else _NO_OPERATIONS
        return messages.DescribeGroupsResponse(
            groups=[self._described(name, operations, call) for name in request.groups]
        )

    def _described(self, group_id: str, operations: int, call: Call) -> messages.DescribedGroup:
        shard = self._groups.shard_of(group_id, call.now_ms)
        if isinstance(shard, errors.Code):
            return messages.DescribedGroup(
                group_id=group_id, error_code=shard.number, authorized_operations=operations
            )
        group = shard.groups.get(group_id)
        if group is None:
            return messages.DescribedGroup(
                group_id=group_id,
                group_state=State.DEAD.value,
                authorized_operations=operations,
            )
        return messages.DescribedGroup(
            group_id=group_id,
            group_state=group.state.value,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol or "") if group.state is State.STABLE else "",
            members=_members(group),
            authorized_operations=operations,
        )

    def _list(self, call: Call) -> Message:
        request: messages.ListGroupsRequest = call.body
        states = {state.lower() for state in request.states_filter}
        loading = any(shard.loading for shard in self._groups.shards.values())
        return messages.ListGroupsResponse(
            error_code=errors.COORDINATOR_LOAD_IN_PROGRESS.number if loading else 0,
            groups=[
                messages.ListedGroup(
                    group_id=group_id,
                    protocol_type=group.protocol_type or "",
                    group_state=group.state.value,
                )
                for shard in self._groups.shards.values()
                if not shard.loading
                for group_id, group in sorted(shard.groups.items())
                if not states or group.state.value.lower() in states
            ],
        )

    # -- deleting -----------------------------------------------------------------------------

    def _delete(self, call: Call) -> Message | None:
        names = list(dict.fromkeys(call.body.groups_names))
        results: dict[str, int] = {}

        def ended(name: str, code: errors.Code) -> None:
            results[name] = code.number
            if len(results) == len(names):
                call.answer(
                    messages.DeleteGroupsResponse(
                        results=[
                            messages.DeletableGroupResult(group_id=one, error_code=results[one])
                            for one in names
                        ]
                    )
                )

        if not names:
            return messages.DeleteGroupsResponse()
        for name in names:
            self._delete_one(name, call.now_ms, partial(ended, name))
        return None

    def _delete_one(
        self, group_id: str, now_ms: int, ended: Callable[[errors.Code], None]
    ) -> None:  # fmt: skip
        shard = self._groups.shard_of(group_id, now_ms)
        if isinstance(shard, errors.Code):
            ended(shard)
            return
        group = shard.groups.get(group_id)
        if group is None or group.state is State.DEAD:
            ended(errors.GROUP_ID_NOT_FOUND)
        elif group.state is not State.EMPTY:
            ended(errors.NON_EMPTY_GROUP)
        else:
            shard.delete(group_id, ended)


def _members(group: Group) -> list[messages.DescribedGroupMember]:
    stable = group.state is State.STABLE
    return [
        messages.DescribedGroupMember(
            member_id=member.member_id,
            group_instance_id=member.instance_id,
            client_id=member.client_id,
            client_host=member.host,
            member_metadata=member.metadata(group.protocol) if stable else b"",
            member_assignment=member.assignment if stable else b"",
        )
        for member in group.members
    ]


def _nobody(key: str, code: errors.Code, text: str | None = None) -> messages.Coordinator:
    return messages.Coordinator(
        key=key, node_id=-1, host="", port=-1, error_code=code.number,
        error_message=text or code.text,
    )  # fmt: skip
