"""Record batches as a leader would have stamped them, for tests of storage."""

from __future__ import annotations

from collections.abc import Iterable

from _fastseq.batch import encode_batch


def stamp(batch: bytes, base_offset: int, leader_epoch: int) -> bytes:
    """Base offset and leader epoch lie outside the checksum."""
    epoch = leader_epoch.to_bytes(4, signed=True)
    return base_offset.to_bytes(8) + batch[8:12] + epoch + batch[16:]


def make_batch(
    base_offset: int,
    count: int = 1,
    *,
    producer_id: int = -1,
    sequence: int = -1,
    producer_epoch: int = 0,
    leader_epoch: int = 0,
    timestamp_ms: int = 1_000,
    value: bytes = b"value",
) -> bytes:
    """A batch of `count` records with the same timestamp and value."""
    records = [(None, value, timestamp_ms, ())] * count
    batch = encode_batch(
        records,
        producer_id=producer_id,
        producer_epoch=producer_epoch if producer_id >= 0 else -1,
        base_sequence=sequence,
    )
    return stamp(batch, base_offset, leader_epoch)


def make_run(base_offset: int, counts: Iterable[int], value: bytes = b"value") -> bytes:
    """Batches of these record counts, one after the other, without a producer id."""
    batches = []
    for count in counts:
        batches.append(make_batch(base_offset, count, value=value))
        base_offset += count
    return b"".join(batches)
