"""Settings changed under load and faults: guarantees hold, and all brokers end with the same."""

import pytest

from cluster.core import records
from cluster.core.logs import log_config
from tests.sim.run import run
from tests.sim.world import TOPIC, World

FAULTS = ("alter", "alter", "alter", "kill", "kill_controller", "pause_leader", "cut", "isolate")


@pytest.mark.parametrize("seed", range(1, 9))
def test_settings_that_change_under_faults_end_the_same_everywhere(seed: int) -> None:
    worlds: list[World] = []
    result = run(seed, faults=FAULTS, prepare=worlds.append)
    assert result.failure is None, f"{result.failure}\n{result.detail}"
    (world,) = worlds
    stored = world.store.values[records.topic_key(TOPIC)]
    topic = records.decode(records.TopicRecord, stored[0])
    assert topic.own, "something was changed"
    wanted = log_config(topic.config)
    for broker in world.brokers.values():
        assert broker.node is not None
        for partition in broker.node.partitions:
            assert partition.replica.topic == topic
            assert partition.replica.log.config == wanted
            if partition.leader is not None:
                expiration = int(topic.config["producer.id.expiration.ms"])
                assert partition.leader.sweep.expiration_ms == expiration
