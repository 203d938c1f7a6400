"""A writer on a real disk is killed again and again: every acknowledged record is there, once."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from cluster.storage.disk import DiskError
from cluster.storage.log import Log
from cluster.storage.verify import Finding, ReplicaCheck
from cluster.wire.records import next_offset, read_records
from tests.integration.crash_writer import PRODUCER, append, kill, opened, start, write_on

LIVES = int(os.environ.get("ONCELOG_CRASHES", "40"))  # `make crash` asks for 200
SMALL_BYTES = 1024 * 1024


def check(log: Log, acked: int) -> None:
    """Record n is at offset n, for all n that were acknowledged at least."""
    assert log.next_offset >= acked
    offset = log.start_offset
    while offset < log.next_offset:
        data = bytes(log.read(offset, 100_000, log.next_offset))
        for record in read_records(data, offset):
            assert record.value == b"%d" % record.offset
        offset = next_offset(data, offset)
    entry = log.table.get(PRODUCER)
    assert (0 if entry is None else entry.accepted) == log.next_offset


@pytest.mark.timeout(600)
def test_every_acknowledged_record_survives_the_death_of_its_writer(tmp_path: Path) -> None:
    rng, acked = Random(LIVES), 0
    for life in range(LIVES):
        child, reading = start(lambda pipe: write_on(tmp_path, pipe))
        early = life % 3 == 0  # while it opens the log, perhaps
        told = 0 if early else int.from_bytes(os.read(reading, 8))
        # Not a wait for anything: a moment at which it dies, drawn by chance.
        time.sleep(rng.random() * 0.02)
        acked = max(acked, told, kill(child, reading))
        _, log, recovery = opened(tmp_path)
        assert recovery.damage is None, f"life {life}: {recovery}"
        check(log, acked)
        log.close(clean=False)
    assert acked > LIVES
    disk, log, _ = opened(tmp_path)
    log.close(clean=True)
    found = ReplicaCheck(disk, "t-0", deep=True, gaps=False).run()
    assert [item for item in found if isinstance(item, Finding) and not item.note] == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of a megabyte."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "oncelog-test", str(tmp_path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_full_disk_refuses_records_and_loses_none(small: Path) -> None:
    ballast = small / "ballast"
    ballast.write_bytes(bytes(SMALL_BYTES // 2))
    disk, log, _ = opened(small)
    acked = 0
    with pytest.raises(DiskError) as full:
        while True:
            acked = append(log, disk, 50)
    assert full.value.errno == 28
    for _ in range(3):
        with pytest.raises(DiskError):
            append(log, disk, 50)
    check(log, acked)
    ballast.unlink()
    if log.failed:  # a write that could not be taken back: the end is cut first, as after EIO
        assert log.cut_to_synced(0) >= acked
        log.rebuild()
        log.clear_doubtful()
    for _ in range(50):
        acked = append(log, disk, 3)
    check(log, acked)
    log.close(clean=False)
    _, again, recovery = opened(small)
    assert not recovery.doubtful
    check(again, acked)
    again.close(clean=True)


def test_a_full_disk_does_not_keep_a_log_from_opening(small: Path) -> None:
    disk, log, _ = opened(small)
    acked = append(log, disk, 500)
    log.close(clean=False)
    ballast = (small / "ballast").open("wb")
    with pytest.raises(OSError, match="No space"):
        while True:
            ballast.write(bytes(4_096))
            ballast.flush()
    try:
        _, again, _ = opened(small)
        check(again, acked)
        again.close(clean=False)
    except DiskError as refused:
        assert refused.errno == 28
    (small / "ballast").unlink()
    with pytest.raises(OSError, match="No space"):
        ballast.close()
    _, again, recovery = opened(small)
    assert recovery.cut_bytes == 0
    check(again, acked)
    again.close(clean=True)
