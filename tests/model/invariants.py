"""G1 to G7 as checks: of a state after every step, and of a promise as it is made.

Each returns a line that begins with the guarantee broken, or None.
"""

from __future__ import annotations

from functools import cache

from tests.model.state import Log, Replica, State, Waiter
from tests.model.table import table_of

REFUSED = -2  # Waiter.offset: the answer will be 47 and the client takes a new epoch
BELOW = -1  # Waiter.offset: a duplicate whose offset is no longer known


def broken(state: State) -> str | None:
    """The first guarantee that does not hold in this state."""
    refused = state.producer.refused
    for i, replica in enumerate(state.replicas):
        if complaint := broken_log(replica.log):
            return f"{complaint} in the log of r{i}"
        if refused and any(b.payload >= 0 and refused >> b.payload & 1 for b in replica.log):
            return f'G6: r{i} holds a record whose producer was told "not stored"'
        if replica.up and (complaint := _broken_replica(state, i, replica)):
            return complaint
    return None


def _broken_replica(state: State, i: int, replica: Replica) -> str | None:
    """Whether a copy that counts as complete is not (G1, G4), or a table is wrong (G5)."""
    store, committed = state.store, state.committed
    if replica.readable[: len(committed)] != committed and not replica.doubtful:
        if replica.term is not None and replica.term.epoch == store.epoch:
            return f"G1, G4: committed records are missing in the log of the leader r{i}"
        if replica.hole < 0 and (store.isr & ~store.doubt) >> i & 1:
            return f"G1: committed records are missing in the log of the member r{i}"
    if replica.start > len(committed):
        return f"G1: r{i} has deleted what is not committed"
    leads = replica.term is not None and replica.term.epoch == store.epoch
    if leads and not replica.doubtful and replica.start < state.gone:
        return f"G4: records that were said to be deleted are back in the log of r{i}"
    if replica.table != table_of(replica.log):
        return f"G5: the table of r{i} is not what its log says"
    return None


@cache
def broken_log(log: Log) -> str | None:
    """Whether a log holds a record twice (G1, G3) or out of sequence (G2)."""
    seen: set[int] = set()
    following: dict[tuple[int, int], int] = {}
    for batch in log:
        if batch.payload < 0:
            continue
        if batch.payload in seen:
            return f"G1, G3: record {batch.payload} is twice"
        seen.add(batch.payload)
        key = batch.producer, batch.producer_epoch
        if batch.sequence != following.get(key, 0):
            return f"G2: sequence {batch.sequence} follows a gap"
        following[key] = batch.sequence + 1
    return None


def untrue(waiter: Waiter, committed: Log) -> str | None:
    """Whether an acknowledgement says what is not so (G6), or too early (G7)."""
    payload, offset, _ = waiter
    if offset == REFUSED:
        return None
    if all(batch.payload != payload for batch in committed):
        return f"G6, G7: record {payload} is acknowledged but not committed"
    if offset != BELOW and committed[offset].payload != payload:
        return f"G6: record {payload} is acknowledged at offset {offset}, where another is"
    return None


def grown(committed: Log, prefix: Log) -> Log | None:
    """The longest committed log after a leader called `prefix` committed; None if they differ."""
    short, long = sorted((committed, prefix), key=len)
    return long if long[: len(short)] == short else None
