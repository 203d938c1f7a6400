"""Text files of a data directory: offset and epoch checkpoints, identities, the clean marker.

Owns: the exact bytes Apache Kafka writes for them (trailing newlines included) and the rule that
damage stays where it is: parsing raises ValueError, reading answers None for a damaged file, and
only the caller's own partition is concerned.

Files are replaced whole (temporary file, sync, rename, directory sync); the clean marker is taken
away before anything else is read, so that a crash while loading does not look clean next time.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from cluster.storage.disk import Disk, read_file, replace_file

RECOVERY_POINTS = "recovery-point-offset-checkpoint"
LOG_STARTS = "log-start-offset-checkpoint"
HIGH_WATERMARKS = "replication-offset-checkpoint"
META_PROPERTIES = "meta.properties"
CLEAN_MARKER = ".kafka_cleanshutdown"

TopicPartition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class MetaProperties:
    """Whose data directory this is."""

    cluster_id: str
    node_id: int
    directory_id: str


def parse_lines(data: bytes, width: int) -> list[list[str]]:
    """Fields of a checkpoint `0`, count, entries of `width` fields; ValueError if damaged."""
    if not data:
        return []
    lines = data.decode("utf-8").split("\n")
    if len(lines) < 3 or lines[0] != "0" or lines[-1]:
        raise ValueError("not a checkpoint of version 0")
    entries = [line.split(" ") for line in lines[2:-1]]
    if int(lines[1]) != len(entries):
        raise ValueError(f"{len(entries)} entries, {lines[1]} announced")
    if any(len(entry) != width for entry in entries):
        raise ValueError(f"an entry without {width} fields")
    return entries


def format_lines(entries: list[str]) -> bytes:
    """A checkpoint of version 0, one line per entry."""
    return "".join(f"{line}\n" for line in ["0", str(len(entries)), *entries]).encode()


def parse_offsets(data: bytes) -> dict[TopicPartition, int]:
    """An offset checkpoint; ValueError if damaged."""
    offsets = {(topic, int(part)): int(text) for topic, part, text in parse_lines(data, 3)}
    if any(offset < 0 or partition < 0 for (_, partition), offset in offsets.items()):
        raise ValueError("a negative number")
    return offsets


def format_offsets(offsets: Mapping[TopicPartition, int]) -> bytes:
    """An offset checkpoint, in the order of topic and partition."""
    return format_lines([f"{t} {p} {offset}" for (t, p), offset in sorted(offsets.items())])


def read_offsets(disk: Disk, path: str) -> dict[TopicPartition, int] | None:
    """An offset checkpoint; empty if there is none, None if it is damaged: then trust nothing."""
    try:
        return parse_offsets(read_file(disk, path) or b"")
    except ValueError:
        return None


def write_offsets(disk: Disk, path: str, offsets: Mapping[TopicPartition, int]) -> None:
    """Replace an offset checkpoint, durably."""
    replace_file(disk, path, format_offsets(offsets))


class OffsetFile:
    """An offset checkpoint of many entries of which few change between two writes."""

    def __init__(self, disk: Disk, path: str) -> None:
        """What the file says stays until it is said anew; a damaged one says nothing."""
        self._disk = disk
        self._path = path
        self._offsets: dict[TopicPartition, int] = {}
        self._lines: dict[TopicPartition, str] = {}
        self._sorted = self._written = True
        for place, offset in (read_offsets(disk, path) or {}).items():
            self.say(place, offset)
        self._written = True

    def say(self, place: TopicPartition, offset: int) -> None:
        """This is the offset of a partition at the next write."""
        before = self._offsets.get(place)
        if before == offset:
            return
        self._offsets[place] = offset
        self._lines[place] = f"{place[0]} {place[1]} {offset}"
        self._sorted = self._sorted and before is not None
        self._written = False

    def drop(self, place: TopicPartition) -> None:
        """The next write says nothing of this partition."""
        if self._offsets.pop(place, None) is not None:
            del self._lines[place]
            self._written = False

    def write(self) -> None:
        """Replace the file, durably, if anything changed."""
        if self._written:
            return
        if not self._sorted:
            self._lines = dict(sorted(self._lines.items()))
            self._sorted = True
        replace_file(self._disk, self._path, format_lines(list(self._lines.values())))
        self._written = True


def parse_epochs(data: bytes) -> list[tuple[int, int]]:
    """`leader-epoch-checkpoint` as (epoch, start offset), both growing; ValueError if damaged."""
    entries = [(int(epoch), int(start)) for epoch, start in parse_lines(data, 2)]
    for (epoch, start), (next_epoch, next_start) in pairwise(entries):
        if next_epoch <= epoch or next_start < start:
            raise ValueError("epochs out of order")
    if any(epoch < 0 or start < 0 for epoch, start in entries):
        raise ValueError("a negative number")
    return entries


def format_epochs(entries: list[tuple[int, int]]) -> bytes:
    """`leader-epoch-checkpoint`."""
    return format_lines([f"{epoch} {start}" for epoch, start in entries])


def parse_topic_id(data: bytes) -> bytes:
    """The 16 bytes of the topic id in `partition.metadata`; ValueError if damaged."""
    lines = data.decode("utf-8").split("\n")
    if lines[0] != "version: 0" or len(lines) < 2 or not lines[1].startswith("topic_id: "):
        raise ValueError("not partition.metadata of version 0")
    return _decode_id(lines[1].removeprefix("topic_id: "))


def format_topic_id(topic_id: bytes) -> bytes:
    """`partition.metadata`, which has no newline at its end."""
    return f"version: 0\ntopic_id: {encode_id(topic_id)}".encode()


def encode_id(identifier: bytes) -> str:
    """16 bytes as the 22 characters Kafka prints."""
    return urlsafe_b64encode(identifier).decode().rstrip("=")


def _decode_id(text: str) -> bytes:
    if len(text) != 22:
        raise ValueError("an id has 22 characters")
    return urlsafe_b64decode(text + "==")


def parse_meta_properties(data: bytes) -> MetaProperties:
    """`meta.properties` of version 1; ValueError if a key is missing or wrong."""
    lines = [line.strip() for line in data.decode("utf-8").splitlines()]
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    values = {key.strip(): value.strip() for key, _, value in pairs}
    try:
        if values["version"] != "1":
            raise ValueError(f"version {values['version']} is not 1")
        node_id = int(values["node.id"])
        return MetaProperties(values["cluster.id"], node_id, values["directory.id"])
    except KeyError as missing:
        raise ValueError(f"{missing} is missing") from None


def format_meta_properties(meta: MetaProperties) -> bytes:
    """`meta.properties` of version 1."""
    values = {
        "cluster.id": meta.cluster_id,
        "directory.id": meta.directory_id,
        "node.id": meta.node_id,
        "version": 1,
    }
    return "".join(f"{key}={value}\n" for key, value in values.items()).encode()


def write_clean_marker(disk: Disk, broker_epoch: int) -> None:
    """Say, as the last act of a clean stop, that every log was synced and closed."""
    marker = json.dumps({"version": 0, "brokerEpoch": broker_epoch}, separators=(",", ":"))
    replace_file(disk, CLEAN_MARKER, marker.encode())


def take_clean_marker(disk: Disk) -> int | None:
    """Broker epoch of the last clean stop, None after any other; the marker is gone on return."""
    data = read_file(disk, CLEAN_MARKER)
    if data is None:
        return None
    disk.unlink(CLEAN_MARKER)
    disk.sync_directory("")
    try:
        marker = json.loads(data)
        return int(marker["brokerEpoch"]) if marker["version"] == 0 else None
    except (ValueError, KeyError, TypeError):
        return None
