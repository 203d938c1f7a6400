"""What the embedded store asks the machine: boot, clock, file systems, holders of a file's locks.

Owns: parsing of four files below /proc, each passed in as text by tests. Nothing is cached and
nothing is opened but those files: opening and closing a database here would drop this process's
own POSIX locks on it (fcntl(2)).
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import ConfigError

# POSIX locks or cache coherence are unreliable on these, so two brokers could both believe that
# they hold the database (sqlite.org/faq.html, question 5).
NETWORK_FILESYSTEMS = frozenset({
    "9p", "acfs", "afs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.cephfs", "fuse.glusterfs",
    "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4",
    "ocfs2", "panfs", "smb", "smb2", "smb3", "smbfs",
})  # fmt: skip


def boot_id() -> str:
    """The kernel's id of this boot; it changes with every restart of the machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def boottime_ms() -> int:
    """Milliseconds since the machine started, suspended time included, equal in all processes."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def filesystem_of(path: Path, mountinfo: str) -> str:
    """Type of the file system that holds the absolute `path`, from proc(5)'s mountinfo text."""
    best_length, best_type = -1, "unknown"
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 5:
            continue
        mount = Path(fields[4].encode("ascii", "replace").decode("unicode_escape"))
        # A later line of equal length is mounted over the earlier one.
        if path.is_relative_to(mount) and len(mount.parts) >= best_length:
            best_length, best_type = len(mount.parts), tail[0]
    return best_type


def refuse_network_filesystem(path: Path, mountinfo: str | None = None) -> None:
    """Raise ConfigError when `path` lies on a file system whose locks are not to be trusted."""
    if mountinfo is None:
        mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    found = filesystem_of(path.resolve(), mountinfo)
    if found in NETWORK_FILESYSTEMS:
        raise ConfigError(
            str(path),
            "store",
            f"a file system local to this machine, not {found}: the locks that keep brokers"
            ' apart are unreliable there (move data_dir, or use store = "etcd")',
        )


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds a lock; `stopped` by a signal, so that it cannot give it back."""

    pid: int
    stopped: bool


def lock_holders(path: Path, locks: str | None = None) -> tuple[Holder, ...]:
    """Other processes that hold a POSIX lock on `path` now: candidates for what blocks a writer.

    Files are told apart by inode alone, since /proc/locks names devices in another way than
    stat(2) on some file systems: end a process only if it is also known to be a broker.
    """
    try:
        inode = path.stat().st_ino
    except FileNotFoundError:
        return ()
    if locks is None:
        locks = Path("/proc/locks").read_text(encoding="ascii", errors="replace")
    pids = {pid for line in locks.splitlines() if (pid := _holder(line, inode)) is not None}
    return tuple(Holder(pid, _stopped(pid)) for pid in sorted(pids - {os.getpid()}))


def _holder(line: str, inode: int) -> int | None:
    """The pid of `1: POSIX  ADVISORY  WRITE 1234 fe:00:99 0 EOF`; None for waiters and others."""
    fields = line.split()
    if len(fields) != 8 or fields[1] != "POSIX" or not fields[4].isdigit():
        return None
    return int(fields[4]) if fields[5].rpartition(":")[2] == str(inode) else None


def _stopped(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("T", "t")
