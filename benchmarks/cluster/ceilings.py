"""What this machine can do at most, without any of our code: synced writes and ZeroMQ pushes.

Both are measured in the run whose figures they bound, since disk and neighbours change from one
minute to the next. A record is written by three replicas on one disk, hence a third of the first;
and pushed by its leader to two followers, hence two receivers in the second.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

import zmq

from benchmarks.cluster.brokers import BROKERS, directory

WRITE_BYTES = 1024 * 1024  # bytes between two syncs: what a busy partition commits at once
PUSH_BYTES = 64 * 1024  # bytes of one message: a full batch of the client
FOLLOWERS = BROKERS - 1


class Ceilings(NamedTuple):
    """Bytes per second, each counted once however often it is copied."""

    synced: float
    """A third of what one file takes, written and synced by `WRITE_BYTES`."""
    pushed: float
    """What reaches both of two processes over loopback TCP."""

    @property
    def lower(self) -> float:
        """The one that is reached first."""
        return min(self)


def measure(total_bytes: int) -> Ceilings:
    """Both ceilings over about `total_bytes` bytes each."""
    return Ceilings(_synced_writes(total_bytes) / BROKERS, _pushes(total_bytes))


def _synced_writes(total_bytes: int) -> float:
    block = os.urandom(WRITE_BYTES)
    rounds = max(1, total_bytes // WRITE_BYTES)
    with directory() as path:
        handle = os.open(path / "raw", os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            began = time.monotonic()
            for number in range(rounds):
                os.pwrite(handle, block, number * WRITE_BYTES)
                os.fdatasync(handle)
            return rounds * WRITE_BYTES / (time.monotonic() - began)
        finally:
            os.close(handle)


def _pushes(total_bytes: int) -> float:
    count = max(1, total_bytes // PUSH_BYTES)
    block = os.urandom(PUSH_BYTES)
    with _receivers(count) as (sockets, done):
        began = time.monotonic()
        for _ in range(count):
            for socket in sockets:
                socket.send(block)
        for pipe in done:
            pipe.recv()
        return count * PUSH_BYTES / (time.monotonic() - began)


@contextmanager
def _receivers(count: int) -> Iterator[tuple[list[zmq.Socket[bytes]], list[Connection]]]:
    """Two processes that receive `count` messages each, the sockets to them, and their pipes."""
    spawn = multiprocessing.get_context("spawn")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    sockets, pipes, processes = [], [], []
    try:
        for _ in range(FOLLOWERS):
            ours, theirs = spawn.Pipe()
            process = spawn.Process(target=_receive, args=(theirs, count), daemon=True)
            process.start()
            processes.append(process)
            pipes.append(ours)
            socket = context.socket(zmq.PUSH)
            socket.connect(f"tcp://127.0.0.1:{ours.recv()}")
            sockets.append(socket)
        yield sockets, pipes
    finally:
        context.destroy(linger=0)
        for process in processes:
            process.terminate()
            process.join()


def _receive(pipe: Connection, count: int) -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as socket:
        pipe.send(socket.bind_to_random_port("tcp://127.0.0.1"))
        for _ in range(count):
            socket.recv(copy=False)
        pipe.send(count)


if __name__ == "__main__":
    found = measure(512 * 1024 * 1024)
    print(f"synced {found.synced / 1e6:.0f} MB/s, pushed {found.pushed / 1e6:.0f} MB/s")
