"""Fetch responses in pieces: joined they are what the generated encoder makes of the values."""

import pytest

from _fastseq.fetch import holds_zstd, pack_fetch
from cluster.wire import apis, codec, messages
from tests.batches import make_batch, make_run

LARGE = bytes(range(256)) * 64
VERSIONS = range(4, 13)


def encoded(
    version: int,
    error: int,
    topics: list[tuple[str, list[tuple[int, bytes]]]],
    *,
    stable: bool = False,
) -> bytes:
    body = messages.FetchResponse(
        error_code=error,
        responses=[
            messages.FetchableTopicResponse(
                topic=name,
                partitions=[
                    messages.PartitionData(
                        partition_index=index,
                        error_code=index,
                        high_watermark=2**40 + index,
                        last_stable_offset=2**40 + index,
                        log_start_offset=index,
                        aborted_transactions=[] if stable else None,
                        records=records,
                    )
                    for index, records in partitions
                ],
            )
            for name, partitions in topics
        ],
    )
    return codec.encode_response(apis.FETCH, version, -5, body)


def packed(
    version: int,
    error: int,
    topics: list[tuple[str, list[tuple[int, bytes]]]],
    *,
    stable: bool = False,
) -> list[bytes | bytearray | memoryview]:
    rows = [
        (
            name,
            [
                (index, index, 2**40 + index, index, _parts(records), len(records))
                for index, records in partitions
            ],
        )
        for name, partitions in topics
    ]
    return pack_fetch(version, -5, error, rows, stable=stable)


def _parts(records: bytes) -> list[memoryview]:
    half = len(records) // 2
    return [memoryview(records)[:half], memoryview(records)[half:]] if records else []


@pytest.mark.parametrize("version", VERSIONS)
def test_joined_pieces_are_the_encoded_response(version: int) -> None:
    topics = [
        ("orders", [(0, LARGE), (1, b""), (200, b"small")]),
        ("empty", []),
        ("größe" * 40, [(7, bytes(2049))]),
    ]
    for stable in (False, True):
        joined = b"".join(packed(version, 0, topics, stable=stable))
        assert joined == encoded(version, 0, topics, stable=stable)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_without_topics_carries_its_error(version: int) -> None:
    assert b"".join(packed(version, 70, [])) == encoded(version, 70 if version >= 7 else 0, [])


def test_large_records_are_not_copied() -> None:
    pieces = packed(11, 0, [("orders", [(0, LARGE), (1, b"small")])])
    assert [isinstance(piece, memoryview) for piece in pieces] == [False, True, True, False]
    assert all(piece.obj is LARGE for piece in pieces[1:3] if isinstance(piece, memoryview))


def test_what_does_not_fit_is_refused() -> None:
    def pack(**values: object) -> None:
        row = {"index": 0, "error": 0, "watermark": 0, "start": 0, "parts": (), "size": 0, **values}
        pack_fetch(11, 1, 0, [("t", [tuple(row.values())])])  # type: ignore[list-item]

    pack()
    for wrong in ({"index": 2**31}, {"error": 2**15}, {"watermark": 2**63}, {"size": -1}):
        with pytest.raises(ValueError):
            pack(**wrong)
    with pytest.raises(ValueError, match="announced"):
        pack(parts=[b"12"], size=3)
    with pytest.raises(TypeError):
        pack(parts=[3], size=3)
    with pytest.raises(ValueError, match="version"):
        pack_fetch(13, 1, 0, [])
    with pytest.raises(ValueError, match="name"):
        pack_fetch(11, 1, 0, [("x" * 40_000, [])])


def test_zstd_is_found_in_any_batch() -> None:
    run = make_run(0, [1, 2, 3])
    zstd = make_batch(6)
    zstd = zstd[:22] + b"\x04" + zstd[23:]
    assert not holds_zstd(run)
    assert not holds_zstd(b"")
    assert holds_zstd(run + zstd)
    assert holds_zstd(zstd + run)
    assert not holds_zstd(run[:-5])
