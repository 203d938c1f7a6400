"""What the topic of consumer groups holds, in Kafka's own formats: keys and values of its records.

Owns three kinds of record: the offset that a group committed for a partition (key version 1, value
version 3), a group with its members and their assignments (key version 2, value version 3), and
the null value of either, which takes it away. Kafka's tools read them. Every key and value opens
with its version, two bytes.
"""

from __future__ import annotations

import struct
from typing import Annotated, NamedTuple, TypeVar

from msgspec import field

from cluster.wire.decoder import Decode, compile_decoder
from cluster.wire.encoder import Encode, Piece, compile_encoder
from cluster.wire.primitives import Data, WireError
from cluster.wire.schema import Int32, Int64, Message, NullableSince, Since, Until

TOPIC = "__consumer_offsets"
"""The internal topic that holds these records."""

_OFFSET_KEY, _GROUP_KEY = 1, 2
_OFFSET_VALUE, _GROUP_VALUE = 3, 3
_ELEMENTS_MAX = 1_000_000
_VERSION = struct.Struct(">h")


class OffsetKey(Message):
    """Whose offset, of which partition."""

    group: str = ""
    topic: str = ""
    partition: Int32 = 0


class OffsetValue(Message):
    """A committed offset; `commit_timestamp` in ms of the wall clock."""

    offset: Int64 = 0
    leader_epoch: Annotated[Int32, Since(3)] = -1
    metadata: str = ""
    commit_timestamp: Int64 = 0
    expire_timestamp: Annotated[Int64, Since(1), Until(1)] = -1


class GroupKey(Message):
    """Which group."""

    group: str = ""


class MemberValue(Message):
    """A member of a generation; `subscription` is what it told its leader."""

    member_id: str = ""
    group_instance_id: Annotated[str | None, Since(3)] = None
    client_id: str = ""
    client_host: str = ""
    rebalance_timeout: Annotated[Int32, Since(1)] = 0
    session_timeout: Int32 = 0
    subscription: bytes = b""
    assignment: bytes = b""


class GroupValue(Message):
    """A group as its last generation left it; without members it is empty."""

    protocol_type: str = ""
    generation: Int32 = 0
    protocol: Annotated[str | None, NullableSince(0)] = None
    leader: Annotated[str | None, NullableSince(0)] = None
    current_state_timestamp: Annotated[Int64, Since(2)] = -1
    members: list[MemberValue] = field(default_factory=list)


class GroupRecord(NamedTuple):
    """One record: a key, and its value or None where it is taken away."""

    key: OffsetKey | GroupKey
    value: OffsetValue | GroupValue | None


_Kind = TypeVar("_Kind", bound=Message)
_CODECS: dict[tuple[type[Message], int], tuple[Encode, Decode]] = {}


def _codec(message: type[Message], version: int) -> tuple[Encode, Decode]:
    made = _CODECS.get((message, version))
    if made is None:
        made = (
            compile_encoder(message, version, False),
            compile_decoder(message, version, False),
        )
        _CODECS[message, version] = made
    return made


def encode_offset_key(group: str, topic: str, partition: int) -> bytes:
    """The key of one committed offset."""
    return _encode(OffsetKey(group=group, topic=topic, partition=partition), _OFFSET_KEY)


def encode_group_key(group: str) -> bytes:
    """The key of one group."""
    return _encode(GroupKey(group=group), _GROUP_KEY)


def encode_offset(value: OffsetValue) -> bytes:
    """The value of a committed offset."""
    return _encode(value, _OFFSET_VALUE)


def encode_group(value: GroupValue) -> bytes:
    """The value of a group."""
    return _encode(value, _GROUP_VALUE)


def decode(key: Data | None, value: Data | None) -> GroupRecord | None:
    """Read one record; None for a kind that this version does not know, which is passed over.

    WireError for bytes that are not what their version says.
    """
    if key is None:
        return None
    version = _version(key)
    known = None if value is None else _version(value)
    if known is not None and not 0 <= known <= _GROUP_VALUE:
        return None
    if version in (0, _OFFSET_KEY):
        return GroupRecord(
            _decode(OffsetKey, key, version),
            None if value is None or known is None else _decode(OffsetValue, value, known),
        )
    if version == _GROUP_KEY:
        return GroupRecord(
            _decode(GroupKey, key, version),
            None if value is None or known is None else _decode(GroupValue, value, known),
        )
    return None


def _encode(message: Message, version: int) -> bytes:
    pieces: list[Piece] = [_VERSION.pack(version)]
    _codec(type(message), version)[0](message, pieces.append)
    return b"".join(pieces)


def _decode(kind: type[_Kind], data: Data, version: int) -> _Kind:
    decode_body = _codec(kind, version)[1]
    try:
        body, end = decode_body(data, memoryview(data), 2, _ELEMENTS_MAX)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed {kind.__name__}: {error}") from error
    if end != len(data):
        raise WireError(f"{len(data) - end} bytes follow a {kind.__name__}")
    assert isinstance(body, kind)
    return body


def _version(data: Data) -> int:
    if len(data) < _VERSION.size:
        raise WireError("no version in a group record")
    return int(_VERSION.unpack_from(data)[0])
