"""Batch headers: golden vectors, what a client may not send, and walks over logs."""

import struct
from pathlib import Path

import pytest

from _fastseq import batch
from _fastseq.crc32c import crc32c

GOLDEN_LOGS = sorted((Path(__file__).parents[1] / "golden" / "log").glob("*/*.log"))

DATA = bytes.fromhex(
    "000000000000000000000041ffffffff020b793ed30000000000010000018bcfe568000000018bcfe5680a"
    "0000000000000007000300000005000000021000000001047631000c001402010000"
)
COMMIT = bytes.fromhex(
    "0000000000000064000000420000000402159354790030000000000000018bcfe568000000018bcfe56800"
    "00000000000000070003ffffffff000000012000000008000000010c00000000000900"
)
EMPTIED = bytes.fromhex(
    "000000000000006400000031000000040275dced87000000000003ffffffffffffffff0000018bcfe5680a"
    "000000000000000700030000000500000000"
)


def stamped(data: bytes, base_offset: int, leader_epoch: int = 0) -> bytes:
    """What a leader makes of a client's batch."""
    out = bytearray(data)
    struct.pack_into(">q", out, 0, base_offset)
    struct.pack_into(">i", out, 12, leader_epoch)
    return bytes(out)


def patched(data: bytes, code: str, position: int, value: int) -> bytes:
    """The batch with one header field changed and the checksum made right again."""
    out = bytearray(data)
    struct.pack_into(code, out, position, value)
    struct.pack_into(">I", out, 17, crc32c(out[21:]))
    return bytes(out)


def one_record_batch(value: bytes = b"v", producer_id: int = -1) -> bytes:
    return batch.encode_batch([(None, value, 1000, ())], producer_id=producer_id, base_sequence=0)


def small_log(sizes: list[int], first_offset: int = 0) -> tuple[bytes, list[int]]:
    """A log of batches with so many records each, and where each starts."""
    out, positions, offset = bytearray(), [], first_offset
    for size in sizes:
        positions.append(len(out))
        records = [(None, b"x" * 20, 1000 + offset + i, ()) for i in range(size)]
        out += stamped(batch.encode_batch(records), offset)
        offset += size
    return bytes(out), positions


def test_golden_data_batch_reads_as_kafka_wrote_it() -> None:
    header = batch.read_header(DATA)
    assert header == batch.BatchHeader(
        base_offset=0,
        size=77,
        leader_epoch=-1,
        magic=2,
        crc=0x0B793ED3,
        attributes=0,
        last_offset_delta=1,
        base_timestamp=1_700_000_000_000,
        max_timestamp=1_700_000_000_010,
        producer_id=7,
        producer_epoch=3,
        base_sequence=5,
        record_count=2,
    )
    assert (header.next_offset, header.is_control) == (2, False)
    assert batch.check_batch(DATA) == 0
    assert batch.control_key(DATA) is None


def test_golden_data_batch_is_what_the_encoder_writes() -> None:
    records = [(None, b"v1", 1_700_000_000_000, ()), (None, b"", 1_700_000_000_010, ())]
    assert batch.encode_batch(records, producer_id=7, producer_epoch=3, base_sequence=5) == DATA


def test_golden_marker_is_a_commit() -> None:
    header = batch.read_header(COMMIT)
    assert (header.base_offset, header.leader_epoch, header.producer_id) == (100, 4, 7)
    assert (header.is_control, header.base_sequence) == (True, -1)
    assert batch.control_key(COMMIT) == 1
    assert batch.scan(COMMIT, 0, -1, 100).reason == batch.SCAN_END


def test_golden_emptied_batch_keeps_its_offsets() -> None:
    header = batch.read_header(EMPTIED)
    assert (header.record_count, header.next_offset, header.base_timestamp) == (0, 104, -1)
    found = batch.scan(EMPTIED, 0, -1, 0)
    assert found == batch.Scan(61, 104, 1, 0, 1_700_000_000_010, 103, batch.SCAN_END)
    assert batch.decode_batch(EMPTIED) == []


