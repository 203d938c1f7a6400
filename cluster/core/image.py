"""The metadata image: what the store holds, as one broker last saw it.

Owns the decoded copy of every key and the questions that everybody asks of it: which brokers are
alive, which topics exist, who leads. It is only ever moved by `apply`, in revision order; writing
goes through compare-and-set on the versions remembered here, so a stale image costs a conflict
and never a wrong decision.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from cluster.core import records
from cluster.core.events import Change

_Value = TypeVar("_Value", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Versioned(Generic[_Value]):
    """A value and the store revision of its last write."""

    value: _Value
    version: int


PartitionId = tuple[str, int]
"""Topic id (32 hex digits) and partition index."""


@dataclass(slots=True)
class Image:
    """Everything in the store, decoded; versions of all keys, 0 for an absent one."""

    revision: int = 0
    cluster: records.ClusterRecord | None = None
    controller: Versioned[records.ControllerRecord] | None = None
    producer_ids: Versioned[records.ProducerIds] | None = None
    brokers: dict[int, Versioned[records.Registration]] = field(default_factory=dict)
    sessions: dict[int, Versioned[records.Session]] = field(default_factory=dict)
    fences: dict[int, Versioned[records.Fence]] = field(default_factory=dict)
    topics: dict[str, Versioned[records.TopicRecord]] = field(default_factory=dict)
    topics_by_id: dict[str, records.TopicRecord] = field(default_factory=dict)
    partitions: dict[PartitionId, Versioned[records.PartitionRecord]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    topic_changes: dict[str, int] = field(default_factory=dict)
    """By topic id, the number of the last change to the topic or one of its partitions."""
    member_change: int = 0
    """The number of the last change to who is in the cluster and alive."""
    _changes: int = 0

    def apply(self, change: Change) -> None:
        """Take one key's new state; a key of an unknown kind is remembered by version only."""
        self.revision = max(self.revision, change.version)
        self._changes += 1
        if change.value is None:
            self.versions.pop(change.key, None)
        else:
            self.versions[change.key] = change.version
        head, slash, rest = change.key.partition("/")
        if slash:
            self._apply_item(head + slash, rest, change)
        else:
            self._apply_single(change)

    def version(self, key: str) -> int:
        """The version to put under compare-and-set."""
        return self.versions.get(key, 0)

    def alive(self, node_id: int) -> int | None:
        """The incarnation of this broker if it counts as alive, else None.

        Alive: registered, with a session of that incarnation, and not fenced in it.
        """
        broker = self.brokers.get(node_id)
        session = self.sessions.get(node_id)
        if broker is None or session is None or session.value.incarnation != broker.version:
            return None
        return None if self.fenced(node_id) else broker.version

    def fenced(self, node_id: int) -> bool:
        """Whether this broker was declared dead in the incarnation that it registered last."""
        broker, fence = self.brokers.get(node_id), self.fences.get(node_id)
        if broker is None or fence is None:
            return False
        return fence.value.incarnation == broker.version

    def alive_nodes(self) -> list[int]:
        """Every broker that counts as alive, by id."""
        return [node for node in sorted(self.brokers) if self.alive(node) is not None]

    def leads(self, record: records.PartitionRecord) -> bool:
        """Whether the leader named in this record still is the incarnation it names."""
        return (
            record.leader != records.NO_LEADER
            and self.alive(record.leader) == record.leader_incarnation
        )

    def partitions_of(self, topic: records.TopicRecord) -> list[PartitionId]:
        """The ids of a topic's partitions, by index."""
        return [(topic.topic_id, index) for index in range(topic.partitions)]

    def store_id(self, node_id: int, topic: records.TopicRecord) -> str | None:
        """What this broker's data for a topic is known by, None when it never registered."""
        broker = self.brokers.get(node_id)
        if broker is None:
            return None
        synced = topic.config.get("flush", "batch") == "batch"
        return broker.value.directory_id if synced else broker.value.durability_id

    def _apply_single(self, change: Change) -> None:
        if change.key == records.CLUSTER_KEY:
            self.cluster = _plain(records.ClusterRecord, change)
        elif change.key == records.CONTROLLER_KEY:
            self.controller = _versioned(records.ControllerRecord, change)
        elif change.key == records.PRODUCER_IDS_KEY:
            self.producer_ids = _versioned(records.ProducerIds, change)

    def _apply_item(self, prefix: str, rest: str, change: Change) -> None:
        if prefix in (records.BROKERS, records.SESSIONS, records.FENCES):
            self.member_change = self._changes
        if prefix == records.BROKERS:
            _keep(self.brokers, int(rest), _versioned(records.Registration, change))
        elif prefix == records.SESSIONS:
            _keep(self.sessions, int(rest), _versioned(records.Session, change))
        elif prefix == records.FENCES:
            _keep(self.fences, int(rest), _versioned(records.Fence, change))
        elif prefix == records.TOPICS:
            self._apply_topic(rest, _versioned(records.TopicRecord, change))
        elif prefix == records.PARTITIONS:
            topic_id, _, index = rest.partition("/")
            record = _versioned(records.PartitionRecord, change)
            if record is None:
                self.topic_changes.pop(topic_id, None)  # the topic goes with its partitions
            else:
                self.topic_changes[topic_id] = self._changes
            _keep(self.partitions, (topic_id, int(index)), record)

    def _apply_topic(self, name: str, topic: Versioned[records.TopicRecord] | None) -> None:
        before = self.topics.get(name)
        if before is not None:
            self.topics_by_id.pop(before.value.topic_id, None)
            self.topic_changes.pop(before.value.topic_id, None)
        _keep(self.topics, name, topic)
        if topic is not None:
            self.topic_changes[topic.value.topic_id] = self._changes
            self.topics_by_id[topic.value.topic_id] = topic.value


_Key = TypeVar("_Key")


def _keep(into: dict[_Key, Versioned[_Value]], key: _Key, value: Versioned[_Value] | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value


def _plain(kind: type[_Value], change: Change) -> _Value | None:
    return None if change.value is None else records.decode(kind, change.value)


def _versioned(kind: type[_Value], change: Change) -> Versioned[_Value] | None:
    value = _plain(kind, change)
    return None if value is None else Versioned(value, change.version)
