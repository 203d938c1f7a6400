"""Compressed batches read as the records that went in, whatever the codec and the framing."""

from collections.abc import Callable

import cramjam
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastseq.batch import BatchBuilder, seal_batch
from cluster.wire.compression import GZIP, LZ4, SNAPPY, ZSTD, decompress
from cluster.wire.primitives import WireError
from cluster.wire.records import read_records

blob = st.none() | st.binary(max_size=300)
record = st.tuples(
    st.integers(0, 2**41),
    blob,
    blob,
    st.lists(st.tuples(st.text(max_size=5), blob), max_size=2),
)


def xerial(data: bytes, block_bytes: int) -> bytes:
    """What snappy-java writes: a header, then blocks with their lengths."""
    framed = b"\x82SNAPPY\x00" + bytes([0, 0, 0, 1, 0, 0, 0, 1])
    for start in range(0, len(data), block_bytes):
        block = bytes(cramjam.snappy.compress_raw(data[start : start + block_bytes]))
        framed += len(block).to_bytes(4, "big") + block
    return framed


PACK: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (GZIP, lambda data: bytes(cramjam.gzip.compress(data))),
    "snappy raw": (SNAPPY, lambda data: bytes(cramjam.snappy.compress_raw(data))),
    "snappy framed": (SNAPPY, lambda data: xerial(data, 100)),
    "lz4": (LZ4, lambda data: bytes(cramjam.lz4.compress(data))),
    "zstd": (ZSTD, lambda data: bytes(cramjam.zstd.compress(data))),
}


@pytest.mark.parametrize("name", PACK)
@given(records=st.lists(record, min_size=1, max_size=20))
def test_records_survive_compression(
    name: str, records: list[tuple[int, bytes | None, bytes | None, list[tuple[str, bytes | None]]]]
) -> None:
    codec, pack = PACK[name]
    builder = BatchBuilder()
    for timestamp, key, value, headers in records:
        builder.append(timestamp, key, value, headers)
    sealed = seal_batch(
        pack(builder.records()),
        record_count=len(records),
        base_timestamp=records[0][0],
        max_timestamp=max(timestamp for timestamp, *_ in records),
        attributes=codec,
    )
    assert [(r.timestamp, r.key, r.value, list(r.headers)) for r in read_records(sealed)] == records


@pytest.mark.parametrize("name", PACK)
def test_a_bomb_stops_at_the_bound(name: str) -> None:
    codec, pack = PACK[name]
    assert len(decompress(codec, pack(bytes(10_000)), bound=10_000)) == 10_000
    with pytest.raises(WireError):
        decompress(codec, pack(bytes(10_001)), bound=10_000)


@pytest.mark.parametrize("name", PACK)
@given(data=st.data())
def test_damaged_data_is_refused_or_read_but_never_breaks_the_reader(
    name: str, data: st.DataObject
) -> None:
    codec, pack = PACK[name]
    packed = bytearray(pack(b"some records " * 20))
    packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(packed)))
    try:
        decompress(codec, bytes(packed[:cut]))
    except WireError:
        return


def test_an_unknown_codec_is_refused() -> None:
    with pytest.raises(WireError, match="number 7"):
        decompress(7, b"")
