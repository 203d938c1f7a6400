"""Records: decoding, timestamps, headers and everything malformed."""

import pytest

from _fastseq import batch


def sealed(blob: bytes, count: int, **fields: int) -> bytes:
    return batch.seal_batch(
        blob, record_count=count, **({"base_timestamp": 0, "max_timestamp": 0} | fields)
    )


def test_records_come_back_as_they_went_in() -> None:
    records = [
        (b"k", b"v", 1000, [("a", b"1"), ("ü", None), ("", b"")]),
        (None, b"", 990, ()),
        (b"", None, 2**40, ()),
        (b"x" * 200, b"y" * 70_000, -1, [("long" * 50, b"z" * 300)]),
    ]
    decoded = batch.decode_batch(batch.encode_batch(records))
    assert decoded == [
        (i, timestamp, key, value, tuple(headers))
        for i, (key, value, timestamp, headers) in enumerate(records)
    ]
    assert decoded[0].headers == (("a", b"1"), ("ü", None), ("", b""))
    assert type(decoded[0]) is batch.Record


def test_broker_timestamps_replace_those_of_the_records() -> None:
    data = batch.encode_batch([(None, b"a", 5, ()), (None, b"b", 9, ())], attributes=8)
    assert [record.timestamp for record in batch.decode_batch(data)] == [9, 9]


def test_decompressed_section_decodes_with_its_header() -> None:
    builder = batch.BatchBuilder()
    builder.append(10, b"k", b"v")
    builder.append(12, None, b"w")
    header = batch.read_header(builder.seal())._replace(base_offset=40)
    decoded = batch.decode_records(builder.records(), header)
    assert [(r.offset, r.timestamp, r.value) for r in decoded] == [(40, 10, b"v"), (41, 12, b"w")]


def test_header_name_that_is_not_utf8_does_not_stop_the_reader() -> None:
    blob = b"\x14\0\0\0\1\1\2\2\xff\1"
    (record,) = batch.decode_batch(sealed(b"\x12" + blob[1:], 1))
    assert record.headers == (("\ufffd", None),)


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\x0e",
        b"\x0e\0\0\0\1\2v",  # body cut off
        b"\x0c\0\0\0\1\2v\0",  # body shorter than its parts
        b"\x10\0\0\0\1\2v\0\0",  # body longer than its parts
        b"\x0e\0\0\0\1\2v\0\0",  # a byte after the last record
        b"\x01\0\0\0\1\2v\0",  # negative length
        b"\x0e\0\0\0\3\2v\0",  # key length -2
        b"\x0e\0\0\0\1\4v\0",  # value longer than the body
        b"\x0e\0\0\0\1\2v\1",  # header count -1
        b"\x0e\0\0\0\1\2v\4",  # headers announced, none there
        b"\x14\0\0\0\1\2v\2\1\1\0",  # header without a name
        b"\xff\xff\xff\xff\xff\1\0\0\0\1\2v\0",  # varint of six bytes
        b"\xff\xff\xff\xff\x7f\0\0\0\1\2v\0",  # varint beyond 32 bits
        b"\x20\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\2\0\1\2v\0",  # varlong beyond 64 bits
    ],
)
def test_malformed_record_is_refused(blob: bytes) -> None:
    data = sealed(blob, 1)
    assert batch.check_batch(data) == 87
    with pytest.raises(ValueError, match=r"malformed|bytes left"):
        batch.decode_batch(data)


def test_extreme_timestamp_deltas_are_read() -> None:
    data = batch.encode_batch([(None, b"", -(2**63), ()), (None, b"", 2**63 - 1, ())])
    assert [r.timestamp for r in batch.decode_batch(data)] == [-(2**63), 2**63 - 1]
    assert batch.check_batch(data) == 0


def test_decode_names_what_is_wrong() -> None:
    with pytest.raises(TypeError, match="data"):
        batch.decode_batch(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="ends inside"):
        batch.decode_batch(batch.encode_batch([(None, b"", 0, ())])[:-1])
    with pytest.raises(ValueError, match="no record batch"):
        batch.decode_batch(bytes(100))
    header = batch.read_header(batch.encode_batch([(None, b"", 0, ())]))
    with pytest.raises(TypeError, match="blob"):
        batch.decode_records(7, header)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="record_count"):
        batch.decode_records(b"", header._replace(record_count=-1))
