"""Every message at every served version: round trip, agreement with kafka-python, refusal."""

import importlib
import uuid
import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from cluster.wire.apis import APIS, FAULT, METADATA
from cluster.wire.codec import (
    decode_request,
    decode_response,
    encode_element,
    encode_request,
    encode_response,
)
from cluster.wire.messages import ApiVersionsResponse, MetadataResponse
from cluster.wire.primitives import WireError
from cluster.wire.schema import (
    NO_UUID,
    Array,
    Field,
    Fixed,
    Kind,
    Message,
    WireType,
    fields_at,
    fields_of,
)

CASES = [
    (key, version)
    for key, api in APIS.items()
    for version in range(api.version_min, api.version_max + 1)
]
OUR_TAGS = 1000
"""Tagged fields from this number on are ours alone; kafka-python gets them at their defaults."""
# Likewise, since it turns the bits of authorized operations into a set under another name.
NOT_COMPARED = {
    "authorized_operations",
    "topic_authorized_operations",
    "cluster_authorized_operations",
}
few = settings(max_examples=max(10, settings().max_examples // 8))


@cache
def kafka_python(name: str) -> Any:
    """The class of kafka-python for the message `name`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it reads its schemas the old way
        modules = [
            importlib.import_module(f"kafka.protocol.{module}")
            for module in ("producer", "consumer", "metadata", "admin")
        ]
    return next(getattr(module, name) for module in modules if hasattr(module, name))


def values(kind: WireType, version: int) -> st.SearchStrategy[Any]:
    if isinstance(kind, Fixed):
        if kind.code == "?":
            return st.booleans()
        if kind.code == "16s":
            return st.binary(min_size=16, max_size=16)
        bound = 2 ** (8 * kind.size - 1)
        return st.integers(-bound, bound - 1)
    if isinstance(kind, Array):
        return st.lists(values(kind.item, version), max_size=3)
    if isinstance(kind, Kind):
        return st.text(max_size=140) if kind is Kind.STRING else st.binary(max_size=140)
    return messages(kind, version)


def field_values(field: Field, version: int) -> st.SearchStrategy[Any]:
    strategy = values(field.type, version)
    return st.none() | strategy if field.nullable(version) else strategy


@cache
def messages(message: type[Message], version: int) -> st.SearchStrategy[Message]:
    plain, tagged = fields_at(message, version)
    return st.builds(message, **{f.name: field_values(f, version) for f in [*plain, *tagged]})


@pytest.mark.parametrize(("key", "version"), CASES)
@few
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same(key: int, version: int, data: st.DataObject) -> None:
    correlation_id = data.draw(st.integers(-(2**31), 2**31 - 1))
    request = data.draw(messages(APIS[key].request, version))
    client_id = data.draw(st.none() | st.text(max_size=20))
    header, body = decode_request(encode_request(key, version, correlation_id, client_id, request))
    assert body == request
    assert (header.api_key, header.api_version) == (key, version)
    assert (header.correlation_id, header.client_id) == (correlation_id, client_id)

    response = data.draw(messages(APIS[key].response, version))
    frame = encode_response(key, version, correlation_id, response)
    assert decode_response(key, version, frame) == (correlation_id, response)


@pytest.mark.parametrize(("key", "version"), [case for case in CASES if case[0] != FAULT])
@few
@given(data=st.data())
def test_kafka_python_reads_the_same_values_and_writes_the_same_bytes(
    key: int, version: int, data: st.DataObject
) -> None:
    request = comparable(data.draw(messages(APIS[key].request, version)))
    flexible = version >= APIS[key].flexible_since
    agree(request, version, encode_request(key, version, 7, None, request)[10 + flexible :])
    response = comparable(data.draw(messages(APIS[key].response, version)))
    if isinstance(response, ApiVersionsResponse):
        response = structs.replace(response, error_code=0)  # else it reads version 0, as it may
    tags = flexible and key != 18
    agree(response, version, encode_response(key, version, 7, response)[4 + tags :])


def agree(message: Message, version: int, encoded: bytes) -> None:
    theirs = kafka_python(type(message).__name__).decode(encoded, version=version)
    assert not list(differences(message, theirs, version, ""))
    theirs._header = None  # its decoder leaves the slot unset, its encoder reads it
    assert theirs.encode(version=version) == encoded


def differences(ours: Any, theirs: Any, version: int, path: str) -> Iterator[str]:
    if isinstance(ours, Message) and theirs is not None:
        plain, tagged = fields_at(type(ours), version)
        for field in [*plain, *tagged]:
            if field.name not in NOT_COMPARED and not ours_alone(field):
                here = getattr(ours, field.name)
                there = getattr(theirs, field.name)
                yield from differences(here, there, version, f"{path}.{field.name}")
    elif isinstance(ours, list) and theirs is not None:
        assert len(ours) == len(theirs), path
        for index, (here, there) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(here, there, version, f"{path}[{index}]")
    elif theirs is None:
        # An absent tagged struct and an id of zeros read as None there.
        if ours not in (None, NO_UUID) and ours != type(ours)():
            yield f"{path}: {ours!r} is missing"
    elif (theirs.bytes if isinstance(theirs, uuid.UUID) else theirs) != ours:
        yield f"{path}: {ours!r} != {theirs!r}"


def comparable(message: Any) -> Any:
    """The same message with the fields that are not compared at their defaults."""
    if isinstance(message, list):
        return [comparable(item) for item in message]
    if not isinstance(message, Message):
        return message
    fields = [f for f in fields_of(type(message)) if f.name not in NOT_COMPARED]
    kept = (f.name for f in fields if not ours_alone(f))
    return type(message)(**{name: comparable(getattr(message, name)) for name in kept})


def ours_alone(field: Field) -> bool:
    """Whether no client of Kafka knows this field."""
    return field.tag is not None and field.tag >= OUR_TAGS


@pytest.mark.parametrize("version", range(13))
@few
@given(data=st.data())
def test_elements_that_are_encoded_already_are_the_same_bytes(
    version: int, data: st.DataObject
) -> None:
    response = data.draw(messages(MetadataResponse, version))
    assert isinstance(response, MetadataResponse)
    elements = [encode_element(METADATA, version, topic) for topic in response.topics]
    kept = data.draw(st.lists(st.booleans(), min_size=len(elements), max_size=len(elements)))
    mixed = [
        element if known else topic
        for element, topic, known in zip(elements, response.topics, kept, strict=True)
    ]
    spliced = structs.replace(response, topics=mixed)
    whole = encode_response(METADATA, version, 7, response)
    assert encode_response(METADATA, version, 7, spliced) == whole


@pytest.mark.parametrize(("key", "version"), CASES)
@few
@given(data=st.data())
def test_a_frame_cut_anywhere_is_refused(key: int, version: int, data: st.DataObject) -> None:
    request = encode_request(key, version, 1, "c", data.draw(messages(APIS[key].request, version)))
    with pytest.raises(WireError):
        decode_request(request[: data.draw(st.integers(0, len(request) - 1))])
    response = encode_response(key, version, 1, data.draw(messages(APIS[key].response, version)))
    with pytest.raises(WireError):
        decode_response(key, version, response[: data.draw(st.integers(0, len(response) - 1))])


@pytest.mark.parametrize(("key", "version"), CASES)
@few
@given(data=st.data())
def test_a_damaged_frame_is_read_or_refused_but_never_breaks_the_reader(
    key: int, version: int, data: st.DataObject
) -> None:
    request = bytearray(
        encode_request(key, version, 1, "c", data.draw(messages(APIS[key].request, version)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        request[data.draw(st.integers(0, len(request) - 1))] = data.draw(st.integers(0, 255))
    try:
        header, body = decode_request(bytes(request))
    except WireError:
        return
    assert isinstance(body, APIS[header.api_key].request)
