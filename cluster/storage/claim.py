"""Whose directory this is: a replica's directory belongs to one topic id.

Owns: `partition.metadata`, and moving a directory of another topic aside. Such a log is never
truncated to fit (rule 8 of docs/protocol.md).
"""

from __future__ import annotations

from contextlib import suppress

from cluster.storage import names
from cluster.storage.checkpoint import format_topic_id, parse_topic_id
from cluster.storage.disk import Disk, read_end, read_file, replace_file

NOBODY = bytes(16)


def claim_directory(disk: Disk, directory: str, topic_id: bytes) -> list[str]:
    """Make the directory one of this topic, durably, and say what had to be done for it."""
    notes = []
    owner = _owner(disk, directory)
    if owner != topic_id and _has_segments(disk, directory):
        notes.append(_move_aside(disk, directory, owner or NOBODY))
    if not disk.exists(directory):
        disk.make_directory(directory)
        disk.sync_directory("")
    if notes and owner is None:
        # It may have been ours: nothing proves that nothing acknowledged went with it.
        mark(disk, directory, names.DOUBTFUL)
    if owner != topic_id:
        replace_file(disk, f"{directory}/{names.METADATA}", format_topic_id(topic_id))
    return notes


def _owner(disk: Disk, directory: str) -> bytes | None:
    """The topic id written in the directory, None if there is none that can be read."""
    with suppress(ValueError):
        return parse_topic_id(read_file(disk, f"{directory}/{names.METADATA}") or b"")
    return None


def _has_segments(disk: Disk, directory: str) -> bool:
    """Whether anything was ever written here: a segment without a byte is nobody's."""
    if not disk.exists(directory):
        return False
    found = [name for name in disk.list(directory) if names.offset_of(name, names.LOG) is not None]
    return any(names.offset_of(name, names.LOG) for name in found) or any(
        read_end(disk, f"{directory}/{name}", 1) for name in found
    )


def _move_aside(disk: Disk, directory: str, owner: bytes) -> str:
    attempt = 0
    while disk.exists(stray := names.stray_directory(directory, owner, attempt)):
        attempt += 1
    disk.rename(directory, stray)
    disk.sync_directory("")
    return f"a directory that is not of this topic was moved to {stray}"


def mark(disk: Disk, directory: str, name: str, content: bytes = b"") -> None:
    """Write a marker file, durably."""
    replace_file(disk, f"{directory}/{name}", content)


def unmark(disk: Disk, directory: str, name: str) -> None:
    """Remove a marker file if it is there, durably."""
    if disk.exists(f"{directory}/{name}"):
        disk.unlink(f"{directory}/{name}")
        disk.sync_directory(directory)


def mark_failed_sync(disk: Disk, directory: str, synced_end: int) -> None:
    """Say, durably, that the page cache may show bytes past `synced_end` that the disk has not."""
    mark(disk, directory, names.FAILED_SYNC, str(synced_end).encode())
