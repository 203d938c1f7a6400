"""The smallest parts of a message: variable-length numbers, strings, and why a frame is refused.

Owns the two encodings of a length (plain: int16 or int32, -1 for null; compact: unsigned varint of
the length plus one, 0 for null), strings in both, and the error classes. A reader takes the data
and a position and returns the value and the position after it; null is None or a length of -1.

Invariant: nothing reads past the data, and nothing allocates more than the data holds. A number
that is cut short raises IndexError or struct.error, which the codec turns into WireError.
"""

from __future__ import annotations

import struct
from typing import NoReturn

Data = bytes | memoryview

_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")
_ONE_BYTE = tuple(bytes([value]) for value in range(128))
_UVARINT_SHIFT_MAX = 28  # a fifth byte ends a 32-bit number


class WireError(ValueError):
    """The bytes are not the message that they claim to be."""


class _UnservedRequest(WireError):
    """Base of what is wrong with a request whose header is sound: enough is known to answer."""

    def __init__(self, reason: str, api_key: int, api_version: int, correlation_id: int) -> None:
        super().__init__(f"{reason}: key {api_key}, version {api_version}")
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id


class UnknownApi(_UnservedRequest):
    """No API has the key of this request or response."""


class UnsupportedVersion(_UnservedRequest):
    """The API is known, this version of it is not."""


def truncated() -> NoReturn:
    """Refuse a frame that ends inside a field."""
    raise WireError("the frame ends inside a field")


def null(field: str) -> NoReturn:
    """Refuse null where this version does not allow it."""
    raise WireError(f"{field} must not be null")


def too_many(field: str) -> NoReturn:
    """Refuse an array that claims more elements than the frame can hold or a message may have."""
    raise WireError(f"{field} claims more elements than the frame can hold")


def wrong_tag_size(field: str) -> NoReturn:
    """Refuse a tagged field that is not as long as it says."""
    raise WireError(f"tagged field {field} is not as long as it says")


def read_uvarint(data: Data, position: int) -> tuple[int, int]:
    """Read an unsigned base-128 number of at most five bytes, low groups first."""
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        if byte < 128:
            return value | byte << shift, position
        value |= (byte & 127) << shift
        shift += 7
        if shift > _UVARINT_SHIFT_MAX:
            raise WireError("a variable-length number has more than five bytes")


def read_compact_length(data: Data, position: int) -> tuple[int, int]:
    """Read the length of a compact string, array or blob."""
    byte = data[position]
    if byte < 128:
        return byte - 1, position + 1
    value, position = read_uvarint(data, position)
    return value - 1, position


def read_plain_length(data: Data, position: int) -> tuple[int, int]:
    """Read an int32 length; only -1 means null."""
    length = _INT32.unpack_from(data, position)[0]
    if length < -1:
        raise WireError(f"negative length {length}")
    return length, position + 4


def read_compact_string(data: Data, position: int) -> tuple[str | None, int]:
    """Read a string with a compact length."""
    length, position = read_compact_length(data, position)
    if length < 0:
        return None, position
    return _text(data, position, length)


def read_plain_string(data: Data, position: int) -> tuple[str | None, int]:
    """Read a string with an int16 length."""
    length = _INT16.unpack_from(data, position)[0]
    if length < 0:
        if length < -1:
            raise WireError(f"negative length {length}")
        return None, position + 2
    return _text(data, position + 2, length)


def _text(data: Data, position: int, length: int) -> tuple[str, int]:
    stop = position + length
    if stop > len(data):
        truncated()
    return str(data[position:stop], "utf-8"), stop


def skip_tagged_fields(data: Data, position: int) -> int:
    """Skip a section of tagged fields none of which we know."""
    count, position = read_uvarint(data, position)
    for _ in range(count):
        _, position = read_uvarint(data, position)
        size, position = read_uvarint(data, position)
        position += size
        if position > len(data):
            truncated()
    return position


def uvarint(value: int) -> bytes:
    """Encode an unsigned base-128 number, low groups first."""
    if value < 128:
        return _ONE_BYTE[value]
    groups = bytearray()
    while value >= 128:
        groups.append(value & 127 | 128)
        value >>= 7
    groups.append(value)
    return bytes(groups)


def compact_length(length: int) -> bytes:
    """Encode the length of something that is not null."""
    return uvarint(length + 1)


def plain_length(length: int) -> bytes:
    """Encode a length as int32."""
    return _INT32.pack(length)


def compact_string(text: str) -> bytes:
    """Encode a string with a compact length."""
    raw = text.encode()
    return uvarint(len(raw) + 1) + raw


def plain_string(text: str) -> bytes:
    """Encode a string with an int16 length; struct.error if it is longer than 32,767 bytes."""
    raw = text.encode()
    return _INT16.pack(len(raw)) + raw
