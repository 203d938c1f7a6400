"""A log on the simulated disk with a leader's hot path in front of it, for tests."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from _fastseq.batch import encode_batch
from _fastseq.turn import Turn
from cluster.storage.log import Log
from cluster.storage.recover import Recovery, open_log
from cluster.storage.settings import LogConfig
from tests.sim.disk import SimulatedDisk

TOPIC = bytes(range(16))
CONFIG = LogConfig(segment_bytes=2_000, index_interval_bytes=200, tail_bytes=1_000)
ANY = 10**9


@dataclass
class Replica:
    """One replica's log, opened again at will; producer 7 writes one record a batch."""

    config: LogConfig = field(default_factory=lambda: replace(CONFIG))
    disk: SimulatedDisk = field(default_factory=SimulatedDisk)
    sequence: int = 0
    now_ms: int = 0
    log: Log = field(init=False)
    recovery: Recovery = field(init=False)

    def __post_init__(self) -> None:
        self.open()
        self.log.lane.leader_epoch = 0
        self.log.assign_epoch(0, 0)

    def open(self, *, clean: bool = False, recovery_point: int = 0) -> Log:
        self.log, self.recovery = open_log(
            self.disk,
            "t-0",
            topic_id=TOPIC,
            config=self.config,
            recovery_point=recovery_point,
            clean=clean,
            now_ms=self.now_ms,
        )
        return self.log

    def reopen(self, *, clean: bool = True) -> Log:
        """Stop in order and start again."""
        point = self.log.recovery_point
        self.log.close(clean=clean)
        assert self.disk.open_handles == 0
        return self.open(clean=clean, recovery_point=point)

    def crash(self, seed: int = 0, recovery_point: int = 0) -> Log:
        self.disk.crash(Random(seed))
        return self.open(recovery_point=recovery_point)

    def batch(self, value: bytes = b"value") -> bytes:
        """The next batch of producer 7, as it sends it."""
        record = (None, value, 1_000 + self.now_ms, ())
        batch = encode_batch([record], producer_id=7, producer_epoch=0, base_sequence=self.sequence)
        self.sequence += 1
        return batch

    def append(self, count: int = 1, value: bytes = b"value") -> None:
        """One turn of `count` batches of producer 7."""
        self.take(*(self.batch(value) for _ in range(count)))

    def take(self, *batches: bytes) -> list[int]:
        """One turn of these batches: the verdicts."""
        turn = Turn()
        turn.begin()
        for slot, batch in enumerate(batches):
            turn.add(self.log.lane, batch, 0, len(batch), slot)
        turn.run()
        for _, start, end, base_offset, next_offset in turn.runs:
            data = memoryview(turn.arena)[start:end]
            self.log.append(data, base_offset, next_offset, self.now_ms)
        return list(turn.verdicts)

    def sync(self) -> None:
        """Do every sync that is due."""
        epochs = self.log.epoch_sync()
        for request in [*self.log.next_syncs(), *([epochs] if epochs else [])]:
            self.disk.sync(request.handle)
            self.log.synced(request.segment_base, request.generation, request.end, 0)

    def contents(self) -> bytes:
        """Every byte of the log, read from start to end."""
        parts, offset = [], self.log.start_offset
        while offset < self.log.next_offset:
            data = bytes(self.log.read(offset, 300, ANY))
            assert data, f"nothing at {offset}"
            parts.append(data)
            offset = next_offset(data)
        return b"".join(parts)


def next_offset(data: bytes) -> int:
    """One past the last offset of a run of batches."""
    position = end = 0
    while position < len(data):
        base = int.from_bytes(data[position : position + 8])
        end = base + int.from_bytes(data[position + 23 : position + 27]) + 1
        position += 12 + int.from_bytes(data[position + 8 : position + 12])
    return end
