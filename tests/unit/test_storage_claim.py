"""A directory belongs to one topic id; another topic's is moved aside, whole."""

import pytest

from cluster.storage.claim import claim_directory
from cluster.storage.disk import write_file
from tests.sim.disk import SimulatedDisk

OURS, THEIRS = bytes(range(16)), bytes(range(16, 32))
SEGMENT = "00000000000000000000.log"


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def claim_with_data(disk: SimulatedDisk, topic_id: bytes) -> None:
    claim_directory(disk, "t-0", topic_id)
    write_file(disk, f"t-0/{SEGMENT}", b"data", sync=True)


def test_a_new_directory_is_ours(disk: SimulatedDisk) -> None:
    assert claim_directory(disk, "t-0", OURS) == []
    assert disk.list("t-0") == ["partition.metadata"]
    assert claim_directory(disk, "t-0", OURS) == []


def test_an_empty_directory_of_another_topic_is_taken_over(disk: SimulatedDisk) -> None:
    claim_directory(disk, "t-0", THEIRS)
    assert claim_directory(disk, "t-0", OURS) == []
    assert disk.list("") == ["t-0"]


def test_data_of_another_topic_is_moved_aside(disk: SimulatedDisk) -> None:
    for _ in range(2):
        claim_with_data(disk, THEIRS)
        (note,) = claim_directory(disk, "t-0", OURS)
        assert "-stray" in note
        assert disk.list("t-0") == ["partition.metadata"]
        disk.remove_directory("t-0")
    first, second = disk.list("")
    assert first == f"t-0.{THEIRS.hex()}-stray"
    assert disk.contents(f"{second}/{SEGMENT}") == b"data"


def test_data_that_nobody_owns_is_moved_aside_and_leaves_us_doubtful(disk: SimulatedDisk) -> None:
    claim_with_data(disk, OURS)
    write_file(disk, "t-0/partition.metadata", b"version: 0\n", sync=True)
    assert len(claim_directory(disk, "t-0", OURS)) == 1
    assert disk.list("t-0") == ["doubtful", "partition.metadata"]
