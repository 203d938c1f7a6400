"""Bad input of clients: the protocol's error or a counted reason, nothing stored, never the end."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from _fastseq.crc32c import crc32c
from cluster import errors
from cluster.core import effects, records
from cluster.limits import BATCH_BYTES_MAX
from cluster.wire import apis, codec, messages
from tests.unit.core_world import TOPIC, World, batch, ready

ACKED = (0, 1)
CRC, CRC_FROM, ATTRIBUTES, DELTA, SEQUENCE, COUNT, RECORDS = 17, 21, 21, 23, 53, 57, 61
GOOD = batch(-1, -1, b"a", b"b", b"c")


@pytest.fixture
def world() -> World:
    return ready()


def changed(position: int, layout: str, value: int, data: bytes = GOOD) -> bytes:
    """A batch with one field changed, its checksum right."""
    wrong = bytearray(data)
    struct.pack_into(layout, wrong, position, value)
    struct.pack_into(">I", wrong, CRC, crc32c(bytes(wrong[CRC_FROM:])))
    return bytes(wrong)


def hangups(world: World) -> list[str]:
    return [effect.reason for _, effect in world.emitted if isinstance(effect, effects.Hangup)]


def end_of(world: World) -> int:
    return world.partition(world.leader()).replica.log.next_offset


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        pytest.param(b"", errors.INVALID_RECORD, id="empty"),
        pytest.param(GOOD[:16], errors.INVALID_RECORD, id="not even a magic byte"),
        pytest.param(GOOD[:-1], errors.INVALID_RECORD, id="cut short"),
        pytest.param(GOOD + b"x", errors.INVALID_RECORD, id="bytes behind it"),
        pytest.param(GOOD + GOOD, errors.INVALID_RECORD, id="two batches"),
        pytest.param(GOOD[:-1] + b"\xff", errors.CORRUPT_MESSAGE, id="bad checksum"),
        pytest.param(changed(8, ">i", 3), errors.CORRUPT_MESSAGE, id="impossible length"),
        pytest.param(changed(16, ">b", 1), errors.INVALID_RECORD, id="old format"),
        pytest.param(changed(0, ">q", 5), errors.INVALID_RECORD, id="base offset"),
        pytest.param(changed(ATTRIBUTES, ">h", 0x20), errors.INVALID_RECORD, id="control batch"),
        pytest.param(changed(ATTRIBUTES, ">h", 0x10), errors.INVALID_TXN_STATE, id="transaction"),
        pytest.param(changed(ATTRIBUTES, ">h", 7), errors.INVALID_RECORD, id="unknown codec"),
        pytest.param(changed(COUNT, ">i", 2), errors.INVALID_RECORD, id="count too low"),
        pytest.param(changed(COUNT, ">i", -1), errors.INVALID_RECORD, id="negative count"),
        pytest.param(changed(DELTA, ">i", 7), errors.INVALID_RECORD, id="last offset delta"),
        pytest.param(
            changed(COUNT, ">i", 4, changed(DELTA, ">i", 3)),
            errors.INVALID_RECORD,
            id="one too many",
        ),
        pytest.param(
            changed(RECORDS + 3, ">b", 2), errors.INVALID_RECORD, id="offset deltas 1, 1, 2"
        ),
        pytest.param(
            batch(-1, -1, bytes(BATCH_BYTES_MAX)), errors.MESSAGE_TOO_LARGE, id="oversized"
        ),
    ],
)
def test_batch_that_is_wrong_is_refused_and_not_stored(
    world: World, wrong: bytes, code: errors.Code
) -> None:
    assert world.produce(wrong) == (code.number, 0)
    assert end_of(world) == 0
    assert world.produce(GOOD) == ACKED
    assert end_of(world) == 3


def test_negative_sequence_of_a_known_producer_is_refused(world: World) -> None:
    producer_id = world.new_producer()
    wrong = changed(SEQUENCE, ">i", -1, batch(producer_id, 0))
    assert world.produce(wrong) == (errors.INVALID_RECORD.number, 0)
    assert world.produce(batch(producer_id, 0)) == ACKED


def test_id_never_handed_out_is_refused_for_now_and_for_good_once_the_bound_is_read(
    world: World,
) -> None:
    never = 10**12
    assert world.produce(batch(never, 0)) == (errors.NOT_ENOUGH_REPLICAS.number, 0)
    assert world.produce(batch(never, 0)) == (errors.INVALID_RECORD.number, 0)
    assert end_of(world) == 0


def test_id_never_handed_out_makes_no_other_id_invalid(world: World) -> None:
    leader, never = world.leader(), 2**62
    world.produce(batch(never, 0))
    assert world.produce(batch(never, 0)) == (errors.INVALID_RECORD.number, 0)
    bound = world.nodes[leader].producer_ids.bound
    # Another broker has handed it out, and this one has not heard of the new bound yet.
    assert world.produce(batch(bound, 0), wait_ms=1) == (errors.NOT_ENOUGH_REPLICAS.number, 0)
    value = records.encode(records.ProducerIds(bound + 1_000))
    world.tell(world.store.write({records.PRODUCER_IDS_KEY: value}))
    world.run(20)
    assert world.produce(batch(bound, 0)) == ACKED
    assert world.produce(batch(never, 0)) == (errors.NOT_ENOUGH_REPLICAS.number, 0)


def test_bound_is_read_once_however_many_ask_for_it(world: World) -> None:
    leader = world.leader()
    before = len(world.store.asked)
    frames = [produce_frame(batch(10**12 + number, 0)) for number in range(50)]
    world.send(leader, *frames)
    world.run(20)
    assert len(world.store.asked) == before + 1


def produce_frame(records: bytes) -> bytes:
    part = messages.PartitionProduceData(index=0, records=records)
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    body = messages.ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=topics)
    return codec.encode_request(apis.PRODUCE, 11, 1, "test", body)


def produced(
    world: World, *parts: tuple[str, int, bytes | None], acks: int = -1, node_id: int = 0,
    transactional_id: str | None = None,
) -> list[int]:  # fmt: skip
    """The errors of one request, in order."""
    topics = [
        messages.TopicProduceData(
            name=name, partition_data=[messages.PartitionProduceData(index=index, records=data)]
        )
        for name, index, data in parts
    ]
    body = messages.ProduceRequest(
        transactional_id=transactional_id, acks=acks, timeout_ms=500, topic_data=topics
    )
    found = []
    for answer in world.ask(node_id or world.leader(), body):
        assert isinstance(answer, messages.ProduceResponse)
        for topic in answer.responses:
            found += [part.error_code for part in topic.partition_responses]
    return found


def test_absent_records_are_no_batch(world: World) -> None:
    assert produced(world, (TOPIC, 0, None)) == [errors.INVALID_RECORD.number]


def test_partition_named_twice_gets_neither_batch(world: World) -> None:
    wrong = errors.INVALID_RECORD.number
    assert produced(world, (TOPIC, 0, GOOD), (TOPIC, 0, GOOD)) == [wrong, wrong]
    assert end_of(world) == 0


def test_other_partitions_of_a_request_do_not_suffer(world: World) -> None:
    wanted = [(TOPIC, 0, GOOD), ("..", 0, GOOD), (TOPIC, -1, GOOD), (TOPIC, 2**31 - 1, GOOD)]
    unknown = errors.UNKNOWN_TOPIC_OR_PARTITION.number
    assert sorted(produced(world, *wanted)) == [0, unknown, unknown, unknown]
    assert end_of(world) == 3


def test_request_without_partitions_is_answered(world: World) -> None:
    (answer,) = world.ask(world.leader(), messages.ProduceRequest(acks=-1))
    assert answer == messages.ProduceResponse()


@pytest.mark.parametrize("acks", [2, -2, 32_767])
def test_acks_that_do_not_exist_are_refused(world: World, acks: int) -> None:
    assert produced(world, (TOPIC, 0, GOOD), acks=acks) == [errors.INVALID_REQUIRED_ACKS.number]


def test_transactions_are_refused(world: World) -> None:
    refused = errors.TRANSACTIONAL_ID_AUTHORIZATION_FAILED.number
    assert produced(world, (TOPIC, 0, GOOD), transactional_id="x") == [refused]
    (answer,) = world.ask(1, messages.InitProducerIdRequest(transactional_id="x"))
    assert isinstance(answer, messages.InitProducerIdResponse)
    assert (answer.error_code, answer.producer_id) == (refused, -1)


def test_follower_stores_nothing_for_a_client(world: World) -> None:
    follower = next(node_id for node_id in world.nodes if node_id != world.leader())
    refused = errors.NOT_LEADER_OR_FOLLOWER.number
    assert produced(world, (TOPIC, 0, GOOD), node_id=follower) == [refused]


def test_nothing_is_answered_to_who_asked_for_no_answer(world: World) -> None:
    assert produced(world, (TOPIC, 0, GOOD), acks=0) == []
    assert produced(world, (TOPIC, 0, b"wrong"), acks=0) == []
    assert end_of(world) == 3


def test_request_that_times_out_is_told_so_and_forgotten(world: World) -> None:
    leader = world.leader()
    world.blocked.update((node_id, leader) for node_id in world.nodes)
    assert world.produce(GOOD, wait_ms=900) is None
    world.run(400)
    (frame,) = world.replies
    (topic,) = codec.decode_response(apis.PRODUCE, 11, frame)[1].responses  # type: ignore[attr-defined]
    assert topic.partition_responses[0].error_code == errors.REQUEST_TIMED_OUT.number


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "WireError"),
        (b"\x00", "WireError"),
        (bytes(8), "UnsupportedVersion"),
        (b"\xff" * 100, "UnknownApi"),
        (struct.pack(">hhih", 999, 0, 1, -1), "UnknownApi"),
        (struct.pack(">hhih", apis.FETCH, 99, 1, -1), "UnsupportedVersion"),
        (struct.pack(">hhih", apis.METADATA, 12, 1, 30_000), "WireError"),
        (struct.pack(">hhihb", apis.METADATA, 12, 1, -1, 0) + b"\xff" * 9, "WireError"),
        (produce_frame(GOOD)[:-5], "WireError"),
    ],
)
def test_frame_that_is_no_request_is_counted_and_gets_no_answer(
    world: World, frame: bytes, reason: str
) -> None:
    world.replies.clear()
    world.send(1, frame)
    world.run(50)
    assert world.nodes[1].requests.rejected[reason] == 1
    assert len(hangups(world)) == 1
    assert world.replies == []
    assert world.produce(GOOD) == ACKED


def test_client_of_another_time_is_told_which_versions_there_are(world: World) -> None:
    world.replies.clear()
    world.send(1, struct.pack(">hhih", apis.API_VERSIONS, 99, 5, -1))
    world.run(50)
    (frame,) = world.replies
    _, answer = codec.decode_response(apis.API_VERSIONS, 0, frame)
    assert isinstance(answer, messages.ApiVersionsResponse)
    assert answer.error_code == errors.UNSUPPORTED_VERSION.number


def test_topic_asked_for_by_an_id_that_nobody_has_is_unknown_in_every_version(
    world: World,
) -> None:
    wish = messages.MetadataRequestTopic(name=None, topic_id=b"x" * 16)
    for version, name in ((10, ""), (11, ""), (12, None)):
        (answer,) = world.ask(1, messages.MetadataRequest(topics=[wish]), version=version)
        assert isinstance(answer, messages.MetadataResponse)
        (topic,) = answer.topics
        assert (topic.error_code, topic.name) == (errors.UNKNOWN_TOPIC_ID.number, name)


@pytest.mark.parametrize("timestamp", [-4, -(2**63)])
def test_time_that_stands_for_nothing_is_an_invalid_request(world: World, timestamp: int) -> None:
    part = messages.ListOffsetsPartition(partition_index=0, timestamp=timestamp)
    topics = [messages.ListOffsetsTopic(name=TOPIC, partitions=[part, part])]
    (answer,) = world.ask(world.leader(), messages.ListOffsetsRequest(topics=topics))
    assert isinstance(answer, messages.ListOffsetsResponse)
    codes = [part.error_code for part in answer.topics[0].partitions]
    assert codes == [errors.INVALID_REQUEST.number] * 2


@pytest.mark.parametrize("kind", ["", "explode", "drop-acks"])
def test_fault_that_does_not_exist_is_refused(world: World, kind: str) -> None:
    (answer,) = world.ask(1, messages.FaultRequest(kind=kind, percent=101))
    assert isinstance(answer, messages.FaultResponse)
    assert answer.error_code == errors.INVALID_REQUEST.number


MANGLED: list[Callable[[bytes], bytes]] = [
    lambda frame: frame[: len(frame) // 2],
    lambda frame: frame[:10] + b"\xff" * (len(frame) - 10),
    lambda frame: frame[:-1] + bytes([frame[-1] ^ 1]),
    lambda frame: frame * 2,
]


@pytest.mark.parametrize("mangle", MANGLED)
@pytest.mark.parametrize("key", sorted(apis.APIS))
def test_every_request_mangled_is_survived(
    world: World, key: int, mangle: Callable[[bytes], bytes]
) -> None:
    if key == apis.FAULT:
        frame = codec.encode_request(key, 0, 1, "test", messages.FaultRequest(kind="status"))
    else:
        frame = codec.encode_request(key, apis.SUPPORTED[key][1], 1, "t", apis.APIS[key].request())
    for node_id in world.nodes:
        world.send(node_id, mangle(frame), frame)
    world.run(50)
    assert world.produce(GOOD) == ACKED
