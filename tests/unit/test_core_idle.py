"""What a partition costs that nobody writes to: some memory, no open file, no look."""

from __future__ import annotations

import gc
import tracemalloc

from cluster.limits import EPOCH_FILES_PER_LOOK
from cluster.storage.pinned import OpenFiles
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch

PARTITIONS = 200
BYTES_MAX = 10 * 1024
FILES_MAX = 20


def make(world: World, partitions: int) -> None:
    wish = messages.CreatableTopic(name=TOPIC, num_partitions=partitions, replication_factor=1)
    world.ask(world.controller(), messages.CreateTopicsRequest(topics=[wish]))
    world.run(20_000)


def alone() -> World:
    world = World(1, config={"min.insync.replicas": "1"})
    world.run(1_000)
    return world


def test_idle_partition_takes_less_than_ten_kilobytes() -> None:
    world = alone()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.take_snapshot()
        make(world, PARTITIONS)
        gc.collect()
        grown = tracemalloc.take_snapshot().compare_to(before, "filename")
    finally:
        tracemalloc.stop()
    ours = [each for each in grown if "/tests/" not in each.traceback[0].filename]
    assert len(world.nodes[1].partitions) == PARTITIONS
    assert sum(each.size_diff for each in ours) / PARTITIONS < BYTES_MAX


def test_files_of_idle_partitions_are_closed_and_opened_again_for_a_write() -> None:
    world = alone()
    world.nodes[1].logs.files = OpenFiles(FILES_MAX)
    make(world, 3 * FILES_MAX)
    assert world.disks[1].open_handles <= FILES_MAX
    for index in range(3 * FILES_MAX):
        part = messages.PartitionProduceData(index=index, records=batch(-1, -1))
        topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
        (answer,) = world.ask(
            1, messages.ProduceRequest(acks=-1, timeout_ms=1_000, topic_data=topics), wait_ms=20
        )
        assert isinstance(answer, messages.ProduceResponse)
        assert answer.responses[0].partition_responses[0].error_code == 0
        assert world.disks[1].open_handles <= FILES_MAX + 1 + EPOCH_FILES_PER_LOOK
