"""The values in the metadata store and the keys they live under.

Owns: one frozen struct per kind of key, its bytes (JSON, so that an operator can read the store
with any SQLite shell), and the shape of keys. Readers tolerate fields they do not know; `v` is
raised only when an older reader would draw a wrong conclusion, and such a reader then refuses.

    cluster                     ClusterRecord     written once
    brokers/<id>                Registration      by the broker, once per start (rule 9)
    sessions/<id>               Session           the same, with a lease: gone when the broker is
    liveness/<id>               Liveness          by the controller only
    controller                  ControllerRecord  by whoever takes its epoch (rule 11)
    topics/<name>               TopicRecord       by the controller
    partitions/<topic id>/<n>   PartitionRecord   by the controller and the leader (rule 10)
    producer-ids                ProducerIds       by the controller

Invariants: a broker's incarnation is the version of its registration, which nobody writes again
until the broker registers anew, so it needs no field. The same holds of a partition's version.
Registrations have no lease: the directory a broker had must be known after it is gone.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from cluster.control.store import Condition, Put, Stored, StoreError, Write
from cluster.limits import PARTITIONS_PER_TOPIC_MAX, REPLICAS_MAX, TOPIC_NAME_LENGTH_MAX

FORMAT = 1
NO_LEADER = -1

NodeId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Hex16 = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
"""Sixteen bytes as lower-case hexadecimal digits."""
Revision = Annotated[int, Meta(ge=0)]


class Record(msgspec.Struct, frozen=True, gc=False):
    """Base of all values: `v` is the format a reader must know at least."""

    v: int = FORMAT


class ClusterRecord(Record, frozen=True, gc=False, kw_only=True):
    """Which cluster this store belongs to."""

    cluster_id: Hex16


class Registration(Record, frozen=True, gc=False, kw_only=True):
    """What a broker says of itself when it starts. Its incarnation is the key's version."""

    node_id: NodeId
    directory_id: Hex16
    """Of the data directory: a new one means that the log is not what it was."""
    boot_id: str
    """Of the machine: another one means that what was not synced may be gone."""
    clean: bool
    """The directory was closed in order."""
    highest_epoch: Annotated[int, Meta(ge=-1)]
    """Of all leader epochs on disk, -1 if none."""
    highest_producer_id: Annotated[int, Meta(ge=-1)]
    """Of all producer ids on disk, -1 if none."""
    zmq: str
    """host:port, as the other endpoints."""
    kafka: str | None = None
    metrics: str | None = None
    lease: int
    """The lease of the session that was opened in the same transaction."""


class Session(Record, frozen=True, gc=False, kw_only=True):
    """Present as long as its broker keeps the lease; its version is the broker's incarnation."""

    node_id: NodeId


class Liveness(Record, frozen=True, gc=False, kw_only=True):
    """What the controller holds of one incarnation of a broker."""

    incarnation: Revision
    alive: bool
    reason: str = ""


class ControllerRecord(Record, frozen=True, gc=False, kw_only=True):
    """Who decides. Every write of the controller is conditional on this key's version."""

    node_id: NodeId
    incarnation: Revision
    epoch: Annotated[int, Meta(ge=0)]
    lease: int


class TopicRecord(Record, frozen=True, gc=False, kw_only=True):
    """A topic; `deleted` until every replica has removed its log, then the key goes."""

    topic_id: Hex16
    partitions: Annotated[int, Meta(ge=1, le=PARTITIONS_PER_TOPIC_MAX)]
    replicas: Annotated[int, Meta(ge=1, le=REPLICAS_MAX)]
    config: dict[str, str] = {}
    deleted: bool = False


