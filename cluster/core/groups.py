"""The coordinator of consumer groups on one broker: who may ask it what, and what time brings.

A group belongs to one partition of an internal topic, by the hash of its name as in Kafka, and is
coordinated by whoever leads that partition. Owns the shards of the partitions led here, each for
one term; the checks that come before a group is asked; the turn's writes. The topic is made when
somebody first looks for a coordinator.

Invariants: a shard is used only while the term that it was read in goes on; whoever waits in a
shard whose term is over is answered NOT_COORDINATOR; nothing is served from a log half read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from heapq import heappop, heappush

from cluster import errors
from cluster.core.append import Append
from cluster.core.calls import Call
from cluster.core.group import NEVER, Group
from cluster.core.group_shard import Shard
from cluster.core.group_state import GroupSettings, State
from cluster.core.hosted import Appended, Find, Led
from cluster.core.image import Image
from cluster.core.members import Client, Wish, refused_join, refused_sync
from cluster.limits import GROUP_EXPIRY_LOOK_MS, GROUP_MEMBER_BYTES_MAX, GROUPS_MAX
from cluster.wire import messages
from cluster.wire.group_records import TOPIC
from cluster.wire.schema import Message


class Groups:
    """Every group that this broker coordinates."""

    def __init__(
        self, image: Image, find: Find, append: Append, settings: GroupSettings, *,
        wall_offset_ms: int, chance: int,
    ) -> None:  # fmt: skip
        """`wall_offset_ms` is what the clock on the wall is ahead of `now_ms`; `chance` a number
        that no other start of a broker has."""
        self.settings = settings
        self.wanted = False
        """Somebody asked for a coordinator while there is no topic for its groups."""
        self.shards: dict[int, Shard] = {}
        self._active: dict[int, Shard] = {}
        """Those that something is under way in; the others cost a step nothing."""
        self._image = image
        self._find = find
        self._append = append
        self._wall_offset_ms = wall_offset_ms
        self._chance = chance
        self._ids = 0
        self._due: list[tuple[int, int, Shard, Group]] = []
        self._number = 0
        self._expiry_ms = NEVER
        self._rebalances_before = 0
        self._unreadable_before = 0
        self._committed_before = 0

    def register(self, register: Callable[..., None]) -> None:
        """Serve what members of groups ask."""
        register(messages.JoinGroupRequest, self._join)
        register(messages.SyncGroupRequest, self._sync)
        register(messages.HeartbeatRequest, self._heartbeat)
        register(messages.LeaveGroupRequest, self._leave)

    # -- who coordinates ----------------------------------------------------------------------

    def partition_of(self, group_id: str) -> int | None:
        """The partition that a group belongs to, None while there is no such topic."""
        topic = self._image.topics.get(TOPIC)
        if topic is None:
            self.wanted = True
            return None
        return java_hash(group_id) % topic.value.partitions

    def shard_of(self, group_id: str, now_ms: int) -> Shard | errors.Code:
        """The shard of a group, if it is here and read; else what to answer."""
        index = self.partition_of(group_id)
        if index is None:
            return errors.COORDINATOR_NOT_AVAILABLE
        hosted = self._find(TOPIC, index)
        led = None if hosted is None else hosted.leader
        if led is None:
            self._end(index)
            return errors.NOT_COORDINATOR
        shard = self._shard(index, led, now_ms)
        if shard.loading:
            return errors.COORDINATOR_LOAD_IN_PROGRESS
        shard.now_ms = now_ms
        self._active[index] = shard
        return shard

    def _shard(self, index: int, led: Led, now_ms: int) -> Shard:
        shard = self.shards.get(index)
        if shard is None or shard.led is not led:
            self._end(index)
            shard = self.shards[index] = Shard(led, self.settings, self.wall_ms, now_ms)
            self._active[index] = shard
            self._load(shard, now_ms)
            self._expiry_ms = min(self._expiry_ms, now_ms + GROUP_EXPIRY_LOOK_MS)
        return shard

    def _end(self, index: int) -> None:
        self._active.pop(index, None)
        shard = self.shards.pop(index, None)
        if shard is not None:
            self._rebalances_before += rebalances_of(shard)
            self._committed_before += shard.writes.committed
            self._unreadable_before += shard.unreadable
            shard.end()

    def wall_ms(self, now_ms: int) -> int:
        """What the clock on the wall says."""
        return now_ms + self._wall_offset_ms

    # -- members ------------------------------------------------------------------------------

    def _join(self, call: Call) -> Message | None:
        request: messages.JoinGroupRequest = call.body
        version = call.header.api_version
        found = self._joinable(request, call.now_ms)
        if isinstance(found, errors.Code):
            return _joined(refused_join(found, request.member_id), version)
        shard, group = found
        client = Client(call.header.client_id or "", "", self._fresh_id())
        wish = Wish(request, version, client, call.now_ms)
        group.join(wish, lambda response: call.answer(_joined(response, version)))
        self.watch(shard, group)
        return None

    def _joinable(
        self, request: messages.JoinGroupRequest, now_ms: int
    ) -> tuple[Shard, Group] | errors.Code:
        shortest, longest = (
            self.settings.min_session_timeout_ms,
            self.settings.max_session_timeout_ms,
        )
        if not request.group_id:
            return errors.INVALID_GROUP_ID
        shard = self.shard_of(request.group_id, now_ms)
        if isinstance(shard, errors.Code):
            return shard
        if not shortest <= request.session_timeout_ms <= longest:
            return errors.INVALID_SESSION_TIMEOUT
        size = sum(len(p.name) + len(p.metadata) for p in request.protocols)
        if size > GROUP_MEMBER_BYTES_MAX:
            return errors.INVALID_REQUEST
        group = shard.groups.get(request.group_id)
        if group is None and request.member_id:
            return errors.UNKNOWN_MEMBER_ID
        if group is None and sum(len(one.groups) for one in self.shards.values()) >= GROUPS_MAX:
            return errors.COORDINATOR_NOT_AVAILABLE
        return shard, shard.group(request.group_id)

    def _fresh_id(self) -> str:
        """An id in the form of a UUID that nobody had before and nobody can guess."""
        self._ids += 1
        text = f"{self._chance}/{self._ids}"
        digits = hashlib.sha256(text.encode()).hexdigest()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))

    def _sync(self, call: Call) -> Message | None:
        request: messages.SyncGroupRequest = call.body
        found = self._known(request.group_id, call.now_ms)
        if isinstance(found, errors.Code):
            return refused_sync(found)
        shard, group = found
        group.sync(request, call.now_ms, call.answer)
        self.watch(shard, group)
        return None

    def _heartbeat(self, call: Call) -> Message:
        request: messages.HeartbeatRequest = call.body
        found = self._known(request.group_id, call.now_ms)
        if found is errors.COORDINATOR_LOAD_IN_PROGRESS:
            return messages.HeartbeatResponse()  # members go on as they are until all is read
        if isinstance(found, errors.Code):
            return messages.HeartbeatResponse(error_code=found.number)
        code = found[1].heartbeat(
            request.member_id, request.group_instance_id, request.generation_id, call.now_ms
        )
        return messages.HeartbeatResponse(error_code=code.number)

    def _leave(self, call: Call) -> Message:
        request: messages.LeaveGroupRequest = call.body
        leaving = request.members or [messages.MemberIdentity(member_id=request.member_id)]
        found = self._known(request.group_id, call.now_ms)
        if isinstance(found, errors.Code):
            return messages.LeaveGroupResponse(error_code=found.number)
        shard, group = found
        left = []
        for one in leaving:
            code = group.leave(one.member_id, one.group_instance_id, call.now_ms)
            left.append(
                messages.MemberResponse(
                    member_id=one.member_id,
                    group_instance_id=one.group_instance_id,
                    error_code=code.number,
                )
            )
        self.watch(shard, group)
        if call.header.api_version >= 3:
            return messages.LeaveGroupResponse(members=left)
        return messages.LeaveGroupResponse(error_code=left[0].error_code)

    def _known(self, group_id: str, now_ms: int) -> tuple[Shard, Group] | errors.Code:
        if not group_id:
            return errors.INVALID_GROUP_ID
        shard = self.shard_of(group_id, now_ms)
        if isinstance(shard, errors.Code):
            return shard
        group = shard.groups.get(group_id)
        return errors.UNKNOWN_MEMBER_ID if group is None else (shard, group)

    # -- time ---------------------------------------------------------------------------------

    def watch(self, shard: Shard, group: Group) -> None:
        """The group's earliest timer may have moved."""
        if group.due_ms < group.watched_ms:
            group.watched_ms = group.due_ms
            self._number += 1
            heappush(self._due, (group.due_ms, self._number, shard, group))

    def look(self, now_ms: int) -> None:
        """What time alone brings, and a slice of whatever is read or written in slices."""
        for index, shard in self._live():
            shard.now_ms = now_ms
            if shard.loading:
                self._load(shard, now_ms)
            else:
                shard.writes.expire(now_ms)
                shard.bound()
            if shard.idle:
                del self._active[index]
        while self._due and self._due[0][0] <= now_ms:
            _, _, shard, group = heappop(self._due)
            if shard.groups.get(group.group_id) is group and self._lives(shard):
                shard.now_ms = now_ms
                group.watched_ms = NEVER
                group.look(now_ms)
                self.watch(shard, group)
        if now_ms >= self._expiry_ms:
            self._expiry_ms = now_ms + GROUP_EXPIRY_LOOK_MS
            for index, shard in self.shards.items():
                if not shard.loading:
                    shard.expire(now_ms)
                    self._active[index] = shard

    def follow(self, now_ms: int) -> None:
        """Begin and end shards as this broker begins and ends to lead their partitions."""
        topic = self._image.topics.get(TOPIC)
        for index in range(0 if topic is None else topic.value.partitions):
            hosted = self._find(TOPIC, index)
            if hosted is None or hosted.leader is None:
                self._end(index)
            else:
                self._shard(index, hosted.leader, now_ms)

    def _live(self) -> Iterator[tuple[int, Shard]]:
        """The active shards, those left out whose term is over: they end here."""
        for index, shard in list(self._active.items()):
            hosted = self._find(TOPIC, index)
            if hosted is None or hosted.leader is not shard.led:
                self._end(index)
            else:
                yield index, shard

    def _lives(self, shard: Shard) -> bool:
        for index, one in self.shards.items():
            if one is shard:
                self._active[index] = shard
                return True
        return False

    def _load(self, shard: Shard, now_ms: int) -> None:
        shard.load(now_ms)
        if not shard.loading:
            for group in shard.groups.values():
                group.start_clocks(now_ms)
                self.watch(shard, group)

    def next_deadline_ms(self) -> int:
        """When `look` is due, in the past when there is work now."""
        due_ms = min(self._expiry_ms, self._due[0][0] if self._due else NEVER)
        for shard in self._active.values():
            if shard.busy:
                return 0
            waits = shard.writes.next_deadline_ms()
            if waits is not None and waits < due_ms:
                due_ms = waits
        return due_ms

    def flush(self, now_ms: int) -> Iterator[list[Appended]]:
        """Append what the turn asked for; what was appended, for who follows."""
        for _, shard in self._live():
            if len(shard.writes):
                for batch, done in shard.writes.take(self.wall_ms(now_ms)):
                    yield self._append.internal(shard.led, batch, now_ms, done)

    @property
    def offset_count(self) -> int:
        """Offsets that are kept for all groups here."""
        return sum(shard.offset_count for shard in self.shards.values())

    # -- figures ------------------------------------------------------------------------------

    @property
    def states(self) -> dict[str, int]:
        """How many groups are in each state."""
        counts = {state.value: 0 for state in State}
        for shard in self.shards.values():
            for group in shard.groups.values():
                counts[group.state.value] += 1
        return counts

    @property
    def rebalances(self) -> int:
        """Join phases begun here."""
        return self._rebalances_before + sum(map(rebalances_of, self.shards.values()))

    @property
    def records_committed(self) -> int:
        """Records of groups and offsets that took effect here."""
        now = sum(shard.writes.committed for shard in self.shards.values())
        return self._committed_before + now

    @property
    def records_unreadable(self) -> int:
        """Records in the log of groups that were passed over, since they make no sense."""
        return self._unreadable_before + sum(one.unreadable for one in self.shards.values())


def rebalances_of(shard: Shard) -> int:
    """Join phases of all groups of a shard."""
    return shard.rebalances + sum(group.rebalances for group in shard.groups.values())


def java_hash(text: str) -> int:
    """Java's String.hashCode, made positive as Kafka does: which partition a group belongs to."""
    value = 0
    data = text.encode("utf-16-be", "surrogatepass")
    for position in range(0, len(data), 2):
        value = (31 * value + (data[position] << 8 | data[position + 1])) & 0xFFFFFFFF
    return value & 0x7FFFFFFF


def _joined(response: messages.JoinGroupResponse, version: int) -> messages.JoinGroupResponse:
    """Before version 7 no assignor is an empty name."""
    if version >= 7 or response.protocol_name is not None:
        return response
    return messages.JoinGroupResponse(
        error_code=response.error_code,
        generation_id=response.generation_id,
        protocol_name="",
        leader=response.leader,
        member_id=response.member_id,
        members=response.members,
    )
