"""How a broker that is declared dead by mistake comes back: later each time, until it is steady."""

from cluster.core import effects, events, records
from cluster.core.image import Image
from cluster.core.membership import Introduction, Membership, Stage
from cluster.core.outbox import Outbox
from cluster.limits import CONNECT_MS, REREGISTER_MS, REREGISTER_MS_MAX, REREGISTER_STEADY_MS
from cluster.wire import stream

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


def registered(node_id: int, revision: int) -> events.Change:
    value = records.Registration(
        node_id=node_id, directory_id="d", durability_id="e", host="127.0.0.1", port=5549 + node_id
    )
    return events.Change(records.broker_key(node_id), records.encode(value), revision)


def with_peers() -> Broker:
    """Broker 1 with brokers 2 and 3 alive, connected, in incarnations 102 and 103."""
    broker = Broker()
    broker.settle(0)
    for node_id in (2, 3):
        broker.image.apply(registered(node_id, 100 + node_id))
        session = records.encode(records.Session(100 + node_id))
        broker.image.apply(events.Change(records.session_key(node_id), session, 110))
    assert broker.membership.registrations_changed(0) == []
    for node_id in (2, 3):
        assert broker.membership.connected(node_id, 100 + node_id)
    broker.out.drain()
    return broker


def test_store_of_another_cluster_is_refused() -> None:
    broker = Broker()
    cluster = records.encode(records.ClusterRecord("x" * 22))
    broker.image.apply(events.Change(records.CLUSTER_KEY, cluster, 1))
    registration = records.Registration(1, "d", "e", "127.0.0.1", 5550)
    intro = Introduction(registration, CLUSTER, CLUSTER)
    membership = Membership(intro, broker.image, broker.out, broker.served_at.append)
    membership.advance(0)
    assert membership.failure is not None
    assert "x" * 22 in membership.failure
    assert broker.out.drain() == []


def test_registration_that_lost_its_race_is_asked_for_again() -> None:
    broker = Broker()
    broker.membership.advance(0)
    (first,) = broker.out.drain()
    assert isinstance(first, effects.Transact)
    broker.out.transacted(first.request, events.Commit.UNKNOWN, 0)
    broker.settle(0)
    assert broker.membership.stage is Stage.SERVING


def test_death_needs_a_second_witness_of_the_same_incarnation() -> None:
    membership = with_peers().membership
    assert membership.disconnected(3, 103)
    assert membership.confirmed_dead() == []
    membership.heard(2, stream.Opinion(((3, 99),)))
    assert membership.confirmed_dead() == []
    membership.heard(2, stream.Opinion(((3, 103),)))
    assert membership.confirmed_dead() == [3]


def test_the_dead_are_no_witnesses() -> None:
    membership = with_peers().membership
    membership.heard(3, stream.Opinion(((2, 102),)))
    membership.disconnected(3, 103)
    membership.disconnected(2, 102)
    assert membership.confirmed_dead() == []


def test_what_an_earlier_start_of_a_broker_saw_is_forgotten() -> None:
    broker = with_peers()
    membership = broker.membership
    membership.heard(2, stream.Opinion(((3, 103),)))
    broker.image.apply(registered(2, 200))
    assert membership.registrations_changed(1) == [2]
    membership.disconnected(3, 103)
    assert membership.confirmed_dead() == []
    assert not membership.disconnected(2, 102)
    assert not membership.connected(2, 102)


def test_broker_that_was_never_reached_counts_as_lost_after_its_time() -> None:
    broker = with_peers()
    broker.image.apply(registered(2, 200))
    session = records.encode(records.Session(200))
    broker.image.apply(events.Change(records.session_key(2), session, 201))
    broker.membership.registrations_changed(1_000)
    broker.membership.heard(3, stream.Opinion(((2, 200),)))
    broker.membership.look(1_000 + CONNECT_MS)
    assert broker.membership.confirmed_dead() == []
    broker.membership.look(1_001 + CONNECT_MS)
    assert broker.membership.confirmed_dead() == [2]


def test_others_hear_of_every_change_of_opinion() -> None:
    broker = with_peers()
    broker.membership.disconnected(3, 103)
    (told,) = [effect for effect in broker.out.drain() if isinstance(effect, effects.Send)]
    assert told.node_id == 2
    assert stream.read_control(told.header) == stream.Opinion(((3, 103),))
    broker.membership.connected(3, 103)
    said = [effect for effect in broker.out.drain() if isinstance(effect, effects.Send)]
    assert {stream.read_control(effect.header) for effect in said if effect.node_id == 2} == {
        stream.Opinion(())
    }
