"""Reading records out of fetched bytes."""

import pytest

from _fastseq.batch import BatchBuilder, encode_batch
from cluster.wire.primitives import WireError
from cluster.wire.records import CorruptBatch, next_offset, read_batches, read_records

# Golden vectors: bytes produced by Apache Kafka's own classes.
MARKER = bytes.fromhex(
    "0000000000000064000000420000000402159354790030000000000000018bcfe568000000018bcfe568"
    "0000000000000000070003ffffffff000000012000000008000000010c00000000000900"
)
EMPTIED = bytes.fromhex(
    "000000000000006400000031000000040275dced87000000000003ffffffffffffffff0000018bcfe5680a"
    "000000000000000700030000000500000000"
)
DATA = bytes.fromhex(
    "000000000000000000000041ffffffff020b793ed30000000000010000018bcfe568000000018bcfe5680a"
    "0000000000000007000300000005000000021000000001047631000c001402010000"
)


def batch(base_offset: int, *values: bytes) -> bytes:
    encoded = encode_batch([(None, value, 1000 + i, ()) for i, value in enumerate(values)])
    return base_offset.to_bytes(8, "big") + encoded[8:]


def test_the_golden_batch_holds_its_two_records() -> None:
    first, second = read_records(DATA)
    assert (first.offset, first.timestamp, first.key, first.value) == (
        0,
        1_700_000_000_000,
        None,
        b"v1",
    )
    assert (second.offset, second.timestamp, second.value) == (1, 1_700_000_000_010, b"")


def test_a_reader_gets_past_batches_that_hold_nothing_for_it() -> None:
    assert read_records(MARKER) == []
    assert next_offset(MARKER, 100) == 101
    assert read_records(EMPTIED) == []
    assert next_offset(EMPTIED, 102) == 104


def test_offsets_before_the_one_asked_for_are_dropped() -> None:
    data = batch(0, b"a", b"b", b"c") + batch(3, b"d")
    assert [record.value for record in read_records(data, 1)] == [b"b", b"c", b"d"]
    assert [record.offset for record in read_records(data, 3)] == [3]
    assert read_records(data, 4) == []
    assert next_offset(data, 0) == 4
    assert next_offset(data, 9) == 9


@pytest.mark.parametrize("cut", [1, 20, 61, 65])
def test_a_torn_last_batch_is_left_for_the_next_fetch(cut: int) -> None:
    data = batch(0, b"a") + batch(1, b"b")
    torn = data[:-cut]
    assert [record.value for record in read_records(torn)] == [b"a"]
    assert next_offset(torn, 0) == 1


def test_a_wrong_checksum_is_refused_unless_nobody_asks() -> None:
    data = bytearray(batch(0, b"aaaa"))
    data[-2] ^= 1
    with pytest.raises(CorruptBatch, match="checksum"):
        read_records(bytes(data))
    assert len(read_records(bytes(data), check_crc=False)) == 1


@pytest.mark.parametrize(
    "damage", [pytest.param((16, 1), id="magic"), pytest.param((8, 0xFF), id="length")]
)
def test_what_cannot_be_a_batch_is_refused(damage: tuple[int, int]) -> None:
    data = bytearray(batch(0, b"aaaa"))
    data[damage[0]] = damage[1]
    with pytest.raises(CorruptBatch, match="no batch"):
        list(read_batches(bytes(data)))


def test_compressed_bytes_that_are_not_records_are_refused() -> None:
    builder = BatchBuilder()
    builder.append(1000, None, b"value")
    sealed = builder.seal(attributes=4)  # says zstd, is not
    with pytest.raises(CorruptBatch, match="cannot be read"):
        read_records(sealed)


def test_a_corrupt_batch_is_a_wire_error() -> None:
    assert issubclass(CorruptBatch, WireError)
