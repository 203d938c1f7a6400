"""The controller: one broker at a time that fences the dead and gives partitions their leaders.

Owns the decisions of one controller epoch. It looks at the image, asks replicas for their state,
and writes what follows, each write under the condition that this epoch still is the current one
(rule 11) and that what it decided on has not changed (rule 10). A decision that loses its race
costs another look.

Invariants: one election per partition at a time; a broker is elected only in the incarnation that
answered; nothing is decided before the store is past every producer id found on a disk (rule 9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cluster.core import elections, insync, records
from cluster.core.effects import Put
from cluster.core.elections import Election
from cluster.core.events import Commit
from cluster.core.image import Image, PartitionId, Versioned
from cluster.core.outbox import Outbox
from cluster.core.producers import ProducerIds
from cluster.core.records import PartitionRecord, TopicRecord
from cluster.limits import ELECTIONS_PER_COMMIT
from cluster.wire import stream

Then = Callable[[Commit], None]


class Controller:
    """One controller epoch on one broker."""

    def __init__(self, node_id: int, image: Image, out: Outbox, producer_ids: ProducerIds) -> None:
        """The epoch begins with the controller record that the image shows."""
        assert image.controller is not None
        self._node_id = node_id
        self._image = image
        self._out = out
        self._producer_ids = producer_ids
        self.record = image.controller
        self.elections_held = 0
        self._elections: dict[PartitionId, Election] = {}
        self._resigned: dict[PartitionId, int] = {}
        self._stopping: dict[int, int] = {}
        self._query = 0
        self._writing = False
        self._stale = True

    @property
    def guard(self) -> tuple[str, int]:
        """The condition that this controller epoch is current."""
        return (records.CONTROLLER_KEY, self.record.version)

    # -- what the others say ------------------------------------------------------------------

    def image_changed(self) -> None:
        """Something in the store moved: look again."""
        self._stale = True

    def resigned(self, partition: PartitionId, leader_epoch: int) -> None:
        """A leader cannot go on in this epoch; what is not known yet it will say again."""
        if partition in self._image.partitions:
            self._resigned[partition] = leader_epoch
            self._stale = True

    def stopping(self, node_id: int, incarnation: int) -> None:
        """A broker is about to stop: its partitions need other leaders."""
        self._stopping[node_id] = incarnation
        self._stale = True

    def reported(self, node_id: int, incarnation: int, report: stream.StateReport) -> None:
        """A replica's state, asked for by an election."""
        for state in report.replicas:
            election = self._elections.get((state.topic_id.hex(), state.partition))
            if (
                election is not None
                and election.query == report.query
                and election.candidates.get(node_id) == incarnation
            ):
                election.answers[node_id] = state

    # -- deciding -----------------------------------------------------------------------------

    def decide(self, dead: Sequence[int], now_ms: int) -> None:
        """Fence the dead, keep the records true to the registrations, elect where needed."""
        if self._writing or self._raise_bounds():
            return
        fenced = [node for node in dead if self._image.alive(node) is not None]
        if fenced:
            self._fence(fenced)
            return
        if self._stale:
            self._stale = False
            if self._follow_registrations():
                return
            self._begin_elections(now_ms)
        self._close_elections(now_ms)

    def next_deadline_ms(self) -> int | None:
        """When an election must do with the answers it has; nothing is decided during a write."""
        if self._writing:
            return None
        if not self._elections:
            return None
        return min(election.deadline_ms for election in self._elections.values())

    def _raise_bounds(self) -> bool:
        highest = max(
            (broker.value.highest_producer_id for broker in self._image.brokers.values()),
            default=-1,
        )
        needed = self._producer_ids.raise_bound(highest, (self.guard,), self._written)
        self._writing = self._writing or needed
        return needed

    def _fence(self, nodes: Sequence[int]) -> None:
        conditions: list[tuple[str, int]] = []
        puts: list[Put] = []
        for node_id in nodes:
            incarnation = self._image.brokers[node_id].version
            fence = records.Fence(incarnation, "two brokers lost their connections to it")
            conditions.append((records.broker_key(node_id), incarnation))
            puts.append(Put(records.fence_key(node_id), records.encode(fence)))
        self._write(conditions, puts)

    def _follow_registrations(self) -> bool:
        """Members whose data is another than the record knows leave or are doubtful (rule 9)."""
        conditions: list[tuple[str, int]] = []
        puts: list[Put] = []
        for key, record in self._image.partitions.items():
            value = self._known_anew(key, record.value)
            if value is not None and len(puts) < ELECTIONS_PER_COMMIT:
                conditions.append((records.partition_key(*key), record.version))
                puts.append(Put(records.partition_key(*key), records.encode(value)))
        if puts:
            self._write(conditions, puts)
        return bool(puts)

    def _known_anew(self, key: PartitionId, value: PartitionRecord) -> PartitionRecord | None:
        topic = self._image.topics_by_id.get(key[0])
        if topic is None:
            return None
        changed = value
        for node_id in value.replicas:
            store_id = self._image.store_id(node_id, topic)
            if store_id is None or store_id == changed.store_of(node_id):
                continue
            if changed.store_of(node_id):
                distrusted = insync.distrusted(changed, node_id, _min_insync(topic))
                changed = distrusted or changed
            changed = insync.known_by(changed, node_id, store_id)
        return None if changed is value else changed

    # -- elections ----------------------------------------------------------------------------

    def _needs_leader(self, key: PartitionId, value: PartitionRecord) -> bool:
        if not self._image.leads(value):
            return True
        if self._stopping.get(value.leader) == value.leader_incarnation:
            return any(
                node != value.leader and node not in value.doubtful and self._may_lead(node)
                for node in value.isr
            )
        return self._resigned.get(key, -1) >= value.leader_epoch

    def _may_lead(self, node_id: int) -> bool:
        alive = self._image.alive(node_id)
        return alive is not None and self._stopping.get(node_id) != alive

    def _begin_elections(self, now_ms: int) -> None:
        self._query += 1
        asked: dict[int, list[tuple[bytes, int]]] = {}
        for key, record in self._image.partitions.items():
            running = self._elections.get(key)
            if not self._needs_leader(key, record.value):
                self._elections.pop(key, None)
                continue
            candidates = self._candidates(record.value)
            same = running is not None and running.version == record.version
            if same and running is not None and running.candidates == candidates:
                continue
            self._elections[key] = Election(key, record.version, self._query, now_ms, candidates)
            for node in candidates:
                asked.setdefault(node, []).append((bytes.fromhex(key[0]), key[1]))
        for node, partitions in sorted(asked.items()):
            self._out.control_any(node, stream.StateQuery(self._query, tuple(partitions)))

    def _candidates(self, value: PartitionRecord) -> dict[int, int]:
        """Who is asked: a leader that resigned too, for it may be the only one, and says itself
        whether it can lead again."""
        found = {}
        for node in value.isr:
            incarnation = self._image.alive(node)
            if incarnation is not None and self._may_lead(node):
                found[node] = incarnation
        return found

    def _close_elections(self, now_ms: int) -> None:
        if not self._elections:
            return
        load = self._load()
        conditions: list[tuple[str, int]] = []
        puts: list[Put] = []
        for key, election in list(self._elections.items()):
            record = self._image.partitions.get(key)
            if record is None or record.version != election.version:
                del self._elections[key]
                self._stale = True
                continue
            if len(puts) >= ELECTIONS_PER_COMMIT or not election.due(now_ms):
                continue
            value = self._elected(record, election, load)
            if value is None:
                self._ask_again(election, now_ms)
                continue
            del self._elections[key]
            load[value.leader] = load.get(value.leader, 0) + 1
            conditions.append((records.partition_key(*key), record.version))
            conditions.append((records.broker_key(value.leader), value.leader_incarnation))
            puts.append(Put(records.partition_key(*key), records.encode(value)))
        if puts:
            self.elections_held += len(puts)
            self._write(list(dict.fromkeys(conditions)), puts)

    def _elected(
        self, record: Versioned[PartitionRecord], election: Election, load: dict[int, int]
    ) -> PartitionRecord | None:
        value = record.value
        node_id = elections.choose(value, election.answers, load)
        if node_id is None:
            return None
        incarnation = election.candidates[node_id]
        if self._image.alive(node_id) != incarnation:
            return None
        reported = election.answers[node_id].last_epoch
        epoch = max(value.leader_epoch, reported, *self._registered_epochs(value)) + 1
        led = insync.led(value, node_id, incarnation, epoch)
        return self._without_dead(election.partition[0], led)

    def _without_dead(self, topic_id: str, led: PartitionRecord) -> PartitionRecord:
        """Members declared dead leave with the election: the new leader never had a connection
        to lose, and would wait for them until they lag (rule 10)."""
        topic = self._image.topics_by_id.get(topic_id)
        if topic is None:
            return led
        for node in led.isr:
            if node != led.leader and self._image.fenced(node):
                led = insync.left(led, node, _min_insync(topic)) or led
        return led

    def _registered_epochs(self, value: PartitionRecord) -> list[int]:
        """What the disks of all replicas know: a store restored from a backup may know less."""
        brokers = self._image.brokers
        return [brokers[node].value.highest_epoch for node in value.replicas if node in brokers]

    def _ask_again(self, election: Election, now_ms: int) -> None:
        """The answers do not do: wait a while for whoever is missing, then ask everybody anew."""
        election.asked_ms = now_ms
        election.waits = not election.waits
        if election.waits:
            return
        election.answers.clear()
        topic_id, index = election.partition
        for node in election.candidates:
            query = stream.StateQuery(election.query, ((bytes.fromhex(topic_id), index),))
            self._out.control_any(node, query)

    def _load(self) -> dict[int, int]:
        load: dict[int, int] = {}
        for record in self._image.partitions.values():
            if self._image.leads(record.value):
                load[record.value.leader] = load.get(record.value.leader, 0) + 1
        return load

    # -- writing ------------------------------------------------------------------------------

    def write(
        self,
        conditions: Sequence[tuple[str, int]],
        puts: Sequence[Put],
        then: Then,
        deletes: Sequence[str] = (),
    ) -> None:
        """Write under this epoch's guard, for whoever decides something as the controller."""
        self._out.transact(
            (self.guard, *conditions), puts, lambda commit, _revision: then(commit), deletes
        )

    def _write(self, conditions: Sequence[tuple[str, int]], puts: Sequence[Put]) -> None:
        self._writing = True
        self.write(conditions, puts, self._written)

    def _written(self, _commit: Commit) -> None:
        self._writing = False
        self._stale = True


def _min_insync(topic: TopicRecord) -> int:
    return int(topic.config.get("min.insync.replicas", "1"))
