"""The data directory: whose it is, the logs in it, and the checkpoints beside them.

Owns `meta.properties`, what the last stop left behind, opening and closing every log, and the
offset checkpoints over all of them. Opening happens before registration, since the registration
says how high the epochs and producer ids on this disk go (rule 9).

Invariants: the clean marker is taken away before any log is read and written after the last one is
closed; a directory of a topic that the store does not know is moved aside, never deleted; the
recovery point on disk is lowered before anything follows a truncation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from cluster.core.image import PartitionId
from cluster.core.records import TopicRecord
from cluster.limits import BATCH_BYTES_MAX, OPEN_FILES_MAX, READ_MEMORY_BYTES
from cluster.storage import checkpoint, names
from cluster.storage.budget import Budget
from cluster.storage.checkpoint import (
    HIGH_WATERMARKS,
    LOG_STARTS,
    META_PROPERTIES,
    RECOVERY_POINTS,
)
from cluster.storage.disk import Disk, DiskError, read_file, replace_file
from cluster.storage.log import Log
from cluster.storage.pinned import OpenFiles
from cluster.storage.recover import Opening, Recovery
from cluster.storage.settings import LogConfig

DURABILITY = "durability.properties"
STRAY_TOPIC = bytes(16)


@dataclass(frozen=True, slots=True)
class NewIds:
    """Random names for whatever is new, drawn by the shell; 22 characters each."""

    cluster: str
    directory: str
    durability: str


@dataclass(slots=True)
class OpenLog:
    """An open log and what recovery found."""

    log: Log
    recovery: Recovery
    high_watermark: int


@dataclass(slots=True)
class Logs:
    """Every log of one broker."""

    disk: Disk
    boot_id: str
    new_ids: NewIds
    node_id: int
    cluster_id: str | None = None
    directory_id: str = ""
    durability_id: str = ""
    clean: bool = False
    """Logs opened now were closed in order."""
    clean_start: bool = False
    budget: Budget = field(default_factory=lambda: Budget(READ_MEMORY_BYTES))
    """Memory for readers, over all logs."""
    files: OpenFiles = field(default_factory=lambda: OpenFiles(OPEN_FILES_MAX))
    recoveries: list[tuple[str, Recovery]] = field(default_factory=list)
    opened_logs: int = 0
    opened_bytes: int = 0
    opened_ms: int = 0
    cut_bytes: int = 0
    """What openings read, how long they took in all, and what they cut."""
    _recovery_points: dict[tuple[str, int], int] = field(default_factory=dict)
    _high_watermarks: dict[tuple[str, int], int] = field(default_factory=dict)
    _points: checkpoint.OffsetFile = field(init=False)
    _marks: checkpoint.OffsetFile = field(init=False)
    _deleted: deque[tuple[int, str]] = field(default_factory=deque)
    """(when, path) of files that are no more but for whoever still reads them."""
    _starts: dict[tuple[str, int], int] = field(default_factory=dict)
    """What the checkpoint of log starts says, which names of files tell only for segments."""

    def __post_init__(self) -> None:
        """Read whose directory this is; raises ValueError if another node's."""
        meta = read_file(self.disk, META_PROPERTIES)
        if meta is None:
            self.directory_id = self.new_ids.directory
        else:
            try:
                known = checkpoint.parse_meta_properties(meta)
            except ValueError as error:
                raise ValueError(f"{META_PROPERTIES} cannot be read: {error}") from None
            if known.node_id != self.node_id:
                raise ValueError(f"the data directory belongs to node {known.node_id}")
            self.cluster_id, self.directory_id = known.cluster_id, known.directory_id
        self.clean = self.clean_start = checkpoint.take_clean_marker(self.disk) is not None
        self._read_durability()
        self._recovery_points = checkpoint.read_offsets(self.disk, RECOVERY_POINTS) or {}
        self._high_watermarks = checkpoint.read_offsets(self.disk, HIGH_WATERMARKS) or {}
        self._points = checkpoint.OffsetFile(self.disk, RECOVERY_POINTS)
        self._marks = checkpoint.OffsetFile(self.disk, HIGH_WATERMARKS)
        self._starts = checkpoint.read_offsets(self.disk, LOG_STARTS) or {}

    def _read_durability(self) -> None:
        """Unsynced writes survive the process, not the boot: a new name when both ended."""
        stored = (read_file(self.disk, DURABILITY) or b"").decode(errors="replace").split()
        if len(stored) == 2 and (self.clean or stored[1] == self.boot_id):
            self.durability_id = stored[0]
        else:
            self.durability_id = self.new_ids.durability
        if stored != [self.durability_id, self.boot_id]:
            text = f"{self.durability_id} {self.boot_id}\n"
            replace_file(self.disk, DURABILITY, text.encode())

    def belong_to(self, cluster_id: str) -> None:
        """Remember the cluster, durably, before anything of it is stored here."""
        if self.cluster_id is None:
            meta = checkpoint.MetaProperties(cluster_id, self.node_id, self.directory_id)
            replace_file(self.disk, META_PROPERTIES, checkpoint.format_meta_properties(meta))
            self.cluster_id = cluster_id

    def known(
        self, topics: Mapping[str, TopicRecord], now_ms: int
    ) -> dict[PartitionId, tuple[TopicRecord, Opening]]:
        """Every replica in the directory that the store knows, to be opened; others move aside."""
        found: dict[PartitionId, tuple[TopicRecord, Opening]] = {}
        for name in self.disk.list(""):
            place = names.parse_replica_directory(name)
            if place is None:
                self._sweep(name)
                continue
            topic = topics.get(place[0])
            if topic is None or place[1] >= topic.partitions:
                self._move_aside(name)
                continue
            opening = self.opening(topic, place[1], now_ms)
            found[topic.topic_id, place[1]] = (topic, opening)
        self.clean = False  # a log that is made from now on has no orderly past
        for place in [place for place in self._recovery_points if place[0] not in topics]:
            del self._recovery_points[place]
            self._points.drop(place)
            self._marks.drop(place)
        return found

    def opening(
        self, topic: TopicRecord, index: int, now_ms: int, *, fresh: bool = False
    ) -> Opening:
        """Begin to open, or make, the log of one partition; nothing is read yet.

        A `fresh` one was made by this process: all that is in it is durable.
        """
        place = (topic.name, index)
        return Opening(
            self.disk,
            names.replica_directory(*place),
            topic_id=bytes.fromhex(topic.topic_id),
            config=log_config(topic.config),
            recovery_point=self._recovery_points.get(place, 0),
            clean=self.clean or fresh,
            now_ms=now_ms,
        )

    def opened(self, topic: TopicRecord, index: int, log: Log, recovery: Recovery) -> OpenLog:
        """A log that is open now, with what the checkpoints say of it. May raise DiskError."""
        place = (topic.name, index)
        self.opened_logs += 1
        self.opened_bytes += recovery.scanned_bytes + recovery.replayed_bytes
        self.opened_ms += recovery.took_ms
        self.cut_bytes += recovery.cut_bytes
        if recovery.found:
            self.recoveries.append((names.replica_directory(*place), recovery))
        if (start := self._starts.get(place)) is not None:
            log.advance_start(start)
            if start > log.next_offset:  # of a topic of that name before this one, or data is lost
                self._correct_start(place, log)
        self._recovery_points.pop(place, None)  # a topic made later under this name has none
        mark = max(self._high_watermarks.pop(place, 0), log.start_offset)
        return OpenLog(log, recovery, min(mark, log.next_offset))

    def write_checkpoints(
        self, points: Mapping[tuple[str, int], int], watermarks: Mapping[tuple[str, int], int]
    ) -> None:
        """Say these in both offset checkpoints; of all others they say what they said."""
        for place, offset in points.items():
            self._points.say(place, offset)
        for place, offset in watermarks.items():
            self._marks.say(place, offset)
        self._points.write()
        self._marks.write()

    def keep_starts(self, logs: Mapping[tuple[str, int], Log]) -> None:
        """Make durable where these logs begin, as far as names of files do not tell it.

        Nothing is written if nothing changed by that.
        """
        starts = {**self._starts, **{place: log.start_offset for place, log in logs.items()}}
        for place, log in logs.items():
            if log.start_offset == log.first_offset:
                del starts[place]
        self._write_starts(starts)

    def _write_starts(self, starts: dict[tuple[str, int], int]) -> None:
        if starts != self._starts:
            checkpoint.write_offsets(self.disk, LOG_STARTS, starts)
            self._starts = starts

    def _correct_start(self, place: tuple[str, int], log: Log) -> None:
        """Else the log, grown past the wrong start, would open with records hidden."""
        try:
            self.keep_starts({place: log})
        except DiskError:
            log.close(clean=False)
            raise

    def drop_oldest(self, log: Log, now_ms: int) -> bool:
        """Take the oldest segment of a log away if all of it is deleted. True if that was so."""
        try:
            paths = log.drop_oldest()
        except DiskError:
            return False  # tried again
        self._deleted.extend((now_ms + log.config.delete_delay_ms, path) for path in paths)
        return bool(paths)

    def unlink_deleted(self, now_ms: int) -> None:
        """Give the space of one deleted file back, if its time has come: a step is short."""
        if self._deleted and self._deleted[0][0] <= now_ms:
            with suppress(DiskError):  # the next opening of the log removes it
                self.disk.unlink(self._deleted.popleft()[1])

    def mark_clean(self, incarnation: int) -> None:
        """Everything is closed: the next start may trust what it finds."""
        checkpoint.write_clean_marker(self.disk, incarnation)

    def remove(self, topic: TopicRecord, index: int) -> None:
        """The topic is deleted: its directory goes, under another name first."""
        gone = names.deleted_directory(topic.name, index, topic.topic_id)
        place = (topic.name, index)
        self._points.drop(place)  # a topic made later under this name begins at 0
        self._marks.drop(place)
        self.disk.rename(names.replica_directory(*place), gone)
        self.disk.remove_directory(gone)
        self._write_starts({at: start for at, start in self._starts.items() if at != place})

    def _sweep(self, name: str) -> None:
        """Finish removing a directory if that was interrupted."""
        if name.endswith(names.DELETED):
            with suppress(DiskError):
                self.disk.remove_directory(name)

    def _move_aside(self, name: str) -> None:
        attempt = 0
        while self.disk.exists(names.stray_directory(name, STRAY_TOPIC, attempt)):
            attempt += 1
        try:
            self.disk.rename(name, names.stray_directory(name, STRAY_TOPIC, attempt))
        except DiskError:
            return  # it stays where it is and is in nobody's way


def log_config(config: Mapping[str, str]) -> LogConfig:
    """A topic's settings as its log takes them; values were checked when the topic was made."""
    default = LogConfig()
    return LogConfig(
        segment_bytes=int(config.get("segment.bytes", default.segment_bytes)),
        segment_ms=int(config.get("segment.ms", default.segment_ms)),
        index_interval_bytes=int(config.get("index.interval.bytes", default.index_interval_bytes)),
        max_message_bytes=int(config.get("max.message.bytes", BATCH_BYTES_MAX)),
        flush="os" if config.get("flush") == "os" else "batch",
        retention_ms=int(config.get("retention.ms", default.retention_ms)),
        retention_bytes=int(config.get("retention.bytes", default.retention_bytes)),
        delete_delay_ms=int(config.get("file.delete.delay.ms", default.delete_delay_ms)),
    )
