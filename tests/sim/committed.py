"""What is committed: every batch that was ever below a leader's high watermark.

Owns the one truth of a run that checkers compare everything with. It grows only as leaders move
their high watermarks, and nothing in it may ever change.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from _fastseq.batch import control_key, decode_batch, read_header, whole_batches
from cluster.storage.disk import Buffer
from cluster.storage.log import Log

READ_BYTES = 1 << 20
ANY_OFFSET = 2**63 - 1


class Stored(NamedTuple):
    """One batch as it lies in a log."""

    base_offset: int
    next_offset: int
    crc: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    leader_epoch: int
    max_timestamp: int
    control: tuple[int, bytes] | None = None
    """Type and value of a control batch."""


def batches_of(data: Buffer) -> list[Stored]:
    """The headers of whole batches."""
    batches, position = [], 0
    while position < len(data):
        header = read_header(data, position)
        batches.append(
            Stored(
                header.base_offset,
                header.next_offset,
                header.crc,
                header.producer_id,
                header.producer_epoch,
                header.base_sequence,
                header.leader_epoch,
                header.max_timestamp,
                _control(data, position) if header.is_control else None,
            )
        )
        position += header.size
    return batches


def _control(data: Buffer, position: int) -> tuple[int, bytes]:
    kind = control_key(data, position)
    assert kind is not None
    return kind, bytes(decode_batch(data, position)[0].value or b"")


def placed_batches(data: Buffer) -> list[tuple[int, int]]:
    """(position, size) of the whole batches in a file."""
    end, _ = whole_batches(data, 0, len(data), ANY_OFFSET)
    places, position = [], 0
    while position < end:
        size = read_header(data, position).size
        places.append((position, size))
        position += size
    return places


def bytes_between(log: Log, start: int, end: int) -> bytes:
    """The bytes of the batches in [start, end)."""
    parts = []
    while start < end:
        data = bytes(log.read(start, READ_BYTES, end))
        if not data:
            break
        parts.append(data)
        start = batches_of(data)[-1].next_offset
    return b"".join(parts)


def stored_between(log: Log, start: int, end: int) -> list[Stored]:
    """The batches stored in a log in [start, end)."""
    return batches_of(bytes_between(log, start, end))


def values_of(log: Log) -> list[tuple[int, bytes]]:
    """(offset, value) of every record that a client wrote to a log."""
    return values_between(log, log.first_offset, log.next_offset)


def values_between(log: Log, start: int, end: int) -> list[tuple[int, bytes]]:
    """The same of the batches in [start, end)."""
    data, position = bytes_between(log, start, end), 0
    values = []
    while position < len(data):
        records = decode_batch(data, position)
        header = read_header(data, position)
        if not header.is_control:
            values += [(record.offset, bytes(record.value or b"")) for record in records]
        position += header.size
    return values


class Committed:
    """The committed batches of one partition."""

    def __init__(self) -> None:
        self.batches: list[Stored] = []
        self.values: list[tuple[int, bytes]] = []
        """(offset, value) of every record that a client wrote."""
        self.started = 0
        """The highest log start that a leader had."""
        self.granted = 0
        """Below this everything was called deleted."""
        self._by_base: dict[int, int] = {}

    @property
    def end(self) -> int:
        """One past the last committed offset."""
        return self.batches[-1].next_offset if self.batches else 0

    def grow(self, batches: list[Stored]) -> None:
        """A leader has committed these, the next in order."""
        for batch in batches:
            self._by_base[batch.base_offset] = len(self.batches)
            self.batches.append(batch)

    def at(self, base_offset: int) -> Stored | None:
        """The committed batch that begins at an offset."""
        index = self._by_base.get(base_offset)
        return None if index is None else self.batches[index]

    def between(self, start: int, end: int) -> list[Stored]:
        """The committed batches in [start, end), with the one that `start` lies in."""
        first = self._by_base.get(start)
        if first is None:
            first = bisect_right(self.batches, start, key=lambda batch: batch.next_offset)
        found = []
        for batch in self.batches[first:]:
            if batch.next_offset > end:
                break
            found.append(batch)
        return found
