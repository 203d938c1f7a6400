"""Faults happen at their record numbers, and whatever was broken is mended."""

from __future__ import annotations

import asyncio

import pytest

from cluster.load import faults
from cluster.load.faults import Action, Fault, FaultRunner, demo_plan, lost_acks_plan


class Recorder:
    """Hands that only write down what they were told to do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.revived = asyncio.Event()

    async def drop_acks(self, percent: int) -> str:
        return self._note(f"drop {percent}")

    async def pause_follower(self) -> str:
        return self._note("pause")

    async def resume_follower(self) -> str:
        return self._note("resume")

    async def kill_leader(self) -> str:
        return self._note("kill")

    async def revive_leader(self) -> str:
        self.revived.set()
        return self._note("revive")

    def _note(self, text: str) -> str:
        self.done.append(text)
        return text


def runner(plan: list[Fault], hands: Recorder) -> tuple[FaultRunner, list[tuple[int, str]]]:
    told: list[tuple[int, str]] = []
    return FaultRunner(plan, hands, 5, tell=lambda *line: told.append(line)), told


async def send(run: FaultRunner, records: int, block: int) -> None:
    """Reach the numbers that a sender would stop at."""
    number = 0
    await run.reach(0)
    while number < records:
        number = run.next_stop(number, min(number + block, records))
        await run.reach(number)


@pytest.mark.parametrize("block", [1, 7, 1000])
async def test_the_demo_breaks_at_the_same_records_whatever_the_block(block: int) -> None:
    hands = Recorder()
    run, told = runner(demo_plan(1000), hands)
    await send(run, 1000, block)
    await run.finish()
    assert told == [
        (50, "drop 5"),
        (150, "pause"),
        (300, "resume"),
        (650, "kill"),
        (800, "revive"),
        (950, "drop 0"),
    ]


async def test_all_of_the_plan_happens_in_a_run_of_one_record() -> None:
    hands = Recorder()
    run, _ = runner(demo_plan(1), hands)
    await send(run, 1, 6000)
    await run.finish()
    assert hands.done == ["drop 5", "pause", "resume", "kill", "revive", "drop 0"]


async def test_lost_acks_end_with_the_run() -> None:
    hands = Recorder()
    run, told = runner(lost_acks_plan(), hands)
    await send(run, 10, 4)
    await run.finish()
    assert told == [(0, "drop 5"), (10, "drop 0")]


async def test_a_run_that_ends_early_leaves_nothing_broken() -> None:
    hands = Recorder()
    run, _ = runner(demo_plan(1000), hands)
    await run.reach(700)
    await run.finish()
    assert hands.done[-2:] == ["drop 0", "revive"]
    await run.finish()
    assert hands.done.count("revive") == 1


async def test_a_runner_that_is_stopped_mends_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "UNDO_AFTER_S", 0.0)
    hands = Recorder()
    run, _ = runner([Fault(1, Action.KILL_LEADER)], hands)
    await run.reach(1)
    run.stop()
    await asyncio.sleep(0.01)
    assert hands.done == ["kill"]


async def test_a_broker_comes_back_even_if_its_record_number_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "UNDO_AFTER_S", 0.0)
    hands = Recorder()
    run, _ = runner([Fault(1, Action.KILL_LEADER), Fault(9, Action.REVIVE_LEADER)], hands)
    await run.reach(1)
    async with asyncio.timeout(10):
        await hands.revived.wait()
    await run.reach(9)
    await run.finish()
    assert hands.done == ["kill", "revive"]
