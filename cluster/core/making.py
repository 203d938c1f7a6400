"""New replicas whose directories are on their way to the disk.

Owns each of them from the record that names it to the moment when its names are durable: the
syncs are the workers', so that a topic of a thousand partitions stops nobody. Then the log of each
is opened like any other.

Invariant (rule 14): a directory of which a sync failed is never opened, since nobody knows what of
it there will be after a crash: it is removed, and made anew.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from cluster.core.effects import Sync
from cluster.core.image import PartitionId
from cluster.core.records import TopicRecord
from cluster.core.replica import Around
from cluster.storage import names
from cluster.storage.checkpoint import parse_topic_id
from cluster.storage.disk import Disk, DiskError, read_file
from cluster.storage.making import close_all, make_directory


class Made(NamedTuple):
    """A directory that is durable, or gone again if `errno` says why."""

    key: PartitionId
    topic: TopicRecord
    errno: int


@dataclass(slots=True)
class _Made:
    key: PartitionId
    topic: TopicRecord
    directory: str
    handles: list[int]
    waits_for: int
    errno: int = 0


class Making:
    """The new replicas of one broker."""

    def __init__(self, around: Around, disk: Disk) -> None:
        """None is new yet."""
        self._around = around
        self._disk = disk
        self._made: dict[int, _Made] = {}
        self._keys: set[PartitionId] = set()
        self._broken: set[str] = set()
        """Directories that a failed sync left behind and that could not be removed."""

    def __contains__(self, key: PartitionId) -> bool:
        """Whether this one is under way."""
        return key in self._keys

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._made)

    def begin(self, key: PartitionId, topic: TopicRecord, token: int) -> bool:
        """Make a directory under the token that its syncs come back with; DiskError if that fails.

        False if it is there already.
        """
        directory = names.replica_directory(topic.name, key[1])
        if directory in self._broken:
            self._disk.remove_directory(directory)
            self._broken.discard(directory)
        if self._disk.exists(directory):
            return False
        try:
            handles = make_directory(self._disk, directory, bytes.fromhex(topic.topic_id))
        except DiskError:
            self._remove(directory)
            raise
        self._made[token] = _Made(key, topic, directory, handles, len(handles))
        self._keys.add(key)
        for handle in handles:
            self._around.out.sync(Sync(handle, token, segment_base=0, generation=0, end=0))
        return True

    def synced(self, token: int, errno: int) -> Made | None:
        """One sync came back: the replica that this was the last one of, if any."""
        made = self._made.get(token)
        if made is None:
            return None
        made.waits_for -= 1
        made.errno = made.errno or errno
        if made.waits_for:
            return None
        del self._made[token]
        self._keys.discard(made.key)
        close_all(self._disk, made.handles)
        if made.errno and not self._is_anothers(made.topic, made.directory):
            self._remove(made.directory)
        return Made(made.key, made.topic, made.errno)

    def discard(self, made: Made) -> None:
        """A topic went before its replica came: its directory goes, unless it is another's now."""
        directory = names.replica_directory(made.topic.name, made.key[1])
        if not self._is_anothers(made.topic, directory):
            self._remove(directory)

    def _is_anothers(self, topic: TopicRecord, directory: str) -> bool:
        """Whether a topic that was made later under the same name has the directory now."""
        with suppress(DiskError, ValueError):
            owner = parse_topic_id(read_file(self._disk, f"{directory}/{names.METADATA}") or b"")
            return owner.hex() != topic.topic_id
        return False

    def _remove(self, directory: str) -> None:
        try:
            if self._disk.exists(directory):
                self._disk.remove_directory(directory)
        except DiskError:
            self._broken.add(directory)
