"""Several processes on one metadata store: races, deaths, and a stopped holder of its lock."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from cluster.control.machine import lock_holders
from cluster.control.sqlite import SqliteStore
from cluster.control.store import Committed, Put
from cluster.limits import STORE_LEASE_LAG_MS
from tests.unit.store_contract import SCHEDULING_MS, TTL_MS, Follower, put

Start = Callable[[str], Awaitable[Process]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "metadata.db"


@pytest.fixture
async def start(path: Path) -> AsyncIterator[Start]:
    processes: list[Process] = []

    async def start_one(task: str) -> Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.integration.store_process", path, task,
            stdout=PIPE, cwd=ROOT,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return process

    yield start_one
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_processes_that_race_lose_no_update(path: Path, start: Start) -> None:
    processes = await asyncio.gather(*[start("count") for _ in range(3)])
    assert [await process.wait() for process in processes] == [0, 0, 0]
    store = await SqliteStore.open(path)
    stored = await store.get("n")
    assert stored is not None
    assert stored.value == b"30"
    await store.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_dead_or_stopped_process_loses_its_keys(
    path: Path, start: Start, how: signal.Signals
) -> None:
    process = await start("lease")
    stores = [await SqliteStore.open(path) for _ in range(2)]
    followers = [Follower(store) for store in stores]
    assert "leased" in followers[0].state
    loop = asyncio.get_running_loop()
    process.send_signal(how)
    killed_at = loop.time()
    for follower in followers:
        await follower.until(lambda state: "leased" not in state)
    assert (loop.time() - killed_at) * 1000 < TTL_MS + STORE_LEASE_LAG_MS + SCHEDULING_MS
    for store in stores:
        await store.close()


async def test_a_stopped_lock_holder_is_reported_found_and_survived(
    path: Path, start: Start
) -> None:
    blocked: asyncio.Queue[float] = asyncio.Queue()
    store = await SqliteStore.open(path, on_blocked=blocked.put_nowait)
    lease = await store.grant(1_500)
    await store.transact([], [Put("leased", b"x", lease)])
    stopped = await start("stop")
    write = asyncio.create_task(store.transact([], [Put("a", b"x")]))
    keep_alive = asyncio.create_task(store.keep_alive(lease))
    while await blocked.get() < 1.75:
        assert not write.done()
    holders = [holder for holder in lock_holders(path) if holder.stopped]
    assert [holder.pid for holder in holders] == [stopped.pid]
    stopped.kill()
    assert isinstance(await write, Committed)
    assert await keep_alive
    assert await store.get("never") is None
    await put(store, "b")
    await store.close()
