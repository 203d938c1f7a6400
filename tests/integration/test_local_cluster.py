"""The local cluster keeps its brokers alive, ends one that blocks the others, and leaves none."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from cluster.client import Admin
from cluster.control.machine import Holder
from cluster.testing import local
from cluster.testing.layout import Settings, prepare, read_members
from cluster.testing.local import LocalCluster, NotReady
from cluster.testing.process import BrokerFailed

WITHIN_S = 60


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def test_a_paused_broker_that_locks_the_store_is_ended_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes = prepare(tmp_path, Settings(brokers=2, base_port=0))
    told: list[str] = []
    async with LocalCluster(tmp_path, homes, revive=True, tell=told.append) as cluster:
        first = cluster.brokers[1]
        pid = first.pid
        # What /proc/locks says cannot be timed from outside: a commit takes a millisecond.
        monkeypatch.setattr(local, "lock_holders", lambda store: (Holder(pid, first.paused),))
        cluster.pause(1)
        async with asyncio.timeout(WITHIN_S):
            await first.exited.wait()
            while first.addresses is None or first.pid == pid:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert {member.pid for member in read_members(tmp_path)} == {
            broker.pid for broker in cluster.brokers.values()
        }
    assert told[0] == "broker 1 is stopped and locks the store: ended"
    assert told[-1] == "broker 1 serves again"


async def test_a_broker_that_cannot_start_says_why_and_takes_the_others_along(
    tmp_path: Path,
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        homes = prepare(tmp_path, Settings(brokers=2, base_port=0))
        config = homes[1] / "broker.toml"
        port = taken.getsockname()[1]
        config.write_text(
            config.read_text().replace(
                'listen_zmq = "127.0.0.1:0"', f'listen_zmq = "127.0.0.1:{port}"'
            )
        )
        cluster = LocalCluster(tmp_path, homes)
        with pytest.raises(BrokerFailed, match=r"broker 2 did not start: .*[Aa]ddress.*in use"):
            async with cluster:
                pass
    assert not any(lives(broker.pid) for broker in cluster.brokers.values())
    assert not (tmp_path / "cluster.json").exists()


async def test_an_exception_inside_leaves_no_broker(tmp_path: Path) -> None:
    homes = prepare(tmp_path, Settings(brokers=1, base_port=0))
    cluster = LocalCluster(tmp_path, homes)
    with pytest.raises(ZeroDivisionError):
        async with cluster:
            cluster.pause(1)
            raise ZeroDivisionError
    assert not lives(cluster.brokers[1].pid)


async def test_a_cluster_with_an_unusable_partition_is_reported_and_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(self: LocalCluster, admin: Admin) -> bool:
        return False

    monkeypatch.setattr(local, "READY_WITHIN_S", 0.1)
    monkeypatch.setattr(LocalCluster, "_usable", never)
    cluster = LocalCluster(tmp_path, prepare(tmp_path, Settings(brokers=1, base_port=0)))
    try:
        with pytest.raises(NotReady, match="not every partition takes acks=all"):
            await cluster.start()
        assert cluster.brokers[1].running
        assert [member.id for member in read_members(tmp_path)] == [1]
    finally:
        await cluster.stop()
    assert not lives(cluster.brokers[1].pid)


async def test_a_broker_on_free_ports_comes_back_where_its_clients_know_it(tmp_path: Path) -> None:
    homes = prepare(tmp_path, Settings(brokers=1, base_port=0))
    async with LocalCluster(tmp_path, homes) as cluster:
        before = cluster.brokers[1].addresses
        await cluster.kill(1)
        await cluster.restart(1)
        assert cluster.brokers[1].addresses == before
