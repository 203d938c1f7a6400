"""One run: a cluster drawn from a seed, faults for a while, healing, and the verdict.

A run is a function of its seed: the trace digest is equal whenever, and under whatever hash seed,
it is run again.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from unittest import mock

from cluster.core import outbox, replicate
from tests.sim.checkers import Violation
from tests.sim.faults import Faults, draw_shape
from tests.sim.guarantees import every_checker
from tests.sim.scheduler import SECOND
from tests.sim.world import Shape, World

FAULTS_LAST = 5 * SECOND
SETTLES_WITHIN = 30 * SECOND


@dataclass
class Result:
    """What came of a run; `failure` is None when every guarantee held."""

    seed: int
    shape: Shape
    digest: str = ""
    failure: str | None = None
    detail: str = ""
    lines: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def run(
    seed: int,
    *,
    keep_trace: bool = False,
    faults: Sequence[str] = (),
    prepare: Callable[[World], None] | None = None,
) -> Result:
    """Run one seed, with the faults named or those that it chooses.

    `prepare` sees the world before anything happens in it.
    """
    shape = draw_shape(Random(f"shape {seed}"))
    result = Result(seed, shape)
    credit = shape.credit_bytes
    with (
        mock.patch.object(outbox, "PEER_CREDIT_BYTES", credit),
        mock.patch.object(replicate, "PUSH_BYTES_MAX", credit),
    ):
        world = World(seed, shape, every_checker(), keep_trace=keep_trace)
        if prepare is not None:
            prepare(world)
        _judge(world, faults, result)
    result.digest = world.clock.digest
    result.lines = world.clock.lines
    result.counts = _counts(world)
    return result


def _judge(world: World, faults: Sequence[str], result: Result) -> None:
    try:
        _live(world, faults)
    except Violation as violation:
        result.failure = str(violation)
    except Exception as error:  # whatever the code under test raises is a finding
        result.failure = f"{type(error).__name__}: {error}"
        result.detail = traceback.format_exc()


def _live(world: World, faults: Sequence[str]) -> None:
    world.open()
    end = world.clock.now + FAULTS_LAST
    world.begin_clients(end)
    Faults(world, end, faults)
    world.run(FAULTS_LAST)
    world.heal()
    settled = world.run_until(lambda: not world.unsettled(), SETTLES_WITHIN)
    if not settled and any([broker.restore() for broker in world.brokers.values()]):
        # What one cannot read and another doubts is waited for: an operator's part (rule 7).
        settled = world.run_until(lambda: not world.unsettled(), SETTLES_WITHIN)
    if not settled:
        raise Violation(f"unsettled after healing: {'; '.join(world.unsettled())}")
    world.watch.finished()


def _counts(world: World) -> dict[str, int]:
    return {
        "records": sum(len(producer.fates) for producer in world.producers),
        "committed": sum(truth.end for truth in world.watch.truth),
        "retries": sum(producer.machine.counts.retries for producer in world.producers),
        "duplicates": sum(producer.machine.counts.duplicates for producer in world.producers),
        "deleted": sum(truth.started for truth in world.watch.truth),
        "milliseconds": world.clock.now_ms,
    }
