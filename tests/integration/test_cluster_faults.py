"""Real brokers, killed, paused and made to lose acknowledgements, while a load runs."""

import asyncio
from pathlib import Path

from cluster.client import Admin
from tests.integration.running import (
    Load,
    assert_exact,
    cluster,
    create,
    free_base_port,
    leader_of,
    scraped,
    until_in_sync,
)


async def drop_acks(bootstrap: list[str], percent: int) -> None:
    async with Admin(bootstrap) as admin:
        for node_id in (1, 2, 3):
            await admin.fault(node_id, "drop-acks", percent=percent, seed=node_id)


async def test_killed_leader_under_load_with_lost_acks_loses_and_doubles_nothing(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await create(running)
        await drop_acks(running.bootstrap, 5)
        async with Load(running) as load:
            await load.more()
            leader = await leader_of(running)
            await running.kill(leader)
            await load.more()
            await running.restart(leader)
            await load.more()
        await assert_exact(running, load)
        assert load.duplicates > 0
        assert await scraped(running, "oncelog_duplicates_rejected_total") > 0
        assert await scraped(running, "oncelog_acks_dropped_total") > 0


async def test_every_broker_killed_in_turn_loses_and_doubles_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await create(running)
        async with Load(running) as load:
            for node_id in running.brokers:
                await load.more()
                await running.kill(node_id)
                await load.more()
                await running.restart(node_id)
                await until_in_sync(running, 3)
        await assert_exact(running, load)


async def test_paused_follower_leaves_holds_nothing_up_and_comes_back(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await create(running)
        async with Load(running) as load:
            await load.more()
            paused = await leader_of(running) % 3 + 1
            running.pause(paused)
            await until_in_sync(running, 2)
            await load.more()
            running.resume(paused)
            await until_in_sync(running, 3)
            await load.more()
        await assert_exact(running, load)


async def test_restart_of_all_brokers_keeps_records_and_the_memory_of_retries(
    tmp_path: Path,
) -> None:
    async with cluster(tmp_path) as running:
        await create(running)
        async with Load(running) as load:
            await load.more()
        ends = await scraped(running, "oncelog_producers_tracked")
    async with cluster(tmp_path) as running:
        await assert_exact(running, load)
        assert await scraped(running, "oncelog_producers_tracked") == ends
        assert await scraped(running, "oncelog_recoveries_with_findings") == 0


async def test_all_brokers_killed_at_once_keep_what_was_acknowledged(tmp_path: Path) -> None:
    async with cluster(tmp_path, base_port=free_base_port()) as running:
        await create(running)
        async with Load(running) as load:
            await load.more()
            await asyncio.gather(*(running.kill(node_id) for node_id in running.brokers))
            await asyncio.gather(*(running.restart(node_id) for node_id in running.brokers))
            await load.more()
        await assert_exact(running, load)


async def test_orderly_stop_of_a_leader_hands_over_and_loses_nothing(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await create(running)
        async with Load(running) as load:
            await load.more()
            leader = await leader_of(running)
            await running.brokers[leader].stop(within_s=10)
            assert running.brokers[leader].status == 0
            await load.more()
            await running.restart(leader)
            await until_in_sync(running, 3)
        await assert_exact(running, load)
        assert await scraped(running, "oncelog_recoveries_with_findings") == 0
