"""Compressed batches that are looked into, and what a broker does with those that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from typing import Any

import cramjam
import pytest

from _fastseq.batch import encode_batch
from _fastseq.crc32c import crc32c
from cluster import errors
from cluster.core import validate
from cluster.core.validate import look_into, refused
from cluster.limits import LOOKED_INTO_BYTES_MIN, LOOKED_INTO_BYTES_PER_TURN
from cluster.wire import messages
from tests.unit.core_world import TOPIC, ready

GZIP, SNAPPY, LZ4, ZSTD = range(1, 5)
PACK: dict[int, Callable[[bytes], Any]] = {
    GZIP: cramjam.gzip.compress,
    SNAPPY: cramjam.snappy.compress_raw,
    LZ4: cramjam.lz4.compress,
    ZSTD: cramjam.zstd.compress,
}
FULL = {"validate.records": "full"}


def packed(kind: int, *, claimed: int = 3, records: bytes | None = None) -> bytes:
    """A compressed batch of three records that says it has `claimed`, its checksum right."""
    plain = encode_batch([(None, b"value" * 9, 1_000 + i, ()) for i in range(3)])
    made = bytearray(plain[:61] + bytes(PACK[kind](plain[61:] if records is None else records)))
    struct.pack_into(">i", made, 8, len(made) - 12)
    struct.pack_into(">h", made, 21, kind)
    struct.pack_into(">i", made, 23, claimed - 1)
    struct.pack_into(">i", made, 57, claimed)
    struct.pack_into(">I", made, 17, crc32c(bytes(made[21:])))
    return bytes(made)


def sound(batch: bytes) -> bool:
    return look_into(batch)[0]


@pytest.mark.parametrize("kind", PACK)
def test_what_is_compressed_as_it_says_is_sound(kind: int) -> None:
    assert sound(packed(kind))


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"claimed": 2}, id="fewer"),
        pytest.param({"claimed": 4}, id="more"),
        pytest.param({"records": b"\xff" * 90}, id="no records"),
        pytest.param({"records": b""}, id="nothing"),
    ],
)
def test_what_holds_other_records_is_not(kind: int, wrong: dict[str, int]) -> None:
    assert not sound(packed(kind, **wrong))  # type: ignore[arg-type]


def test_what_does_not_decompress_is_not() -> None:
    for kind in PACK:
        made = packed(kind)
        assert not sound(made[:70] + bytes(len(made) - 70))


@pytest.mark.parametrize("kind", PACK)
def test_bomb_is_put_out_within_the_bound(kind: int) -> None:
    zeros = bytes(LOOKED_INTO_BYTES_MIN + 1)
    bomb = packed(kind, records=zeros)
    assert look_into(bomb) == (False, max(LOOKED_INTO_BYTES_MIN, 8 * len(bomb)))


def test_batch_may_become_a_few_times_its_own_size() -> None:
    noise = random.Random(1).randbytes(2 * 1024 * 1024)
    value = noise + bytes(LOOKED_INTO_BYTES_MIN)
    plain = encode_batch([(None, value, 1_000, ())])
    assert sound(packed(ZSTD, claimed=1, records=plain[61:]))


def test_turn_looks_into_no_more_than_its_bytes_and_has_the_rest_sent_again() -> None:
    bombs = LOOKED_INTO_BYTES_PER_TURN // LOOKED_INTO_BYTES_MIN
    zeros = packed(ZSTD, records=bytes(LOOKED_INTO_BYTES_MIN + 1))
    turn = [(3, packed(GZIP))] + [(10 + i, zeros) for i in range(64)] + [(99, packed(GZIP))]
    invalid, again = errors.INVALID_RECORD.number, errors.REQUEST_TIMED_OUT.number
    numbers = [number for number, _ in turn[1:]]
    assert list(refused(turn)) == list(
        zip(numbers, [invalid] * bombs + [again] * (len(numbers) - bombs), strict=True)
    )


def test_batch_that_a_turn_had_no_bytes_left_for_is_stored_when_it_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = ready(config=FULL)
    monkeypatch.setattr(validate, "LOOKED_INTO_BYTES_PER_TURN", 0)
    assert world.produce(packed(GZIP)) == (errors.REQUEST_TIMED_OUT.number, 0)
    assert world.produce(encode_batch([(None, b"v", 1, ())])) == (0, 1)
    monkeypatch.undo()
    assert world.produce(packed(GZIP)) == (0, 1)
    assert world.partition(world.leader()).replica.log.next_offset == 4


def test_topic_that_asks_for_it_gets_no_batch_that_lies() -> None:
    world = ready(config=FULL)
    assert world.produce(packed(GZIP, claimed=7)) == (errors.INVALID_RECORD.number, 0)
    assert world.produce(packed(GZIP)) == (0, 1)
    assert world.partition(world.leader()).replica.log.next_offset == 3
    believing = ready()
    assert believing.produce(packed(GZIP, claimed=7)) == (0, 1)


def test_uncompressed_batches_pass_it_by() -> None:
    world = ready(config=FULL)
    assert world.produce(encode_batch([(None, b"v", 1, ())])) == (0, 1)


def test_topic_with_the_time_of_the_append_says_so_to_its_clients() -> None:
    world = ready(config={"message.timestamp.type": "LogAppendTime"})
    part = messages.PartitionProduceData(index=0, records=encode_batch([(None, b"v", 1, ())]))
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    body = messages.ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=topics)
    began = world.now
    (answer,) = world.ask(world.leader(), body)
    assert isinstance(answer, messages.ProduceResponse)
    at = answer.responses[0].partition_responses[0].log_append_time_ms
    assert began <= at <= world.now


def test_client_that_asks_the_wrong_broker_is_told_the_right_one() -> None:
    world = ready()
    leader = world.leader()
    other = next(node_id for node_id in world.nodes if node_id != leader)
    part = messages.PartitionProduceData(index=0, records=encode_batch([(None, b"v", 1, ())]))
    topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
    (answer,) = world.ask(other, messages.ProduceRequest(acks=-1, topic_data=topics))
    assert isinstance(answer, messages.ProduceResponse)
    (found,) = answer.responses[0].partition_responses
    assert found.error_code == errors.NOT_LEADER_OR_FOLLOWER.number
    epoch = world.record().leader_epoch
    assert found.current_leader == messages.LeaderIdAndEpoch(leader_id=leader, leader_epoch=epoch)
    assert [(one.node_id, one.port) for one in answer.node_endpoints] == [(leader, 5549 + leader)]
