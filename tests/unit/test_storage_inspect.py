"""What our dump shows of Kafka's files is what Kafka's own dump shows, line by line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from _fastseq.batch import collapse_batch, expire_batch, fence_batch
from cluster.broker.disk import FileDisk
from cluster.cli.log import _json, _line
from cluster.storage.disk import write_file
from cluster.storage.inspect import dump
from tests.batches import make_batch, stamp
from tests.sim.disk import SimulatedDisk
from tests.unit.log_fixture import Replica

GOLDEN = Path(__file__).parent.parent / "golden"
DUMPED = re.compile(r"(?P<topic>.+)-(?P<file>\d{20}\.(?:log|index|snapshot|records))\.txt")


@pytest.mark.parametrize("golden", sorted((GOLDEN / "dump").iterdir()), ids=lambda p: p.name)
def test_a_dump_is_kafkas_line_by_line(golden: Path) -> None:
    found = DUMPED.fullmatch(golden.name)
    assert found is not None
    name = found["file"].replace(".records", ".log")
    content = found["file"].endswith(".records")
    disk = FileDisk(GOLDEN / "log", read_only=True)
    rows = dump(disk, f"golden.{found['topic']}-0/{name}", content=content)
    ours = [_line(row).split(" control: ")[0] for row in rows]
    theirs = [
        line
        for line in golden.read_text().splitlines()
        if line.startswith(("baseOffset", "| ", "offset", "producerId"))
    ]
    if found["file"].endswith(".snapshot"):  # in the order of a hash table
        ours, theirs = sorted(ours), sorted(theirs)
    assert ours == theirs


def rows(replica: Replica, name: str, *, content: bool = False) -> list[str]:
    return [_line(row) for row in dump(replica.disk, f"t-0/{name}", content=content)]


def test_control_batches_are_told_by_name() -> None:
    disk = SimulatedDisk()
    disk.make_directory("t-0")
    unknown = expire_batch(1).replace(b"\0\0\0\x64", b"\0\0\x03\xe7")
    batches = [expire_batch(7), collapse_batch(5, 2), fence_batch(9), unknown]
    data = b"".join(stamp(batch, at, 3) for at, batch in enumerate(batches))
    write_file(disk, "t-0/00000000000000000000.log", data, sync=True)
    found = list(dump(disk, "t-0/00000000000000000000.log", content=True))
    assert [row.fields["control"] for row in found if row.kind == "record"] == [
        "EXPIRE", "COLLAPSE", "FENCE", "unknown (999)",
    ]  # fmt: skip
    told = [row.fields for row in found if row.kind == "record"]
    assert told[0]["cutoff"] == 7
    assert (told[1]["producerIdBound"], told[1]["producerEpochBound"]) == (5, 2)
    assert (told[2]["producerId"], told[2]["producerEpoch"]) == (9, 32_767)


def test_our_own_files_are_shown() -> None:
    replica = Replica()
    replica.append(40)
    replica.sync()
    replica.log.close(clean=True)
    assert len(rows(replica, "00000000000000000000.log")) == 40
    snapshot = rows(replica, "00000000000000000040.windows")
    assert snapshot[0].startswith("nextOffset: 40 producers: 1 floors: 0")
    assert len(snapshot) == 1 + 5
    assert rows(replica, "leader-epoch-checkpoint") == ["epoch: 0 startOffset: 0"]
    assert rows(replica, "partition.metadata") == ["topicId: AAECAwQFBgcICQoLDA0ODw"]
    (line,) = [row for row in dump(replica.disk, "t-0/partition.metadata")]
    assert json.loads(_json("x", line))["kind"] == "metadata"


def test_damaged_batches_are_shown_with_what_is_wrong_and_the_rest_follows() -> None:
    replica = Replica()
    replica.append(10)
    replica.log.close(clean=False)
    name = "00000000000000000000.log"
    replica.disk.rot(f"t-0/{name}", 73 * 3 + 70, 1)
    lines = rows(replica, name)
    assert len(lines) == 10
    assert [line for line in lines if "isvalid: false damage: a checksum is wrong" in line] == [
        lines[3]
    ]
    replica.disk.rot(f"t-0/{name}", 73 * 8 + 16, 1)
    assert rows(replica, name)[-1] == (
        f"position: {73 * 8} damage: bytes that are no batch: {73 * 2} bytes to the end"
    )


def test_a_torn_end_is_shown() -> None:
    replica = Replica()
    replica.log.close(clean=False)
    write_file(replica.disk, "t-0/00000000000000000000.log", make_batch(0, 4)[:-1], sync=True)
    (line,) = rows(replica, "00000000000000000000.log")
    assert "a batch is cut off" in line


@pytest.mark.parametrize(
    "name",
    ["00000000000000000000.snapshot", "00000000000000000000.windows", "leader-epoch-checkpoint",
     "partition.metadata", "recovery-point-offset-checkpoint"],
)  # fmt: skip
def test_what_cannot_be_read_is_shown_as_damage(name: str) -> None:
    replica = Replica()
    write_file(replica.disk, f"t-0/{name}", b"\xff" * 60, sync=True)
    (row,) = dump(replica.disk, f"t-0/{name}")
    assert row.kind == "damage"


def test_a_foreign_file_is_refused_by_name() -> None:
    replica = Replica()
    write_file(replica.disk, "t-0/notes.txt", b"mine", sync=True)
    with pytest.raises(ValueError, match=r"notes\.txt is not a file of a log"):
        list(dump(replica.disk, "t-0/notes.txt"))
