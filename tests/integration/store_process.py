"""One process of a store test: `python -m tests.integration.store_process PATH TASK`.

Prints `ready` when its task is under way. `count` increases a number ten times by compare-and-set;
`lease` keeps a key alive until it is killed; `stop` stops itself while it holds the write lock.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from cluster.control.database import connect
from cluster.control.sqlite import SqliteStore
from cluster.control.store import Put
from tests.unit.store_contract import TTL_MS, add_one


def ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


async def count(path: Path) -> None:
    store = await SqliteStore.open(path)
    ready()
    for _ in range(10):
        await add_one(store, "n")
    await store.close()


async def lease(path: Path) -> None:
    store = await SqliteStore.open(path)
    lease = await store.grant(TTL_MS)
    await store.transact([], [Put("leased", b"x", lease)])
    ready()
    alive = True
    while alive:
        alive = await store.keep_alive(lease)
        await asyncio.sleep(TTL_MS / 5000)


async def stop(path: Path) -> None:
    connection = connect(path)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT OR REPLACE INTO keys VALUES ('never', x'00', 1000000, NULL)")
    ready()
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    TASKS = {"count": count, "lease": lease, "stop": stop}
    asyncio.run(TASKS[sys.argv[2]](Path(sys.argv[1])))
