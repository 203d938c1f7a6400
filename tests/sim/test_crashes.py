"""A crash at every single call to the disk: what was acknowledged is there, and the table is true.

One replica goes through all that a log can do; the power goes at each of its calls in turn, and
again while what is left is being recovered. What recovery finds must be a beginning of what the log
was before or after the step that was interrupted, and must hold all that was synced.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from _fastseq.batch import expire_batch
from _fastseq.table import ProducerTable
from cluster.storage import checkpoint
from cluster.storage.damage import find_damage
from cluster.storage.log import Log
from cluster.storage.recover import open_log
from tests.batches import make_batch, stamp
from tests.sim.crashing import CrashingDisk, PowerLoss
from tests.sim.disk import SimulatedDisk
from tests.unit.log_fixture import CONFIG, TOPIC, Replica

PLACE = ("t", 0)
SHARDS = 8  # parts of the calls, so that several workers share them


class Story:
    """One life of a replica, and what must be true of it at any moment.

    `whole` is the log as bytes, `before` what it was before the step under way, `acked` how many of
    them were synced as far as anybody was told.
    """

    def __init__(self, disk: CrashingDisk) -> None:
        self.whole = self.before = b""
        self.acked = 0
        self.appends = 0
        self.disk = disk
        self.replica: Replica

    def live(self) -> None:
        """All that happens, in order."""
        self.replica = Replica(disk=self.disk)  # type: ignore[arg-type]
        for step in (
            self.append, self.sync, self.append, self.append, self.sync, self.checkpoint,
            self.expire, self.sync, self.snapshot, self.cut, self.append, self.sync, self.snapshot,
            self.append, self.fail_a_sync, self.append, self.sync, self.stop_and_start,
            self.append, self.sync, self.damage, self.append, self.sync, self.stop_and_start,
            self.checkpoint, self.epoch, self.append,
        ):  # fmt: skip
            step()

    @property
    def log(self) -> Log:
        return self.replica.log

    def _changes(self, after: bytes) -> None:
        self.before, self.whole = self.whole, after
        self.acked = min(self.acked, len(after))

    def append(self) -> None:
        data = b"".join(
            make_batch(self.log.next_offset + at, 1, producer_id=self.appends + at % 2, sequence=0)
            for at in range(9)
        )
        self.appends += 1
        self._apply(data)

    def _apply(self, data: bytes) -> None:
        self._changes(self.whole + data)
        assert self.log.apply(data, 0, len(data), 0) == 0

    def expire(self) -> None:
        offset = self.log.next_offset
        self._apply(stamp(expire_batch(offset - 5), offset, self.log.lane.leader_epoch))

    def epoch(self) -> None:
        self.log.lane.leader_epoch += 1

    def sync(self) -> None:
        self.before = self.whole
        self.replica.sync()
        assert self.log.synced_end == self.log.next_offset
        self.acked = len(self.whole)

    def checkpoint(self) -> None:
        points = {PLACE: self.log.recovery_point}
        checkpoint.write_offsets(self.disk, checkpoint.RECOVERY_POINTS, points)

    def snapshot(self) -> None:
        self.log.take_snapshot()

    def cut(self) -> None:
        self._cut_to(self.log.next_offset - 6, lambda at: self.log.truncate(at, 0))

    def _cut_to(self, offset: int, cut: Callable[[int], int]) -> None:
        end = sum(_sizes(self.whole)[:offset])
        self._changes(self.whole[:end])
        assert cut(offset) == offset
        self.log.rebuild()
        self.acked = end
        self.checkpoint()  # nothing may follow before it is lowered

    def fail_a_sync(self) -> None:
        """A sync of what was appended fails; the log is cut to what was synced before."""
        request, *_ = self.log.next_syncs()
        self.disk.inner.faults.sync_countdown = 1
        errno = self.disk.inner.finish_sync(self.disk.inner.begin_sync(request.handle))
        self.log.synced(request.segment_base, request.generation, request.end, errno)
        assert self.log.failed
        self._cut_to(self.log.recovery_point, lambda _: self.log.cut_to_synced(0))
        self.log.clear_doubtful()

    def damage(self) -> None:
        """A synced batch goes bad; the log is cut there, and fetches the rest from a leader."""
        segment = self.log._segments.since(0)[1]
        self.disk.inner.rot(segment.file.path, 2 * 73 + 70, 1)
        place = find_damage(segment)
        assert place is not None
        self.acked = sum(_sizes(self.whole)[: place.offset])
        rest = self.whole[self.acked :]
        self.log.mark_damaged(place)
        self._cut_to(place.offset, lambda _: self.log.cut_damage(0))
        self._apply(rest)
        self.sync()
        self.log.clear_doubtful()

    def stop_and_start(self) -> None:
        point = self.log.recovery_point
        self.log.close(clean=True)
        self.checkpoint()
        self.replica.open(clean=True, recovery_point=point)
        self.log.lane.leader_epoch = max(self.log.last_epoch, 0)
        self.acked = len(self.whole)


def _sizes(data: bytes) -> list[int]:
    """Sizes of the batches, each of one record."""
    sizes = []
    while data:
        size = 12 + int.from_bytes(data[8:12])
        sizes.append(size)
        data = data[size:]
    return sizes


def recovered(story: Story, disk: CrashingDisk) -> Replica:
    """The log as the next process opens it."""
    points = checkpoint.read_offsets(disk, checkpoint.RECOVERY_POINTS) or {}
    replica = Replica.__new__(Replica)
    replica.disk, replica.config, replica.now_ms = disk, CONFIG, 0  # type: ignore[assignment]
    replica.log, replica.recovery = open_log(
        disk, "t-0", topic_id=TOPIC, config=CONFIG, recovery_point=points.get(PLACE, 0), now_ms=0
    )
    return replica


def judge(story: Story, replica: Replica, call: str) -> None:
    """Everything that must be true after a crash."""
    found = replica.contents()
    told = f"{call}: {len(found)} bytes of {len(story.whole)}, {story.acked} were acknowledged"
    assert any(log.startswith(found) for log in (story.whole, story.before)), told
    if replica.log.damage is None:
        assert len(found) >= story.acked or replica.log.doubtful, told
        assert len(found) >= story.acked, told
    oracle = ProducerTable()
    oracle.apply_run(found, 0, len(found))
    assert replica.log.table.entries() == oracle.entries(), call
    assert replica.log.table.digest == oracle.digest, call
    assert replica.log.synced_end == replica.log.next_offset == oracle.next_offset, call


def calls_of_a_life() -> int:
    disk = CrashingDisk(SimulatedDisk())
    Story(disk).live()
    return disk.count


@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_crash_at_any_call_keeps_what_was_acknowledged(shard: int) -> None:
    total = calls_of_a_life()
    assert total > 400
    for at in range(1 + shard, total + 1, SHARDS):
        rng = Random(at)
        disk = CrashingDisk(SimulatedDisk(), at)
        story = Story(disk)
        with pytest.raises(PowerLoss):
            story.live()
        call = f"call {at}, {disk.last}"
        again = disk.restart(rng, at=rng.randrange(1, 120))
        try:
            recovered(story, again)
        except PowerLoss:
            call += f", then {again.last}"
        replica = recovered(story, again.restart(rng))
        judge(story, replica, call)
        if replica.log.damage is None:
            replica.log.lane.leader_epoch = max(replica.log.last_epoch, 0)
            data = make_batch(replica.log.next_offset, 2)
            assert replica.log.apply(data, 0, len(data), 0) == 0, call


def test_a_life_without_a_crash_ends_as_it_should() -> None:
    story = Story(CrashingDisk(SimulatedDisk()))
    story.live()
    assert story.replica.contents() == story.whole
    assert not story.log.doubtful
