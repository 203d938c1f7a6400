"""The log against a list of batches, over appends, cuts, rolls, syncs, crashes and disk errors.

After every step bytes, offsets, table and leader epochs agree with the list (rules 1 and 3); what
was synced survives every crash; results of syncs from before a cut change nothing (rule 8); after a
failed sync nothing is appended before the unsynced end is cut (rule 14).
"""

from __future__ import annotations

from contextlib import suppress
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from _fastseq.batch import BatchHeader, encode_batch, read_header
from _fastseq.table import ProducerTable
from _fastseq.turn import DUPLICATE, NEW, Turn
from cluster.storage.disk import DiskError
from cluster.storage.log import Log
from cluster.storage.recover import open_log
from cluster.storage.settings import LogConfig
from cluster.storage.syncing import EPOCH_FILE, SyncRequest
from tests.batches import stamp
from tests.sim.disk import SimulatedDisk, SyncTicket

CONFIG = LogConfig(segment_bytes=500, index_interval_bytes=150, tail_bytes=400)
TOPIC = bytes(16)
ANY = 10**9

PRODUCERS = st.integers(0, 2)
BATCHES = st.lists(st.tuples(PRODUCERS, st.integers(1, 3)), min_size=1, max_size=4)
PORTION = st.floats(0, 1)
SEEDS = st.integers(0, 2**32)
FAULTS = st.sampled_from(["write", "name", "truncate", "sync"])


def split(data: bytes) -> list[tuple[BatchHeader, bytes]]:
    """The batches of a run."""
    batches, position = [], 0
    while position < len(data):
        header = read_header(data, position)
        batches.append((header, data[position : position + header.size]))
        position += header.size
    return batches


