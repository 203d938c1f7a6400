"""Who is in sync: the next value of a partition's record, computed and never written here.

Owns the moves that a leader or the controller may make on `isr` and `doubtful` (rule 10). Every
function takes the record as read and gives the one to put on that version, or None when nothing
would change. Whoever must leave a set that may not get smaller stays as doubtful instead: it may
follow, but the high watermark waits for it and it is electable only as rule 7 allows.

Invariants, checked on every result: doubtful ⊆ isr ⊆ replicas; `isr` is never smaller than the
minimum unless it was before. A leader never proposes to leave; one that comes back with another
directory is taken out by the controller while the record still names its earlier incarnation.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from cluster.core.records import PartitionRecord


def minimum(record: PartitionRecord, min_insync: int) -> int:
    """How many members must be present for a new acks=all write."""
    return min(min_insync, len(record.replicas))


def left(record: PartitionRecord, node_id: int, min_insync: int) -> PartitionRecord | None:
    """The node has fallen behind or gone: out, unless the set may not get smaller."""
    if node_id not in record.isr or len(record.isr) <= minimum(record, min_insync):
        return None
    return _changed(record, isr=_without(record.isr, node_id), doubtful=record.doubtful)


def distrusted(record: PartitionRecord, node_id: int, min_insync: int) -> PartitionRecord | None:
    """The node may lack what it acknowledged (rules 5, 8, 9): out, or in as doubtful."""
    if node_id not in record.isr:
        return None
    smaller = left(record, node_id, min_insync)
    if smaller is not None:
        return smaller
    if node_id in record.doubtful:
        return None
    return _changed(record, isr=record.isr, doubtful=(*record.doubtful, node_id))


def joined(record: PartitionRecord, node_id: int) -> PartitionRecord | None:
    """The node holds everything committed and keeps up: in."""
    if node_id in record.isr or node_id not in record.replicas:
        return None
    return _changed(record, isr=(*record.isr, node_id), doubtful=record.doubtful)


def trusted(record: PartitionRecord, node_id: int) -> PartitionRecord | None:
    """A doubtful member holds everything again."""
    if node_id not in record.doubtful:
        return None
    return _changed(record, isr=record.isr, doubtful=_without(record.doubtful, node_id))


def led(record: PartitionRecord, node_id: int, incarnation: int, epoch: int) -> PartitionRecord:
    """The node leads from this epoch on; as the leader it holds everything by definition."""
    assert epoch > record.leader_epoch
    assert node_id in record.isr
    return msgspec.structs.replace(
        record,
        leader=node_id,
        leader_incarnation=incarnation,
        leader_epoch=epoch,
        doubtful=_without(record.doubtful, node_id),
    )


def known_by(record: PartitionRecord, node_id: int, store_id: str) -> PartitionRecord:
    """The node's data is known by another name from now on."""
    stores = tuple(
        store_id if replica == node_id else known
        for replica, known in zip(record.replicas, record.stores, strict=True)
    )
    return msgspec.structs.replace(record, stores=stores)


def maximal(committed: PartitionRecord, proposed: PartitionRecord | None) -> tuple[int, ...]:
    """Everybody who counts in the high watermark: members, and whoever may be one already."""
    if proposed is None:
        return committed.isr
    return (*committed.isr, *(node for node in proposed.isr if node not in committed.isr))


def _changed(
    record: PartitionRecord, *, isr: tuple[int, ...], doubtful: tuple[int, ...]
) -> PartitionRecord:
    doubtful = tuple(node for node in doubtful if node in isr)
    assert set(isr) <= set(record.replicas)
    return msgspec.structs.replace(record, isr=isr, doubtful=doubtful)


def _without(nodes: Iterable[int], node_id: int) -> tuple[int, ...]:
    return tuple(node for node in nodes if node != node_id)
