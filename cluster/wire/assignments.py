"""What consumers of one group tell each other: subscriptions, and the partitions that each gets.

Owns Kafka's own format of both (ConsumerProtocolSubscription and ConsumerProtocolAssignment), so
that clients of every kind share a group. A coordinator carries these bytes without reading them;
the members do, and so does whoever must know which topics a group reads.

Both open with a version of two bytes and grew at the end: what a reader does not know follows what
it does, and is passed over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from cluster.wire.primitives import Data, WireError, plain_string, read_plain_string

Places = Mapping[str, Sequence[int]]
"""Partitions by topic."""
PROTOCOL_TYPE = "consumer"
_SHORT, _INT = struct.Struct(">h"), struct.Struct(">i")
_SUBSCRIPTION_VERSION, _ASSIGNMENT_VERSION = 1, 1
_OWNED_SINCE = 1


class Subscription(msgspec.Struct, frozen=True):
    """What a member reads, and which partitions it holds from the generation before."""

    topics: tuple[str, ...]
    owned: Mapping[str, Sequence[int]] = {}
    user_data: bytes = b""


def encode_subscription(subscription: Subscription) -> bytes:
    """The bytes that a member joins with."""
    pieces = [_SHORT.pack(_SUBSCRIPTION_VERSION), _INT.pack(len(subscription.topics))]
    pieces += [plain_string(topic) for topic in subscription.topics]
    pieces += [_bytes(subscription.user_data), _places(subscription.owned)]
    return b"".join(pieces)


def decode_subscription(data: Data) -> Subscription:
    """Read a member's subscription of any version; WireError if it is none."""
    try:
        version, topics, position = _topics(data)
        user_data, position = _read_bytes(data, position)
        owned: Places = {}
        if version >= _OWNED_SINCE and position < len(data):
            owned, position = _read_places(data, position)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed subscription: {error}") from error
    return Subscription(topics, owned, user_data)


def encode_assignment(places: Places) -> bytes:
    """The bytes that a leader hands to one member."""
    return _SHORT.pack(_ASSIGNMENT_VERSION) + _places(places) + _bytes(b"")


def decode_assignment(data: Data) -> Places:
    """Read an assignment of any version; none at all where the leader forgot the member."""
    if not len(data):
        return {}
    try:
        _SHORT.unpack_from(data)
        return _read_places(data, 2)[0]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed assignment: {error}") from error


def decode_topics(data: Data) -> tuple[str, ...]:
    """Only the topics of a subscription."""
    try:
        return _topics(data)[1]
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed subscription: {error}") from error


def _topics(data: Data) -> tuple[int, tuple[str, ...], int]:
    (version,) = _SHORT.unpack_from(data)
    topics, position = [], 6
    for _ in range(_count(data, 2)):
        topic, position = _string(data, position)
        topics.append(topic)
    return version, tuple(topics), position


def _places(places: Places) -> bytes:
    pieces = [_INT.pack(len(places))]
    for topic, partitions in places.items():
        pieces += [plain_string(topic), _INT.pack(len(partitions))]
        pieces += [_INT.pack(partition) for partition in partitions]
    return b"".join(pieces)


def _read_places(data: Data, position: int) -> tuple[dict[str, list[int]], int]:
    places: dict[str, list[int]] = {}
    count, position = _count(data, position), position + 4
    for _ in range(count):
        topic, position = _string(data, position)
        partitions, position = _count(data, position), position + 4
        found = struct.unpack_from(f">{partitions}i", data, position)
        position += 4 * partitions
        places.setdefault(topic, []).extend(found)
    return places, position


def _count(data: Data, position: int) -> int:
    (count,) = _INT.unpack_from(data, position)
    if not 0 <= count <= len(data):
        raise WireError(f"a count of {count} in {len(data)} bytes")
    return int(count)


def _string(data: Data, position: int) -> tuple[str, int]:
    text, position = read_plain_string(data, position)
    if text is None:
        raise WireError("a topic without a name")
    return text, position


def _bytes(data: bytes) -> bytes:
    return _INT.pack(len(data)) + data


def _read_bytes(data: Data, position: int) -> tuple[bytes, int]:
    (length,) = _INT.unpack_from(data, position)
    end = position + 4 + max(0, length)
    if end > len(data):
        raise WireError("bytes are cut short")
    return bytes(data[position + 4 : end]), end


def by_topic(places: Iterable[tuple[str, int]]) -> dict[str, list[int]]:
    """Partitions listed under their topics, both sorted."""
    found: dict[str, list[int]] = {}
    for topic, partition in sorted(places):
        found.setdefault(topic, []).append(partition)
    return found
