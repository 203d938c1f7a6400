"""What a log holds, as all its parts see it: positions, table, leader epochs, failures, marks.

Owns: the state that `Log` moves, and what each move needs of it: fencing after an error, rewinding
the table, keeping leader epochs on disk, and the marks beside the log. Nothing here reads or writes
a batch.

Invariants: a failed log stays failed until its unsynced end was cut (rule 14 of docs/protocol.md);
leader epochs on disk are those in memory, or fewer that the batches make whole again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from _fastseq.table import ProducerTable
from _fastseq.turn import Lane
from cluster.limits import OFFSET_MAX
from cluster.storage import aside, names
from cluster.storage.budget import Budget
from cluster.storage.claim import mark, mark_failed_sync, unmark
from cluster.storage.cold import ColdReads
from cluster.storage.damage import Damage, Place
from cluster.storage.disk import EIO, Buffer, Disk, DiskError, replace_file
from cluster.storage.epoch_file import EpochFile
from cluster.storage.epochs import Epochs
from cluster.storage.pinned import OpenFiles
from cluster.storage.repair import Damaged
from cluster.storage.replay import Rebuild
from cluster.storage.retention import Retention
from cluster.storage.scrub import Scrub
from cluster.storage.segments import Segments
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots
from cluster.storage.states import States
from cluster.storage.syncing import SyncBook
from cluster.storage.tail import Tail


class HeldLog:
    """The parts of an open log. Every method may raise DiskError.

    `lane` and `table` are what the turn validates against; `failed` fences the log (rule 14);
    `doubtful` says that a recovery cut something and no leader has been caught up with (rule 7).
    """

    def __init__(
        self,
        disk: Disk,
        directory: str,
        topic_id: bytes,
        config: LogConfig,
        *,
        segments: Segments,
        snapshots: Snapshots,
        epochs: Epochs,
        table: ProducerTable,
        damage: Damage | None = None,
        budget: Budget | None = None,
    ) -> None:
        """`budget` bounds what the logs of a broker keep in memory for readers."""
        self.directory = directory
        self.topic_id = topic_id
        self.config = config
        self.table = table
        self.lane = Lane(table, epochs.last_epoch, config.max_message_bytes)
        self.failed = False
        self._damaged = Damaged(disk, directory, segments, snapshots, damage)
        self.doubtful = disk.exists(f"{directory}/{names.DOUBTFUL}")
        self._disk = disk
        self._segments = segments
        self._snapshots = snapshots
        self._epochs = epochs
        self._epoch_file = EpochFile(disk, directory, None if damage else epochs.entries)
        self._start_offset = segments.start_offset
        self._book = SyncBook(segments.active, segments.next_offset)
        self._rebuild = Rebuild(table, snapshots, segments)
        self._tail = Tail(config.tail_bytes)
        self._cold = ColdReads()
        self.scrub = Scrub(segments, self._cold)
        self.closed = False
        self._emptied = False
        """Nothing of the log is left and it has not begun anew yet."""
        self.states = States(disk, directory, segments, snapshots)
        self._retention = Retention(disk, directory, segments, snapshots)

    def share(self, budget: Budget, files: OpenFiles | None = None) -> None:
        """Keep no more in memory for readers, and no more files open, than this leaves with the
        other logs of a broker."""
        self._tail.clear()
        self._tail = Tail(self.config.tail_bytes, budget)
        self._segments.share(budget, files)

    # -- positions

    @property
    def start_offset(self) -> int:
        """Where the log begins: what lies below was deleted, though its bytes may still be here."""
        return self._start_offset

    @property
    def first_offset(self) -> int:
        """First offset stored: where a copy of this log begins. Not above `start_offset`."""
        return self._segments.start_offset

    @property
    def next_offset(self) -> int:
        """One past the last offset written."""
        return self._segments.next_offset

    @property
    def synced_end(self) -> int:
        """What this replica may count as its own: synced, or with flush="os" written."""
        return self._book.synced_end if self.config.flush == "batch" else self.next_offset

    @property
    def recovery_point(self) -> int:
        """Everything below was synced, whatever `flush` says: what the checkpoint may name.

        Not beyond an epoch that the file lacks: the next opening learns it from what it checks.
        After a truncation the checkpoint must be lowered to it before anything is appended.
        """
        return min(self._book.synced_end, self._epoch_file.tells_below(self._epochs))

    @property
    def generation(self) -> int:
        """How often this log was cut since it was opened."""
        return self._book.generation

    # -- failing

    @contextmanager
    def _failed_on_error(self) -> Iterator[None]:
        try:
            yield
        except DiskError:
            self._fail()
            raise

    def _fail(self) -> None:
        """Fence the log, and tell a later opening how far it may believe what it reads."""
        if not self.failed:
            self.failed = True
            with suppress(DiskError):
                mark_failed_sync(self._disk, self.directory, self._book.synced_end)

    def _check_writable(self) -> None:
        if self.failed or self.closed or self.damage is not None:
            raise DiskError(EIO, self.directory, "append")
        assert not self.rebuilding, "the table is that of the log's end"

    def _rewind_table(self, offset: int) -> None:
        if not self.table.rollback(offset):
            self._rebuild.begin()

    def rebuild_table(self) -> None:
        """Make the table anew from the batches alone: it was not what the leader's is (rule 5).

        What it was is kept aside. Snapshots go: they may have been taken of it. The one that the
        data begins with stays, nothing else says what came before. `rebuild` does it.
        """
        with self._failed_on_error():
            replace_file(self._disk, f"{self.directory}/{names.DIFFERED}", self.table.dump())
            self._snapshots.drop_after(self.first_offset)
            self._rebuild.begin()

    @property
    def rebuilding(self) -> bool:
        """Whether the table is being made anew; until `rebuild` is done nothing is appended."""
        return self._rebuild.under_way

    def rebuild(self, budget_bytes: int = OFFSET_MAX) -> int:
        """Go on making the table anew; how many bytes of the log that read."""
        with self._failed_on_error():
            return self._rebuild.go_on(budget_bytes)

    def advance_high_watermark(self, offset: int) -> None:
        """Nothing below will be rewound any more: forget how."""
        self.table.trim(offset)

    @property
    def damage(self) -> Damage | None:
        """What is known to be unreadable of what was synced; nothing is appended behind it."""
        return self._damaged.damage

    def mark_damaged(self, place: Place) -> None:
        """A batch that was synced cannot be read: nothing is cut before `cut_damage` (rule 7)."""
        if place.offset < self._book.synced_end:
            self._damaged.mark(place, self.next_offset, self._epochs)

    # -- leader epochs

    @property
    def epochs(self) -> list[tuple[int, int]]:
        """(leader epoch, start offset) in order."""
        return self._epochs.entries

    @property
    def last_epoch(self) -> int:
        """The latest leader epoch, -1 if there is none."""
        return self._epochs.last_epoch

    def assign_epoch(self, epoch: int, start_offset: int) -> None:
        """Begin a leader epoch; its first batch says so at once, and the file follows that."""
        if self._epochs.assign(epoch, start_offset):
            self._epoch_file.grown()

    def _learn_epochs(self, data: Buffer, start: int, end: int) -> None:
        if self._epochs.observe(data, start, end):
            self._epoch_file.grown()

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        """(newest epoch here not above `epoch`, its end offset); (-1, -1) if later than any."""
        return self._epochs.end_of(epoch, self.next_offset)

    def _truncate_epochs(self, offset: int) -> None:
        self._epochs.truncate(offset)
        self._epoch_file.cut(self._epochs.entries, offset)

    def _write_epochs(self) -> None:
        self._epoch_file.replace(self._epochs.entries)

    # -- snapshots and marks

    @property
    def stateless(self) -> bool:
        """Whether the producers of before `first_offset` are not known: a leader must tell."""
        return self._snapshots.lost

    def take_snapshot(self) -> None:
        """Write the producer table as of exactly `next_offset`."""
        self._snapshots.take(self.table, self._segments.bases, sync=False)

    def mark_doubtful(self) -> None:
        """Say, durably, that something may have been cut that was acknowledged (rule 7)."""
        mark(self._disk, self.directory, names.DOUBTFUL)
        self.doubtful = True

    def clear_doubtful(self) -> None:
        """Take it back, durably: a leader has been caught up with."""
        unmark(self._disk, self.directory, names.DOUBTFUL)
        self.doubtful = False
        aside.drop_whole_segments(self._disk, self.directory)
