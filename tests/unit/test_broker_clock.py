"""The clock of a broker, and the timer that wakes its machine."""

import asyncio

from cluster.broker.clock import Alarm, now_ms


def test_clock_is_whole_milliseconds_and_never_goes_back() -> None:
    readings = [now_ms() for _ in range(100)]
    assert readings == sorted(readings)


async def test_alarm_rings_once_at_its_time_or_before() -> None:
    rung: list[int] = []
    done = asyncio.Event()

    def ring() -> None:
        rung.append(now_ms())
        done.set()

    alarm = Alarm(asyncio.get_running_loop(), ring)
    due_ms = now_ms() + 20
    alarm.set(due_ms)
    async with asyncio.timeout(10):
        await done.wait()
    assert len(rung) == 1
    assert rung[0] >= due_ms - 2  # the loop's clock is the time at which its turn began


async def test_alarm_set_later_rings_early_and_set_earlier_rings_earlier() -> None:
    done = asyncio.Event()
    alarm = Alarm(asyncio.get_running_loop(), done.set)
    began_ms = now_ms()
    alarm.set(began_ms + 3_600_000)
    alarm.set(began_ms + 10)
    alarm.set(began_ms + 3_600_000)
    async with asyncio.timeout(10):
        await done.wait()
    assert now_ms() < began_ms + 10_000


async def test_alarm_that_is_overdue_rings_in_a_later_turn() -> None:
    done = asyncio.Event()
    alarm = Alarm(asyncio.get_running_loop(), done.set)
    alarm.set(now_ms() - 1_000)
    assert not done.is_set()
    async with asyncio.timeout(10):
        await done.wait()


async def test_cancelled_alarm_does_not_ring() -> None:
    loop = asyncio.get_running_loop()
    rung: list[int] = []
    alarm = Alarm(loop, lambda: rung.append(1))
    alarm.set(now_ms())
    alarm.cancel()
    alarm.cancel()
    later = asyncio.Event()
    loop.call_later(0.01, later.set)
    await later.wait()
    assert not rung
