"""Apache Kafka's own dump tool reads what we write, and says of it what ours says.

Needs Java and Kafka's jars: in the directory that ONCELOG_KAFKA_JARS names, or where the benchmark
against Kafka keeps them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from _fastseq.batch import collapse_batch, expire_batch, fence_batch
from benchmarks.kafka.jars import VERSION
from benchmarks.kafka.load import BUILD
from cluster.broker.disk import FileDisk
from cluster.cli.log import _line
from cluster.storage.inspect import dump
from cluster.storage.settings import LogConfig
from tests.batches import stamp
from tests.unit.log_fixture import Replica

TOOL = "org.apache.kafka.tools.DumpLogSegments"
JARS = Path(os.environ.get("ONCELOG_KAFKA_JARS", BUILD / f"jars-{VERSION}"))
WRONG = re.compile("mismatch|isvalid: false|invalid|corrupt|unexpected", re.IGNORECASE)

pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="there is no java"),
    pytest.mark.skipif(not any(JARS.glob("kafka-tools-*.jar")), reason=f"no jars in {JARS}"),
]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """A log of two segments with indexes, snapshots and each of our control batches."""
    config = LogConfig(segment_bytes=20_000, index_interval_bytes=500)
    replica = Replica(disk=FileDisk(tmp_path), config=config)  # type: ignore[arg-type]
    for _ in range(150):
        replica.append(2)
    end = replica.log.next_offset
    controls = [expire_batch(5), collapse_batch(5, 2), fence_batch(9)]
    data = b"".join(stamp(batch, end + at, 0) for at, batch in enumerate(controls))
    assert replica.log.apply(data, 0, len(data), 0) == 0
    replica.sync()
    replica.log.close(clean=True)
    return tmp_path


def kafkas_dump(path: Path) -> list[str]:
    """What Kafka prints of one file, without the lines about itself."""
    command = ["java", "-cp", f"{JARS}/*", TOOL, "--deep-iteration", "--print-data-log", "--files"]
    done = subprocess.run(
        [*command, str(path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert not WRONG.search(done.stdout + done.stderr), done.stdout
    lines = done.stdout.splitlines()
    return [
        line
        for line in lines
        if line.startswith(("baseOffset", "| ", "offset", "timestamp", "producerId"))
    ]


@pytest.mark.parametrize("suffix", [".log", ".index", ".timeindex", ".snapshot"])
def test_kafkas_dump_of_our_files_is_ours(ours: Path, suffix: str) -> None:
    disk = FileDisk(ours, read_only=True)
    files = sorted((ours / "t-0").glob(f"*{suffix}"))
    assert len(files) >= 2
    for path in files:
        rows = dump(disk, f"t-0/{path.name}", content=True)
        mine = [re.split(" control: ", _line(row))[0] for row in rows]
        theirs = [re.split(" controlType: ", line)[0] for line in kafkas_dump(path)]
        assert mine == theirs


def test_kafka_names_our_control_batches_as_unknown_and_reads_on(ours: Path) -> None:
    (last,) = sorted((ours / "t-0").glob("*.log"))[-1:]
    types = re.findall(r"controlType: UNKNOWN\((\d+)\)", "\n".join(kafkas_dump(last)))
    assert types == ["100", "101", "102"]
