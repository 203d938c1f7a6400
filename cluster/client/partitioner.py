"""Which partition a record goes to: by its key as Kafka's clients choose, else in turns.

Owns the hash (murmur2, as in Kafka's Utils.java, so that all clients agree where a key lives) and
the sticky choice for records without a key: one partition until a batch's worth of bytes went
there, which fills batches where changing with each record would not (KIP-794).
"""

from __future__ import annotations

_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash, unsigned."""
    length = len(data)
    hashed = (_SEED ^ length) & _MASK
    whole = length & ~3
    for position in range(0, whole, 4):
        word = int.from_bytes(data[position : position + 4], "little") * _MIX & _MASK
        word = (word ^ word >> 24) * _MIX & _MASK
        hashed = hashed * _MIX & _MASK ^ word
    if length > whole:
        hashed = (hashed ^ int.from_bytes(data[whole:], "little")) * _MIX & _MASK
    hashed = (hashed ^ hashed >> 13) * _MIX & _MASK
    return hashed ^ hashed >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Where the records of a key go."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class Sticky:
    """Partitions in turns of `turn_bytes`, for one topic, beginning at a number drawn by chance."""

    def __init__(self, first: int, turn_bytes: int) -> None:
        self._current = first
        self._turn_bytes = turn_bytes
        self._sent = 0

    def choose(self, size: int, partitions: int) -> int:
        """The partition of a record of `size` bytes."""
        if self._sent >= self._turn_bytes:
            self._current += 1
            self._sent = 0
        self._sent += size
        return self._current % partitions
