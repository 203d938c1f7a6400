"""Settings changed under load and faults: guarantees hold, and all brokers end with the same."""

from cluster.core import records
from cluster.core.logs import log_config
from tests.sim.producer import TOPIC
from tests.sim.run import run
from tests.sim.world import World

FAULTS = ("alter", "alter", "alter", "kill", "kill_controller", "pause_leader", "cut", "isolate")
SEEDS = range(1, 9)


def test_settings_that_change_under_faults_end_the_same_everywhere() -> None:
    changed = sum(changed_and_same_everywhere(seed) for seed in SEEDS)
    assert changed >= len(SEEDS) // 2


def changed_and_same_everywhere(seed: int) -> bool:
    """Whether anything was changed in the run of this seed."""
    worlds: list[World] = []
    result = run(seed, faults=FAULTS, prepare=worlds.append)
    assert result.failure is None, f"seed {seed}: {result.failure}\n{result.detail}"
    (world,) = worlds
    stored = world.store.values[records.topic_key(TOPIC)]
    topic = records.decode(records.TopicRecord, stored[0])
    wanted = log_config(topic.config)
    for broker in world.brokers.values():
        assert broker.node is not None
        for partition in broker.node.partitions:
            assert partition.replica.topic == topic
            assert partition.replica.log.config == wanted
            if partition.leader is not None:
                expiration = int(topic.config["producer.id.expiration.ms"])
                assert partition.leader.sweep.expiration_ms == expiration
    return bool(topic.own)
