"""Consumer groups whose coordinators fail in every way: no commit is lost or undone."""

from __future__ import annotations

import pytest

from cluster.core import group_shard
from cluster.wire import messages
from cluster.wire.schema import Message
from tests.sim.faults import Faults
from tests.sim.guarantees import every_checker
from tests.sim.members import GROUP, SETTINGS, Ledger, SimMember, fetch_request
from tests.sim.scheduler import MS, SECOND
from tests.sim.world import Shape, World

FAULTS_LAST = 8 * SECOND
KINDS = ("kill_leader", "kill", "pause_leader", "isolate", "cut", "stop", "sever_client")


class GroupWorld(World):
    """A cluster that has no topic but that of its one group, in one partition."""

    def __init__(self, seed: int) -> None:
        shape = Shape(1, groups=SETTINGS, producers=())
        super().__init__(seed, shape, every_checker())
        self.ledger = Ledger()
        self.members: list[SimMember] = []
        self._found: int | None = None
        self.wire.join("admin", lambda _node_id, _up: None)
        assert self.run_until(self._coordinated, 20 * SECOND), "nobody coordinates"

    def _coordinated(self) -> bool:
        node_id = self.wire.any_node()
        if node_id is not None and self._coordinator() < 0:
            request = messages.FindCoordinatorRequest(coordinator_keys=[GROUP])
            self.wire.ask("admin", node_id, request, lambda _answer: None)
        return self._coordinator() >= 0

    def _coordinator(self) -> int:
        try:
            leader = self.leader(0)
        except KeyError:
            return -1
        return -1 if leader is None else self.record(0).leader

    def come(self, name: str) -> SimMember:
        """One more member."""
        member = SimMember(name, self.wire, self.ledger)
        self.members.append(member)
        return member

    def crash_and_come(self, round_ms: int, until: int) -> None:
        """Again and again one member ends without a word, and another begins."""

        def act() -> None:
            if self.clock.now >= until:
                return
            victim = self.clock.rng.choice([one for one in self.members if one.alive])
            victim.crash()
            self.come(f"m{len(self.members)}")
            self.clock.after(self.clock.rng.randrange(round_ms, 2 * round_ms) * MS, act)

        self.clock.after(round_ms * MS, act)

    def judged(self) -> int:
        """Everybody stops, everything heals; what is committed then."""
        self.heal()
        commits = len(self.ledger.acked)
        assert self.run_until(lambda: len(self.ledger.acked) > commits, 30 * SECOND), "stuck"
        for member in self.members:
            member.crash()
        assert self.run_until(lambda: not self.unsettled(), 30 * SECOND), self.unsettled()
        self.watch.finished()

        def fetched(message: Message) -> None:
            assert isinstance(message, messages.OffsetFetchResponse)
            found = message.groups[0]
            if not found.error_code:
                self._found = found.topics[0].partitions[0].committed_offset

        def found() -> bool:
            self.wire.ask("admin", self._coordinator(), fetch_request(), fetched)
            return self._found is not None

        assert self.run_until(found, 10 * SECOND)
        assert self._found is not None
        self.ledger.found(self._found)
        return self._found


@pytest.fixture
def short_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """State is written anew, and what is before it deleted, every few commits."""
    monkeypatch.setattr(group_shard, "GROUP_LOG_BYTES", 1_500)


def test_next_coordinator_knows_what_was_committed() -> None:
    world = GroupWorld(1)
    world.come("a")
    assert world.run_until(lambda: len(world.ledger.acked) >= 5)
    for _ in range(3):
        before = len(world.ledger.acked)
        world.brokers[world._coordinator()].kill()
        assert world.run_until(lambda b=before: len(world.ledger.acked) >= b + 5)  # type: ignore[misc]
        for broker in world.brokers.values():
            broker.start()
        world.run(2 * SECOND)
    assert world.members[0].rounds == 1, "a fail-over is no reason to join again"
    assert world.judged() >= world.ledger.acked[-1]


def test_power_lost_everywhere_costs_no_commit() -> None:
    world = GroupWorld(2)
    world.come("a")
    assert world.run_until(lambda: len(world.ledger.acked) >= 5)
    for broker in world.brokers.values():
        broker.lose_power()
    world.judged()


@pytest.mark.usefixtures("short_log")
@pytest.mark.parametrize("seed", range(30))
def test_members_and_coordinators_that_fail_at_random_keep_one_count(seed: int) -> None:
    world = GroupWorld(100 + seed)
    for name in ("a", "b", "c"):
        world.come(name)
    end = world.clock.now + FAULTS_LAST
    world.crash_and_come(1_500, end)
    Faults(world, end, world.clock.rng.sample(KINDS, 3))
    world.run(FAULTS_LAST)
    world.judged()
    assert world.ledger.acked
