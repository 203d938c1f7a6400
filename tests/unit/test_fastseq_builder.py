"""The batch builder: sizes while it grows, sealing, reuse, and wrong arguments."""

import pytest

from _fastseq import batch


def test_builder_tells_the_size_of_the_batch_it_would_seal() -> None:
    builder = batch.BatchBuilder()
    assert (builder.size, builder.count, builder.first_timestamp) == (61, 0, -1)
    for i in range(300):
        size = builder.append(1000 - i, b"k" * i, b"v", [("h", b"1")] * (i % 3))
        assert size == builder.size == len(builder.seal())
    assert (builder.count, builder.first_timestamp, builder.max_timestamp) == (300, 1000, 1000)


def test_sealing_again_changes_only_the_producer() -> None:
    builder = batch.BatchBuilder()
    builder.append(5, None, b"v")
    first = builder.seal(7, 0, 0)
    second = builder.seal(7, 1, 3)
    assert first == builder.seal(7, 0, 0)
    assert (batch.check_batch(first), batch.check_batch(second)) == (0, 0)
    header = batch.read_header(second)
    assert (header.producer_epoch, header.base_sequence) == (1, 3)
    assert first[61:] == second[61:] == builder.records()


def test_reset_makes_room_for_another_batch() -> None:
    builder = batch.BatchBuilder()
    builder.append(5, None, b"first")
    builder.reset()
    builder.append(9, None, b"second")
    (record,) = batch.decode_batch(builder.seal())
    assert (record.timestamp, record.value) == (9, b"second")


def test_any_bytes_like_part_is_accepted() -> None:
    builder = batch.BatchBuilder()
    builder.append(0, bytearray(b"k"), memoryview(b"v"), [("h", bytearray(b"1"))])
    (record,) = batch.decode_batch(builder.seal())
    assert record[2:] == (b"k", b"v", (("h", b"1"),))


def test_batch_needs_a_record() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        batch.encode_batch([])


def test_wrong_arguments_are_named_and_change_nothing() -> None:
    builder = batch.BatchBuilder()
    with pytest.raises(TypeError, match="key must be bytes-like"):
        builder.append(0, "k", b"v")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="value must be bytes-like"):
        builder.append(0, b"k", 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="timestamp_ms"):
        builder.append(None, b"k", b"v")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="timestamp_ms"):
        builder.append(2**63, b"k", b"v")
    with pytest.raises(TypeError, match="headers must be pairs"):
        builder.append(0, None, None, [("h",)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="name must be a str"):
        builder.append(0, None, None, [(b"h", b"v")])  # type: ignore[list-item]
    assert (builder.count, builder.size) == (0, 61)
    builder.append(0, None, None)
    with pytest.raises(ValueError, match="producer_epoch"):
        builder.seal(1, 32768, 0)
    with pytest.raises(ValueError, match="base_sequence"):
        builder.seal(1, 0, 2**31)
    with pytest.raises(TypeError, match="records must be"):
        batch.encode_batch([(b"k", b"v")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="record_count"):
        batch.seal_batch(b"", record_count=0, base_timestamp=0, max_timestamp=0)
    with pytest.raises(TypeError, match="blob"):
        batch.seal_batch(
            None,  # type: ignore[arg-type]
            record_count=1,
            base_timestamp=0,
            max_timestamp=0,
        )
