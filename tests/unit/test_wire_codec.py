"""Frames, headers, and the refusal of what is malformed."""

import struct

import pytest

from cluster.wire.apis import (
    API_VERSIONS,
    APIS,
    FAULT,
    METADATA,
    PRODUCE,
    SUPPORTED,
)
from cluster.wire.codec import (
    api_versions_fallback,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from cluster.wire.messages import (
    ApiVersion,
    ApiVersionsResponse,
    FaultRequest,
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
    MetadataResponseTopic,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from cluster.wire.primitives import UnknownApi, UnsupportedVersion, WireError, uvarint

BATCH = bytes(range(200))
REQUEST = ProduceRequest(
    acks=-1,
    timeout_ms=30_000,
    topic_data=[TopicProduceData("orders", [PartitionProduceData(3, BATCH)])],
)


def produce_frame(topics: bytes) -> bytes:
    """A produce request of version 11 whose encoded topics are `topics`."""
    header = struct.pack(">hhih", PRODUCE, 11, 1, -1) + b"\x00"
    return header + b"\x00" + struct.pack(">hi", -1, 1000) + topics


def test_a_produce_request_is_the_bytes_that_kafka_specifies() -> None:
    frame = encode_request(PRODUCE, 11, 7, "me", REQUEST)
    assert frame == (
        b"\x00\x00\x00\x0b\x00\x00\x00\x07\x00\x02me\x00"  # header v2: the client id is not compact
        b"\x00\xff\xff\x00\x00\x75\x30\x02\x07orders\x02\x00\x00\x00\x03\xc9\x01"
        + BATCH
        + b"\x00\x00\x00"
    )


def test_records_are_a_view_of_the_frame() -> None:
    frame = encode_request(PRODUCE, 11, 7, "me", REQUEST)
    _, body = decode_request(frame)
    assert isinstance(body, ProduceRequest)
    records = body.topic_data[0].partition_data[0].records
    assert isinstance(records, memoryview)
    assert records.obj is frame
    assert records == BATCH


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
def test_records_are_encoded_from_any_buffer(make: type) -> None:
    data = [TopicProduceData("orders", [PartitionProduceData(3, make(BATCH))])]
    body = ProduceRequest(acks=-1, timeout_ms=30_000, topic_data=data)
    expected = encode_request(PRODUCE, 11, 7, "me", REQUEST)
    assert encode_request(PRODUCE, 11, 7, "me", body) == expected


def test_a_frame_may_be_a_view_of_a_larger_buffer() -> None:
    frame = encode_request(PRODUCE, 11, 7, "me", REQUEST)
    header, body = decode_request(memoryview(b"before" + frame)[6:])
    assert header.client_id == "me"
    assert body == REQUEST


def test_a_client_that_does_not_know_the_verdict_skips_it() -> None:
    answer = PartitionProduceResponse(3, base_offset=41, verdict=2)
    body = ProduceResponse([TopicProduceResponse("orders", [answer])])
    frame = encode_response(PRODUCE, 9, 7, body)
    assert decode_response(PRODUCE, 9, frame) == (7, body)
    tag = uvarint(1000) + b"\x01\x02"
    assert frame.count(b"\x01" + tag) == 1
    stranger = frame.replace(b"\x01" + tag, b"\x01" + uvarint(1001) + b"\x01\x02")
    _, read = decode_response(PRODUCE, 9, stranger)
    assert isinstance(read, ProduceResponse)
    assert read.responses[0].partition_responses[0].verdict == 0


def test_a_version_without_tagged_fields_carries_no_verdict() -> None:
    answer = PartitionProduceResponse(3, base_offset=41, verdict=2)
    body = ProduceResponse([TopicProduceResponse("orders", [answer])])
    _, read = decode_response(PRODUCE, 8, encode_response(PRODUCE, 8, 7, body))
    assert isinstance(read, ProduceResponse)
    assert read.responses[0].partition_responses[0].verdict == 0


def test_unknown_tagged_fields_of_a_request_header_are_skipped() -> None:
    frame = encode_request(PRODUCE, 11, 7, "me", REQUEST)
    tagged = frame[:12] + b"\x01\x05\x03abc" + frame[13:]
    assert decode_request(tagged)[1] == REQUEST


def test_a_tagged_field_of_the_wrong_size_is_refused() -> None:
    answer = PartitionProduceResponse(3, base_offset=41, verdict=2)
    body = ProduceResponse([TopicProduceResponse("orders", [answer])])
    frame = encode_response(PRODUCE, 9, 7, body)
    tag = uvarint(1000)
    with pytest.raises(WireError, match="verdict"):
        decode_response(PRODUCE, 9, frame.replace(tag + b"\x01\x02", tag + b"\x02\x02\x00"))


def test_api_versions_never_has_tags_in_its_response_header() -> None:
    body = ApiVersionsResponse(api_keys=[ApiVersion(0, 0, 11)])
    frame = encode_response(API_VERSIONS, 3, 9, body)
    assert frame[:7] == b"\x00\x00\x00\x09\x00\x00\x02"


def test_an_unknown_version_of_api_versions_is_answered_in_version_0() -> None:
    with pytest.raises(UnsupportedVersion) as refused:
        decode_request(struct.pack(">hhih", API_VERSIONS, 9, 77, -1))
    frame = api_versions_fallback(refused.value.correlation_id)
    correlation_id, body = decode_response(API_VERSIONS, 0, frame)
    assert correlation_id == 77
    assert body == ApiVersionsResponse(error_code=35, api_keys=[ApiVersion(18, 0, 4)])


def test_an_unserved_request_says_which_one_it_was() -> None:
    with pytest.raises(UnknownApi) as unknown:
        decode_request(struct.pack(">hhih", 999, 2, 5, -1))
    assert (unknown.value.api_key, unknown.value.api_version) == (999, 2)
    with pytest.raises(UnsupportedVersion) as unsupported:
        decode_request(struct.pack(">hhih", PRODUCE, 12, 6, -1))
    assert (unsupported.value.api_version, unsupported.value.correlation_id) == (12, 6)
    with pytest.raises(UnsupportedVersion):
        encode_request(PRODUCE, -1, 1, None, REQUEST)


@pytest.mark.parametrize("frame", [b"", b"\x00\x00", struct.pack(">hhi", PRODUCE, 11, 1)])
def test_a_frame_shorter_than_a_header_is_refused(frame: bytes) -> None:
    with pytest.raises(WireError):
        decode_request(frame)


def test_bytes_after_a_request_are_left_alone_as_kafka_does() -> None:
    header, body = decode_request(encode_request(PRODUCE, 11, 7, "me", REQUEST) + b"abc")
    assert (header.correlation_id, body) == (7, REQUEST)


def test_librdkafka_asks_for_all_topics_with_bytes_to_spare() -> None:
    frame = "0003000c00000003000772646b61666b6100" + "00000000010000"
    _, body = decode_request(bytes.fromhex(frame))
    assert isinstance(body, MetadataRequest)
    assert body.topics is None


def test_bytes_after_a_response_are_refused() -> None:
    with pytest.raises(WireError, match="1 bytes follow"):
        decode_response(PRODUCE, 11, encode_response(PRODUCE, 11, 7, ProduceResponse()) + b"a")


@pytest.mark.parametrize(
    ("topics", "reason"),
    [
        pytest.param(b"\x00", "must not be null", id="null array"),
        pytest.param(uvarint(2**31), "more elements", id="huge count"),
        pytest.param(uvarint(50) + bytes(40), "more elements", id="count above the bytes left"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff\x01", "five bytes", id="endless number"),
        pytest.param(b"\x02\x00\x01\x00\x00", "must not be null", id="null name"),
        pytest.param(b"\x02\x7f" + b"a" * 20, "ends inside", id="name longer than the frame"),
        pytest.param(b"\x02\x02\xff\x01\x00\x00", "utf-8", id="name not UTF-8"),
    ],
)
def test_a_malformed_body_is_refused(topics: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode_request(produce_frame(topics))


def test_records_longer_than_the_frame_are_refused() -> None:
    topics = b"\x02\x02t\x02\x00\x00\x00\x00" + uvarint(2**31 - 1) + bytes(30)
    with pytest.raises(WireError, match="ends inside"):
        decode_request(produce_frame(topics))


def test_negative_lengths_of_the_plain_encoding_are_refused() -> None:
    for count in (-2, -(2**31)):
        frame = struct.pack(">hhihi", METADATA, 1, 1, -1, count)
        with pytest.raises(WireError, match="negative length"):
            decode_request(frame)
    with pytest.raises(WireError, match="negative length"):
        decode_request(struct.pack(">hhih", METADATA, 1, 1, -2))


def test_more_elements_than_a_message_may_have_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cluster.wire.codec.WIRE_ELEMENTS_MAX", 3)
    partitions = [PartitionProduceData(i, b"") for i in range(3)]
    frame = encode_request(
        PRODUCE, 11, 1, None, ProduceRequest(topic_data=[TopicProduceData("t", partitions)])
    )
    with pytest.raises(WireError, match="more elements"):
        decode_request(frame)


def test_a_value_that_does_not_fit_its_field_is_refused() -> None:
    with pytest.raises(WireError, match="out of range"):
        encode_request(PRODUCE, 11, 1, None, ProduceRequest(acks=40_000))


@pytest.mark.parametrize("version", [9, 10, 11])
def test_null_is_refused_where_a_version_does_not_allow_it(version: int) -> None:
    nameless = MetadataResponse(topics=[MetadataResponseTopic(name=None)])
    with pytest.raises(WireError, match="name must not be null"):
        encode_response(METADATA, version, 1, nameless)
    assert encode_response(METADATA, 12, 1, nameless)


def test_null_topics_ask_for_all_and_an_empty_list_for_none() -> None:
    nothing: list[MetadataRequestTopic] = []
    for topics in (None, nothing):
        frame = encode_request(METADATA, 12, 1, None, MetadataRequest(topics))
        assert decode_request(frame)[1] == MetadataRequest(topics)


def test_faults_travel_under_a_key_of_our_own() -> None:
    body = FaultRequest("drop-acks", percent=5, seed=-1, enabled=True)
    header, read = decode_request(encode_request(FAULT, 0, 1, "chaos", body))
    assert header.api_key == 1000
    assert read == body


def test_the_advertised_ranges_have_no_holes_and_start_where_clients_expect() -> None:
    assert SUPPORTED[PRODUCE] == (0, 11)
    assert all(low <= high for low, high in SUPPORTED.values())
    assert set(SUPPORTED) == set(APIS)
