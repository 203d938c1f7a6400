"""Messages between brokers: pushes and acknowledgements in fixed layouts, the rest in msgpack.

Owns the layout of everything one broker sends another. A message is one header frame and, for
pushes, one data frame. The header opens with 22 bytes: version, kind, sender node, sender
incarnation, receiver incarnation. A receiver drops what was meant for another incarnation: a
reconnected socket may deliver what was queued for the process that died (rule 8).

Pushes and acknowledgements of a turn travel together: one header per partition, and the batches
of all of them, in header order, in one data frame. Integers are big-endian, offsets exclusive
ends, lengths bytes.
"""

from __future__ import annotations

import struct
from typing import Annotated, NamedTuple

import msgspec

from cluster.errors import OncelogError
from cluster.limits import LEADER_EPOCH_MAX, OFFSET_MAX

VERSION = 2
PUSH = 1
ACK = 2
CONTROL = 3

_ENVELOPE = struct.Struct(">BBiqq")
_PUSH = struct.Struct(">16siiIqIQqqQ")
_ACK = struct.Struct(">16siiIqqqQ")
ENVELOPE_BYTES = _ENVELOPE.size


TopicId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Partition = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Epoch = Annotated[int, msgspec.Meta(ge=-1, le=LEADER_EPOCH_MAX)]
Stream = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
"""A stream's number; 0 is none."""
Offset = Annotated[int, msgspec.Meta(ge=0, le=OFFSET_MAX)]
EndOffset = Annotated[int, msgspec.Meta(ge=-1, le=OFFSET_MAX)]
"""An exclusive end, -1 for a replica that has none to tell."""


class StreamError(OncelogError):
    """A frame from another broker that is not a message of this protocol."""


class Envelope(NamedTuple):
    """The first bytes of every message between brokers."""

    version: int
    kind: int
    sender: int
    sender_incarnation: int
    receiver_incarnation: int


class PushHeader(NamedTuple):
    """One partition's part of a push: `length` bytes of whole batches from `base_offset` on.

    `digest` is the leader's producer-state digest at the end of the batches, 0 when they end
    before its log does. What lies below `log_start_offset` is deleted. With a `question` above 0
    the leader asks whether it is still followed.
    """

    topic_id: bytes
    partition: int
    leader_epoch: int
    stream: int
    base_offset: int
    length: int
    digest: int
    high_watermark: int
    log_start_offset: int = 0
    question: int = 0


class AckHeader(NamedTuple):
    """The follower holds everything below `end_offset`, as durably as the topic asks.

    At offset `compared` its producer state was last found equal to the leader's, -1 for never on
    this stream. `log_start_offset` is where its log begins and will after a restart. It still
    followed when it heard `question`, the last one of this stream.
    """

    topic_id: bytes
    partition: int
    leader_epoch: int
    stream: int
    end_offset: int
    compared: int
    log_start_offset: int = 0
    question: int = 0


class Hello(msgspec.Struct, frozen=True, gc=False, tag="hello"):
    """Opens a connection: who speaks, in which cluster and protocol version."""

    cluster_id: str
    protocol: int = VERSION


class OpenStream(msgspec.Struct, frozen=True, gc=False, tag="open"):
    """A follower asks its leader for everything it lacks (rule 8).

    `epochs` are (leader epoch, start offset) pairs of its log, `end_offset` what is synced;
    `store_id` names the follower's data as `PartitionRecord.stores` does.
    """

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream
    epochs: tuple[tuple[Epoch, Offset], ...]
    start_offset: Offset
    end_offset: Offset
    doubtful: bool
    store_id: str
    differs: bool = False
    """The follower's producer state was not the leader's when they were last compared."""
    first_offset: Offset = 0
    """Where the data of its log begins; `start_offset` is where its readers begin."""
    anew: bool = False
    """It has no producer state to go on with, and asks for one."""


class StreamOpened(msgspec.Struct, frozen=True, gc=False, tag="opened"):
    """The leader's answer: cut to `truncate_to`, then pushes begin exactly there.

    `leader_end` is the leader's end offset now: a doubtful follower is whole again there.
    """

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream
    truncate_to: Offset
    leader_end: Offset
    high_watermark: Offset


class StateOffered(msgspec.Struct, frozen=True, gc=False, tag="offered"):
    """The leader's other answer: this log cannot be continued, begin anew at `offset`.

    The producer state of exactly that offset has `size` bytes, none if it is that of an empty log.
    `epochs` are the leader epochs that began before: by them the next stream finds its place.
    """

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream
    offset: Offset
    size: Offset
    epochs: tuple[tuple[Epoch, Offset], ...]


class StateWanted(msgspec.Struct, frozen=True, gc=False, tag="wanted"):
    """The follower asks for the part of an offered state that begins at `position`."""

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream
    offset: Offset
    position: Offset


class StatePart(msgspec.Struct, frozen=True, gc=False, tag="part"):
    """That part."""

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream
    offset: Offset
    position: Offset
    data: bytes


class StreamRefused(msgspec.Struct, frozen=True, gc=False, tag="refused"):
    """This stream is not, or no longer, one of the leader's; open another."""

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream
    reason: str


