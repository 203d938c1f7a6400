"""Faults at fixed record numbers: what is broken on purpose while the workload runs.

Owns: the plan (which fault at which number of the workload) and its execution through `Hands`,
the interface to whatever cluster is being broken. The sender stops at each number in the plan,
so that a run breaks at the same records every time.

Invariant: what breaks a broker is undone, at its own number or `UNDO_AFTER_S` later, whichever
comes first: with a broker away too long, two replicas left and one of them behind, acks=all
stands still and the number would never come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, assert_never

UNDO_AFTER_S = 3.0  # s a broker stays paused or killed when the record number is slow to come


class Action(Enum):
    """One thing done to the cluster."""

    DROP_ACKS = "drop acks after the append"
    KEEP_ACKS = "drop no more acks"
    PAUSE_FOLLOWER = "pause a follower"
    RESUME_FOLLOWER = "resume the follower"
    KILL_LEADER = "kill a leader"
    REVIVE_LEADER = "bring the killed broker back"


UNDONE_BY = {
    Action.DROP_ACKS: Action.KEEP_ACKS,
    Action.PAUSE_FOLLOWER: Action.RESUME_FOLLOWER,
    Action.KILL_LEADER: Action.REVIVE_LEADER,
}
TIMED = (Action.PAUSE_FOLLOWER, Action.KILL_LEADER)


@dataclass(frozen=True, slots=True)
class Fault:
    """`action` happens once the sender has reached the number `at`."""

    at: int
    action: Action


class Hands(Protocol):
    """What breaks a cluster and mends it; each call says what it did, for the progress line."""

    async def drop_acks(self, percent: int) -> str:
        """Have every broker withhold that many percent of the acks, after append and commit."""

    async def pause_follower(self) -> str:
        """Stop a follower's process (SIGSTOP)."""

    async def resume_follower(self) -> str:
        """Let the stopped process go on (SIGCONT)."""

    async def kill_leader(self) -> str:
        """End a leader's process at once (SIGKILL)."""

    async def revive_leader(self) -> str:
        """Start the killed broker again; need not wait until it serves."""


def demo_plan(records: int) -> list[Fault]:
    """The demo's faults, at fixed shares of the records."""

    def at(percent: int) -> int:
        return records * percent // 100

    return [
        Fault(at(5), Action.DROP_ACKS),
        Fault(at(15), Action.PAUSE_FOLLOWER),
        Fault(at(30), Action.RESUME_FOLLOWER),
        Fault(at(65), Action.KILL_LEADER),
        Fault(at(80), Action.REVIVE_LEADER),
        Fault(at(95), Action.KEEP_ACKS),
    ]


def lost_acks_plan() -> list[Fault]:
    """Nothing but lost acks, from the first record to the last."""
    return [Fault(0, Action.DROP_ACKS)]


class FaultRunner:
    """Executes a plan as the sender reaches its numbers; `finish` mends what is still broken."""

    def __init__(
        self,
        plan: Iterable[Fault],
        hands: Hands,
        percent: int,
        *,
        tell: Callable[[int, str], None],
    ) -> None:
        """`percent` of the acks are dropped; `tell(number, text)` hears what was done."""
        self._plan = sorted(plan, key=lambda fault: fault.at)
        self._hands = hands
        self._percent = percent
        self._tell = tell
        self._broken: list[Action] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._undoing: list[asyncio.Task[None]] = []
        self._reached = 0

    def next_stop(self, start: int, end: int) -> int:
        """Where a sender at `start` must pause for a fault, at most `end`."""
        for fault in self._plan:
            if fault.at > start:
                return min(fault.at, end)
        return end

    async def reach(self, number: int) -> None:
        """Execute everything planned up to `number`, which the sender has reached."""
        self._reached = number
        while self._plan and self._plan[0].at <= number:
            await self._execute(self._plan.pop(0).action)

    async def finish(self) -> None:
        """Mend whatever is still broken, and wait for what is being mended already."""
        self._plan.clear()
        for timer in self._timers:
            timer.cancel()
        await asyncio.gather(*self._undoing)
        for action in list(self._broken):
            await self._execute(UNDONE_BY[action])

    def stop(self) -> None:
        """Do nothing more; what is broken stays so."""
        for timer in self._timers:
            timer.cancel()
        for undoing in self._undoing:
            undoing.cancel()

    async def _execute(self, action: Action) -> None:
        if action in UNDONE_BY:
            self._broken.append(action)
        else:
            broken = next(fault for fault, undo in UNDONE_BY.items() if undo is action)
            if broken not in self._broken:
                return
            self._broken.remove(broken)
        self._tell(self._reached, await self._do(action))
        if action in TIMED:
            loop = asyncio.get_running_loop()
            self._timers.append(loop.call_later(UNDO_AFTER_S, self._undo, UNDONE_BY[action]))

    def _undo(self, action: Action) -> None:
        self._undoing.append(asyncio.create_task(self._execute(action)))

    async def _do(self, action: Action) -> str:
        match action:
            case Action.DROP_ACKS:
                return await self._hands.drop_acks(self._percent)
            case Action.KEEP_ACKS:
                return await self._hands.drop_acks(0)
            case Action.PAUSE_FOLLOWER:
                return await self._hands.pause_follower()
            case Action.RESUME_FOLLOWER:
                return await self._hands.resume_follower()
            case Action.KILL_LEADER:
                return await self._hands.kill_leader()
            case Action.REVIVE_LEADER:
                return await self._hands.revive_leader()
        assert_never(action)
