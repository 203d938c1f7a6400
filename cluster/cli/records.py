"""`oncelog produce` and `oncelog consume`: records from and to files, one a line."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from cluster.cli.find import Bootstrap, CommandFailed, Directory, addresses, run
from cluster.errors import ProduceError

if TYPE_CHECKING:
    import asyncio

    from cluster.client import Delivery, Fetched

Topic = Annotated[str, typer.Argument(metavar="TOPIC")]
TopicPartition = tuple[str, int]


def produce(
    topic: Topic,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Read this file instead of standard input.")
    ] = None,
    partition: Annotated[
        int | None, typer.Option(min=0, help="Store everything in this partition.")
    ] = None,
    key_separator: Annotated[
        str | None, typer.Option(help="What stands before its first occurrence is the key.")
    ] = None,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Store each line of standard input, or of a file, as one record, exactly once."""
    found = addresses(directory, bootstrap)
    separator = key_separator.encode() if key_separator else None
    with _opened(file) as fd:
        run(_produce(found, topic, fd, partition, separator=separator))


@contextmanager
def _opened(file: Path | None) -> Iterator[int]:
    if file is None:
        yield sys.stdin.fileno()
        return
    try:
        fd = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}") from None
    try:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise CommandFailed(f"{file}: {os.strerror(errno.EISDIR)}")
        yield fd
    finally:
        os.close(fd)


async def _produce(
    found: list[str], topic: str, fd: int, partition: int | None, *, separator: bytes | None
) -> None:
    from cluster.cli.lines import LineTooLong, lines_of
    from cluster.client import Producer

    tally = _Tally()
    async with Producer(found) as producer:
        count = await producer.partitions(topic)
        if partition is not None and partition >= count:
            raise CommandFailed(f"topic {topic} has partitions 0 to {count - 1}")
        try:
            async for lines in lines_of(fd):
                for line in lines:
                    key, value = _split(line, separator)
                    await producer.ready()
                    future = producer.submit(topic, value, key=key, partition=partition)
                    tally.sent += 1
                    future.add_done_callback(tally.settle)
                if tally.error is not None:
                    break
        except (LineTooLong, ProduceError) as error:
            tally.fail(error)
        await producer.flush()
    noun = "record" if tally.acked == 1 else "records"
    typer.echo(f"{tally.acked} {noun} acknowledged", err=True)
    if tally.error is not None:
        failed = tally.sent - tally.acked
        raise CommandFailed(f"{failed} records failed, no more were sent: {tally.error}")


def _split(line: bytes, separator: bytes | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return None, line
    key, found, value = line.partition(separator)
    return (key, value) if found else (None, line)


class _Tally:
    """What became of the records sent so far."""

    def __init__(self) -> None:
        self.sent = 0
        self.acked = 0
        self.error: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Note the first reason why a record is not stored."""
        self.error = self.error or error

    def settle(self, future: asyncio.Future[Delivery]) -> None:
        """Count the record whose future is done."""
        error = None if future.cancelled() else future.exception()
        if error is None:
            self.acked += 1
        else:
            self.fail(error)


def consume(
    topic: Topic,
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Write to this file instead of standard output.")
    ] = None,
    partition: Annotated[int | None, typer.Option(min=0, help="Only this partition.")] = None,
    offset: Annotated[
        int | None, typer.Option(min=0, help="Where to begin, in every partition read.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on as records arrive, until interrupted.")
    ] = False,
    show_offsets: Annotated[
        bool, typer.Option("--show-offsets", help="Begin each line with partition and offset.")
    ] = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Print every committed record, one a line, up to the high watermark of the start."""
    found = addresses(directory, bootstrap)
    try:
        with file.open("wb") if file is not None else os.fdopen(1, "wb", closefd=False) as out:
            wanted = _Wanted(topic, partition, offset, follow, show_offsets)
            run(_consume(found, wanted, out))
    except BrokenPipeError:  # whoever read our output has had enough
        raise typer.Exit from None
    except OSError as error:
        raise CommandFailed(f"{file or 'standard output'}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What `oncelog consume` was asked for."""

    topic: str
    partition: int | None
    offset: int | None
    follow: bool
    show_offsets: bool


async def _consume(found: list[str], wanted: _Wanted, out: IO[bytes]) -> None:
    from cluster.client import Consumer

    async with Consumer(found) as consumer:
        partitions = await consumer.partitions(wanted.topic)
        if wanted.partition is not None:
            chosen = (wanted.topic, wanted.partition)
            if chosen not in partitions:
                text = f"topic {wanted.topic} has partitions 0 to {len(partitions) - 1}"
                raise CommandFailed(text)
            partitions = [chosen]
        begins = await consumer.begin_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        consumer.assign({tp: max(begin, wanted.offset or 0) for tp, begin in begins.items()})
        while wanted.follow or any(consumer.position(tp) < ends[tp] for tp in partitions):
            for batch in await consumer.poll():
                _write(batch, None if wanted.follow else ends, wanted.show_offsets, out)
            out.flush()


def _write(
    batch: Fetched, ends: dict[TopicPartition, int] | None, show_offsets: bool, out: IO[bytes]
) -> None:
    """Write the records of `batch` that lie before the end of its partition."""
    end = None if ends is None else ends[batch.topic, batch.partition]
    for record in batch.records:
        if end is None or record.offset < end:
            if show_offsets:
                out.write(b"%d:%d\t" % (batch.partition, record.offset))
            out.write((record.value or b"") + b"\n")