class TermBegun(msgspec.Struct, frozen=True, gc=False, tag="term"):
    """The sender leads this partition in this epoch and has no stream of the receiver open.

    `stream` is the latest one that the receiver asked for, 0 for none. A wish for a stream may
    arrive before its receiver knows that it leads, and then is refused; a stream may be closed for
    a lost connection that the receiver did not notice.
    """

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    stream: Stream


class Opinion(msgspec.Struct, frozen=True, gc=False, tag="opinion"):
    """Which incarnations the sender has lost its connection to (rule 11)."""

    unreachable: tuple[tuple[int, int], ...]


class StateQuery(msgspec.Struct, frozen=True, gc=False, tag="query"):
    """The controller asks how far this replica's log reaches before it elects (rule 7)."""

    query: int
    partitions: tuple[tuple[TopicId, Partition], ...]


class ReplicaState(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """One replica's answer: `end_offset` is synced, -1 when the replica cannot serve.

    `leader_epoch` is the epoch that the replica has taken up: it acknowledges nothing to a
    leader of an older one any more. `last_epoch` is that of its last record. A damaged replica
    tells what it once held and cannot read now: it must not lead, nor may who holds less.
    """

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch
    last_epoch: Epoch
    end_offset: EndOffset
    doubtful: bool
    damaged: bool = False


class StateReport(msgspec.Struct, frozen=True, gc=False, tag="report"):
    """The answer to a StateQuery."""

    query: int
    replicas: tuple[ReplicaState, ...]


class Resign(msgspec.Struct, frozen=True, gc=False, tag="resign"):
    """The sender leads this partition in this epoch and cannot go on (rule 14): elect another."""

    topic_id: TopicId
    partition: Partition
    leader_epoch: Epoch


class Stopping(msgspec.Struct, frozen=True, gc=False, tag="stopping"):
    """The sender is about to stop: move the leaders it holds elsewhere."""


class Poke(msgspec.Struct, frozen=True, gc=False, tag="poke"):
    """The store has moved to `revision`: look now instead of at the next poll."""

    revision: int


class WantGroups(msgspec.Struct, frozen=True, gc=False, tag="groups"):
    """The sender was asked for a group's coordinator: make the topic of groups if there is none."""


class Forward(msgspec.Struct, frozen=True, gc=False, tag="forward"):
    """A client's request that only the controller can decide: `frame` as the client sent it."""

    number: int
    frame: bytes
    native: bool


class Forwarded(msgspec.Struct, frozen=True, gc=False, tag="forwarded"):
    """The response to a Forward of this number; empty if the sender is not the controller."""

    number: int
    frame: bytes


Control = (
    Hello
    | OpenStream
    | StreamOpened
    | StateOffered
    | StateWanted
    | StatePart
    | StreamRefused
    | TermBegun
    | Opinion
    | StateQuery
    | StateReport
    | Resign
    | Stopping
    | Poke
    | WantGroups
    | Forward
    | Forwarded
)

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Control)


def envelope(kind: int, sender: int, incarnation: int, receiver_incarnation: int) -> bytes:
    """The opening bytes of a header frame."""
    return _ENVELOPE.pack(VERSION, kind, sender, incarnation, receiver_incarnation)


def read_envelope(frame: bytes) -> Envelope:
    """The opening of any header frame; raises StreamError when it is none of ours."""
    if len(frame) < ENVELOPE_BYTES:
        raise StreamError(f"a peer frame of {len(frame)} bytes is shorter than its envelope")
    opening = Envelope(*_ENVELOPE.unpack_from(frame))
    if opening.version != VERSION:
        raise StreamError(f"peer protocol version {opening.version}; this broker has {VERSION}")
    return opening


def encode_pushes(pushes: list[PushHeader]) -> bytes:
    """The header array of a push, to follow an envelope."""
    return b"".join([_PUSH.pack(*push) for push in pushes])


def encode_acks(acks: list[AckHeader]) -> bytes:
    """The header array of an acknowledgement, to follow an envelope."""
    return b"".join([_ACK.pack(*ack) for ack in acks])


def encode_control(message: Control) -> bytes:
    """A rare message, to follow an envelope."""
    return _encoder.encode(message)


def read_pushes(frame: bytes, data_length: int) -> list[PushHeader]:
    """The pushes behind an envelope; their lengths must add up to the data frame's."""
    pushes = [PushHeader._make(fields) for fields in _items(_PUSH, frame)]
    if sum(push.length for push in pushes) != data_length:
        raise StreamError("the lengths in a push do not add up to its data frame")
    return pushes


def read_acks(frame: bytes) -> list[AckHeader]:
    """The acknowledgements behind an envelope."""
    return [AckHeader._make(fields) for fields in _items(_ACK, frame)]


def read_control(frame: bytes) -> Control:
    """The rare message behind an envelope, its numbers such as layouts and logs can hold."""
    try:
        message: Control = _decoder.decode(memoryview(frame)[ENVELOPE_BYTES:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StreamError(f"a control message that does not decode: {error}") from None
    return message


def _items(layout: struct.Struct, frame: bytes) -> list[tuple[int, ...]]:
    body = memoryview(frame)[ENVELOPE_BYTES:]
    if len(body) % layout.size:
        raise StreamError(f"a header array of {len(body)} bytes is not whole {layout.size}s")
    return list(layout.iter_unpack(body))
