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

from collections.abc import Sequence
from contextlib import suppress

from _fastseq.batch import scan
from _fastseq.table import ProducerTable
from _fastseq.turn import push_check
from cluster.storage import names
from cluster.storage.claim import unmark
from cluster.storage.disk import EIO, PARSE, Buffer, DiskError
from cluster.storage.epochs import Epochs
from cluster.storage.held import HeldLog
from cluster.storage.reading import Cold, Fetched, Missing, Parts, joined
from cluster.storage.segment import Segment
from cluster.storage.syncing import EPOCH_FILE, SyncRequest


class Log(HeldLog):
    """An open log; made by `open_log`. Every method may raise DiskError."""

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
            if len(data) < found.length:
                raise DiskError(EIO, self.directory, PARSE)  # the file has lost it
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
        return self._segments.find_timestamp(timestamp, self._start_offset)

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

    def retain(self, committed: int, now_ms: int, wall_ms: int) -> bool:
        """Delete the oldest segment's records if they are too old or too many. True if it did.

        One segment at a time, and nothing above `committed`; when all of the active one is to go,
        it is rolled for that. `wall_ms` is on the clock that timestamps are of.
        """
        self._check_writable()
        if self._retention.all_expired(self.config, committed, now_ms, wall_ms):
            self._roll(now_ms)
        next_start = self._retention.next_start(self.config, committed, now_ms, wall_ms)
        return self.advance_start(next_start)

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

    def next_syncs(self, *, idle: bool = False) -> list[SyncRequest]:
        """Segments with unsynced bytes and no sync in flight; they are in flight from now on.

        With flush="os" the active segment is among them only if the log is said to be `idle`.
        Each must come back through `synced`, also after `close`.
        """
        if self.failed or self.closed or self.damage is not None:
            return []
        return self._book.requests(active=idle or self.config.flush == "batch")

    @property
    def epochs_due(self) -> bool:
        """Whether `epoch_sync` may have something to write."""
        return self._epoch_file.due

    def epoch_sync(self) -> SyncRequest | None:
        """The file of leader epochs if it lags, written anew; it too comes back by `synced`."""
        if self.failed or self.closed or self.damage is not None:
            return None
        return self._epoch_file.request(self._epochs.entries, self.next_offset)

    def synced(self, segment_base: int, generation: int, end: int, errno: int) -> bool:
        """Take a sync worker's result; True if `synced_end` moved. An error fences the log."""
        if segment_base == EPOCH_FILE:
            self._epoch_file.completed(generation, errno, closed=self.closed)
            return False
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
        return self._book.requested > 0 or self._epoch_file.in_flight

    # -- stopping

    def checkpoint(self) -> None:
        """Make durable what a clean opening needs: all bytes, the index and a snapshot."""
        if self.rebuilding:
            raise DiskError(EIO, self.directory, "snapshot")  # there is no table to take one of
        self._check_writable()
        with self._failed_on_error():
            self._book.sync_through(self._segments.active)
        self._segments.active.write_index()
        self._epoch_file.settle(self._epochs.entries, self.next_offset)
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
