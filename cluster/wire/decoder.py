"""Generates the decoder of one message at one version: one straight-line function.

`decode(data, view, position, room)` returns (message, position after it). `data` is what numbers
and strings are read from, `view` a memoryview of the same bytes, slices of which become records;
`room` is how many array elements the message may still have.

Why generated: nested structs become nested loops in one function, and neighbours of fixed width
one struct call, which is ten times faster than walking a table at run time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cluster.wire import primitives
from cluster.wire.emit import Code, runs
from cluster.wire.primitives import Data
from cluster.wire.schema import (
    Array,
    Field,
    Fixed,
    Kind,
    Message,
    WireType,
    fields_at,
    fields_of,
    size_min,
)

Decode = Callable[[Data, memoryview, int, int], tuple[Message, int]]

_ENVIRONMENT = {
    "unpack": struct.unpack_from,
    "truncated": primitives.truncated,
    "null": primitives.null,
    "too_many": primitives.too_many,
    "wrong_tag_size": primitives.wrong_tag_size,
    "read_uvarint": primitives.read_uvarint,
    "skip_tagged_fields": primitives.skip_tagged_fields,
}


def compile_decoder(message: type[Message], version: int, flexible: bool) -> Decode:
    """The decoder of `message` at `version`; `flexible` versions are compact and have tags."""
    return _Decoder(version, flexible).function(message)


class _Decoder:
    def __init__(self, version: int, flexible: bool) -> None:
        self._version = version
        self._flexible = flexible
        self._code = Code(_ENVIRONMENT)
        style = "compact" if flexible else "plain"
        environment = self._code.environment
        environment["read_length"] = getattr(primitives, f"read_{style}_length")
        environment["read_string"] = getattr(primitives, f"read_{style}_string")

    def function(self, message: type[Message]) -> Decode:
        code = self._code
        with code.block("def decode(data, view, pos, room):"):
            code.line("end = len(data)")
            code.line(f"return {self._message(message)}, pos")
        return code.function("decode", f"decode {message.__name__} v{self._version}")

    def _message(self, message: type[Message]) -> str:
        """Emit the reading of one struct; returns the expression that constructs it."""
        plain, tagged = fields_at(message, self._version)
        values: dict[str, str] = {}
        for run in runs(plain):
            if isinstance(run[0].type, Fixed):
                self._fixed(run, values)
            else:
                values[run[0].name] = self._value(run[0])
        if self._flexible:
            self._tagged(tagged, values)
        arguments = (values.get(f.name) or self._default(f) for f in fields_of(message))
        return f"{self._code.bind(message.__name__, message)}({', '.join(arguments)})"

    def _default(self, field: Field) -> str:
        if isinstance(field.type, Array) and field.default is not None:
            return "[]"
        return self._code.bind("default", field.default)

    def _fixed(self, run: list[Field], values: dict[str, str]) -> None:
        codes = [f.type.code for f in run if isinstance(f.type, Fixed)]
        layout = struct.Struct(">" + "".join(codes))
        names = [self._code.name(field.name) for field in run]
        unpack = self._code.bind("unpack", layout.unpack_from)
        self._code.line(f"{', '.join(names)}, = {unpack}(data, pos)")
        self._code.line(f"pos += {layout.size}")
        values.update(zip((field.name for field in run), names, strict=True))

    def _value(self, field: Field) -> str:
        nullable = field.nullable(self._version)
        return self._read(field.type, field.name, nullable)

    def _read(self, kind: WireType, label: str, nullable: bool = False) -> str:
        """Emit the reading of one value; returns the expression that holds it."""
        if isinstance(kind, type):
            return self._message(kind)
        target = self._code.name(label)
        if isinstance(kind, Fixed):
            self._code.line(f"{target}, = unpack('>{kind.code}', data, pos)")
            self._code.line(f"pos += {kind.size}")
        elif kind is Kind.STRING:
            self._code.line(f"{target}, pos = read_string(data, pos)")
            if not nullable:
                self._code.line(f"if {target} is None: null({label!r})")
        else:
            self._counted(kind, target, label, nullable)
        return target

    def _counted(self, kind: WireType, target: str, label: str, nullable: bool) -> None:
        code = self._code
        code.line("n, pos = read_length(data, pos)")
        with code.block("if n < 0:"):
            code.line(f"{target} = None" if nullable else f"null({label!r})")
        with code.block("else:"):
            if isinstance(kind, Array):
                self._array(kind.item, target, label)
            else:
                self._blob(kind is Kind.BYTES, target)

    def _blob(self, copy: bool, target: str) -> None:
        self._code.line("stop = pos + n")
        self._code.line("if stop > end: truncated()")
        self._code.line(f"{target} = {'bytes(view[pos:stop])' if copy else 'view[pos:stop]'}")
        self._code.line("pos = stop")

    def _array(self, item: WireType, target: str, label: str) -> None:
        code = self._code
        smallest = max(1, size_min(item, self._version, self._flexible))
        code.line("room -= n")
        code.line(f"if room < 0 or n * {smallest} > end - pos: too_many({label!r})")
        if isinstance(item, Fixed):
            code.line(f"{target} = list(unpack(f'>{{n}}{item.code}', data, pos))")
            code.line(f"pos += n * {item.size}")
            return
        code.line(f"{target} = []")
        with code.block("for _ in range(n):"):
            code.line(f"{target}.append({self._read(item, label)})")

    def _tagged(self, tagged: list[Field], values: dict[str, str]) -> None:
        code = self._code
        for field in tagged:
            values[field.name] = target = code.name(field.name)
            code.line(f"{target} = {self._default(field)}")
        with code.block("if data[pos] == 0:"):
            code.line("pos += 1")
        with code.block("else:"):
            if not tagged:
                code.line("pos = skip_tagged_fields(data, pos)")
                return
            left, tag, stop = code.name("left"), code.name("tag"), code.name("stop")
            code.line(f"{left}, pos = read_uvarint(data, pos)")
            with code.block(f"for _ in range({left}):"):
                code.line(f"{tag}, pos = read_uvarint(data, pos)")
                code.line(f"{stop}, pos = read_uvarint(data, pos)")
                code.line(f"{stop} += pos")
                code.line(f"if {stop} > end: truncated()")
                for field in tagged:
                    with code.block(f"if {tag} == {field.tag}:"):
                        code.line(f"{values[field.name]} = {self._value(field)}")
                        code.line(f"if pos != {stop}: wrong_tag_size({field.name!r})")
                code.line(f"pos = {stop}")
