"""The producer table: what a log says of each producer, and what it makes of a request.

`table_of` is the definition (G5): the state is a function of the log alone. Replicas carry their
own table, moved batch by batch with `apply`, and the invariants compare the two. The window keeps
one batch, so that two records already reach below it. The payload stands for the CRC.
"""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import NamedTuple

from tests.model.state import EXPIRE, FENCE, FORGET, Batch, Entry, Log, Table

WINDOW = 1
PRODUCERS = 2
FENCED_EPOCH = 32_767
EMPTY: Table = (None,) * PRODUCERS


class Kind(Enum):
    """The verdict on a request."""

    NEW = "new"
    DUPLICATE = "a duplicate"
    BELOW = "a duplicate below the window"
    FLOOR = "at or below a floor"
    FENCED = "of a fenced epoch (47)"
    REFUSED = "refused (45)"


class Verdict(NamedTuple):
    """`end` is where the high watermark must be before a duplicate may be acknowledged."""

    kind: Kind
    offset: int = -1
    end: int = 0


@cache
def apply(table: Table, batch: Batch, offset: int) -> Table:
    """The table after one more batch of the log."""
    old = table[batch.producer]
    if batch.payload == FENCE:
        new = Entry(FENCED_EPOCH, 0, ())
    elif batch.payload == FORGET:
        new = None
    elif batch.payload == EXPIRE:
        new = old and old._replace(window=())
    else:
        window = old.window if old and old.epoch == batch.producer_epoch else ()
        window = (*window, (batch.sequence, offset, batch.payload))[-WINDOW:]
        new = Entry(batch.producer_epoch, batch.sequence + 1, window)
    return (*table[: batch.producer], new, *table[batch.producer + 1 :])


@cache
def table_of(log: Log) -> Table:
    """The only table a replica holding exactly this log may have."""
    return apply(table_of(log[:-1]), log[-1], len(log) - 1) if log else EMPTY


def decide(table: Table, request: Batch, off: frozenset[str]) -> Verdict:
    """What rule 6 answers a request."""
    entry = table[request.producer]
    epoch, sequence = request.producer_epoch, request.sequence
    if entry is None:
        return Verdict(Kind.NEW if sequence == 0 or "6d" in off else Kind.REFUSED)
    if epoch != entry.epoch:
        if epoch < entry.epoch:
            return Verdict(Kind.FENCED)
        return Verdict(Kind.NEW if sequence == 0 else Kind.REFUSED)
    for kept, offset, crc in entry.window:
        if sequence == kept and (request.payload == crc or "6" in off):
            return Verdict(Kind.DUPLICATE, offset, offset + 1)
    if sequence == entry.next:
        return Verdict(Kind.NEW)
    if sequence > entry.next:
        return Verdict(Kind.REFUSED)
    if not entry.window:
        return Verdict(Kind.FLOOR)
    oldest, offset, _ = entry.window[0]
    if sequence < oldest:
        return Verdict(Kind.BELOW, -1, offset)
    return Verdict(Kind.REFUSED)
