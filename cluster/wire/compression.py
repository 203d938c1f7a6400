"""Decompresses the records of a batch, and no more of them than a reader can afford.

Owns Kafka's four codecs as its clients write them: gzip, snappy (the framing of snappy-java, or
one raw block), lz4 (frame format) and zstd. Compressed data does not say truthfully how large it
is, so the output goes into a buffer that grows up to a bound and never beyond.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cramjam

from cluster.limits import DECOMPRESSED_BYTES_MAX
from cluster.wire.primitives import Data, WireError

NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)

_FRAMED_SNAPPY = b"\x82SNAPPY\x00"
_FRAMED_SNAPPY_HEADER = 16  # the magic, a version and the oldest compatible version
_FIRST_GUESS = 4  # times the input: what records usually shrink by
_GROWTH = 8
_FIRST_GUESS_MIN = 4096
_TOO_SMALL = "failed to write whole buffer"  # Rust's words; all other errors are for good

_STREAMS: dict[int, Callable[[Any, Any], int]] = {
    GZIP: cramjam.gzip.decompress_into,
    LZ4: cramjam.lz4.decompress_into,
    ZSTD: cramjam.zstd.decompress_into,
}


def decompress(codec: int, data: Data, bound: int = DECOMPRESSED_BYTES_MAX) -> Data:
    """Return what `data` holds, by the codec number of a batch's attributes.

    WireError if the data is damaged, of an unknown codec, or of more than `bound` bytes.
    """
    if codec == NONE:
        return data
    try:
        if codec == SNAPPY:
            return _snappy(data, bound)
        if codec in _STREAMS:
            return _stream(_STREAMS[codec], data, bound)
    except cramjam.DecompressionError as error:
        raise WireError(f"compressed records cannot be read: {error}") from error
    raise WireError(f"no compression has number {codec}")


def _stream(decompress_into: Callable[[Any, Any], int], data: Data, bound: int) -> Data:
    """Try ever larger buffers: that one was too small is all that the codec says."""
    size = min(max(_FIRST_GUESS * len(data), _FIRST_GUESS_MIN), bound)
    while True:
        output = bytearray(size)
        try:
            written = decompress_into(data, output)
        except cramjam.DecompressionError as error:
            if _TOO_SMALL not in str(error) or size == bound:
                raise
            size = min(size * _GROWTH, bound)
        else:
            return memoryview(output)[:written]


def _snappy(data: Data, bound: int) -> Data:
    view = memoryview(data)
    if view[:8] != _FRAMED_SNAPPY:
        return _snappy_block(view, bound)
    blocks: list[Data] = []
    room = bound
    position = _FRAMED_SNAPPY_HEADER
    while position < len(view):
        start = position + 4
        position = start + int.from_bytes(view[start - 4 : start], "big")
        if position > len(view):
            raise WireError("a snappy block is longer than the records")
        blocks.append(_snappy_block(view[start:position], room))
        room -= len(blocks[-1])
    return b"".join(blocks)


def _snappy_block(block: memoryview, room: int) -> Data:
    """Decompress one raw block; its first bytes say how large it becomes."""
    size = cramjam.snappy.decompress_raw_len(block)
    if size > room:
        raise WireError(f"snappy records of {size} bytes are more than {room}")
    output = bytearray(size)
    written = cramjam.snappy.decompress_raw_into(block, output)
    return memoryview(output)[:written]
