"""Mutants of deleting and of beginning anew: what goes too early, states that are not theirs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from _fastseq.table import ProducerTable
from cluster.core.deletions import Deletions
from cluster.storage.retention import Retention
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots
from cluster.storage.states import States
from tests.mutants.patching import Patch, mutant

EVERYTHING = 2**62


@mutant(
    "8g state",
    "a log that begins anew forgets the producers of before",
    seeds=20,
    faults=("delete_records", "wipe", "kill"),
)
def begins_without_state(patch: Patch) -> None:
    def load(_self: States, table: ProducerTable, offset: int) -> bool:
        table.clear(offset)
        return True

    patch.set(States, "load", load)


@mutant(
    "8g snapshot",
    "a segment goes although the next has no snapshot to begin with",
    seeds=20,
    faults=("delete_records", "wipe", "kill"),
)
def begins_without_snapshot(patch: Patch) -> None:
    patch.set(Snapshots, "prove", lambda _self, _offset: True)
    patch.set(Snapshots, "take", lambda _self, _table, _keep=(), *, sync: None)


@mutant(
    "8h committed",
    "old records go whether or not they are committed",
    seeds=80,
    faults=("isolate", "pause", "kill_leader"),
)
def deletes_uncommitted(patch: Patch) -> None:
    for name in ("next_start", "all_expired"):
        patch.set(Retention, name, _hasty(patch.set(Retention, name, None)))


def _hasty(asked: Any) -> Any:
    def hasty(self: Retention, config: LogConfig, _committed: int, *clocks: int) -> Any:
        return asked(self, config, EVERYTHING, *clocks)

    return hasty


@mutant(
    "8i deleted",
    "records are called deleted before every member has taken that",
    seeds=60,
    faults=("delete_records", "delete_records", "kill_leader", "isolate"),
)
def deleted_too_early(patch: Patch) -> None:
    release = patch.set(Deletions, "release", None)

    def early(self: Deletions, own_start: int, _member_starts: Iterable[int | None]) -> None:
        release(self, own_start, ())

    patch.set(Deletions, "release", early)
