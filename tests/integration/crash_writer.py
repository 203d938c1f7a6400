"""A process that writes to a log on a real disk until it is killed, and says what it acknowledged.

`start` forks it, so that a life costs milliseconds. Record n has the value n and lies at offset n;
an acknowledgement is the synced end, eight bytes on a pipe.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from _fastseq.batch import encode_batch
from _fastseq.turn import Turn
from cluster.broker.disk import FileDisk
from cluster.storage import checkpoint
from cluster.storage.disk import DiskError
from cluster.storage.log import Log
from cluster.storage.recover import Recovery, open_log
from cluster.storage.settings import LogConfig

CONFIG = LogConfig(segment_bytes=6_000, index_interval_bytes=500, tail_bytes=2_000)
PLACE = ("t", 0)
PRODUCER = 7


def opened(root: Path) -> tuple[FileDisk, Log, Recovery]:
    """The log as a broker opens it after a stop of any kind."""
    disk = FileDisk(root)
    points = checkpoint.read_offsets(disk, checkpoint.RECOVERY_POINTS) or {}
    log, recovery = open_log(
        disk,
        "t-0",
        topic_id=bytes(16),
        config=CONFIG,
        recovery_point=points.get(PLACE, 0),
        now_ms=0,
    )
    log.lane.leader_epoch = max(log.last_epoch, 0)
    return disk, log, recovery


def append(log: Log, disk: FileDisk, count: int) -> int:
    """One turn of a batch of so many records, synced: the synced end. May raise DiskError."""
    first = log.next_offset
    rows = [(None, b"%d" % number, 1, ()) for number in range(first, first + count)]
    batch = encode_batch(rows, producer_id=PRODUCER, producer_epoch=0, base_sequence=first)
    turn = Turn()
    turn.begin()
    turn.add(log.lane, batch, 0, len(batch), 0)
    turn.run()
    for _, start, end, base_offset, next_offset in turn.runs:
        log.append(memoryview(turn.arena)[start:end], base_offset, next_offset, 0)
    for request in log.next_syncs():
        errno = 0
        try:
            disk.sync(request.handle)
        except DiskError as error:
            errno = error.errno
        log.synced(request.segment_base, request.generation, request.end, errno)
    return log.synced_end


def write_on(root: Path, pipe: int) -> None:
    """Append for ever."""
    disk, log, _ = opened(root)
    turns = 0
    while True:
        end = append(log, disk, 1 + turns % 5)
        os.write(pipe, end.to_bytes(8))
        turns += 1
        if turns % 7 == 0:
            checkpoint.write_offsets(disk, checkpoint.RECOVERY_POINTS, {PLACE: log.recovery_point})


def start(work: Callable[[int], None]) -> tuple[int, int]:
    """(process id, end of the pipe to read from) of a new process that does this."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            work(writing)
        finally:
            os._exit(1)  # only by an error; nothing of the parent's may be run again
    os.close(writing)
    return child, reading


def kill(child: int, reading: int) -> int:
    """End it at whatever it does: the last it acknowledged, 0 if nothing."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = b""
    while more := os.read(reading, 65_536):
        told += more
    os.close(reading)
    return int.from_bytes(told[-8:])
