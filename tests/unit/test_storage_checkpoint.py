"""Text files of a data directory: Kafka's exact bytes, and damage that stays harmless."""

from pathlib import Path

import pytest

from cluster.storage import checkpoint
from cluster.storage.checkpoint import MetaProperties
from cluster.storage.disk import write_file
from tests.sim.disk import SimulatedDisk

GOLDEN = Path(__file__).parent.parent / "golden" / "log"


@pytest.mark.parametrize("name", [checkpoint.RECOVERY_POINTS, checkpoint.HIGH_WATERMARKS])
def test_offsets_written_by_kafka_are_read(name: str) -> None:
    offsets = checkpoint.parse_offsets((GOLDEN / name).read_bytes())
    assert len(offsets) == 15
    assert offsets["golden.rolled", 0] == 3000
    assert checkpoint.parse_offsets(checkpoint.format_offsets(offsets)) == offsets


def test_an_empty_checkpoint_has_kafkas_bytes() -> None:
    golden = (GOLDEN / checkpoint.LOG_STARTS).read_bytes()
    assert checkpoint.format_offsets({}) == golden
    assert checkpoint.parse_offsets(golden) == {}


def test_an_empty_file_is_an_empty_checkpoint() -> None:
    assert checkpoint.parse_offsets(b"") == {}


@pytest.mark.parametrize(
    "data",
    [
        b"1\n0\n",
        b"0\n2\na 0 5\n",
        b"0\n1\na 0 5",
        b"0\n1\na 0\n",
        b"0\n1\na 0 -5\n",
        b"0\n1\na 0 x\n",
        b"0\n",
        b"\xff\xfe\n",
        b"\0" * 40,
    ],
)
def test_a_damaged_checkpoint_is_trusted_with_nothing(data: bytes) -> None:
    disk = SimulatedDisk()
    write_file(disk, checkpoint.RECOVERY_POINTS, data, sync=True)
    assert checkpoint.read_offsets(disk, checkpoint.RECOVERY_POINTS) is None


def test_a_missing_checkpoint_is_empty_and_a_written_one_comes_back() -> None:
    disk = SimulatedDisk()
    assert checkpoint.read_offsets(disk, checkpoint.RECOVERY_POINTS) == {}
    checkpoint.write_offsets(disk, checkpoint.RECOVERY_POINTS, {("b", 1): 2, ("a", 0): 7})
    assert disk.contents(checkpoint.RECOVERY_POINTS) == b"0\n2\na 0 7\nb 1 2\n"
    assert checkpoint.read_offsets(disk, checkpoint.RECOVERY_POINTS) == {("a", 0): 7, ("b", 1): 2}


def test_leader_epochs_written_by_kafka_come_back_byte_for_byte() -> None:
    golden = (GOLDEN / "golden.none-0" / "leader-epoch-checkpoint").read_bytes()
    assert checkpoint.parse_epochs(golden) == [(0, 0)]
    assert checkpoint.format_epochs([(0, 0)]) == golden


@pytest.mark.parametrize("data", [b"0\n2\n1 5\n1 6\n", b"0\n2\n1 5\n2 4\n", b"0\n1\n-1 0\n", b"x"])
def test_epochs_out_of_order_are_damage(data: bytes) -> None:
    with pytest.raises(ValueError):
        checkpoint.parse_epochs(data)


def test_a_topic_id_written_by_kafka_comes_back_byte_for_byte() -> None:
    golden = (GOLDEN / "golden.none-0" / "partition.metadata").read_bytes()
    topic_id = checkpoint.parse_topic_id(golden)
    assert len(topic_id) == 16
    assert checkpoint.format_topic_id(topic_id) == golden


@pytest.mark.parametrize("data", [b"", b"version: 1\ntopic_id: x", b"version: 0\ntopic_id: abc"])
def test_damaged_partition_metadata_is_no_topic_id(data: bytes) -> None:
    with pytest.raises(ValueError):
        checkpoint.parse_topic_id(data)


def test_meta_properties_written_by_kafka_are_read() -> None:
    meta = checkpoint.parse_meta_properties((GOLDEN / "meta.properties").read_bytes())
    assert meta.node_id == 1
    assert len(meta.cluster_id) == len(meta.directory_id) == 22
    assert checkpoint.parse_meta_properties(checkpoint.format_meta_properties(meta)) == meta


@pytest.mark.parametrize("line", ["version=1", "cluster.id=c", "node.id=1", "directory.id=d"])
def test_meta_properties_need_every_key(line: str) -> None:
    whole = checkpoint.format_meta_properties(MetaProperties("c", 1, "d")).decode()
    with pytest.raises(ValueError):
        checkpoint.parse_meta_properties(whole.replace(line + "\n", "").encode())


def test_the_clean_marker_is_gone_once_it_was_taken() -> None:
    disk = SimulatedDisk()
    checkpoint.write_clean_marker(disk, 11)
    assert disk.contents(checkpoint.CLEAN_MARKER) == b'{"version":0,"brokerEpoch":11}'
    assert checkpoint.take_clean_marker(disk) == 11
    assert checkpoint.take_clean_marker(disk) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"version":1,"brokerEpoch":1}', b"7"])
def test_a_damaged_clean_marker_means_unclean(data: bytes) -> None:
    disk = SimulatedDisk()
    write_file(disk, checkpoint.CLEAN_MARKER, data, sync=True)
    assert checkpoint.take_clean_marker(disk) is None
    assert not disk.exists(checkpoint.CLEAN_MARKER)


def test_an_offset_file_is_written_only_when_an_entry_changed() -> None:
    disk = SimulatedDisk()
    checkpoint.write_offsets(disk, "points", {("b", 1): 5, ("a", 0): 7})
    file = checkpoint.OffsetFile(disk, "points")
    writes = disk.calls["write"]
    file.say(("a", 0), 7)
    file.write()
    assert disk.calls["write"] == writes
    file.say(("a", 2), 1)
    file.say(("b", 1), 6)
    file.write()
    assert disk.contents("points") == b"0\n3\na 0 7\na 2 1\nb 1 6\n"
    file.drop(("a", 0))
    file.write()
    assert checkpoint.read_offsets(disk, "points") == {("a", 2): 1, ("b", 1): 6}
