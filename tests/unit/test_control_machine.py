"""File systems, boots and lock holders, read from text and from this machine."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.control.machine import (
    NETWORK_FILESYSTEMS,
    Holder,
    boot_id,
    boottime_ms,
    filesystem_of,
    lock_holders,
    refuse_network_filesystem,
)
from cluster.errors import ConfigError

MOUNTS = """\
25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 25 0:28 / /mnt rw,relatime shared:15 master:3 - nfs4 server:/export rw,vers=4.2
32 31 254:1 / /mnt/local\\040disk rw - xfs /dev/vdb rw
33 25 0:40 / /mnt/shadowed rw - ext4 /dev/vdc rw
34 33 0:41 / /mnt/shadowed rw - fuse.sshfs me@there: rw
not a mount
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/oncelog/metadata.db", "ext4"),
        ("/mnt/data/metadata.db", "nfs4"),
        ("/mntother/metadata.db", "ext4"),
        ("/mnt/local disk/metadata.db", "xfs"),
        ("/mnt/shadowed/metadata.db", "fuse.sshfs"),
    ],
)
def test_the_innermost_and_latest_mount_decides(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTS) == kind


@pytest.mark.parametrize("kind", sorted(NETWORK_FILESYSTEMS))
def test_network_file_systems_are_refused_by_name(kind: str) -> None:
    mounts = f"25 1 254:0 / / rw - {kind} somewhere rw"
    with pytest.raises(ConfigError, match=f"not {kind}: the locks"):
        refuse_network_filesystem(Path("/data/metadata.db"), mounts)


def test_the_file_system_of_a_real_path_is_known_here(tmp_path: Path) -> None:
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    assert filesystem_of(tmp_path, mounts) != "unknown"
    refuse_network_filesystem(tmp_path / "metadata.db")


def test_boot_and_clock_are_those_of_the_machine() -> None:
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()
    assert 0 < boottime_ms() <= boottime_ms()


LOCKER = """
import fcntl, os, signal, sys
with open(sys.argv[1], "r+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX)
    print("locked", flush=True)
    if sys.argv[2] == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    sys.stdin.read()
"""


@pytest.mark.parametrize("how", ["stop", "run"])
def test_the_holder_of_a_lock_is_found_with_its_state(tmp_path: Path, how: str) -> None:
    path = tmp_path / "file"
    path.touch()
    command = [sys.executable, "-c", LOCKER, str(path), how]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            if how == "stop":
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            assert lock_holders(path) == (Holder(process.pid, stopped=how == "stop"),)
        finally:
            process.kill()
    assert lock_holders(path) == ()


def test_our_own_locks_and_waiters_are_not_holders(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with path.open("w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        assert lock_holders(path) == ()
        inode = path.stat().st_ino
        locks = f"1: -> POSIX  ADVISORY  WRITE 4194301 fe:00:{inode} 0 EOF\n2: FLOCK ADVISORY\n"
        assert lock_holders(path, locks) == ()


def test_a_holder_that_has_just_ended_is_not_stopped(tmp_path: Path) -> None:
    inode = tmp_path.stat().st_ino
    locks = f"1: POSIX  ADVISORY  WRITE 4194301 fe:00:{inode} 0 EOF\n"
    assert lock_holders(tmp_path, locks) == (Holder(4194301, stopped=False),)


def test_nobody_holds_a_file_that_does_not_exist(tmp_path: Path) -> None:
    assert lock_holders(tmp_path / "absent") == ()
