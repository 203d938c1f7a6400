"""The log against the loop that it cannot beat, both in the same run: ratios, judged.

Append, sync, read, recovery and opening on the real file system below `TMPDIR`, each next to the
system calls alone on the same bytes. Rounds of ours and of the raw loop alternate, and the best
round of each counts: other load on the machine can only take away.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import uvloop

from _fastseq.batch import encode_batch
from _fastseq.turn import Turn
from benchmarks.targets import Target, judge
from cluster.broker.disk import FileDisk
from cluster.broker.syncs import Syncs
from cluster.core.effects import Sync
from cluster.core.events import Synced
from cluster.storage.budget import Budget
from cluster.storage.log import Log
from cluster.storage.reading import Cold
from cluster.storage.recover import open_log
from cluster.storage.settings import LogConfig

BATCH_BYTES = 64 * 1024
WRITERS = 8
READ_BYTES = 1024 * 1024
BUSY_US = 20
RAW_SYNC_MS = 0.16
TOPIC = bytes(16)
ANY = 2**62


def batch(sequence: int) -> bytes:
    """About 64 KB of records of one producer."""
    records = [(None, bytes(1000), 1_000 + sequence, ())] * (BATCH_BYTES // 1010)
    return encode_batch(
        records, producer_id=1, producer_epoch=0, base_sequence=sequence * len(records)
    )


class Writer:
    """One log with a leader's hot path in front of it."""

    def __init__(self, disk: FileDisk, name: str, flush: str = "os") -> None:
        config = LogConfig(flush="batch" if flush == "batch" else "os")
        self.log, _ = open_log(disk, name, topic_id=TOPIC, config=config, now_ms=0)
        self.log.lane.leader_epoch = 0
        self._turn = Turn()
        self._sequence = 0

    def batches(self, count: int) -> list[bytes]:
        """The next batches of its producer."""
        made = [batch(self._sequence + number) for number in range(count)]
        self._sequence += count
        return made

    def append(self, batches: list[bytes]) -> None:
        """One turn: checked, entered in the table, copied, stamped, written."""
        turn = self._turn
        turn.begin()
        for slot, data in enumerate(batches):
            turn.add(self.log.lane, data, 0, len(data), slot)
        turn.run()
        for _, start, end, base_offset, next_offset in turn.runs:
            self.log.append(memoryview(turn.arena)[start:end], base_offset, next_offset, 0)


