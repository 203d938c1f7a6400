"""Mutants of recovery, elections, identities and the client: rules 6, 7, 9 and 11, and G6."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from cluster.core import elections, insync
from cluster.core.controller import Controller
from cluster.core.image import Image
from cluster.core.node import Node
from cluster.core.partition import Partition, Resting
from cluster.core.produce import ProducerMachine
from cluster.storage import held, names, repair
from cluster.storage.disk import DiskError
from tests.mutants.patching import Patch, mutant


@mutant(
    "7 doubt",
    "a replica that cut something at recovery is not doubtful",
    seeds=80,
    faults=("damage", "kill_leader", "kill_leader"),
)
def no_doubt(patch: Patch) -> None:
    mark = patch.set(repair, "mark", None)

    def forgetful(disk: Any, directory: str, name: str, content: bytes = b"") -> None:
        if name != names.DOUBTFUL:
            mark(disk, directory, name, content)

    patch.set(repair, "mark", forgetful)
    patch.set(held.HeldLog, "mark_doubtful", lambda self: None)


@mutant(
    "7 damaged",
    "a replica that cannot read what it synced leads with what comes before",
    seeds=80,
    faults=("damage", "kill_leader", "kill_leader"),
)
def damaged_leads(patch: Patch) -> None:
    patch.set(held.HeldLog, "damage", property(lambda self: None))


@mutant(
    "7f alone",
    "a doubtful member is elected without a report of all members",
    seeds=80,
    faults=("damage", "kill_leader"),
)
def doubtful_alone(patch: Patch) -> None:
    def choose(record: Any, answers: Any, load: Any) -> int | None:
        serving = {node: state for node, state in answers.items() if state.end_offset >= 0}
        members = [node for node in record.isr if node in serving]
        return elections._longest(record, members, serving, load) if members else None

    patch.set(elections, "choose", choose)


@mutant(
    "7g outsider",
    "a replica that is not in sync is elected",
    seeds=60,
    faults=("kill_leader", "pause"),
)
def outsider(patch: Patch) -> None:
    candidates = patch.set(Controller, "_candidates", None)

    def anybody(self: Controller, value: Any) -> Any:
        return candidates(self, msgspec.structs.replace(value, isr=value.replicas))

    choose = patch.set(elections, "choose", None)

    def chosen(record: Any, answers: Any, load: Any) -> Any:
        return choose(msgspec.structs.replace(record, isr=record.replicas), answers, load)

    led = patch.set(insync, "led", None)

    def leads(record: Any, node_id: int, incarnation: int, epoch: int) -> Any:
        isr = record.isr if node_id in record.isr else (*record.isr, node_id)
        return led(msgspec.structs.replace(record, isr=isr), node_id, incarnation, epoch)

    patch.set(Controller, "_candidates", anybody)
    patch.set(elections, "choose", chosen)
    patch.set(insync, "led", leads)


@mutant(
    "9 same epoch", "a restarted leader goes on in its epoch", seeds=20, faults=("kill_leader",)
)
def same_epoch(patch: Patch) -> None:
    patch.set(Partition, "_leads", lambda self, value: value.leader == self._around.node_id)
    patch.set(
        Image,
        "leads",
        lambda self, record: record.leader >= 0 and self.alive(record.leader) is not None,
    )


@mutant(
    "9b directory", "another directory stays a member", seeds=40, faults=("wipe", "kill_leader")
)
def any_directory(patch: Patch) -> None:
    patch.set(insync, "distrusted", lambda record, node_id, min_insync: None)


@mutant(
    "9f resigned",
    "a leader that resigned leads again in its epoch",
    seeds=60,
    faults=("fail_syncs",),
)
def leads_again(patch: Patch) -> None:
    def sync_failed(self: Partition, now_ms: int) -> None:
        self._become(Resting("a sync failed"))
        with suppress(DiskError):
            self.replica.recover(now_ms)
            if self.record is not None:
                self.reconcile(self.record, now_ms)

    patch.set(Partition, "sync_failed", sync_failed)


@mutant(
    "11 guard",
    "a controller writes although its epoch is over",
    seeds=80,
    faults=("pause_controller", "kill_leader", "slow_store"),
)
def no_guard(patch: Patch) -> None:
    follow = patch.set(Node, "_follow_controller", None)

    def stays(self: Node, *rest: Any) -> None:
        before = self.controller
        follow(self, *rest)
        self.controller = self.controller or before

    patch.set(Node, "_follow_controller", stays)
    patch.set(
        Controller,
        "write",
        lambda self, conditions, puts, then, deletes=(): self._out.transact(
            tuple(conditions), puts, lambda commit, _revision: then(commit), deletes
        ),
    )


@mutant("11b epoch", "an election keeps the epoch", seeds=5, faults=("kill_leader",))
def epoch_kept(patch: Patch) -> None:
    def led(record: Any, node_id: int, incarnation: int, _epoch: int) -> Any:
        doubtful = tuple(node for node in record.doubtful if node != node_id)
        return msgspec.structs.replace(
            record, leader=node_id, leader_incarnation=incarnation, doubtful=doubtful
        )

    patch.set(insync, "led", led)


@mutant(
    "6g outcome",
    'the client calls "not stored" what may be stored',
    seeds=20,
    faults=("kill_leader", "pause_leader"),
)
def possibly_is_not(patch: Patch) -> None:
    fail = patch.set(ProducerMachine, "_fail", None)

    def sure(self: ProducerMachine, backlog: Any, batch: Any, why: Any, now_ms: int) -> None:
        batch.doubtful = 0
        fail(self, backlog, batch, why, now_ms)

    patch.set(ProducerMachine, "_fail", sure)
