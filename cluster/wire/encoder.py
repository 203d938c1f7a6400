"""Generates the encoder of one message at one version: one straight-line function.

`encode(message, put)` hands the pieces of the encoding to `put` in order; joined, they are the
bytes. Records go through as the buffer they are, so that joining is their only copy. Elements of a
`spliced` type may be there already encoded, as bytes. WireError for null where the version does not
allow it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from cluster.wire import primitives
from cluster.wire.emit import Code, runs
from cluster.wire.primitives import uvarint
from cluster.wire.schema import Array, Field, Fixed, Kind, Message, WireType, fields_at

Piece = bytes | bytearray | memoryview
Encode = Callable[[Message, Callable[[Piece], None]], None]

_ENVIRONMENT = {
    "pack": struct.pack,
    "uvarint": uvarint,
    "no_tags": b"\x00",
    "null": primitives.null,
}


def compile_encoder(message: type[Message], version: int, flexible: bool) -> Encode:
    """The encoder of `message` at `version`; `flexible` versions are compact and have tags."""
    return _Encoder(version, flexible).function(message)


class _Encoder:
    def __init__(self, version: int, flexible: bool) -> None:
        self._version = version
        self._flexible = flexible
        self._code = Code(_ENVIRONMENT)
        style = "compact" if flexible else "plain"
        environment = self._code.environment
        environment["length"] = getattr(primitives, f"{style}_length")
        environment["string"] = getattr(primitives, f"{style}_string")

    def function(self, message: type[Message]) -> Encode:
        with self._code.block("def encode(m, put):"):
            self._code.line("pass")  # a message may have no field at this version
            self._message(message, "m", "put")
        return self._code.function("encode", f"encode {message.__name__} v{self._version}")

    def _message(self, message: type[Message], source: str, put: str) -> None:
        plain, tagged = fields_at(message, self._version)
        for run in runs(plain):
            if isinstance(run[0].type, Fixed):
                self._fixed(run, source, put)
            else:
                self._value(run[0], source, put)
        if self._flexible:
            self._tagged(tagged, source, put)

    def _fixed(self, run: list[Field], source: str, put: str) -> None:
        codes = [f.type.code for f in run if isinstance(f.type, Fixed)]
        pack = self._code.bind("pack", struct.Struct(">" + "".join(codes)).pack)
        values = ", ".join(f"{source}.{field.name}" for field in run)
        self._code.line(f"{put}({pack}({values}))")

    def _value(self, field: Field, source: str, put: str) -> None:
        nullable = field.nullable(self._version)
        if isinstance(field.type, type):
            self._write(field.type, f"{source}.{field.name}", put)
            return
        value = self._code.name(field.name)
        self._code.line(f"{value} = {source}.{field.name}")
        if not nullable:
            # What one version of a request may leave out, the answer's may have to name.
            self._code.line(f"if {value} is None: null({field.name!r})")
            self._write(field.type, value, put)
            return
        with self._code.block(f"if {value} is None:"):
            self._code.line(f"{put}({self._null(field.type)!r})")
        with self._code.block("else:"):
            self._write(field.type, value, put)

    def _null(self, kind: WireType) -> bytes:
        if self._flexible:
            return b"\x00"
        return b"\xff\xff" if kind is Kind.STRING else b"\xff\xff\xff\xff"

    def _write(self, kind: WireType, value: str, put: str) -> None:
        code = self._code
        if isinstance(kind, Fixed):
            code.line(f"{put}(pack('>{kind.code}', {value}))")
        elif kind is Kind.STRING:
            code.line(f"{put}(string({value}))")
        elif isinstance(kind, Kind):
            code.line(f"{put}(length(memoryview({value}).nbytes))")
            code.line(f"{put}({value})")
        elif isinstance(kind, Array):
            self._array(kind.item, value, put)
        else:
            self._message(kind, value, put)

    def _array(self, item: WireType, value: str, put: str) -> None:
        code = self._code
        code.line(f"{put}(length(len({value})))")
        if isinstance(item, Fixed):
            code.line(f"{put}(pack(f'>{{len({value})}}{item.code}', *{value}))")
            return
        element = code.name("element")
        with code.block(f"for {element} in {value}:"):
            if isinstance(item, type) and item.spliced:
                with code.block(f"if type({element}) is bytes:"):
                    code.line(f"{put}({element})")
                    code.line("continue")
            self._write(item, element, put)

    def _tagged(self, tagged: list[Field], source: str, put: str) -> None:
        code = self._code
        if not tagged:
            code.line(f"{put}(no_tags)")
            return
        defaults = [code.bind("default", field.default) for field in tagged]
        absent = [
            f"{source}.{field.name} == {default}"
            for field, default in zip(tagged, defaults, strict=True)
        ]
        with code.block(f"if {' and '.join(absent)}:"):
            code.line(f"{put}(no_tags)")
        with code.block("else:"):
            section, piece = code.name("section"), code.name("piece")
            code.line(f"{section} = []")
            for field, condition in zip(tagged, absent, strict=True):
                with code.block(f"if not {condition}:"):
                    code.line(f"{piece} = []")
                    self._value(field, source, f"{piece}.append")
                    code.line(f"{piece} = b''.join({piece})")
                    tag = uvarint(field.tag or 0)
                    code.line(f"{section}.append({tag!r} + uvarint(len({piece})) + {piece})")
            code.line(f"{put}(uvarint(len({section})))")
            code.line(f"{put}(b''.join({section}))")
