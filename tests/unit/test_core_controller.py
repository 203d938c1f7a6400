"""The controller: who is dead, who leads then, and what a new directory costs."""

from __future__ import annotations

import pytest
from msgspec import structs

from cluster.core import effects, events, records
from cluster.core.elections import Election
from cluster.core.image import Versioned
from cluster.core.records import ProducerIds
from cluster.limits import CONNECT_MS, STATE_QUERY_MS
from cluster.wire import stream
from tests.sim.disk import SimulatedDisk
from tests.unit.core_world import World, batch, ready

ACKED = (0, 1)


@pytest.fixture
def world() -> World:
    return ready()


def plain(world: World) -> int:
    """A broker that is neither controller nor leader."""
    busy = (world.controller(), world.leader())
    return next(node_id for node_id in world.nodes if node_id not in busy)


def isolate(world: World, node_id: int) -> None:
    """Nothing reaches a broker or leaves it, and everybody notices but the store."""
    for other in world.nodes:
        if other != node_id:
            world.blocked.update({(node_id, other), (other, node_id)})
            incarnation = world.nodes[node_id].incarnation
            world.post(other, events.PeerDisconnected(node_id, incarnation))


def fenced(world: World) -> set[int]:
    keys = [key for key in world.store.values if key.startswith(records.FENCES)]
    return {int(key.rpartition("/")[2]) for key in keys}


def test_dead_leader_is_replaced_under_a_higher_epoch(world: World) -> None:
    assert world.produce(batch(-1, -1)) == ACKED
    dead = world.leader()
    world.kill(dead)
    world.run(500)
    assert world.leader() != dead
    assert world.record().leader_epoch == 1
    assert world.partition(world.leader()).replica.log.next_offset == 1


def test_member_declared_dead_leaves_the_set_with_the_election(world: World) -> None:
    dead = world.leader()
    isolate(world, dead)
    while world.record().leader == dead:
        world.run(1)
    assert dead not in world.record().isr
    assert set(world.record().isr) == set(world.nodes) - {dead}


def test_member_declared_dead_stays_where_the_set_may_not_get_smaller() -> None:
    world = ready(config={"min.insync.replicas": "3"})
    dead = world.leader()
    isolate(world, dead)
    world.run(100)
    assert world.record().leader != dead
    assert set(world.record().isr) == {1, 2, 3}


def test_member_that_nobody_declared_dead_has_time_to_come_back(world: World) -> None:
    gone = world.leader()
    world.kill(gone)  # its session ends with it
    while world.record().leader == gone:
        world.run(1)
    assert gone in world.record().isr


def controller_record(world: World) -> records.ControllerRecord:
    return records.decode(records.ControllerRecord, world.store.values["controller"][0])


def test_controller_whose_lease_has_ended_is_replaced_under_a_higher_epoch(world: World) -> None:
    dead, before = world.controller(), controller_record(world)
    world.kill(dead)
    world.run(500)
    assert world.controller() != dead
    assert controller_record(world).node_id == world.controller()
    assert controller_record(world).epoch > before.epoch


def test_broker_that_two_others_have_lost_is_fenced(world: World) -> None:
    lost = plain(world)
    isolate(world, lost)
    world.run(50)
    assert fenced(world) == {lost}
    assert world.record().isr == tuple(n for n in (1, 2, 3) if n != lost)


def test_broker_that_only_one_has_lost_is_not_fenced(world: World) -> None:
    lost = plain(world)
    incarnation = world.nodes[lost].incarnation
    world.post(world.controller(), events.PeerDisconnected(lost, incarnation))
    world.run(5 * CONNECT_MS)
    assert fenced(world) == set()


def test_fenced_broker_comes_back_under_a_new_incarnation(world: World) -> None:
    lost = plain(world)
    before = world.nodes[lost].incarnation
    isolate(world, lost)
    world.run(50)
    world.blocked.clear()
    world.run(3_000)
    assert world.nodes[lost].incarnation > before
    assert world.nodes[lost].serving
    assert set(world.record().isr) == {1, 2, 3}


def test_controller_is_told_of_its_own_death_by_the_others(world: World) -> None:
    lost = world.controller()
    isolate(world, lost)
    world.run(1_000)
    assert controller_record(world).node_id != lost
    assert fenced(world) == {lost}


def test_controller_of_an_older_epoch_changes_nothing(world: World) -> None:
    deposed = world.controller()
    node = world.nodes[deposed]
    assert node.controller is not None
    guard = node.controller.guard
    newer = records.ControllerRecord(99, 1, controller_record(world).epoch + 1)
    world.store.write({"controller": records.encode(newer)})  # which it has not heard of
    world.post(deposed, events.PeerTurn([resignation(world, deposed)]))
    world.run(600)
    wishes = [wish for wish in world.store.asked if guard in wish.conditions]
    assert any(put.key.startswith(records.PARTITIONS) for wish in wishes for put in wish.puts)
    assert world.record().leader_epoch == 0


