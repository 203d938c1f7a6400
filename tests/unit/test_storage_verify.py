"""Checking a directory finds each kind of damage, in the file and at the place where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from _fastseq.crc32c import crc32c
from cluster.broker.disk import FileDisk
from cluster.storage import checkpoint
from cluster.storage.disk import read_file, write_file
from cluster.storage.verify import Finding, ReplicaCheck, verify_directory
from tests.batches import make_batch
from tests.unit.log_fixture import Replica

GOLDEN = Path(__file__).parent.parent / "golden" / "log"
FIRST = "t-0/00000000000000000000"
LAST = "t-0/00000000000000000081"


@pytest.fixture
def replica() -> Replica:
    """A log of 90 records in several segments, with all that a clean stop leaves."""
    replica = Replica()
    for _ in range(30):
        replica.append(3)
        replica.sync()
    replica.log.close(clean=True)
    assert replica.disk.exists(f"{LAST}.log")
    return replica


def findings(replica: Replica, *, deep: bool = False) -> list[Finding]:
    check = ReplicaCheck(replica.disk, "t-0", deep=deep, gaps=False)
    found = [item for item in check.run() if isinstance(item, Finding)]
    return [finding for finding in found if not finding.note]


def change(replica: Replica, path: str, edit: Callable[[bytes], bytes]) -> None:
    write_file(replica.disk, path, edit(read_file(replica.disk, path) or b""), sync=True)


@pytest.mark.parametrize("deep", [True, False])
def test_a_sound_log_has_no_findings(replica: Replica, deep: bool) -> None:
    assert findings(replica, deep=deep) == []


@pytest.mark.parametrize("deep", [True, False])
def test_kafkas_directory_has_no_findings(deep: bool) -> None:
    found = list(verify_directory(FileDisk(GOLDEN, read_only=True), deep=deep))
    assert [item for item in found if isinstance(item, Finding)] == []
    assert sum(item for item in found if isinstance(item, int)) == sum(
        path.stat().st_size for path in GOLDEN.rglob("*.log")
    )


def test_every_bad_batch_is_found_not_the_first_alone(replica: Replica) -> None:
    for batch in (2, 7, 8):
        replica.disk.rot(f"{FIRST}.log", 73 * batch + 70, 1)
    replica.disk.rot(f"{LAST}.log", 70, 1)
    assert findings(replica) == [
        Finding(f"{FIRST}.log", 73 * 2, "a checksum is wrong"),
        Finding(f"{FIRST}.log", 73 * 7, "a checksum is wrong"),
        Finding(f"{FIRST}.log", 73 * 8, "a checksum is wrong"),
        Finding(f"{LAST}.log", 0, "a checksum is wrong"),
    ]


def raised(data: bytes) -> bytes:
    """The base offset of the third batch is one too high, which no checksum covers."""
    at = 73 * 2
    return data[:at] + (int.from_bytes(data[at : at + 8]) + 1).to_bytes(8) + data[at + 8 :]


CASES: list[tuple[str, Callable[[bytes], bytes], str]] = [
    (f"{FIRST}.log", raised, "offsets are missing"),
    (f"{LAST}.log", lambda data: data[:-5], "a batch is cut off"),
    (f"{LAST}.log", lambda data: data + bytes(70), "bytes that are no batch"),
    (f"{FIRST}.index", lambda data: data[:4] + b"\0\0\0\1" + data[8:], "points to no batch"),
    (f"{FIRST}.index", lambda data: data + b"\0\0\xff\0\0\xff\0\0", "points past the end"),
    (f"{FIRST}.timeindex", lambda data: data[:-1] + b"\xff", "is not what the batches say"),
    ("t-0/leader-epoch-checkpoint", lambda _: b"0\n1\n0 5\n", "epoch 0 begins at 0"),
    ("t-0/leader-epoch-checkpoint", lambda data: data[:3], "not a checkpoint"),
    ("t-0/leader-epoch-checkpoint", lambda _: b"0\n2\n0 0\n3 99\n", "past the end of the log"),
    ("t-0/partition.metadata", lambda _: b"what?", "partition.metadata"),
]


@pytest.mark.parametrize(("path", "edit", "what"), CASES)
def test_each_kind_of_damage_is_found_where_it_is(
    replica: Replica, path: str, edit: Callable[[bytes], bytes], what: str
) -> None:
    change(replica, path, edit)
    found = findings(replica)
    assert any(finding.path == path and what in finding.what for finding in found), found


@pytest.mark.parametrize("suffix", [".windows", ".snapshot"])
def test_a_torn_snapshot_is_a_note_for_a_start_passes_it_over(
    replica: Replica, suffix: str
) -> None:
    path = f"t-0/00000000000000000090{suffix}"
    change(replica, path, lambda data: data[:-1])
    assert findings(replica) == []
    check = ReplicaCheck(replica.disk, "t-0", deep=False, gaps=False)
    (note,) = [item for item in check.run() if isinstance(item, Finding)]
    assert (note.path, note.note) == (path, True)


def test_a_missing_segment_is_found(replica: Replica) -> None:
    replica.disk.unlink("t-0/00000000000000000027.log")
    assert any("the next begins at 54" in finding.what for finding in findings(replica))


def test_a_producer_state_that_is_not_the_logs_is_found(replica: Replica) -> None:
    other = Replica()
    other.sequence = 500
    for _ in range(30):
        other.append(3, value=b"other")
    other.log.close(clean=True)
    for suffix in (".windows", ".snapshot"):
        path = f"t-0/00000000000000000090{suffix}"
        there = read_file(other.disk, path)
        if there is None:
            continue
        change(replica, path, lambda _, there=there: there)  # type: ignore[misc]
        assert any(finding.path == path for finding in findings(replica))


def test_only_a_deep_check_looks_at_records(replica: Replica) -> None:
    wrong = bytearray(make_batch(90, 2))
    wrong[-1] = 8  # more headers than there are
    wrong[17:21] = crc32c(wrong[21:]).to_bytes(4)
    change(replica, f"{LAST}.log", lambda data: data + bytes(wrong))
    assert findings(replica) == []
    (found,) = findings(replica, deep=True)
    assert (found.path, found.position) == (f"{LAST}.log", 73 * 9)


def test_checkpoints_that_reach_past_a_log_are_found(replica: Replica) -> None:
    checkpoint.write_offsets(replica.disk, checkpoint.RECOVERY_POINTS, {("t", 0): 91})
    write_file(replica.disk, checkpoint.HIGH_WATERMARKS, b"junk", sync=True)
    write_file(replica.disk, "meta.properties", b"junk", sync=True)
    write_file(replica.disk, "durability.properties", b"x y", sync=True)
    found = [item for item in verify_directory(replica.disk) if isinstance(item, Finding)]
    assert [finding.path for finding in found] == [
        "meta.properties", checkpoint.RECOVERY_POINTS, checkpoint.HIGH_WATERMARKS,
    ]  # fmt: skip


def test_foreign_files_and_markers_are_notes(replica: Replica) -> None:
    for name in ("notes.txt", "doubtful", "cut-0001-00000000000000000003.tail"):
        write_file(replica.disk, f"t-0/{name}", b"", sync=True)
    check = ReplicaCheck(replica.disk, "t-0", deep=False, gaps=False)
    notes = [item for item in check.run() if isinstance(item, Finding)]
    assert all(finding.note for finding in notes)
    assert len(notes) == 3
