"""Reads of a log without the device: what is missing is named, and what comes back is checked."""

from __future__ import annotations

import pytest

from cluster.storage import names
from cluster.storage.budget import Budget
from cluster.storage.checkpoint import format_topic_id
from cluster.storage.disk import DiskError, write_file
from cluster.storage.log import Log
from cluster.storage.reading import Cold, Fetched, Parts
from cluster.storage.settings import LogConfig
from tests.batches import make_batch
from tests.sim.disk import SimulatedDisk
from tests.unit.log_fixture import ANY, TOPIC, Replica

CONFIG = LogConfig(segment_bytes=4_000, index_interval_bytes=200, tail_bytes=1_000)


@pytest.fixture
def replica() -> Replica:
    """Forty batches in several segments, none of them in the memory of the log."""
    replica = Replica(config=CONFIG)
    for _ in range(40):
        replica.append(value=bytes(300))
    replica.log.share(Budget(0))
    replica.sync()
    return replica


def answer(replica: Replica, cold: Cold) -> Fetched:
    """What a read worker would bring."""
    data = replica.disk.read(cold.handle, cold.position, cold.length)
    replica.log.returned(cold)
    return Fetched(cold, data)


def until_read(replica: Replica, offset: int, max_bytes: int = 1) -> tuple[Parts, list[Cold]]:
    """Read as a broker does: (what was found, what had to be read for it)."""
    asked: list[Cold] = []
    found = replica.log.read_now(offset, max_bytes, ANY)
    while isinstance(found, Cold):
        asked.append(found)
        found = replica.log.read_now(offset, max_bytes, ANY, answer(replica, found))
    return found, asked


def test_a_cold_read_is_named_and_answered_with_its_bytes(replica: Replica) -> None:
    replica.disk.cold = 1.0
    found, asked = until_read(replica, 5, 500)
    whole = replica.contents()
    assert [cold.missing.index for cold in asked] == [True, False]
    size = len(whole) // 40
    assert b"".join(found) == whole[5 * size : 6 * size]


def test_whoever_reads_on_needs_no_index(replica: Replica) -> None:
    replica.disk.cold = 1.0
    until_read(replica, 1, 500)
    _, asked = until_read(replica, 2, 500)
    assert [(cold.missing.index, cold.missing.hint) for cold in asked] == [(False, -1)]


def test_a_batch_larger_than_what_was_asked_for_is_read_whole() -> None:
    replica = Replica(config=LogConfig(index_interval_bytes=200))
    for size in (100, 5_000, 100, 5_000, 5_000, 100):
        replica.append(value=bytes(size))
    replica.log.share(Budget(0))
    whole = replica.contents()
    replica.disk.cold = 1.0
    parts = []
    for offset in range(6):
        found, _ = until_read(replica, offset, 200)
        parts.append(b"".join(found))
    assert b"".join(parts) == whole


def test_a_file_that_is_read_stays_open_when_the_log_closes(replica: Replica) -> None:
    replica.disk.cold = 1.0
    cold = replica.log.read_now(39, 1, ANY)
    assert isinstance(cold, Cold)
    replica.log.close(clean=False)
    assert replica.disk.read(cold.handle, 0, 8) == (cold.segment_base).to_bytes(8)
    replica.log.returned(cold)
    assert replica.disk.open_handles == 0


def test_a_file_that_is_read_stays_open_when_its_segment_is_dropped(replica: Replica) -> None:
    replica.disk.cold = 1.0
    cold = replica.log.read_now(39, 1, ANY)
    assert isinstance(cold, Cold)
    replica.log.truncate(3, 0)
    fetched = answer(replica, cold)
    with pytest.raises(ValueError):
        replica.log.read_now(39, 1, ANY, fetched)


def test_what_was_read_before_a_cut_is_not_handed_out_after_it(replica: Replica) -> None:
    replica.disk.cold = 1.0
    log = replica.log
    cold = log.read_now(39, 1, ANY)
    assert isinstance(cold, Cold)
    before = answer(replica, cold)
    log.truncate(39, 0)
    replica.disk.cold = 0.0
    replica.sequence = 39
    replica.append(value=b"other" + bytes(295))
    log.share(Budget(0))
    found = log.read_now(39, 1, ANY, before)
    assert not isinstance(found, Cold)
    assert b"other" in b"".join(found)


def test_an_index_that_was_read_before_a_cut_is_forgotten(replica: Replica) -> None:
    replica.disk.cold = 1.0
    log = replica.log
    cold = log.read_now(5, 1, ANY)
    assert isinstance(cold, Cold)
    assert cold.missing.index
    before = answer(replica, cold)
    log.truncate(6, 0)
    replica.disk.cold = 0.0
    found = log.read_now(5, 1, ANY, before)
    assert not isinstance(found, Cold)
    assert len(b"".join(found)) == replica.disk.size(log_handle(log)) // 6


def log_handle(log: Log) -> int:
    return log._segments.active.open()


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "wrong"])
def test_a_damaged_index_is_made_anew_by_the_read_that_needs_it(
    replica: Replica, damage: str
) -> None:
    whole = replica.contents()
    replica.reopen(clean=True)
    replica.log.share(Budget(10**6))
    path = f"t-0/{0:020d}{names.INDEX}"
    disk = replica.disk
    if damage == "missing":
        disk.unlink(path)
    else:
        handle = disk.open(path)
        if damage == "wrong":
            disk.write(handle, 4, [(77).to_bytes(4)])
        else:
            disk.truncate(handle, {"empty": 0, "short": 8}[damage])
        disk.close(handle)
    assert replica.contents() == whole


def test_an_index_is_loaded_once_and_let_go_when_others_need_the_memory(replica: Replica) -> None:
    budget = Budget(100)
    replica.log.share(budget)
    replica.disk.cold = 1.0
    for offset in (3, 7):
        until_read(replica, offset)
    assert 0 < budget.used <= 100
    _, asked = until_read(replica, 5)
    assert not asked[0].missing.index
    budget.use(Holder(), 100)
    _, asked = until_read(replica, 2)
    assert asked[0].missing.index


class Holder:
    """Another log's memory."""

    def let_go(self) -> None:
        """Nothing is kept."""


def test_bytes_that_are_no_batch_are_an_error_and_no_answer(replica: Replica) -> None:
    replica.contents()
    handle = log_handle(replica.log)
    replica.disk.write(handle, 8, [b"\xff" * 60])
    with pytest.raises(DiskError):
        until_read(replica, replica.log._segments.active.base_offset)


def test_a_hole_as_compaction_leaves_is_read_over() -> None:
    disk = SimulatedDisk()
    disk.make_directory("t-0")
    write_file(disk, f"t-0/{names.METADATA}", format_topic_id(TOPIC), sync=True)
    for base, batches in ((0, [0, 1]), (10, [10, 11])):
        handle = disk.open(f"t-0/{base:020d}.log", create=True)
        disk.write(handle, 0, [b"".join(make_batch(offset) for offset in batches)])
        disk.close(handle)
    replica = Replica.__new__(Replica)
    replica.disk, replica.config, replica.now_ms = disk, CONFIG, 0
    replica.open(clean=True)
    found = replica.log.read_now(5, 1, ANY)
    assert not isinstance(found, Cold)
    assert int.from_bytes(b"".join(found)[:8]) == 10


def test_sequential_reads_of_a_cold_log_give_all_of_it(replica: Replica) -> None:
    whole = replica.contents()
    replica.disk.cold = 0.7
    assert replica.contents() == whole
