"""How a message is declared: a class whose annotations say what Kafka's schema language says.

Owns the base class `Message`, the names of the wire types, and the marks for what changes between
versions. A field is as wide as its annotation (`Int32`, `bool`, `str`, `Uuid`, `list[...]`,
another message), may be null if the type includes None, and exists in every version unless marked:

    class PartitionProduceResponse(Message):
        index: Int32 = 0
        log_start_offset: Annotated[Int64, Since(5)] = -1
        error_message: Annotated[str | None, Since(8)] = None
        current_leader: Annotated[LeaderIdAndEpoch, Since(10), Tag(0)] = LeaderIdAndEpoch()

A field that a version lacks is not written, and reads as its default. Every field has a default,
so that a message names only what it has to say. Fields are written in order of declaration; a
tagged one only if it differs from its default.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Union, dataclass_transform, get_args, get_origin

import msgspec

VERSION_MAX = 32_767


class Fixed(msgspec.Struct, frozen=True):
    """A type of constant width: its struct code and its bytes."""

    code: str
    size: int


class Kind(Enum):
    """A type whose width is in the data."""

    STRING = "string"
    BYTES = "bytes"
    RECORDS = "records"


class Array(msgspec.Struct, frozen=True):
    """A counted run of one type."""

    item: WireType


class Since(msgspec.Struct, frozen=True):
    """The first version with this field."""

    version: int


class Until(msgspec.Struct, frozen=True):
    """The last version with this field."""

    version: int


class NullableSince(msgspec.Struct, frozen=True):
    """The first version in which this field may be null, if later than its own first."""

    version: int


class Tag(msgspec.Struct, frozen=True):
    """The field travels among the tagged ones, under this number."""

    number: int


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Message(msgspec.Struct, frozen=True, gc=False):
    """Base of every message and of every struct inside one."""

    spliced: ClassVar[bool] = False
    """Whether an array of these may hold bytes, made by `codec.encode_element`, in their place."""


WireType = Fixed | Kind | Array | type[Message]

_BOOL = Fixed("?", 1)
_UUID = Fixed("16s", 16)
_PLAIN: dict[Any, WireType] = {bool: _BOOL, str: Kind.STRING, bytes: Kind.BYTES}
Int8 = Annotated[int, Fixed("b", 1)]
Int16 = Annotated[int, Fixed("h", 2)]
Int32 = Annotated[int, Fixed("i", 4)]
Int64 = Annotated[int, Fixed("q", 8)]
Uuid = Annotated[bytes, _UUID]
Records = Annotated[bytes | bytearray | memoryview, Kind.RECORDS]
"""Record batches: decoded as a view of the frame, encoded from any buffer."""

NO_UUID = bytes(16)


class Field(msgspec.Struct, frozen=True):
    """One field of a message, all versions."""

    name: str
    type: WireType
    default: Any
    since: int
    until: int
    nullable_since: int
    tag: int | None

    def nullable(self, version: int) -> bool:
        """Whether `version` allows null here."""
        return version >= self.nullable_since


@cache
def fields_of(message: type[Message]) -> tuple[Field, ...]:
    """The fields of `message` in order of declaration."""
    return tuple(_field(info) for info in msgspec.structs.fields(message))


def fields_at(message: type[Message], version: int) -> tuple[list[Field], list[Field]]:
    """The fields that `version` has: those in order, and the tagged ones by number."""
    present = [f for f in fields_of(message) if f.since <= version <= f.until]
    plain = [field for field in present if field.tag is None]
    tagged = [field for field in present if field.tag is not None]
    return plain, sorted(tagged, key=lambda field: field.tag or 0)


def size_min(kind: WireType, version: int, flexible: bool) -> int:
    """The fewest bytes that a value of this type takes: what bounds the count of an array."""
    if isinstance(kind, Fixed):
        return kind.size
    if isinstance(kind, Kind | Array):
        if flexible:
            return 1
        return 2 if kind is Kind.STRING else 4
    plain, _ = fields_at(kind, version)
    return sum(size_min(f.type, version, flexible) for f in plain) + (1 if flexible else 0)


def _field(info: msgspec.structs.FieldInfo) -> Field:
    kind, nullable, marks = _read(info.type)
    numbers = {type(mark): mark for mark in marks}
    since = numbers[Since].version if Since in numbers else 0
    default = info.default
    if info.default_factory is not msgspec.NODEFAULT:
        default = info.default_factory()
    assert default is not msgspec.NODEFAULT, f"{info.name} needs a default"
    return Field(
        name=info.name,
        type=kind,
        default=default,
        since=since,
        until=numbers[Until].version if Until in numbers else VERSION_MAX,
        nullable_since=_nullable_since(nullable, since, numbers),
        tag=numbers[Tag].number if Tag in numbers else None,
    )


def _nullable_since(nullable: bool, since: int, numbers: dict[type, Any]) -> int:
    if not nullable:
        return VERSION_MAX + 1
    mark = numbers.get(NullableSince)
    return since if mark is None else int(mark.version)


def _read(hint: Any) -> tuple[WireType, bool, list[Any]]:
    """Take an annotation apart: wire type, whether None is allowed, marks."""
    if get_origin(hint) is Annotated:
        return _read_annotated(hint)
    if get_origin(hint) in {Union, UnionType}:
        rest = [arm for arm in get_args(hint) if arm is not NoneType]
        assert len(rest) == 1, f"{hint} is not a wire type"
        kind, _, marks = _read(rest[0])
        return kind, True, marks
    if get_origin(hint) is list:
        (item,) = get_args(hint)
        return Array(_read(item)[0]), False, []
    if isinstance(hint, type) and issubclass(hint, Message):
        return hint, False, []
    return _PLAIN[hint], False, []


def _read_annotated(hint: Any) -> tuple[WireType, bool, list[Any]]:
    base, *marks = get_args(hint)
    for mark in marks:
        if isinstance(mark, Fixed | Kind):  # the base is only what the type checker sees
            return mark, False, [other for other in marks if other is not mark]
    kind, nullable, inner = _read(base)
    return kind, nullable, [*inner, *marks]