def best_of(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The best of each, a round of every one after the other."""
    best = [0.0] * len(runs)
    for _ in range(rounds):
        for number, run in enumerate(runs):
            best[number] = max(best[number], run())
    return best


# -- append ---------------------------------------------------------------------------------------


def measure_append(root: Path, megabytes: int, rounds: int) -> list[Target]:
    """Batches of 64 KB with flush=os, one and sixteen a turn, next to `os.write` of each."""
    count = max(16, megabytes * 1024 * 1024 // BATCH_BYTES // 16 * 16)
    number = 0

    def ours(per_turn: int) -> float:
        nonlocal number
        number += 1
        writer = Writer(FileDisk(root), f"append-{number}")
        batches = writer.batches(count)
        turns = [batches[at : at + per_turn] for at in range(0, count, per_turn)]
        started = time.thread_time()
        for turn in turns:
            writer.append(turn)
        took = time.thread_time() - started
        writer.log.close(clean=False)
        _remove(root / f"append-{number}")
        return sum(map(len, batches)) / took

    def raw() -> float:
        batches = [batch(sequence) for sequence in range(count)]
        handle = os.open(root / "raw", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        started = time.thread_time()
        for data in batches:
            os.write(handle, data)
        took = time.thread_time() - started
        os.close(handle)
        (root / "raw").unlink()
        return sum(map(len, batches)) / took

    single, grouped, plain = best_of(rounds, lambda: ours(1), lambda: ours(16), raw)
    print(f"append, flush=os     {_rates(single, grouped, plain)} (one a turn, sixteen, os.write)")
    return [Target("append of 64 KB batches : os.write", 100 * grouped / plain, 80, "%")]


def _remove(directory: Path) -> None:
    for path in directory.iterdir():
        path.unlink()
    directory.rmdir()


def _rates(*bytes_per_second: float) -> str:
    return " ".join(f"{rate / 1e9:5.2f}" for rate in bytes_per_second) + " GB/s"


# -- sync -----------------------------------------------------------------------------------------


async def group_commits(root: Path, seconds: float) -> float:
    """Batches a second that eight logs, each with one under way, have durable by the workers."""
    loop = asyncio.get_running_loop()
    disk = FileDisk(root)
    writers = [Writer(disk, f"sync-{number}", "batch") for number in range(WRITERS)]
    done, ended = 0, loop.create_future()
    prepared = [writer.batches(2_000) for writer in writers]
    ends = time.perf_counter() + seconds

    def go_on(number: int) -> None:
        writers[number].append([prepared[number].pop(0)])
        for wish in writers[number].log.next_syncs():
            syncs.submit(Sync(wish.handle, number, wish.segment_base, wish.generation, wish.end))

    def synced(event: Synced) -> None:
        nonlocal done
        more = time.perf_counter() < ends
        for result in event.results:
            log = writers[result.token].log
            done += log.synced(result.segment_base, result.generation, result.end, result.errno)
            if result.segment_base >= 0 and more and prepared[result.token]:
                go_on(result.token)
        if not syncs.pending and not ended.done():
            ended.set_result(None)

    syncs = Syncs(loop, WRITERS, synced)
    started = time.perf_counter()
    for number in range(WRITERS):
        go_on(number)
    await ended
    took = time.perf_counter() - started
    syncs.close()
    for writer in writers:
        writer.log.close(clean=False)
        _remove(root / writer.log.directory)
    return done / took


def raw_group_commits(root: Path, seconds: float) -> float:
    """The same by eight threads that write and sync, each its own file."""
    data, counts = batch(0), [0] * WRITERS
    ends = time.perf_counter() + seconds

    def write(number: int) -> None:
        handle = os.open(root / f"raw-{number}", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        while time.perf_counter() < ends:
            os.write(handle, data)
            os.fdatasync(handle)
            counts[number] += 1
        os.close(handle)
        (root / f"raw-{number}").unlink()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(WRITERS)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def measure_sync(root: Path, seconds: float, rounds: int) -> list[Target]:
    """Group commit of eight writers, next to what the device does for eight threads."""
    ours, plain = best_of(
        rounds,
        lambda: uvloop.run(group_commits(root, seconds)),
        lambda: raw_group_commits(root, seconds),
    )
    print(f"synced 64 KB batches {ours:8,.0f} /s, eight threads alone {plain:8,.0f} /s")
    return [Target("group commit of 8 writers : the device's", 100 * ours / plain, 90, "%")]


class BusyAcks:
    """One batch after the other from append to durable, beside callbacks that never rest."""

    def __init__(self, root: Path, count: int) -> None:
        self.took: list[float] = []
        self._loop = asyncio.get_running_loop()
        self._writer = Writer(FileDisk(root), "busy", "batch")
        self._batches = self._writer.batches(count)
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._syncs = Syncs(self._loop, 1, self._synced)
        self._began = 0.0

    async def run(self) -> None:
        """Until every batch is durable."""
        self._loop.call_soon(self._burn)
        self._begin()
        await self._ended
        self._syncs.close()
        self._writer.log.close(clean=False)

    def _burn(self) -> None:
        until = time.perf_counter() + BUSY_US / 1e6
        while time.perf_counter() < until:
            pass
        if not self._ended.done():
            self._loop.call_soon(self._burn)

    def _begin(self) -> None:
        self._began = time.perf_counter()
        self._writer.append([self._batches.pop(0)])
        for wish in self._writer.log.next_syncs():
            sync = Sync(wish.handle, 0, wish.segment_base, wish.generation, wish.end)
            self._syncs.submit(sync)

    def _synced(self, event: Synced) -> None:
        for result in event.results:
            self._writer.log.synced(
                result.segment_base, result.generation, result.end, result.errno
            )
            if result.segment_base < 0:
                continue  # of the file of leader epochs
            self.took.append(1_000 * (time.perf_counter() - self._began))
            if self._batches:
                self._begin()
            elif not self._ended.done():
                self._ended.set_result(None)


async def busy_acks(root: Path, count: int) -> list[float]:
    """Milliseconds that each of so many acks took."""
    acks = BusyAcks(root, count)
    await acks.run()
    _remove(root / "busy")
    return acks.took


def raw_syncs(root: Path, count: int) -> list[float]:
    """Milliseconds of one write and one sync of as many bytes, nothing beside them."""
    data, took = batch(0), []
    handle = os.open(root / "raw", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    for _ in range(count):
        started = time.perf_counter()
        os.write(handle, data)
        os.fdatasync(handle)
        took.append(1_000 * (time.perf_counter() - started))
    os.close(handle)
    (root / "raw").unlink()
    return took


def measure_busy(root: Path, count: int, rounds: int) -> list[Target]:
    """The slowest of a hundred acks beside a busy loop; the bound grows with a slower device."""
    p99s, medians = [], []
    for _ in range(rounds):
        p99s.append(_percentile(uvloop.run(busy_acks(root, count)), 99))
        medians.append(_percentile(raw_syncs(root, count), 50))
    p99, median = min(p99s), min(medians)
    bound = max(1.0, median / RAW_SYNC_MS)
    print(f"ack beside a busy loop, p99 {p99:.2f} ms; write and sync alone, median {median:.2f} ms")
    return [Target("ack p99 beside 20 us callbacks", p99, bound, "ms", at_most=True)]


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) * percent // 100, len(values) - 1)]


# -- read, recover, open --------------------------------------------------------------------------


def filled(disk: FileDisk, megabytes: int) -> Log:
    """A log of so many bytes, closed clean and opened again."""
    writer = Writer(disk, "stored")
    count = max(16, megabytes * 1024 * 1024 // BATCH_BYTES)
    for _ in range(0, count, 16):
        writer.append(writer.batches(16))
    writer.log.close(clean=True)
    return reopened(disk, clean=True)


def reopened(disk: FileDisk, *, clean: bool) -> Log:
    """The stored log, believed or checked from its beginning."""
    log, _ = open_log(disk, "stored", topic_id=TOPIC, config=LogConfig(), clean=clean, now_ms=0)
    log.share(Budget(0))
    return log


def read_all(log: Log) -> float:
    """Bytes a second of a reader who goes from start to end."""
    offset, size = 0, 0
    started = time.thread_time()
    while offset < log.next_offset:
        parts = log.read_now(offset, READ_BYTES, ANY)
        if isinstance(parts, Cold):
            raise SystemExit("the log does not stay in the page cache: too little memory")
        for part in parts:
            size += len(part)
            offset += len(part) // BATCH_BYTES_STORED * RECORDS
    return size / (time.thread_time() - started)


def raw_read(root: Path) -> float:
    """The same bytes by `pread` into one buffer."""
    handle = os.open(next((root / "stored").glob("*.log")), os.O_RDONLY)
    buffer, size, position = FileDisk(root).buffers.take(READ_BYTES), os.fstat(handle).st_size, 0
    started = time.thread_time()
    while position < size:
        position += os.preadv(handle, [buffer], position)
    took = time.thread_time() - started
    os.close(handle)
    return size / took


BATCH_BYTES_STORED = len(batch(0))
RECORDS = BATCH_BYTES // 1010


def measure_stored(root: Path, megabytes: int, rounds: int) -> list[Target]:
    """Reading, checking and opening one partition of a gigabyte."""
    disk = FileDisk(root)
    log = filled(disk, megabytes)
    size = sum(path.stat().st_size for path in (root / "stored").glob("*.log"))
    read, plain = best_of(rounds, lambda: read_all(log), lambda: raw_read(root))
    log.close(clean=True)
    opened, recovered = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        log = reopened(disk, clean=True)
        opened.append(1_000 * (time.perf_counter() - started))
        log.close(clean=False)
        started = time.thread_time()
        log = reopened(disk, clean=False)
        recovered.append(size / (time.thread_time() - started))
        log.close(clean=True)
    print(f"sequential read      {_rates(read, plain)} (the log, pread alone)")
    print(f"recovery             {_rates(max(recovered))}; clean opening {min(opened):.1f} ms")
    _remove(root / "stored")
    return [
        Target("sequential read : pread", 100 * read / plain, 80, "%"),
        Target("recovery", max(recovered) / 1e9, 3, "GB/s"),
        Target(f"clean opening of {size / 1e9:.2f} GB", min(opened), 20, "ms", at_most=True),
    ]


def main(smoke: bool) -> int:
    """Measure, and judge."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        found = measure_append(root, 1 if smoke else 128, 1 if smoke else 7)
        found += measure_sync(root, 0.05 if smoke else 1.0, 1 if smoke else 5)
        found += measure_busy(root, 20 if smoke else 1_000, 1 if smoke else 3)
        found += measure_stored(root, 4 if smoke else 1_020, 1 if smoke else 5)
    return 0 if smoke else judge(*found)


if __name__ == "__main__":
    sys.exit(main("--smoke" in sys.argv))