def resignation(world: World, receiver: int) -> tuple[bytes, bytes]:
    sender = next(node_id for node_id in world.nodes if node_id != receiver)
    topic_id = world.partition(receiver).replica.topic_id
    opening = stream.envelope(
        stream.CONTROL, sender, world.nodes[sender].incarnation, world.nodes[receiver].incarnation
    )
    return opening + stream.encode_control(stream.Resign(topic_id, 0, 0)), b""


def test_resignation_of_what_nobody_knows_is_not_kept(world: World) -> None:
    node = world.nodes[world.controller()]
    assert node.controller is not None
    node.controller.resigned(("ff" * 16, 7), 3)
    assert not node.controller._resigned


def test_resigned_leader_is_replaced_by_one_without_doubt(world: World) -> None:
    leader = world.leader()
    world.post(world.controller(), events.PeerTurn([resignation(world, world.controller())]))
    world.run(600)
    assert world.record().leader_epoch == 1
    assert world.leader() in (1, 2, 3)
    assert leader in world.record().isr


def test_member_with_an_empty_directory_leaves_before_it_counts(world: World) -> None:
    assert world.produce(batch(-1, -1)) == ACKED
    wiped = plain(world)
    world.kill(wiped, silently=True)
    world.disks[wiped] = SimulatedDisk()
    others = {(node_id, wiped) for node_id in world.nodes}
    world.blocked |= others
    world.start(wiped)
    world.run(60)
    assert wiped not in world.record().isr
    world.blocked -= others
    world.run(3_000)
    assert wiped in world.record().isr
    assert world.partition(wiped).replica.log.next_offset == 1


def test_leader_with_an_empty_directory_does_not_lead_again() -> None:
    world = ready(2)
    assert world.produce(batch(-1, -1)) == ACKED
    wiped = world.leader()
    world.kill(wiped)
    world.disks[wiped] = SimulatedDisk()
    world.start(wiped)
    world.run(3_000)
    assert world.leader() != wiped
    assert world.partition(wiped).replica.log.next_offset == 1
    assert world.record().doubtful == ()


def registered(world: World, node_id: int, **known: int) -> dict[str, bytes]:
    """A broker's registration with something that its disk knows, ahead of the store."""
    value = world.nodes[node_id].image.brokers[node_id].value
    return {records.broker_key(node_id): records.encode(structs.replace(value, **known))}


def test_epoch_of_a_restored_store_goes_past_what_any_replica_has(world: World) -> None:
    follower = next(node_id for node_id in world.nodes if node_id != world.leader())
    brokers = world.nodes[world.controller()].image.brokers
    ahead = structs.replace(brokers[follower].value, highest_epoch=41)
    brokers[follower] = Versioned(ahead, brokers[follower].version)
    world.post(world.controller(), events.PeerTurn([resignation(world, world.controller())]))
    world.run(600)
    assert world.record().leader_epoch == 42


def test_bound_of_ids_goes_past_what_any_directory_has_and_is_asked_for_once() -> None:
    world = ready()
    node_id = plain(world)
    changes = world.store.write(registered(world, node_id, highest_producer_id=10**9))
    controller = world.controller()
    wanted: list[effects.Effect] = []
    wanted += world.nodes[controller].step(events.StoreChanged(changes), world.now)
    for _ in range(5):
        wanted += world.nodes[controller].step(events.Tick(), world.now)
    raising = [
        effect
        for effect in wanted
        if isinstance(effect, effects.Transact)
        and any(put.key == records.PRODUCER_IDS_KEY for put in effect.puts)
    ]
    assert len(raising) == 1
    assert records.decode(ProducerIds, raising[0].puts[0].value).next == 10**9 + 1


def test_election_does_with_the_answers_it_has_in_time(world: World) -> None:
    assert world.produce(batch(-1, -1)) == ACKED
    dead, controller = world.leader(), world.controller()
    silent = next(node_id for node_id in world.nodes if node_id not in (dead, controller))
    world.blocked.update((silent, other) for other in world.nodes)
    world.kill(dead)
    world.run(STATE_QUERY_MS + 200)
    assert world.record().leader == world.controller()


def test_doubtful_replica_is_not_elected_before_the_others_have_answered() -> None:
    world = ready(2)
    assert world.produce(batch(-1, -1)) == ACKED
    dead, doubtful = world.leader(), next(n for n in world.nodes if n != world.leader())
    world.partition(doubtful).replica.log.mark_doubtful()
    world.kill(dead)
    world.run(3_000)
    assert world.record().leader_epoch == 0
    world.start(dead)
    world.run(1_000)
    assert world.leader() == dead


def test_nothing_is_due_while_a_decision_is_being_written(world: World) -> None:
    controller = world.nodes[world.controller()].controller
    assert controller is not None
    key = world.partition(1).replica.id
    controller._elections[key] = Election(key, 1, 1, world.now, {})
    assert controller.next_deadline_ms() == world.now + STATE_QUERY_MS
    controller._write((), ())
    assert controller.next_deadline_ms() is None