class PartitionRecord(Record, frozen=True, gc=False, kw_only=True):
    """Leadership and membership of one partition, changed only by compare-and-set (rule 10)."""

    leader: Annotated[int, Meta(ge=NO_LEADER, le=2**31 - 1)]
    leader_incarnation: Revision
    """Of the leader, or of the last one if there is none."""
    leader_epoch: Annotated[int, Meta(ge=0)]
    replicas: tuple[NodeId, ...]
    """In order of preference."""
    isr: tuple[NodeId, ...]
    doubtful: tuple[NodeId, ...] = ()
    """In-sync members whose copy may lack what they acknowledged (rules 7 and 10)."""

    def __post_init__(self) -> None:
        for members in (self.replicas, self.isr, self.doubtful):
            if len(set(members)) != len(members):
                raise ValueError(f"a member is listed twice in {members}")
        if not set(self.isr) <= set(self.replicas):
            raise ValueError(f"in-sync {self.isr} are not all replicas {self.replicas}")
        if not set(self.doubtful) <= set(self.isr):
            raise ValueError(f"doubtful {self.doubtful} are not all in sync {self.isr}")
        if self.leader not in (NO_LEADER, *self.isr):
            raise ValueError(f"leader {self.leader} is not in sync {self.isr}")


class ProducerIds(Record, frozen=True, gc=False, kw_only=True):
    """The lowest producer id that was never handed to a broker."""

    next: Annotated[int, Meta(ge=0, le=2**63 - 1)]


CLUSTER = "cluster"
CONTROLLER = "controller"
PRODUCER_IDS = "producer-ids"
BROKERS = "brokers/"
SESSIONS = "sessions/"
LIVENESS = "liveness/"
TOPICS = "topics/"
PARTITIONS = "partitions/"

_TOPIC_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{TOPIC_NAME_LENGTH_MAX}}}")
R = TypeVar("R", bound=Record)
_decoders: dict[type[Record], msgspec.json.Decoder[Record]] = {}


class RecordError(StoreError):
    """A value in the store is damaged, or of a format that this version does not know."""


def encode(record: Record) -> bytes:
    """The bytes to store for `record`."""
    return msgspec.json.encode(record)


def decode(kind: type[R], stored: Stored) -> R:
    """The record in `stored`. Raises RecordError naming the key."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        record = decoder.decode(stored.value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RecordError(f"{stored.key} in the metadata store: {error}") from error
    if record.v > FORMAT:
        raise RecordError(
            f"{stored.key} in the metadata store: format {record.v} was written by a later"
            f" version of oncelog; this one knows {FORMAT}"
        )
    assert isinstance(record, kind)
    return record


def valid_topic_name(name: str) -> bool:
    """Kafka's rule: letters, digits, ".", "_" and "-", and not "." or ".."."""
    return name not in (".", "..") and _TOPIC_NAME.fullmatch(name) is not None


def broker_key(node_id: int) -> str:
    """Of a broker's Registration."""
    return f"{BROKERS}{node_id}"


def session_key(node_id: int) -> str:
    """Of a broker's Session."""
    return f"{SESSIONS}{node_id}"


def liveness_key(node_id: int) -> str:
    """Of the controller's view of a broker."""
    return f"{LIVENESS}{node_id}"


def topic_key(name: str) -> str:
    """Of a TopicRecord. The name must be valid, since it becomes part of a path."""
    assert valid_topic_name(name), name
    return f"{TOPICS}{name}"


def partition_key(topic_id: str, partition: int) -> str:
    """Of a PartitionRecord."""
    return f"{PARTITIONS}{topic_id}/{partition}"


def parse_partition_key(key: str) -> tuple[str, int]:
    """(topic id, partition) of a key under PARTITIONS."""
    _, topic_id, partition = key.split("/")
    return topic_id, int(partition)


def node_of(key: str) -> int:
    """The node id in a key under BROKERS, SESSIONS or LIVENESS."""
    return int(key.partition("/")[2])


def register(registration: Registration, before: int) -> tuple[list[Condition], list[Write]]:
    """The transaction that registers a broker whose registration had version `before` (0: none).

    The revision at which it commits is the broker's incarnation, and the version of both keys.
    """
    key, session = broker_key(registration.node_id), session_key(registration.node_id)
    opened = Session(node_id=registration.node_id)
    return [Condition(key, before)], [
        Put(key, encode(registration)),
        Put(session, encode(opened), registration.lease),
    ]
