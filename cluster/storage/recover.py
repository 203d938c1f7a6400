"""Opening a replica's directory: what is there, what can be trusted, what has to go.

Owns: the way from files to a `Log`, a piece at a time, and the report of it. After a clean stop the
tail is believed; after any other stop everything from the recovery point on is checked and the log
cut at the first batch that is damaged or out of order.

Invariants: damage is never fatal. What was trusted and turns out damaged is scanned like the rest,
a lost index or epoch file is made again from the batches, a lost snapshot costs a longer replay.
Below the recovery point nothing is cut: the log opens damaged, ending where it can be read. A log
that ends below what was synced is doubtful, whoever shortened it (rule 7).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from _fastseq.batch import read_header
from _fastseq.table import ProducerTable
from cluster.limits import OFFSET_MAX
from cluster.storage import names
from cluster.storage.checkpoint import format_epochs, parse_epochs
from cluster.storage.claim import claim_directory, mark, unmark
from cluster.storage.damage import Damage, read_damage
from cluster.storage.disk import Disk, DiskError, read_file, replace_file
from cluster.storage.epochs import Epochs
from cluster.storage.log import Log
from cluster.storage.repair import Repair
from cluster.storage.replay import Replay, rebuilding
from cluster.storage.segment import DamagedLog
from cluster.storage.segments import Segments
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a log found; sizes in bytes, offsets half-open.

    [cut_from_offset, cut_to_offset) is what was cut as far as its headers could be believed, both
    -1 if nothing was, and `kept` names the files that hold it now; `snapshot_offset` is where
    replay into the producer table began; `took_ms` counts from the first piece to the last.
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
    scanned_bytes: int
    took_ms: int
    doubtful: bool
    damage: Damage | None
    kept: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def found(self) -> bool:
        """Whether there is anything to tell an operator."""
        return bool(self.cut_bytes or self.notes or self.damage)


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
    """Open or create the log of one replica, and say what was found: `Opening` in one go."""
    opening = Opening(
        disk,
        directory,
        topic_id=topic_id,
        config=config,
        recovery_point=recovery_point,
        clean=clean,
        now_ms=now_ms,
    )
    while (opened := opening.go_on(OFFSET_MAX, now_ms)) is None:
        pass
    return opened


Work: TypeAlias = Generator[int, None, tuple[Log, Recovery]]


class Opening:
    """One replica's directory on its way to a log: `go_on` until it answers with the log.

    `recovery_point` is an offset below which everything was synced; `clean` says that the log was
    closed clean and that the marker of that stop has been taken away. `read_bytes` counts what was
    read of the log so far.
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        *,
        topic_id: bytes,
        config: LogConfig,
        recovery_point: int = 0,
        clean: bool = False,
        now_ms: int,
    ) -> None:
        self.notes: list[str] = []
        self.read_bytes = 0
        self._disk = disk
        self._directory = directory
        self._topic_id = topic_id
        self._config = config
        self._began_ms = self._now_ms = now_ms
        self._moved = False
        self._epochs_before: list[tuple[int, int]] = []
        self._synced_once = recovery_point
        self._segments: Segments | None = None
        self._work = self._run(recovery_point, clean=clean)

    def go_on(self, budget_bytes: int, now_ms: int) -> tuple[Log, Recovery] | None:
        """Read about so much more; the log and what was found once it is open.

        A DiskError ends the opening, with every file closed.
        """
        self._now_ms, until = now_ms, self.read_bytes + budget_bytes
        while self.read_bytes < until:
            try:
                self.read_bytes += next(self._work)
            except StopIteration as done:
                opened: tuple[Log, Recovery] = done.value
                return opened
            except DiskError:
                self.abandon()
                raise
        return None

    def abandon(self) -> None:
        """Close every file: nobody wants the log any more."""
        self._work.close()
        if self._segments is not None:
            self._segments.close()

    def _run(self, recovery_point: int, *, clean: bool) -> Work:
        self.notes = claim_directory(self._disk, self._directory, self._topic_id)
        self._moved = bool(self.notes)
        damage = read_damage(self._disk, self._directory)
        if damage is not None:
            recovery_point, clean = min(recovery_point, damage.offset), False
            self._synced_once = max(self._synced_once, damage.offset + 1)
        try:
            return (yield from self._open(recovery_point, clean=clean))
        except DamagedLog as error:
            self.notes.append(f"{error.path} was trusted and is damaged: scanned everything")
            if self._segments is not None:
                self._segments.close()
            return (yield from self._open(0, clean=False))

    def _open(self, recovery_point: int, *, clean: bool) -> Work:
        """Open with this much trust; DamagedLog if it was too much."""
        segments = self._segments = Segments(self._disk, self._directory, self._config)
        self._sweep()
        segments.load()
        if not segments:
            segments.create(0, self._now_ms)
        segments.active.created_ms = self._now_ms
        snapshots = Snapshots(self._disk, self._directory)
        epochs = self._read_epochs()
        known = 0 if self._moved else self._synced_once
        repair = Repair(self._disk, self._directory, segments, snapshots, known=known)
        yield from self._check(repair, segments, epochs, recovery_point, clean=clean)
        segments.active.remove_index()
        yield from self._settle_epochs(epochs, segments)
        if repair.damage is None:
            self._whole(segments, epochs, snapshots)
        table = ProducerTable()
        replay = yield from rebuilding(table, snapshots, segments)
        if snapshots.lost:
            mark(self._disk, self._directory, names.DOUBTFUL)
            self.notes.append("no producer state of where the log begins is left")
        log = Log(
            self._disk,
            self._directory,
            self._topic_id,
            self._config,
            segments=segments,
            snapshots=snapshots,
            epochs=epochs,
            table=table,
            damage=repair.damage,
        )
        if replay.replayed_batches and repair.damage is None:
            with suppress(DiskError):  # the next opening replays again
                log.take_snapshot()
        return log, self._report(log, repair, replay)

    def _check(
        self,
        repair: Repair,
        segments: Segments,
        epochs: Epochs,
        recovery_point: int,
        *,
        clean: bool,
    ) -> Generator[int, None, None]:
        """Believe the end of the log, or scan it and end it where it has to end."""
        synced_end = self._synced_end(recovery_point)
        if synced_end is not None:
            yield from repair.scan(min(recovery_point, synced_end), epochs)
            if repair.damage is None:
                repair.cut_to(synced_end)
        elif not clean or not segments.active.settle():
            yield from repair.scan(recovery_point, epochs)

    def _whole(self, segments: Segments, epochs: Epochs, snapshots: Snapshots) -> None:
        """Nothing hides behind the end of the log: what speaks of later offsets goes."""
        self._miss(segments.next_offset)
        unmark(self._disk, self._directory, names.DAMAGED)
        if epochs.entries != self._epochs_before:
            data = format_epochs(epochs.entries)
            replace_file(self._disk, f"{self._directory}/{names.EPOCHS}", data)
        if snapshots.drop_after(segments.next_offset):
            self._disk.sync_directory(self._directory)

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
            scanned_bytes=repair.scanned_bytes,
            took_ms=self._now_ms - self._began_ms,
            doubtful=log.doubtful,
            damage=repair.damage,
            kept=repair.kept,
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
        epochs = Epochs()
        try:
            data = read_file(self._disk, f"{self._directory}/{names.EPOCHS}")
            epochs = Epochs(parse_epochs(data or b""))
        except ValueError:
            self.notes.append("the leader epochs were damaged")
        self._epochs_before = epochs.entries
        return epochs

    def _settle_epochs(self, epochs: Epochs, segments: Segments) -> Generator[int, None, None]:
        """Let the epochs end with the log; when the last batch's is missing, find what is.

        Epochs grow along the log, so what the file lacks begins in the last segment of which the
        first batch is of a known one. A scan has learnt some, but of the segments that it read.
        """
        known = Epochs(self._epochs_before)
        known.truncate(segments.next_offset + 1)
        epochs.truncate(segments.next_offset + 1)
        if segments.next_offset <= segments.start_offset:
            return
        last = segments.next_offset - 1
        _, data, at = segments.holding(last).locate(last)
        if not data:
            raise DamagedLog(segments.active.file.path)
        if read_header(data, at).leader_epoch > known.last_epoch:
            epochs.truncate(0)
            for epoch, start_offset in known.entries:
                epochs.assign(epoch, start_offset)
            begin = segments.start_offset
            for segment in reversed(segments.since(begin)):
                if 0 <= segment.first_epoch <= known.last_epoch:
                    begin = segment.base_offset
                    break
            for segment in segments.since(begin):
                for window, _, found in segment.walk(0, segment.base_offset, check_crc=False):
                    epochs.observe(window, 0, found.end_position)
                    yield len(window)
                segments.use(segment)
