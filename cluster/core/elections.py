"""Who shall lead: replicas report how far their logs reach, and the longest whole one is chosen.

Owns the questions under way and the choice among answers (rule 7), no store and no clock. A
member of the in-sync set that is not doubtful holds everything committed, whichever it is; the
longest is taken because it makes the others cut least. A doubtful one cut something at recovery:
what it lacks another member may have, so it is chosen only when every member has answered. A
damaged one is never chosen, but nobody is who holds less than it once held.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from cluster.core.image import PartitionId
from cluster.core.records import PartitionRecord
from cluster.limits import STATE_QUERY_MS
from cluster.wire.stream import ReplicaState


@dataclass(slots=True)
class Election:
    """One partition that needs a leader; `version` is its record's when the question was asked."""

    partition: PartitionId
    version: int
    query: int
    asked_ms: int
    candidates: dict[int, int]
    """Node ids and the incarnations that were asked: an answer of another one says nothing."""
    answers: dict[int, ReplicaState] = field(default_factory=dict)
    waits: bool = False
    """The answers did not do; they are asked for again at the deadline."""

    def due(self, now_ms: int) -> bool:
        """Whether all who can answer have, or had their time."""
        complete = len(self.answers) == len(self.candidates) and not self.waits
        return complete or now_ms >= self.deadline_ms

    @property
    def deadline_ms(self) -> int:
        """When the answers so far must do."""
        return self.asked_ms + STATE_QUERY_MS


def choose(
    record: PartitionRecord, answers: dict[int, ReplicaState], load: dict[int, int]
) -> int | None:
    """The in-sync member to elect among those that answered, None to wait.

    Only who has taken up the record's epoch has answered: anybody else may still acknowledge to
    the leader of an older one.

    `load` counts the partitions that each broker leads: between equals, the one with fewer.
    """
    serving = {
        node: state
        for node, state in answers.items()
        if state.end_offset >= 0 and state.leader_epoch == record.leader_epoch
    }
    members = [node for node in record.isr if node in serving]
    doubtful = {node for node in members if serving[node].doubtful}.union(record.doubtful)
    whole = [node for node in members if node not in doubtful]
    if whole:
        return _longest(record, whole, serving, load)
    able = [node for node in members if not serving[node].damaged]
    if able and all(node in serving for node in record.isr):
        chosen = _longest(record, able, serving, load)
        most = max(_reach(serving[node]) for node in members)
        return chosen if _reach(serving[chosen]) >= most else None
    return None


def _reach(state: ReplicaState) -> tuple[int, int]:
    return state.last_epoch, state.end_offset


def _longest(
    record: PartitionRecord,
    nodes: Iterable[int],
    states: dict[int, ReplicaState],
    load: dict[int, int],
) -> int:
    def rank(node: int) -> tuple[int, int, int, int]:
        state = states[node]
        return (state.last_epoch, state.end_offset, -load.get(node, 0), -_place(record, node))

    return max(nodes, key=rank)


def _place(record: PartitionRecord, node: int) -> int:
    return record.replicas.index(node)


def place(
    partitions: int, replicas: int, nodes: list[int], load: dict[int, int]
) -> list[tuple[int, ...]]:
    """Replicas of each new partition, leader first: round robin, the emptiest broker first."""
    order = sorted(nodes, key=lambda node: (load.get(node, 0), node))
    count = len(order)
    return [
        tuple(order[(first + step) % count] for step in range(replicas))
        for first in range(partitions)
    ]