class LogMachine(RuleBasedStateMachine):
    """One replica and what it must hold."""

    log: Log

    @initialize()
    def start(self) -> None:
        self.disk = SimulatedDisk()
        self.disk.cold = 0.5
        self.model: list[tuple[BatchHeader, bytes]] = []
        self.begin = 0
        self.acked = 0
        self.recovery_point = 0
        self.syncs: list[tuple[SyncRequest, SyncTicket]] = []
        self.open(clean=False)

    def open(self, *, clean: bool) -> None:
        self.disk.faults.write_countdown = self.disk.faults.name_countdown = 0
        self.disk.faults.truncate_countdown = self.disk.faults.sync_countdown = 0
        self.syncs = []
        self.log, recovery = open_log(
            self.disk,
            "t-0",
            topic_id=TOPIC,
            config=CONFIG,
            recovery_point=self.recovery_point,
            clean=clean,
            now_ms=0,
        )
        self.recovery = recovery
        assert self.log.synced_end == self.log.next_offset == recovery.next_offset
        assert self.log.doubtful >= bool(recovery.cut_bytes)

    @property
    def end(self) -> int:
        return self.model[-1][0].next_offset if self.model else self.begin

    def model_bytes(self) -> bytes:
        return b"".join(data for _, data in self.model)

    def stored(self) -> bytes:
        parts, offset = [], self.log.start_offset
        while offset < self.log.next_offset:
            data = bytes(self.log.read(offset, 200, ANY))
            parts.append(data)
            offset = split(data)[-1][0].next_offset
        return b"".join(parts)

    def adopt(self, least: int) -> None:
        """After a crash: everything below `least` is there, what lies beyond may differ."""
        assert self.log.next_offset >= least
        found = split(self.stored())
        kept = [batch for batch in self.model if batch[0].next_offset <= least]
        assert found[: len(kept)] == kept
        self.model = found
        self.begin = self.log.start_offset
        self.acked = self.log.next_offset

    def fault(self, call: str, countdown: int) -> None:
        setattr(self.disk.faults, f"{call}_countdown", countdown)

    # -- appending

    def next_batch(self, producer: int, count: int, sequence: int) -> bytes:
        records = [(None, b"v" * count, 1_000 + sequence, ())] * count
        return encode_batch(records, producer_id=producer, producer_epoch=0, base_sequence=sequence)

    def turn(self, batches: list[tuple[int, int]]) -> Turn:
        sequences: dict[int, int] = {}
        turn = Turn()
        turn.begin()
        for slot, (producer, count) in enumerate(batches):
            entry = self.log.table.get(producer)
            known = entry.batches[-1].last_sequence + 1 if entry and entry.batches else 0
            sequence = sequences.get(producer, known)
            sequences[producer] = sequence + count
            batch = self.next_batch(producer, count, sequence)
            turn.add(self.log.lane, batch, 0, len(batch), slot)
        turn.run()
        return turn

    def write(self, turn: Turn) -> None:
        for _, start, end, base_offset, next_offset in turn.runs:
            data = memoryview(turn.arena)[start:end]
            self.log.append(data, base_offset, next_offset, 0)
            self.model += split(bytes(data))

    @precondition(lambda self: not self.log.failed)
    @rule(batches=BATCHES)
    def append(self, batches: list[tuple[int, int]]) -> None:
        turn = self.turn(batches)
        assert list(turn.verdicts) == [NEW] * len(batches)
        self.write(turn)

    @rule(batches=BATCHES, call=FAULTS, countdown=st.integers(1, 4))
    def append_on_a_failing_disk(
        self, batches: list[tuple[int, int]], call: str, countdown: int
    ) -> None:
        self.fault(call, countdown)
        if call != "write":
            self.fault("write", 1)
        with suppress(DiskError):
            self.write(self.turn(batches))
        for name in ("write", "name", "truncate", "sync"):
            self.fault(name, 0)

    @precondition(lambda self: self.model and not self.log.failed)
    @rule(which=st.integers(1, 5))
    def retry(self, which: int) -> None:
        header, data = self.model[-min(which, len(self.model))]
        if header.producer_id not in range(3):
            return
        entry = self.log.table.get(header.producer_id)
        assert entry
        remembered = any(b.base_offset == header.base_offset for b in entry.batches)
        assert remembered, "one of the last five batches of the log"
        batch = stamp(data, 0, -1)
        turn = Turn()
        turn.begin()
        turn.add(self.log.lane, batch, 0, len(batch), 0)
        turn.run()
        assert (list(turn.verdicts), turn.runs) == ([DUPLICATE], [])
        assert turn.offsets[0] == header.base_offset

    @precondition(lambda self: not self.log.failed)
    @rule(batches=BATCHES, more_epochs=st.integers(0, 2))
    def apply(self, batches: list[tuple[int, int]], more_epochs: int) -> None:
        """A push whose batches follow whatever their leader accepted."""
        run, offset, epoch = b"", self.end, max(self.log.last_epoch, 0)
        for producer, count in batches:
            sequence = 3 if producer else -1
            batch = self.next_batch(producer + 10 if producer else -1, count, sequence)
            run += stamp(batch, offset, epoch)
            offset, epoch = offset + count, epoch + (more_epochs > 0)
        self.log.lane.leader_epoch = epoch
        assert self.log.apply(b"xx" + run, 2, 2 + len(run), 0) == 0
        self.log.lane.leader_epoch = self.log.last_epoch
        self.model += split(run)

    @precondition(lambda self: not self.log.failed)
    @rule()
    def lead(self) -> None:
        epoch = self.log.last_epoch + 1
        self.log.assign_epoch(epoch, self.log.next_offset)
        self.log.lane.leader_epoch = epoch

    # -- cutting

    def cut_model(self, end: int) -> None:
        self.model = [batch for batch in self.model if batch[0].next_offset <= end]
        self.acked = min(self.acked, self.end)
        self.recovery_point = min(self.recovery_point, self.end)
        self.log.lane.leader_epoch = self.log.last_epoch

    @precondition(lambda self: not self.log.failed)
    @rule(portion=PORTION)
    def truncate(self, portion: float) -> None:
        offset = self.begin + int(portion * (self.end - self.begin + 2))
        generation, end = self.log.generation, self.end
        cut = self.log.truncate(offset, 0)
        self.log.rebuild()
        self.cut_model(offset)
        assert cut == self.end
        assert self.log.generation == generation + (offset < end)
        if offset < end:
            assert self.log.synced_end == cut

    @precondition(lambda self: not self.log.failed)
    @rule(portion=PORTION, call=FAULTS, countdown=st.integers(1, 4), seed=SEEDS)
    def truncate_on_a_failing_disk(
        self, portion: float, call: str, countdown: int, seed: int
    ) -> None:
        offset = self.begin + int(portion * (self.end - self.begin))
        self.fault(call, countdown)
        try:
            self.log.truncate(offset, 0)
            self.log.rebuild()
        except DiskError:
            assert self.log.failed
            self.disk.crash(Random(seed))
            kept = [batch for batch in self.model if batch[0].next_offset <= offset]
            end = kept[-1][0].next_offset if kept else self.begin
            self.recovery_point = min(self.recovery_point, end)
            self.open(clean=False)
            self.adopt(min(self.acked, end))
        else:
            self.cut_model(offset)
        self.fault(call, 0)

    @precondition(lambda self: not self.log.failed)
    @rule(ahead=st.integers(0, 5))
    def begin_anew(self, ahead: int) -> None:
        self.begin = self.end + ahead
        self.log.table.clear(self.begin)
        self.log.truncate_fully(self.begin, 0)
        self.model = []
        self.acked = self.recovery_point = self.begin
        self.log.lane.leader_epoch = -1

    @rule(portion=PORTION)
    def advance_high_watermark(self, portion: float) -> None:
        self.log.advance_high_watermark(self.begin + int(portion * (self.acked - self.begin)))

    # -- syncing

    @rule()
    def begin_syncs(self) -> None:
        for request in self.log.next_syncs():
            self.syncs.append((request, self.disk.begin_sync(request.handle)))
        assert self.log.failed or not self.log.next_syncs()

    @rule()
    def begin_sync_of_epochs(self) -> None:
        request = self.log.epoch_sync()
        if request is not None:
            self.syncs.append((request, self.disk.begin_sync(request.handle)))

    @precondition(lambda self: self.syncs)
    @rule(which=st.integers(0, 9), fails=st.integers(0, 7))
    def finish_sync(self, which: int, fails: int) -> None:
        request, ticket = self.syncs.pop(which % len(self.syncs))
        self.fault("sync", int(fails == 0))
        errno = self.disk.finish_sync(ticket)
        self.fault("sync", 0)
        before = self.log.synced_end
        moved = self.log.synced(request.segment_base, request.generation, request.end, errno)
        assert moved == (self.log.synced_end > before)
        assert not (moved and request.generation != self.log.generation)
        assert self.log.failed >= (bool(errno) and request.segment_base != EPOCH_FILE)
        self.acked = self.log.synced_end

    @precondition(lambda self: self.log.failed and not self.log._segments.active.torn)
    @rule()
    def cut_to_synced(self) -> None:
        assert self.log.cut_to_synced(0) == self.acked
        self.log.rebuild()
        self.cut_model(self.acked)
        assert self.log.doubtful

    @rule()
    def checkpoint(self) -> None:
        self.recovery_point = self.log.recovery_point

    # -- stopping

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        """End the process, in order or not: what it wrote is still there, unless a sync failed."""
        failed, doubtful = self.log.failed, self.log.doubtful
        if clean and not failed:
            while self.syncs:
                self.finish_sync(0, 1)
            self.log.close(clean=True)
            assert self.disk.open_handles == 0
            self.recovery_point = self.log.recovery_point
            self.open(clean=True)
            assert self.recovery.replayed_batches == 0
        else:
            self.disk.kill()
            self.open(clean=False)
        assert self.log.doubtful or not doubtful
        if failed:
            self.adopt(self.acked)
        self.acked = self.log.next_offset

    @rule(seed=SEEDS)
    def lose_power(self, seed: int) -> None:
        self.disk.crash(Random(seed))
        self.open(clean=False)
        self.adopt(self.acked)

    @rule(seed=SEEDS)
    def lose_power_after_a_clean_stop(self, seed: int) -> None:
        if self.log.failed:
            return
        while self.syncs:
            self.finish_sync(0, 1)
        self.log.close(clean=True)
        self.recovery_point = self.log.recovery_point
        self.disk.crash(Random(seed))
        end = self.end
        self.open(clean=True)
        assert not self.recovery.cut_bytes
        self.adopt(end)

    # -- what must hold

    @rule(portion=PORTION, max_bytes=st.integers(1, 600), limit=PORTION)
    def read(self, portion: float, max_bytes: int, limit: float) -> None:
        offset = self.begin + int(portion * (self.end - self.begin))
        limit_offset = self.begin + int(limit * (self.end - self.begin + 1))
        expected = b""
        for header, data in self.model:
            if header.next_offset <= offset or header.next_offset > limit_offset:
                continue
            if header.base_offset <= offset or expected:
                if expected and len(expected) + len(data) > max_bytes:
                    break
                expected += data
        found = bytes(self.log.read(offset, max_bytes, limit_offset))
        assert expected.startswith(found)
        assert bool(found) == bool(expected and offset < limit_offset)

    @rule(timestamp=st.integers(990, 1_020))
    def find_timestamp(self, timestamp: int) -> None:
        records = [
            (header.base_offset, header.max_timestamp)
            for header, _ in self.model
            if header.max_timestamp >= timestamp
        ]
        assert self.log.offset_for_timestamp(timestamp) == (records[0] if records else None)
        newest = max((header.max_timestamp for header, _ in self.model), default=-1)
        assert self.log.last_timestamp == newest

    @invariant()
    def bytes_offsets_and_table_agree(self) -> None:
        log, data = self.log, self.model_bytes()
        assert (log.start_offset, log.next_offset) == (self.begin, self.end)
        assert self.acked <= log.synced_end <= log.next_offset
        assert log.recovery_point in (log.synced_end, *(start for _, start in log.epochs))
        assert log.recovery_point <= log.synced_end
        assert self.stored() == data
        expected = ProducerTable(self.begin)
        expected.apply_run(data, 0, len(data))
        assert log.table.next_offset == log.lane.next_offset == self.end
        assert log.table.entries() == expected.entries()
        assert log.table.digest == expected.digest

    @invariant()
    def epochs_agree_with_batches(self) -> None:
        for header, _ in self.model:
            begun = [epoch for epoch, start in self.log.epochs if start <= header.base_offset]
            assert (begun[-1] if begun else -1) == header.leader_epoch

    @invariant()
    def few_files_are_open(self) -> None:
        unsynced = len(self.log._book._entries) + len(self.syncs)
        assert self.disk.open_handles <= unsynced + 5


LogMachine.TestCase.settings = settings(stateful_step_count=40)
TestLog = LogMachine.TestCase
