"""`oncelog log` on a real directory: what it prints, how it ends, what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cluster.broker.disk import DataDirectory, FileDisk
from cluster.storage.checkpoint import parse_topic_id
from cluster.storage.damage import read_damage
from cluster.storage.disk import read_file
from cluster.storage.recover import open_log
from cluster.storage.settings import LogConfig
from tests.unit.log_fixture import Replica
from tests.unit.test_cli_commands import oncelog

GOLDEN = Path(__file__).parent.parent / "golden" / "log"
SEGMENT = "00000000000000000000.log"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory of ours with one partition of 30 records."""
    root = tmp_path / "data"
    root.mkdir()
    replica = Replica(disk=FileDisk(root))  # type: ignore[arg-type]
    replica.append(30)
    replica.sync()
    replica.log.close(clean=True)
    (root / "durability.properties").write_text("x y\n")
    (root / "meta.properties").write_text("version=1\ncluster.id=c\nnode.id=1\ndirectory.id=d\n")
    return root


def rot(data: Path, position: int) -> None:
    path = data / "t-0" / SEGMENT
    content = bytearray(path.read_bytes())
    content[position] ^= 4
    path.write_bytes(bytes(content))


def listing(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_kafkas_directory_is_read_and_not_touched(tmp_path: Path) -> None:
    before = listing(GOLDEN)
    done = oncelog("log", "verify", "--deep", str(GOLDEN))
    assert (done.returncode, done.stderr) == (0, "")
    assert "9 logs, 2,761,289 bytes checked" in done.stdout
    assert "no damage found" in done.stdout
    assert oncelog("log", "dump", "--records", str(GOLDEN)).returncode == 0
    assert listing(GOLDEN) == before


def test_damage_ends_a_check_with_status_1_and_is_named(data: Path) -> None:
    assert oncelog("log", "verify", str(data)).returncode == 0
    rot(data, 73 * 3 + 70)
    for path in (data, data / "t-0"):
        done = oncelog("log", "verify", str(path))
        assert done.returncode == 1
        assert f"{data}/t-0/{SEGMENT}:{73 * 3}: a checksum is wrong" in done.stdout


def test_a_dump_in_json_is_one_object_a_line(data: Path) -> None:
    done = oncelog("log", "dump", "--json", "--records", str(data / "t-0" / SEGMENT))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["kind"] for row in rows] == ["batch", "record"] * 30
    assert rows[5]["payload"] == "value"


def test_other_paths_are_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no log")
    for arguments in (("verify", str(tmp_path)), ("dump", str(tmp_path / "x"))):
        done = oncelog("log", *arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("oncelog: ")


def test_a_repair_is_asked_for_in_words_and_leaves_a_copy(data: Path, tmp_path: Path) -> None:
    rot(data, 73 * 3 + 70)
    before = listing(data / "t-0")
    assert oncelog("log", "repair", str(data / "t-0")).returncode == 1
    assert oncelog("log", "repair", "--cut", str(data)).returncode == 1
    assert listing(data / "t-0") == before
    done = oncelog("log", "repair", "--skip", "--backup", str(tmp_path / "b"), str(data / "t-0"))
    assert done.returncode == 0, done.stderr
    assert "offsets 3 to 3 are lost" in done.stdout
    assert listing(tmp_path / "b") == before
    assert oncelog("log", "verify", "--deep", str(data)).returncode == 0
    again = oncelog("log", "repair", "--cut", "--backup", str(tmp_path / "b"), str(data / "t-0"))
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_a_directory_in_use_is_not_repaired(data: Path) -> None:
    with DataDirectory(data):
        done = oncelog("log", "repair", "--cut", str(data / "t-0"))
        assert done.returncode == 1
        assert "is in use by another process" in done.stderr
        assert "in use" in oncelog("log", "verify", str(data)).stderr


def test_after_a_repair_by_cutting_the_log_opens_doubtful(data: Path) -> None:
    rot(data, 73 * 3 + 70)
    assert oncelog("log", "repair", "--cut", str(data / "t-0")).returncode == 0
    disk = FileDisk(data)
    topic_id = parse_topic_id(read_file(disk, "t-0/partition.metadata") or b"")
    log, _ = open_log(disk, "t-0", topic_id=topic_id, config=LogConfig(), clean=True, now_ms=0)
    assert (log.next_offset, log.doubtful, read_damage(disk, "t-0")) == (3, True, None)
    log.close(clean=False)
