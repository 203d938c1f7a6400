"""Clusters of one and two brokers, their readiness line, and what a topic's record says."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.client import Admin, Producer
from tests.integration.running import TOPIC, Load, assert_exact, cluster, create, until_in_sync


@pytest.mark.parametrize("brokers", [1, 2])
async def test_small_clusters_take_acks_of_all_they_have(tmp_path: Path, brokers: int) -> None:
    async with cluster(tmp_path, brokers=brokers) as running:
        async with Admin(running.bootstrap) as admin:
            await admin.create_topic(TOPIC)
            topic = await admin.describe_topic(TOPIC)
        assert topic.config["min.insync.replicas"] == str(brokers)
        assert {len(part.replicas) for part in topic.partitions.values()} == {brokers}
        async with Producer(running.bootstrap) as producer:
            assert (await producer.send(TOPIC, b"first", partition=0)).offset == 0


async def test_two_brokers_go_on_when_a_killed_one_is_back(tmp_path: Path) -> None:
    """Neither may go on alone: both must hold a record before it is acknowledged."""
    async with cluster(tmp_path, brokers=2) as running:
        await create(running, replicas=2)
        async with Load(running) as load:
            await load.more(300)
            await running.kill(1)
            await running.restart(1)
            await load.more(300)
            await running.kill(2)
            await running.restart(2)
            await load.more(300)
            await until_in_sync(running, 2)
        await assert_exact(running, load)


async def test_topic_of_one_replica_survives_its_broker(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await create(running, replicas=1)
        async with Load(running) as load:
            await load.more(300)
            for node_id in running.brokers:
                await running.kill(node_id)
                await running.restart(node_id)
            await load.more(300)
        await assert_exact(running, load)


def test_readiness_is_one_json_line_and_an_orderly_stop_ends_with_0(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    config.write_text(
        'node_id = 5\ndata_dir = "data"\nlisten_zmq = "127.0.0.1:0"\n'
        'listen_kafka = "none"\nlisten_metrics = "127.0.0.1:0"\n'
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "cluster.broker", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    host, _, port = told["zmq"].rpartition(":")
    assert host == "127.0.0.1"
    assert int(port) > 0
    assert told["metrics"].startswith("http://127.0.0.1:")
    assert (told["event"], told["node_id"], told["kafka"]) == ("ready", 5, None)
    assert told["pid"] == process.pid
    assert rest == b""
    assert process.returncode == 0
