"""What the metadata store holds: keys, and the values under them.

Owns: the key names, and one frozen structure per kind of value with its JSON form. A value is
read with unknown fields skipped and missing ones defaulted, so that brokers of two versions can
stand on one store. The version of a value is the store revision of its last write and travels
beside it, never inside it.

Invariant (rule 10): leader, incarnation, epoch, in-sync and doubtful replicas of a partition are
one value under one key; whoever changes one of them replaces the whole on the version it read.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

CLUSTER_KEY = "cluster"
CONTROLLER_KEY = "controller"
PRODUCER_IDS_KEY = "producer-ids"
BROKERS = "brokers/"
SESSIONS = "sessions/"
FENCES = "fences/"
TOPICS = "topics/"
PARTITIONS = "partitions/"
NO_LEADER = -1


def broker_key(node_id: int) -> str:
    """The registration of a broker; its version is the broker's incarnation (rule 9)."""
    return f"{BROKERS}{node_id}"


def session_key(node_id: int) -> str:
    """The broker's lease: it vanishes when the broker stops renewing it."""
    return f"{SESSIONS}{node_id}"


def fence_key(node_id: int) -> str:
    """The controller's verdict on one incarnation of a broker."""
    return f"{FENCES}{node_id}"


def topic_key(name: str) -> str:
    """The topic of this name."""
    return f"{TOPICS}{name}"


def partition_key(topic_id: str, index: int) -> str:
    """One partition's leader, epoch and in-sync replicas."""
    return f"{PARTITIONS}{topic_id}/{index}"


class ClusterRecord(msgspec.Struct, frozen=True, gc=False):
    """Who this cluster is; written once."""

    cluster_id: str
    v: int = 1


class Registration(msgspec.Struct, frozen=True, gc=False):
    """One start of one broker. The store revision of this write is its incarnation."""

    node_id: int
    directory_id: str
    """Names the data directory: another one has other logs, or none."""
    durability_id: str
    """Changes whenever writes that were never synced may have been lost (unclean stop and
    another boot): what `flush=os` partitions are known by."""
    host: str
    port: int
    clean: bool = True
    """The stop before this start was orderly."""
    highest_epoch: int = -1
    """Highest leader epoch in any log of the directory."""
    highest_producer_id: int = -1
    """Highest producer id in any log of the directory."""
    kafka: str | None = None
    metrics: str | None = None
    v: int = 1


class Session(msgspec.Struct, frozen=True, gc=False):
    """A broker's sign of life, bound to a lease."""

    incarnation: int
    v: int = 1


class Fence(msgspec.Struct, frozen=True, gc=False):
    """The controller declared this incarnation gone: dead, or about to stop."""

    incarnation: int
    reason: str
    v: int = 1


class ControllerRecord(msgspec.Struct, frozen=True, gc=False):
    """Who decides. Every controller write carries this key's version as a condition."""

    node_id: int
    incarnation: int
    epoch: int
    v: int = 1


class TopicRecord(msgspec.Struct, frozen=True, gc=False):
    """One topic. `topic_id` is 32 hex digits."""

    name: str
    topic_id: str
    partitions: int
    replicas: int
    config: dict[str, str]
    """Every setting, the defaults at its creation included."""
    own: tuple[str, ...] = ()
    """Those that somebody set for this topic."""
    v: int = 1


class PartitionRecord(msgspec.Struct, frozen=True, gc=False):
    """Leadership and membership of one partition (rules 9 and 10)."""

    leader: int
    leader_incarnation: int
    leader_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    doubtful: tuple[int, ...]
    """Members that stay in `isr` only because it may not get smaller; see rule 10."""
    stores: tuple[str, ...]
    """What each replica's data was known by when it was last a member: directory or
    durability id, parallel to `replicas`; empty until the replica was first seen."""
    v: int = 1

    def store_of(self, node_id: int) -> str:
        """What this replica's data was last known by."""
        return self.stores[self.replicas.index(node_id)]


class ProducerIds(msgspec.Struct, frozen=True, gc=False):
    """Every producer id below `next` may have been handed out, none at or above it."""

    next: int
    v: int = 1


_Value = TypeVar("_Value", bound=msgspec.Struct)
_encoder = msgspec.json.Encoder()


def encode(value: msgspec.Struct) -> bytes:
    """The stored form of any value above."""
    return _encoder.encode(value)


def decode(kind: type[_Value], data: bytes) -> _Value:
    """The value of this kind; raises msgspec.DecodeError when the bytes are not one."""
    return msgspec.json.decode(data, type=kind)
