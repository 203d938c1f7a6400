"""Making a replica's directory without waiting for the disk.

Owns: what a new directory holds before its log is opened: whose it is, and an empty segment. The
names are in the page cache on return and durable once every handle was synced, which sync workers
do; then the log opens as any other, and has nothing left to wait for.
"""

from __future__ import annotations

from contextlib import suppress

from cluster.storage.checkpoint import format_topic_id
from cluster.storage.disk import Disk, DiskError
from cluster.storage.names import LOG, METADATA, segment_file


def make_directory(disk: Disk, directory: str, topic_id: bytes) -> list[int]:
    """Make a directory that is not there: the handles to sync, each to be closed after that.

    A crash leaves part of it, which an opening completes: a segment without a byte is nobody's.
    """
    handles: list[int] = []
    try:
        disk.make_directory(directory)
        handles.append(disk.open(f"{directory}/{METADATA}", create=True))
        disk.write(handles[0], 0, [format_topic_id(topic_id)])
        disk.close(disk.open(segment_file(directory, 0, LOG), create=True))
        handles.append(disk.open_directory(directory))
        handles.append(disk.open_directory(""))
    except DiskError:
        close_all(disk, handles)
        raise
    return handles


def close_all(disk: Disk, handles: list[int]) -> None:
    """Give the handles back."""
    for handle in handles:
        with suppress(DiskError):
            disk.close(handle)
