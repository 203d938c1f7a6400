"""Sync requests and their results, through the workers."""

import asyncio
import os
from pathlib import Path

from cluster.broker.syncs import Syncs
from cluster.core.effects import Sync
from cluster.core.events import SyncDone, Synced


async def test_results_name_what_was_asked_for(tmp_path: Path) -> None:
    done: list[SyncDone] = []
    all_done = asyncio.Event()

    def deliver(event: Synced) -> None:
        done.extend(event.results)
        if len(done) == 3:
            all_done.set()

    syncs = Syncs(asyncio.get_running_loop(), 2, deliver)
    handle = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    read_end, write_end = os.pipe()  # what cannot be synced
    try:
        syncs.submit(Sync(handle, token=5, segment_base=0, generation=1, end=10))
        syncs.submit(Sync(handle, token=5, segment_base=100, generation=1, end=120))
        syncs.submit(Sync(read_end, token=6, segment_base=7, generation=2, end=9))
        assert syncs.pending == 3
        async with asyncio.timeout(10):
            await all_done.wait()
    finally:
        syncs.close()
        for opened in (handle, read_end, write_end):
            os.close(opened)
    assert syncs.pending == 0
    by_base = {result.segment_base: result for result in done}
    assert (by_base[0].token, by_base[0].generation, by_base[0].end) == (5, 1, 10)
    assert (by_base[100].token, by_base[100].end, by_base[100].errno) == (5, 120, 0)
    assert by_base[7].errno != 0
    assert by_base[0].nanoseconds > 0
