"""The log of one replica: batches, producer table and leader epochs, moved together.

Owns: the append position of a replica and everything that is a function of it. `append` and `apply`
extend it, `truncate` rewinds it, `read` hands it out, `next_syncs` and `synced` make it durable.
`cluster.storage.recover.open_log` finds it again after a stop or a crash.

Invariants (rules of docs/protocol.md):
- rules 1, 3: table, bytes and index all end at `next_offset` after every call, failed or not;
- rule 8: cutting raises `generation`, and a sync result of an older one moves nothing;
- rule 14: after a failed sync nothing is appended until the unsynced end was cut off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from _fastseq.batch import scan
from _fastseq.table import ProducerTable
from _fastseq.turn import Lane, push_check
from cluster.limits import OFFSET_MAX
from cluster.storage import aside, names
from cluster.storage.budget import Budget
from cluster.storage.checkpoint import format_epochs
from cluster.storage.claim import mark, mark_failed_sync, unmark
from cluster.storage.cold import ColdReads
from cluster.storage.damage import Damage, Place
from cluster.storage.disk import EIO, Buffer, Disk, DiskError, replace_file
from cluster.storage.epochs import Epochs
from cluster.storage.reading import Cold, Fetched, Missing, Parts, joined
from cluster.storage.repair import Damaged
from cluster.storage.replay import Rebuild
from cluster.storage.retention import Retention
from cluster.storage.scrub import Scrub
from cluster.storage.segment import Segment
from cluster.storage.segments import Segments
from cluster.storage.settings import LogConfig
from cluster.storage.snapshot import Snapshots
from cluster.storage.states import States
from cluster.storage.syncing import SyncBook, SyncRequest
from cluster.storage.tail import Tail


class Log:
    """An open log; made by `open_log`. Every method may raise DiskError.

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

    def share(self, budget: Budget) -> None:
        """Keep no more in memory for readers than this leaves, with the other logs of a broker."""
        self._tail.clear()
        self._tail = Tail(self.config.tail_bytes, budget)
        self._segments.share(budget)

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

        After a truncation the checkpoint must be lowered to it before anything is appended.
        """
        return self._book.synced_end

    @property
    def generation(self) -> int:
        """How often this log was cut since it was opened."""
        return self._book.generation

    # -- appending

    def append(self, data: memoryview, base_offset: int, next_offset: int, now_ms: int) -> None:
        """Write a leader's run, stamped and already entered in the table, as one write.

        On DiskError nothing of it is left in file or table, or the log is `failed`.
        """
        try:
            self._check_writable()
            if self.lane.leader_epoch > self._epochs.last_epoch:
                self.assign_epoch(self.lane.leader_epoch, base_offset)
            self._write(data, base_offset, next_offset, now_ms)
        except DiskError:
            self._undo(base_offset)
            raise

    def apply(self, data: Buffer, start: int, end: int, now_ms: int) -> int:
        """Check and write a leader's push data[start:end]: 0, or an error code and no change.

        On DiskError nothing of it is left in file or table, or the log is `failed`.
        """
        base_offset = self.next_offset
        code = push_check(self.lane, data, start, end)
        if code or start == end:
            return code
        next_offset = self.lane.next_offset
        try:
            self._check_writable()
            self._learn_epochs(data, start, end)
            self._write(memoryview(data)[start:end], base_offset, next_offset, now_ms)
        except DiskError:
            self._undo(base_offset)
            raise
        return 0

    def _write(self, data: memoryview, base_offset: int, next_offset: int, now_ms: int) -> None:
        assert base_offset == self.next_offset, "a run begins where the log ends"
        found = scan(data, 0, len(data), base_offset, check_crc=False)
        assert found.end_position == len(data), "a run is whole batches in order"
        assert found.next_offset == next_offset, "a run ends where it says"
        rolled = self._segments.active.is_full(len(data), found, now_ms)
        if rolled:
            self._book.add(self._segments.roll(now_ms), base_offset)
            self._take_snapshot_before(data, base_offset)
        self._segments.active.append(data, found)
        self._book.wrote(next_offset)
        self._tail.add(data, base_offset)
        assert self.table.next_offset == next_offset, "the table moves with the log"

    def _take_snapshot_before(self, data: memoryview, base_offset: int) -> None:
        """Write the table as of where the new segment begins; the run is in it already.

        With that, the segment can be the first one kept. Without, replays are longer and those
        before it stay.
        """
        if self.table.rollback(base_offset):
            with suppress(DiskError):
                self.take_snapshot()
            self.table.apply_run(data, 0, len(data))

    def _undo(self, base_offset: int) -> None:
        """Rewind the table to the log's end: the run could not be written (rule 1)."""
        if self._segments.active.torn:
            self._fail()
        with self._failed_on_error():
            self._rewind_table(base_offset)
        self.rebuild()  # at once: the turn that failed goes on with this table

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

    def advance_start(self, offset: int) -> bool:
        """Delete what lies below `offset`, as far as the log goes. True if its start moved.

        The caller keeps it where the next opening finds it: names of files tell only whole
        segments.
        """
        offset = min(offset, self.next_offset)
        moved = offset > self._start_offset
        self._start_offset = max(self._start_offset, offset)
        return moved

    # -- reading

    def read(self, offset: int, max_bytes: int, limit_offset: int) -> Buffer:
        """What `read_now` answers, as one buffer, waiting for the disk where that has to be."""
        found = self.read_now(offset, max_bytes, limit_offset)
        while isinstance(found, Cold):
            try:
                data = self._disk.read(found.handle, found.position, found.length)
            finally:
                self.returned(found)
            found = self.read_now(offset, max_bytes, limit_offset, Fetched(found, data))
        return joined(found)

    def read_now(
        self, offset: int, max_bytes: int, limit_offset: int, have: Fetched | None = None
    ) -> Parts | Cold:
        """Whole batches from the one holding `offset`, ending at or below `limit_offset`.

        At least one batch even if larger than `max_bytes`; empty at the end. The answer may be
        shorter than what the log holds: read on from where it ends. ValueError for what is not
        stored; from `first_offset` on a follower may copy what consumers are refused.

        `Cold` says what is not in memory: read it, tell `returned`, and ask again with it.
        """
        if not self.first_offset <= offset <= self.next_offset:
            raise ValueError(f"offset {offset} is not in the log")
        limit_offset = min(limit_offset, self.next_offset)
        if offset >= limit_offset:
            return []
        tail_start = self._tail.start_offset
        if tail_start is not None and offset >= tail_start:
            return self._tail.read(offset, max_bytes, limit_offset)
        while True:
            segment = self._segments.holding(offset)
            found = segment.reader.read(offset, max_bytes, limit_offset, self._still(have, segment))
            self._segments.use(segment)
            if isinstance(found, Missing):
                return self._cold.ask(segment, found, self.generation)
            if found is not None:
                return found
            later = self._segments.since(offset)[1:]  # after a hole, as compaction leaves
            if not later or later[0].base_offset >= limit_offset:
                return []
            offset, have = later[0].base_offset, None

    def _still(self, have: Fetched | None, segment: Segment) -> tuple[Missing, Buffer] | None:
        """What was read, unless the log was cut meanwhile: then it may be what was cut (rule 8)."""
        if have is None:
            return None
        cold = have.cold
        if (cold.generation, cold.segment_base) != (self.generation, segment.base_offset):
            return None
        return cold.missing, have.data

    def returned(self, cold: Cold) -> None:
        """A read that `read_now` asked for came back, whatever its result, also after `close`."""
        self._cold.returned(cold)

    def offset_for_timestamp(self, timestamp: int) -> tuple[int, int] | None:
        """(offset, timestamp) of the first record not older than `timestamp`, if there is one."""
        return self._segments.find_timestamp(timestamp)

    @property
    def last_timestamp(self) -> int:
        """The largest timestamp in the log, -1 if there is none."""
        return self._segments.last_timestamp

    # -- cutting

    def truncate(self, offset: int, now_ms: int) -> int:
        """Cut the log at `offset`, durably, and answer its new end: whole batches go.

        The table follows at once if it can, else by `rebuild`. On DiskError the log is `failed`;
        opening it again finds a prefix of what it was.
        """
        self._check_writable()
        with self._failed_on_error():
            if offset < self.next_offset:
                return self._cut(max(offset, self.first_offset), now_ms)
            self._truncate_epochs(offset)
            return self.next_offset

    def _cut(self, offset: int, now_ms: int) -> int:
        kept = self._segments.holding(offset)
        position, end = kept.boundary(offset)
        self._tail.clear()
        # Names first and durably: a snapshot of a cut offset must not come back after a crash,
        # when other records stand there.
        dropped = self._snapshots.drop_after(end)
        if self._segments.drop_after(kept) or dropped:
            self._disk.sync_directory(self.directory)
        kept.cut(position, end)
        kept.created_ms = now_ms
        self._book.sync_through(kept)
        self._book.restart(kept, end)
        self._rewind_table(end)
        self._truncate_epochs(end)
        self._start_offset = min(self._start_offset, end)
        return end

    @property
    def damage(self) -> Damage | None:
        """What is known to be unreadable of what was synced; nothing is appended behind it."""
        return self._damaged.damage

    def mark_damaged(self, place: Place) -> None:
        """A batch that was synced cannot be read: nothing is cut before `cut_damage` (rule 7)."""
        if place.offset < self.recovery_point:
            self._damaged.mark(place, self.next_offset, self._epochs)

    def cut_damage(self, now_ms: int) -> int:
        """Cut at the first batch that cannot be read, and answer that end: a leader has the rest.

        What is cut is kept aside, and the replica doubtful from before the cut on.
        """
        self.mark_doubtful()
        with self._failed_on_error():
            end = self._cut(self._damaged.cut(), now_ms)
            self._damaged.forget()
        self.failed = False
        return end

    def truncate_fully(
        self, start_offset: int, now_ms: int, epochs: Sequence[tuple[int, int]] = ()
    ) -> None:
        """Forget everything but the table and begin anew at `start_offset`, where the table ends.

        Durably, and the data last: a crash leaves nothing, or a log with the state it begins with.
        """
        self._check_writable()
        assert self.table.next_offset == start_offset, "the state is that of where the data begins"
        with self._failed_on_error():
            self._tail.clear()
            self._emptied = True
            self._truncate_epochs(0)
            self._snapshots.drop_all()
            self._segments.drop_all()
            self._disk.sync_directory(self.directory)
            self._snapshots.take(self.table, sync=True)
            self._epochs = Epochs(list(epochs))
            self._write_epochs()
            self._book.restart(self._segments.create(start_offset, now_ms), start_offset)
            self._start_offset, self._emptied = start_offset, False

    # -- states handed over

    @property
    def stateless(self) -> bool:
        """Whether the producers of before `first_offset` are not known: a leader must tell."""
        return self._snapshots.lost

    def install_state(self, offset: int, epochs: Sequence[tuple[int, int]], now_ms: int) -> bool:
        """Begin anew with the state that was taken; False, and no change, if it is not whole."""
        self._check_writable()
        if not self.states.load(ProducerTable(), offset):
            return False
        self.mark_doubtful()
        self.states.load(self.table, offset)
        self.truncate_fully(offset, now_ms, epochs)
        self._snapshots.lost = False
        return True

    def cut_to_synced(self, now_ms: int) -> int:
        """Lift the fence of a failed sync: cut what was not synced and answer the end (rule 14).

        The replica is doubtful from then on, and must fetch what it lost from a leader.
        """
        self.mark_doubtful()
        self.failed = False
        if self._emptied:  # beginning anew failed: there is nothing to keep
            self.table.clear(0)
            self.truncate_fully(0, now_ms)
        with self._failed_on_error():
            end = self._cut(self._book.synced_end, now_ms)
            self._segments.active.rewrite_end()
            unmark(self._disk, self.directory, names.FAILED_SYNC)
        return end

    # -- retention

    @property
    def size(self) -> int:
        """Bytes of all segments."""
        return self._segments.size

    def retain(self, committed: int, now_ms: int) -> bool:
        """Delete the oldest segment's records if they are too old or too many. True if it did.

        One segment at a time, and nothing above `committed`; when all of the active one is to go,
        it is rolled for that.
        """
        self._check_writable()
        if self._retention.all_expired(self.config, committed, now_ms):
            self._roll(now_ms)
        return self.advance_start(self._retention.next_start(self.config, committed, now_ms))

    def roll_deleted(self, now_ms: int) -> None:
        """Begin a new segment if all of the only one is deleted, so that it can go."""
        if self.first_offset < self._start_offset == self.next_offset and len(self._segments) == 1:
            self._check_writable()
            self._roll(now_ms)

    def drop_oldest(self) -> list[str]:
        """Take the oldest segment from its name if all of it is deleted: what to unlink later."""
        broken = self.failed or self.closed or self.damage is not None
        if broken or self.first_offset == self._start_offset:
            return []
        return self._retention.drop_oldest(self._start_offset, self._book.synced_end)

    def _roll(self, now_ms: int) -> None:
        try:
            self._book.add(self._segments.roll(now_ms), self.next_offset)
        except DiskError:
            if self._segments.active.torn:
                self._fail()
            raise
        with suppress(DiskError):  # the segment before stays until a later one has a snapshot
            self.take_snapshot()

    # -- syncing

    def next_syncs(self) -> list[SyncRequest]:
        """Files with unsynced bytes and no sync in flight; they are in flight from now on.

        Each must come back through `synced`, also after `close`.
        """
        if self.failed or self.closed or self.damage is not None:
            return []
        return self._book.requests(active=self.config.flush == "batch")

    def synced(self, segment_base: int, generation: int, end: int, errno: int) -> bool:
        """Take a sync worker's result; True if `synced_end` moved. An error fences the log."""
        if not self._book.completed(segment_base, generation) or self.closed:
            return False
        if errno:
            self._fail()
        if self.failed:
            return False
        return self._book.synced(segment_base, generation, end)

    @property
    def syncing(self) -> bool:
        """Whether a sync worker still has a file of this log."""
        return self._book.requested > 0

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
        """Begin a leader epoch, durably; on DiskError it has not begun."""
        before = self._epochs.entries
        if self._epochs.assign(epoch, start_offset):
            self._keep_epochs(before)

    def _learn_epochs(self, data: Buffer, start: int, end: int) -> None:
        before = self._epochs.entries
        if self._epochs.observe(data, start, end):
            self._keep_epochs(before)

    def _keep_epochs(self, before: list[tuple[int, int]]) -> None:
        """Write the changed epochs, or have the ones before again."""
        try:
            self._write_epochs()
        except DiskError:
            self._epochs = Epochs(before)
            raise

    def epoch_end(self, epoch: int) -> tuple[int, int]:
        """(newest epoch here not above `epoch`, its end offset); (-1, -1) if later than any."""
        return self._epochs.end_of(epoch, self.next_offset)

    def _truncate_epochs(self, offset: int) -> None:
        if self._epochs.truncate(offset):
            self._write_epochs()

    def _write_epochs(self) -> None:
        data = format_epochs(self._epochs.entries)
        replace_file(self._disk, f"{self.directory}/{names.EPOCHS}", data)

    # -- snapshots and stopping

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

    def checkpoint(self) -> None:
        """Make durable what a clean opening needs: all bytes, the index and a snapshot."""
        self._check_writable()
        with self._failed_on_error():
            self._book.sync_through(self._segments.active)
        self._segments.active.write_index()
        self._snapshots.take(self.table, self._segments.bases, sync=True)

    def close(self, *, clean: bool) -> None:
        """Close the files; those in a sync worker's hands close when their result is taken.

        With `clean` the log opens clean next time, unless this raises DiskError.
        """
        if self.closed:
            return
        try:
            if clean and self.damage is None:  # damaged, it is checked again in any case
                self.checkpoint()
        finally:
            self.closed = True
            self._tail.clear()
            self._book.close()
            self._segments.close()
