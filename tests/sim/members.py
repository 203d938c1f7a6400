"""Members of one consumer group in the simulated cluster, and what must hold of their group.

Whoever is given the one partition counts in it: it fetches the committed offset, and commits one
more each time it was told that the last commit stands. Two members that count at once, or a commit
that is lost by a fail-over, show as a number that is acknowledged twice; so does a member that
commits after another has taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster import errors
from cluster.core.group_state import GroupSettings
from cluster.wire import messages
from cluster.wire.group_records import TOPIC
from cluster.wire.schema import Message
from tests.sim.checkers import Violation
from tests.sim.scheduler import MS
from tests.sim.wire import Wire

GROUP = "g"
SETTINGS = GroupSettings(
    min_session_timeout_ms=100, initial_rebalance_delay_ms=0, topic_partitions=1
)
PATIENCE = 400 * MS
JOIN_PATIENCE = 3_000 * MS
PAUSE = 40 * MS
BEAT = 60 * MS
SESSION_MS, REBALANCE_MS = 600, 900
MOVED = (
    errors.COORDINATOR_LOAD_IN_PROGRESS.number,
    errors.COORDINATOR_NOT_AVAILABLE.number,
    errors.NOT_COORDINATOR.number,
)
OWNER = b"owner"


@dataclass
class Ledger:
    """What the members were told, and what of it cannot be."""

    acked: list[int] = field(default_factory=list)
    heard: dict[str, int] = field(default_factory=dict)
    leaders: dict[int, str] = field(default_factory=dict)

    def joined(self, joined: messages.JoinGroupResponse) -> None:
        """A member heard of a generation."""
        generation = joined.generation_id
        if generation < self.heard.get(joined.member_id, 0):
            raise Violation(f"a generation went back for {joined.member_id}: {generation}")
        self.heard[joined.member_id] = generation
        leader = self.leaders.setdefault(generation, joined.leader)
        if leader != joined.leader:
            raise Violation(f"generation {generation} has two leaders")

    def committed(self, value: int) -> None:
        """A commit stands."""
        if self.acked and value <= self.acked[-1]:
            raise Violation(f"{value} was committed after {self.acked[-1]} stood")
        self.acked.append(value)

    def found(self, value: int) -> None:
        """The end: what the group has committed."""
        if self.acked and value < self.acked[-1]:
            raise Violation(f"{self.acked[-1]} was committed, and {value} is found")


class SimMember:
    """One process that takes part; `crash` ends it without a word."""

    def __init__(self, name: str, wire: Wire, ledger: Ledger) -> None:
        self.name = name
        self.alive = True
        self.rounds = 0
        self._wire = wire
        self._ledger = ledger
        self._node = -1
        self._member_id = ""
        self._generation = -1
        self._position: int | None = None
        """The committed offset as far as this member knows, None for who owns nothing."""
        self._number = 0
        wire.join(name, lambda _node_id, _up: None)
        self._join()

    def crash(self) -> None:
        """Nothing more is heard of it; another process may begin under this name."""
        self.alive = False
        self._number += 1

    # -- asking -------------------------------------------------------------------------------

    def _ask(self, body: Message, then: Callable[[Message], None], retry: Callable[[], None],
             patience: int = PATIENCE) -> None:  # fmt: skip
        """Ask the coordinator; look for it and `retry` when no answer comes."""
        self._number += 1
        number = self._number

        def answered(message: Message) -> None:
            if number == self._number and self.alive:
                then(message)

        def give_up() -> None:
            if number == self._number and self.alive:
                self._lost(retry)

        self._wire.clock.after(patience, give_up)
        if self._node < 0:
            self._find(number, retry)
        else:
            self._wire.ask(self.name, self._node, body, answered)

    def _find(self, number: int, retry: Callable[[], None]) -> None:
        def answered(message: Message) -> None:
            assert isinstance(message, messages.FindCoordinatorResponse)
            found = message.coordinators[0]
            if number == self._number and self.alive and not found.error_code:
                self._node = found.node_id
                retry()

        node_id = self._wire.any_node()
        if node_id is not None:
            request = messages.FindCoordinatorRequest(coordinator_keys=[GROUP])
            self._wire.ask(self.name, node_id, request, answered)

    def _lost(self, retry: Callable[[], None]) -> None:
        self._node = -1
        self._later(PAUSE, retry)

    def _later(self, delay: int, act: Callable[[], None]) -> None:
        self._number += 1
        number = self._number
        self._wire.clock.after(
            delay, lambda: act() if number == self._number and self.alive else None
        )

    def _refused(self, error: int, retry: Callable[[], None]) -> None:
        """The coordinator is another one, or this member must join again."""
        if error in MOVED:
            self._lost(retry)
            return
        if error == errors.UNKNOWN_MEMBER_ID.number:
            self._member_id = ""
        self._later(PAUSE, self._join)

    # -- joining ------------------------------------------------------------------------------

    def _join(self) -> None:
        self._position = None
        request = messages.JoinGroupRequest(
            group_id=GROUP, session_timeout_ms=SESSION_MS, rebalance_timeout_ms=REBALANCE_MS,
            member_id=self._member_id, protocol_type="consumer",
            protocols=[messages.JoinGroupProtocol(name="range", metadata=b"")],
        )  # fmt: skip
        self._ask(request, self._joined, self._join, JOIN_PATIENCE)

    def _joined(self, message: Message) -> None:
        assert isinstance(message, messages.JoinGroupResponse)
        if message.error_code == errors.MEMBER_ID_REQUIRED.number:
            self._member_id = message.member_id
            self._join()
        elif message.error_code:
            self._refused(message.error_code, self._join)
        else:
            self._ledger.joined(message)
            self._member_id, self._generation = message.member_id, message.generation_id
            self._sync([one.member_id for one in message.members])

    def _sync(self, members: list[str]) -> None:
        self.rounds += 1
        owner = self._wire.clock.rng.choice(sorted(members)) if members else ""
        request = messages.SyncGroupRequest(
            group_id=GROUP, generation_id=self._generation, member_id=self._member_id,
            assignments=[
                messages.SyncGroupRequestAssignment(one, OWNER if one == owner else b"-")
                for one in members
            ],
        )  # fmt: skip
        self._ask(request, self._synced, self._join, JOIN_PATIENCE)

    def _synced(self, message: Message) -> None:
        assert isinstance(message, messages.SyncGroupResponse)
        if message.error_code:
            self._refused(message.error_code, self._join)
        elif message.assignment == OWNER:
            self._fetch()
        else:
            self._beat()

    # -- counting -----------------------------------------------------------------------------

    def _fetch(self) -> None:
        def fetched(message: Message) -> None:
            assert isinstance(message, messages.OffsetFetchResponse)
            found = message.groups[0]
            if found.error_code:
                self._refused(found.error_code, self._join)
                return
            self._position = max(0, found.topics[0].partitions[0].committed_offset)
            self._commit()

        self._ask(fetch_request(), fetched, self._join)

    def _commit(self) -> None:
        assert self._position is not None
        value = self._position + 1
        part = messages.OffsetCommitRequestPartition(partition_index=0, committed_offset=value)
        request = messages.OffsetCommitRequest(
            group_id=GROUP, generation_id_or_member_epoch=self._generation,
            member_id=self._member_id,
            topics=[messages.OffsetCommitRequestTopic(name=TOPIC, partitions=[part])],
        )  # fmt: skip

        def committed(message: Message) -> None:
            assert isinstance(message, messages.OffsetCommitResponse)
            error = message.topics[0].partitions[0].error_code
            if error:
                self._refused(error, self._commit)
                return
            self._ledger.committed(value)
            self._position = value
            self._beat()

        self._ask(request, committed, self._commit)

    def _beat(self) -> None:
        request = messages.HeartbeatRequest(
            group_id=GROUP, generation_id=self._generation, member_id=self._member_id
        )

        def beaten(message: Message) -> None:
            assert isinstance(message, messages.HeartbeatResponse)
            if message.error_code:
                self._refused(message.error_code, self._beat)
            else:
                self._later(BEAT, self._beat if self._position is None else self._commit)

        self._ask(request, beaten, self._beat)


def fetch_request() -> messages.OffsetFetchRequest:
    """What the group has committed."""
    topic = messages.OffsetFetchRequestTopic(name=TOPIC, partition_indexes=[0])
    asked = messages.OffsetFetchRequestGroup(group_id=GROUP, topics=[topic])
    return messages.OffsetFetchRequest(groups=[asked])