@pytest.mark.parametrize("path", GOLDEN_LOGS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_logs_written_by_kafka_scan_to_their_end(path: Path) -> None:
    data = path.read_bytes()
    found = batch.scan(data, 0, len(data), int(path.stem))
    assert (found.reason, found.end_position) == (batch.SCAN_END, len(data))


def test_golden_logs_are_there() -> None:
    assert len(GOLDEN_LOGS) >= 10


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [
        (b"", 87),
        (DATA[:16], 87),
        (DATA[:60], 87),
        (DATA[:-1], 87),
        (DATA + DATA, 87),
        (DATA + b"\0", 87),
        (patched(DATA, ">b", 16, 1), 87),
        (patched(DATA, ">i", 8, 48), 2),
        (patched(DATA, ">i", 8, -1), 2),
        (stamped(DATA, 1), 87),
        (DATA[:-1] + b"\1", 2),
        (DATA[:17] + b"\0\0\0\0" + DATA[21:], 2),
        (patched(DATA, ">i", 57, 3), 87),
        (patched(DATA, ">i", 57, 0), 87),
        (patched(DATA, ">i", 57, -1), 87),
        (patched(DATA, ">i", 23, 0), 87),
        (patched(DATA, ">i", 23, -1), 87),
        (patched(DATA, ">h", 21, 0x20), 87),
        (patched(DATA, ">h", 21, 0x05), 87),
        (patched(DATA, ">i", 53, -1), 87),
        (patched(patched(DATA, ">i", 53, -1), ">q", 43, -1), 0),
        (patched(DATA, ">q", 35, 0), 0),
        (stamped(DATA, 0, 77), 0),
    ],
)
def test_batch_of_a_client_is_checked_as_kafka_does(spoilt: bytes, code: int) -> None:
    assert batch.check_batch(spoilt) == code


def test_count_beyond_the_sequence_space_is_refused() -> None:
    huge = patched(patched(DATA, ">i", 57, 2**31 - 1), ">i", 23, 2**31 - 2)
    assert batch.check_batch(patched(huge, ">h", 21, 4)) == 87
    assert batch.scan(huge, 0, -1, 0).reason == batch.SCAN_HEADER


def test_batch_above_the_size_limit_is_too_large() -> None:
    assert batch.check_batch(DATA, max_bytes=77) == 0
    assert batch.check_batch(DATA, max_bytes=76) == 10


def test_batch_is_checked_where_it_lies_in_a_frame() -> None:
    frame = b"head" + DATA + b"tail"
    assert batch.check_batch(frame, 4, len(DATA)) == 0
    assert batch.check_batch(frame, 4) == 87


@pytest.mark.parametrize("deltas", [(0, 7), (1, 0), (0, 0), (0, -1), (1, 2)])
def test_offset_deltas_that_do_not_count_up_are_refused(deltas: tuple[int, int]) -> None:
    blob = b"".join(
        b"\x0e\0\0" + bytes([((d << 1) ^ (d >> 31)) & 0xFF]) + b"\1\2v\0" for d in deltas
    )
    sealed = batch.seal_batch(blob, record_count=2, base_timestamp=0, max_timestamp=0)
    assert batch.check_batch(sealed) == 87


def test_compressed_batch_is_believed() -> None:
    sealed = batch.seal_batch(
        b"not checked", record_count=5, base_timestamp=0, max_timestamp=9, attributes=4
    )
    assert batch.check_batch(sealed) == 0
    with pytest.raises(ValueError, match="compressed"):
        batch.decode_batch(sealed)


def test_scan_stops_at_the_first_torn_batch() -> None:
    log, positions = small_log([1, 2, 3])
    found = batch.scan(log, 0, len(log) - 1, 0)
    assert (found.reason, found.end_position) == (batch.SCAN_SHORT, positions[2])
    assert (found.next_offset, found.batches, found.records) == (3, 2, 3)
    assert (found.max_timestamp, found.max_timestamp_offset) == (1002, 2)


def test_scan_stops_at_a_tail_of_zeros() -> None:
    log, _ = small_log([1])
    assert batch.scan(log + bytes(40), 0, -1, 0).reason == batch.SCAN_SHORT
    assert batch.scan(log + bytes(100), 0, -1, 0).reason == batch.SCAN_MAGIC
    assert batch.scan(log + bytes(16) + b"\2" + bytes(100), 0, -1, 0).reason == batch.SCAN_LENGTH
    assert batch.scan(log + bytes(100), 0, -1, 0).end_position == len(log)


