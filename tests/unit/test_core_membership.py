"""How a broker that is declared dead by mistake comes back: later each time, until it is steady."""

from cluster.core import effects, events, records
from cluster.core.image import Image
from cluster.core.membership import Introduction, Membership, Stage
from cluster.core.outbox import Outbox
from cluster.limits import REREGISTER_MS, REREGISTER_MS_MAX, REREGISTER_STEADY_MS

CLUSTER = "c" * 22


class Broker:
    """A membership with a store that commits everything, and a lease that can be lost."""

    def __init__(self) -> None:
        registration = records.Registration(
            node_id=1, directory_id="d", durability_id="e", host="127.0.0.1", port=5550
        )
        self.image, self.out = Image(), Outbox(1)
        self.served_at: list[int] = []
        intro = Introduction(registration, CLUSTER, None)
        self.membership = Membership(intro, self.image, self.out, self.served_at.append)
        self.revision = 0

    def settle(self, now_ms: int) -> None:
        """Advance, and commit what is asked for, until nothing more is."""
        for _ in range(10):
            self.membership.advance(now_ms)
            for effect in self.out.drain():
                if isinstance(effect, effects.Transact):
                    self.commit(effect)

    def commit(self, effect: effects.Transact) -> None:
        assert all(self.image.version(key) == version for key, version in effect.conditions)
        self.revision += 1
        for put in effect.puts:
            self.image.apply(events.Change(put.key, put.value, self.revision))
        self.out.transacted(effect.request, events.Commit.COMMITTED, self.revision)

    def lose_session(self) -> None:
        self.revision += 1
        self.image.apply(events.Change(records.session_key(1), None, self.revision))

    def away_ms(self, now_ms: int) -> int:
        """Lose the session at `now_ms`; how long until the broker serves again."""
        self.lose_session()
        before = len(self.served_at)
        for waited in range(REREGISTER_MS_MAX + 1):
            self.settle(now_ms + waited)
            if len(self.served_at) > before:
                return waited
        raise AssertionError("it never came back")


def test_broker_registers_and_serves_in_the_incarnation_of_its_registration() -> None:
    broker = Broker()
    broker.settle(0)
    assert broker.membership.stage is Stage.SERVING
    assert broker.image.alive(1) == broker.membership.incarnation > 0
    assert broker.image.cluster is not None
    assert broker.image.cluster.cluster_id == CLUSTER


def test_each_false_death_costs_a_new_incarnation_and_a_longer_wait() -> None:
    broker = Broker()
    broker.settle(0)
    incarnations = [broker.membership.incarnation]
    waits = []
    now_ms = 1
    for _ in range(4):
        waits.append(broker.away_ms(now_ms))
        now_ms += waits[-1] + 1
        incarnations.append(broker.membership.incarnation)
    assert waits == [REREGISTER_MS << number for number in range(1, 5)]
    assert incarnations == sorted(set(incarnations))


def test_back_off_is_bounded_and_begins_anew_after_steady_service() -> None:
    broker = Broker()
    broker.settle(0)
    now_ms = 1
    for _ in range(12):
        now_ms += broker.away_ms(now_ms) + 1
    assert broker.away_ms(now_ms) == REREGISTER_MS_MAX
    now_ms += REREGISTER_MS_MAX + REREGISTER_STEADY_MS + 1
    assert broker.away_ms(now_ms) == REREGISTER_MS << 1


def test_another_process_under_this_node_id_ends_this_one() -> None:
    broker = Broker()
    broker.settle(0)
    usurper = records.Registration(
        node_id=1, directory_id="x", durability_id="y", host="127.0.0.1", port=1
    )
    broker.revision += 1
    change = events.Change(records.broker_key(1), records.encode(usurper), broker.revision)
    broker.image.apply(change)
    broker.membership.advance(1)
    assert broker.membership.failure == "another broker registered as node 1"
