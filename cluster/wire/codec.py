"""Frames to messages and back: headers, bodies, and the refusal of everything else.

A frame is one request or response without the length in front of it that TCP needs. A request
opens with key, version, correlation id and client id, a response with the correlation id alone;
compact versions add a section of tagged fields to either header, except that the response of
ApiVersions never has one (a client must read it before it knows what the broker speaks).

Owns the cache of compiled codecs: one per message and version, made when first needed, so that
importing costs nothing for what is never used. Invariant: every malformed frame raises WireError,
none allocates more than a constant times its own size.
"""

from __future__ import annotations

import struct
from functools import cache

import msgspec

from cluster.errors import UNSUPPORTED_VERSION
from cluster.limits import WIRE_ELEMENTS_MAX
from cluster.wire.apis import API_VERSIONS, APIS, Api
from cluster.wire.decoder import Decode, compile_decoder
from cluster.wire.encoder import Encode, Piece, compile_encoder
from cluster.wire.messages import ApiVersion, ApiVersionsResponse
from cluster.wire.primitives import (
    Data,
    UnknownApi,
    UnsupportedVersion,
    WireError,
    plain_string,
    read_plain_string,
    skip_tagged_fields,
)
from cluster.wire.schema import Message

_REQUEST_HEADER = struct.Struct(">hhi")
_CORRELATION_ID = struct.Struct(">i")
_NO_TAGS = b"\x00"
_NULL_STRING = b"\xff\xff"


class RequestHeader(msgspec.Struct, frozen=True, gc=False):
    """Which request this is; the answer repeats the correlation id."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None


def encode_request(
    api_key: int, version: int, correlation_id: int, client_id: str | None, body: Message
) -> bytes:
    """Build the frame of a request."""
    flexible, encode = _request_encoder(api_key, version)
    client = _NULL_STRING if client_id is None else plain_string(client_id)
    pieces: list[Piece] = [_REQUEST_HEADER.pack(api_key, version, correlation_id), client]
    if flexible:
        pieces.append(_NO_TAGS)
    return _join(encode, body, pieces)


def encode_response(api_key: int, version: int, correlation_id: int, body: Message) -> bytes:
    """Build the frame of a response."""
    tags_in_header, encode = _response_encoder(api_key, version)
    pieces: list[Piece] = [_CORRELATION_ID.pack(correlation_id)]
    if tags_in_header:
        pieces.append(_NO_TAGS)
    return _join(encode, body, pieces)


def decode_request(frame: Data) -> tuple[RequestHeader, Message]:
    """Read the frame of a request; records in it become views of the frame.

    What follows the message is left alone, as Kafka does: librdkafka 2.16 leaves three bytes more
    in a Metadata request for all topics, since it pads the null of a compact array.
    UnknownApi and UnsupportedVersion say what was asked for and by which correlation id.
    """
    try:
        api_key, version, correlation_id = _REQUEST_HEADER.unpack_from(frame)
        flexible, decode = _request_decoder(api_key, version, correlation_id)
        client_id, position = read_plain_string(frame, 8)
        if flexible:
            position = skip_tagged_fields(frame, position)
        body, _ = decode(frame, memoryview(frame), position, WIRE_ELEMENTS_MAX)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed request: {error}") from error
    return RequestHeader(api_key, version, correlation_id, client_id), body


def decode_response(api_key: int, version: int, frame: Data) -> tuple[int, Message]:
    """Read the frame of a response to a request of this key and version."""
    tags_in_header, decode = _response_decoder(api_key, version)
    try:
        (correlation_id,) = _CORRELATION_ID.unpack_from(frame)
        position = skip_tagged_fields(frame, 4) if tags_in_header else 4
        body, end = decode(frame, memoryview(frame), position, WIRE_ELEMENTS_MAX)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise WireError(f"malformed response: {error}") from error
    _refuse_rest(frame, end)
    return correlation_id, body


def encode_element(api_key: int, version: int, element: Message) -> bytes:
    """Encode one element of an array in a response, to be spliced into several of them."""
    pieces: list[Piece] = []
    return _join(_element_encoder(type(element), api_key, version), element, pieces)


def api_versions_fallback(correlation_id: int) -> bytes:
    """Answer ApiVersions of a version we do not serve, in version 0, which all read (KIP-511)."""
    api = APIS[API_VERSIONS]
    served = ApiVersion(API_VERSIONS, api.version_min, api.version_max)
    body = ApiVersionsResponse(error_code=UNSUPPORTED_VERSION.number, api_keys=[served])
    return encode_response(API_VERSIONS, 0, correlation_id, body)


def _join(encode: Encode, body: Message, pieces: list[Piece]) -> bytes:
    try:
        encode(body, pieces.append)
    except struct.error as error:
        raise WireError(f"{type(body).__name__} holds a value out of range: {error}") from error
    return b"".join(pieces)


def _refuse_rest(frame: Data, end: int) -> None:
    if end != len(frame):
        raise WireError(f"{len(frame) - end} bytes follow the message")


def _api(api_key: int, version: int, correlation_id: int) -> Api:
    api = APIS.get(api_key)
    if api is None:
        raise UnknownApi("no such API", api_key, version, correlation_id)
    if not api.version_min <= version <= api.version_max:
        raise UnsupportedVersion("version not served", api_key, version, correlation_id)
    return api


def _tags_in_response_header(api_key: int, version: int) -> bool:
    return version >= APIS[api_key].flexible_since and api_key != API_VERSIONS


_DECODERS: dict[tuple[int, int], tuple[bool, Decode]] = {}


def _request_decoder(api_key: int, version: int, correlation_id: int) -> tuple[bool, Decode]:
    entry = _DECODERS.get((api_key, version))
    if entry is None:
        api = _api(api_key, version, correlation_id)
        flexible = version >= api.flexible_since
        entry = (flexible, compile_decoder(api.request, version, flexible))
        _DECODERS[api_key, version] = entry
    return entry


@cache
def _response_decoder(api_key: int, version: int) -> tuple[bool, Decode]:
    api = _api(api_key, version, -1)
    decode = compile_decoder(api.response, version, version >= api.flexible_since)
    return _tags_in_response_header(api_key, version), decode


@cache
def _request_encoder(api_key: int, version: int) -> tuple[bool, Encode]:
    api = _api(api_key, version, -1)
    flexible = version >= api.flexible_since
    return flexible, compile_encoder(api.request, version, flexible)


@cache
def _response_encoder(api_key: int, version: int) -> tuple[bool, Encode]:
    api = _api(api_key, version, -1)
    encode = compile_encoder(api.response, version, version >= api.flexible_since)
    return _tags_in_response_header(api_key, version), encode


@cache
def _element_encoder(element: type[Message], api_key: int, version: int) -> Encode:
    api = _api(api_key, version, -1)
    return compile_encoder(element, version, version >= api.flexible_since)