def test_scan_stops_at_a_flipped_byte_unless_told_not_to_look() -> None:
    log, positions = small_log([1, 2, 3])
    spoilt = bytearray(log)
    spoilt[positions[1] + 70] ^= 1
    found = batch.scan(spoilt, 0, -1, 0)
    assert (found.reason, found.end_position) == (batch.SCAN_CRC, positions[1])
    assert batch.scan(spoilt, 0, -1, 0, check_crc=False).reason == batch.SCAN_END


def test_stale_batch_at_the_tail_is_not_taken_for_data() -> None:
    log, positions = small_log([1, 2])
    found = batch.scan(log + log[: positions[1]], 0, -1, 0)
    assert (found.reason, found.end_position, found.next_offset) == (
        batch.SCAN_ORDER,
        len(log),
        3,
    )


def test_scan_refuses_what_lies_below_the_expected_offset() -> None:
    log, _ = small_log([1])
    assert batch.scan(log, 0, -1, 1).reason == batch.SCAN_ORDER


def test_scan_steps_over_offsets_that_compaction_took() -> None:
    log, _ = small_log([1])
    later, _ = small_log([2], first_offset=10)
    found = batch.scan(log + later, 0, -1, 0)
    assert (found.reason, found.next_offset, found.records) == (batch.SCAN_END, 12, 3)


def test_first_batch_of_a_segment_is_never_indexed() -> None:
    log, positions = small_log([1] * 10)
    size = positions[1]
    points, since = batch.index_points(log, 0, -1, size - 1, 0)
    assert points == [(i, positions[i], 1000 + i, i) for i in range(1, 10)]
    assert since == size


def test_index_points_go_on_where_the_last_window_ended() -> None:
    log, positions = small_log([1] * 10)
    whole, since_whole = batch.index_points(log, 0, -1, 200, 0)
    head, since = batch.index_points(log, 0, positions[4], 200, 0)
    tail, since = batch.index_points(log, positions[4], -1, 200, since)
    assert head + [(o, p + positions[4], t, h) for o, p, t, h in tail] == whole
    assert since == since_whole


def test_index_points_carry_the_largest_timestamp_before_them() -> None:
    log, _ = small_log([1, 1])
    points, _ = batch.index_points(log, 0, -1, 0, 0, max_timestamp=5000, max_timestamp_offset=77)
    assert points[0][2:] == (5000, 77)


def test_batch_at_finds_the_batch_that_holds_an_offset() -> None:
    log, positions = small_log([1, 3, 2])
    assert [batch.batch_at(log, 0, -1, offset) for offset in range(7)] == [
        positions[0],
        *[positions[1]] * 3,
        *[positions[2]] * 2,
        len(log),
    ]


def test_whole_batches_end_at_or_below_the_limit() -> None:
    log, positions = small_log([1, 3, 2])
    assert batch.whole_batches(log, 0, -1, 0) == (0, -1)
    assert batch.whole_batches(log, 0, -1, 3) == (positions[1], 1)
    assert batch.whole_batches(log, 0, -1, 4) == (positions[2], 4)
    assert batch.whole_batches(log, 0, len(log) - 1, 100) == (positions[2], 4)
    assert batch.whole_batches(log, 0, -1, 100) == (len(log), 6)


def test_epoch_starts_are_where_the_leader_epoch_grew() -> None:
    one = batch.encode_batch([(None, b"", 0, ())])
    log = b"".join(stamped(one, i, epoch) for i, epoch in enumerate([0, 0, 2, 2, 5]))
    assert batch.epoch_starts(log, 0, -1) == [(0, 0), (2, 2), (5, 4)]
    assert batch.epoch_starts(log, 0, -1, 2) == [(5, 4)]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="data must be bytes-like"):
        batch.scan("x", 0, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected_offset"):
        batch.scan(b"", 0, 0, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="start 5"):
        batch.batch_at(b"", 5, 5, 0)
    with pytest.raises(ValueError, match="end"):
        batch.whole_batches(b"abc", 2, 1, 0)
    with pytest.raises(ValueError, match="end"):
        batch.index_points(b"abc", 0, 4, 0, 0)
    with pytest.raises(ValueError, match="length"):
        batch.check_batch(b"abc", 0, 4)
    with pytest.raises(ValueError, match="position"):
        batch.read_header(DATA, 17)
    with pytest.raises(ValueError, match="position"):
        batch.control_key(DATA[:70])
