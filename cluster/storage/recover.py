"""Opening a replica's directory: what is there, what can be trusted, what has to go.

Owns: the way from files to a `Log`, and the report of it. After a clean stop the tail is believed;
after any other stop everything from the recovery point on is checked and the log cut at the first
batch that is damaged or out of order.

Invariants: damage is never fatal. What was trusted and turns out damaged is scanned like the rest,
a lost index or epoch file is made again from the batches, a lost snapshot costs a longer replay.
A log that ends below what was synced is doubtful, whoever shortened it (rule 7).
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from _fastseq.batch import read_header
from _fastseq.table import ProducerTable
from cluster.storage import names
from cluster.storage.checkpoint import format_epochs, parse_epochs
from cluster.storage.claim import claim_directory, mark
from cluster.storage.disk import Disk, DiskError, read_file, replace_file
from cluster.storage.epochs import Epochs
from cluster.storage.log import Log
from cluster.storage.repair import Repair
from cluster.storage.replay import Replay, rebuild_table
from cluster.storage.segment import DamagedLog
from cluster.storage.segments import Segments
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a log found; sizes in bytes, offsets half-open.

    [cut_from_offset, cut_to_offset) is what was cut as far as its headers could be believed, both
    -1 if nothing was; `snapshot_offset` is where replay into the producer table began.
    """

    start_offset: int
    next_offset: int
    cut_bytes: int
    cut_from_offset: int
    cut_to_offset: int
    reason: str
    snapshot_offset: int
    replayed_batches: int
    replayed_bytes: int
    doubtful: bool
    notes: tuple[str, ...]


def open_log(
    disk: Disk,
    directory: str,
    *,
    topic_id: bytes,
    config: LogConfig,
    recovery_point: int = 0,
    clean: bool = False,
    now_ms: int,
) -> tuple[Log, Recovery]:
    """Open or create the log of one replica, and say what was found.

    `recovery_point` is an offset below which everything was synced; `clean` says that the log was
    closed clean and that the marker of that stop has been taken away.
    """
    opening = _Opening(disk, directory, topic_id, config, now_ms)
    try:
        return opening.run(recovery_point, clean=clean)
    except DamagedLog as damage:
        opening.notes.append(f"{damage.path} was trusted and is damaged: scanned everything")
        return opening.run(0, clean=False)


class _Opening:
    """The files of one replica on their way to a log."""

    def __init__(
        self, disk: Disk, directory: str, topic_id: bytes, config: LogConfig, now_ms: int
    ) -> None:
        self.notes = claim_directory(disk, directory, topic_id)
        self._moved = bool(self.notes)
        self._synced_once = 0
        self._disk = disk
        self._directory = directory
        self._topic_id = topic_id
        self._config = config
        self._now_ms = now_ms

    def run(self, recovery_point: int, *, clean: bool) -> tuple[Log, Recovery]:
        """Open with this much trust; DamagedLog if it was too much."""
        self._synced_once = max(self._synced_once, recovery_point)
        segments = Segments(self._disk, self._directory, self._config)
        try:
            return self._run(segments, recovery_point, clean=clean)
        except DiskError:
            segments.close()
            raise

    def _run(self, segments: Segments, recovery_point: int, *, clean: bool) -> tuple[Log, Recovery]:
        self._sweep()
        segments.load()
        if not segments:
            segments.create(0, self._now_ms)
        segments.active.created_ms = self._now_ms
        snapshots = Snapshots(self._disk, self._directory)
        epochs = self._read_epochs()
        synced_end = self._synced_end(recovery_point)
        repair = Repair(self._disk, self._directory, segments, snapshots)
        if synced_end is not None:
            repair.scan(min(recovery_point, synced_end), epochs)
            repair.cut_to(synced_end)
        elif not clean or not segments.active.settle():
            repair.scan(recovery_point, epochs)
        segments.active.remove_index()
        self._miss(segments.next_offset)
        self._settle_epochs(epochs, segments)
        if snapshots.drop_after(segments.next_offset):
            self._disk.sync_directory(self._directory)
        table = ProducerTable()
        replay = rebuild_table(table, snapshots, segments)
        log = Log(
            self._disk,
            self._directory,
            self._topic_id,
            self._config,
            segments=segments,
            snapshots=snapshots,
            epochs=epochs,
            table=table,
        )
        if replay.replayed_batches:
            with suppress(DiskError):  # the next opening replays again
                log.take_snapshot()
        return log, self._report(log, repair, replay)

    def _miss(self, next_offset: int) -> None:
        """Be doubtful if what was synced once is not there: files were lost, or removed by hand.

        A directory that was moved aside is another topic's, and so is the recovery point then.
        """
        once = self._synced_once
        if next_offset < once and not self._moved:
            mark(self._disk, self._directory, names.DOUBTFUL)
            self.notes.append(f"the log was synced to {once} and ends at {next_offset}")

    def _report(self, log: Log, repair: Repair, replay: Replay) -> Recovery:
        return Recovery(
            start_offset=log.start_offset,
            next_offset=log.next_offset,
            cut_bytes=repair.cut_bytes,
            cut_from_offset=repair.cut_from_offset,
            cut_to_offset=repair.cut_to_offset,
            reason=repair.reason,
            snapshot_offset=replay.snapshot_offset,
            replayed_batches=replay.replayed_batches,
            replayed_bytes=replay.replayed_bytes,
            doubtful=log.doubtful,
            notes=tuple(self.notes),
        )

    def _sweep(self) -> None:
        """Remove what an interrupted step left: temporary files, indexes without a segment."""
        files = self._disk.list(self._directory)
        logs = {names.offset_of(name, names.LOG) for name in files}
        for name in files:
            bases = [names.offset_of(name, suffix) for suffix in names.SEGMENT_SUFFIXES]
            orphan = any(base is not None and base not in logs for base in bases)
            if orphan or name.endswith((".tmp", ".deleted")):
                self._disk.unlink(f"{self._directory}/{name}")
                self.notes.append(f"removed {name}, left by an interrupted step")

    def _synced_end(self, recovery_point: int) -> int | None:
        """Where a failed sync says that the log ended for certain; None if no sync failed."""
        text = read_file(self._disk, f"{self._directory}/{names.FAILED_SYNC}")
        if text is None:
            return None
        self.notes.append("a sync had failed before")
        return int(text) if text.isdigit() else recovery_point

    # -- leader epochs

    def _read_epochs(self) -> Epochs:
        with suppress(ValueError):
            data = read_file(self._disk, f"{self._directory}/{names.EPOCHS}")
            return Epochs(parse_epochs(data or b""))
        self.notes.append("the leader epochs were damaged")
        return Epochs()

    def _settle_epochs(self, epochs: Epochs, segments: Segments) -> None:
        """Let the epochs end with the log; when the last batch's is missing, find all anew."""
        before = epochs.entries
        epochs.truncate(segments.next_offset + 1)
        if segments.next_offset > segments.start_offset:
            last = segments.next_offset - 1
            _, data, at = segments.holding(last).locate(last)
            if not data:
                raise DamagedLog(segments.active.file.path)
            if read_header(data, at).leader_epoch > epochs.last_epoch or not before:
                epochs.truncate(0)
                for segment in segments.since(segments.start_offset):
                    for window, _, found in segment.walk(0, segment.base_offset, check_crc=False):
                        epochs.observe(window, 0, found.end_position)
                    segments.use(segment)
        if epochs.entries != before:
            data = format_epochs(epochs.entries)
            replace_file(self._disk, f"{self._directory}/{names.EPOCHS}", data)
