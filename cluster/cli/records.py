"""`oncelog produce` and `oncelog consume`: records from and to files, one a line."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from cluster.cli.find import Bootstrap, CommandFailed, Directory, addresses, run
from cluster.errors import ProduceError

if TYPE_CHECKING:
    import asyncio

    from cluster.client import Delivery, Fetched, Producer

Topic = Annotated[str, typer.Argument(metavar="TOPIC")]
TopicPartition = tuple[str, int]

PRODUCE_WITHIN_S = 30.0  # s that brokers may refuse a record before `oncelog produce` gives up
WAIT_TOLD_S = 2.0  # s between words of what is waited for


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
    timeout: Annotated[
        float,
        typer.Option(min=0.001, help="Seconds that a record is sent again before it has failed."),
    ] = PRODUCE_WITHIN_S,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Store each line of standard input, or of a file, as one record, exactly once."""
    found = addresses(directory, bootstrap)
    separator = key_separator.encode() if key_separator else None
    with _opened(file) as fd:
        run(_produce(found, _Given(topic, fd, partition, separator, timeout)))


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


@dataclass(frozen=True, slots=True)
class _Given:
    """What `oncelog produce` was asked for."""

    topic: str
    fd: int
    partition: int | None
    separator: bytes | None
    timeout_s: float


async def _produce(found: list[str], given: _Given) -> None:
    from cluster.client import Producer

    tally = _Tally()
    timeout_ms = max(1, int(given.timeout_s * 1000))
    async with Producer(
        found, delivery_timeout_ms=timeout_ms, request_timeout_ms=min(timeout_ms, 1_000)
    ) as producer:
        count = await producer.partitions(given.topic)
        if given.partition is not None and given.partition >= count:
            raise CommandFailed(f"topic {given.topic} has partitions 0 to {count - 1}")
        with _waits_told(producer, tally):
            await _send_until_one_fails(producer, given, tally)
            await producer.flush()
    noun = "record" if tally.acked == 1 else "records"
    typer.echo(f"{tally.acked} {noun} acknowledged", err=True)
    if tally.error is not None:
        failed = tally.sent - tally.acked
        late = isinstance(tally.error, ProduceError) and tally.error.code.retriable
        after = f" after {given.timeout_s:g} s (--timeout)" if late else ""
        noun = "record" if failed == 1 else "records"
        raise CommandFailed(f"{failed} {noun} failed{after}, no more were sent: {tally.error}")


async def _send_until_one_fails(producer: Producer, given: _Given, tally: _Tally) -> None:
    """Submit every line; what is to come is not waited for once a record has failed."""
    import asyncio

    sending = asyncio.ensure_future(_send(producer, given, tally))
    failing = asyncio.ensure_future(tally.failed.wait())
    await asyncio.wait((sending, failing), return_when=asyncio.FIRST_COMPLETED)
    for task in (sending, failing):
        task.cancel()
    with suppress(asyncio.CancelledError):
        await sending


async def _send(producer: Producer, given: _Given, tally: _Tally) -> None:
    from cluster.cli.lines import LineTooLong, lines_of

    try:
        async for lines in lines_of(given.fd):
            for line in lines:
                key, value = _split(line, given.separator)
                await producer.ready()
                future = producer.submit(given.topic, value, key=key, partition=given.partition)
                tally.sent += 1
                future.add_done_callback(tally.settle)
    except (LineTooLong, ProduceError) as error:
        tally.fail(error)


@contextmanager
def _waits_told(producer: Producer, tally: _Tally) -> Iterator[None]:
    """On a terminal, say what is waited for while nothing is acknowledged."""
    import asyncio

    async def tell() -> None:
        acked = 0
        while True:
            await asyncio.sleep(WAIT_TOLD_S)
            waiting, code = tally.sent - tally.settled, producer.refused_for
            if waiting and tally.acked == acked:
                why = f": {code.name}, {code.text}" if code.number else ""
                typer.echo(f"{waiting} not acknowledged yet{why}", err=True)
            acked = tally.acked

    if not sys.stderr.isatty():
        yield
        return
    task = asyncio.ensure_future(tell())
    try:
        yield
    finally:
        task.cancel()


def _split(line: bytes, separator: bytes | None) -> tuple[bytes | None, bytes]:
    if separator is None:
        return None, line
    key, found, value = line.partition(separator)
    return (key, value) if found else (None, line)


class _Tally:
    """What became of the records sent so far."""

    def __init__(self) -> None:
        import asyncio

        self.sent = 0
        self.settled = 0
        self.acked = 0
        self.error: BaseException | None = None
        self.failed = asyncio.Event()

    def fail(self, error: BaseException) -> None:
        """Note the first reason why a record is not stored."""
        self.error = self.error or error
        self.failed.set()

    def settle(self, future: asyncio.Future[Delivery]) -> None:
        """Count the record whose future is done."""
        self.settled += 1
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
        _tell_past_the_end(wanted, ends)
        consumer.assign({tp: max(begin, wanted.offset or 0) for tp, begin in begins.items()})
        while wanted.follow or any(consumer.position(tp) < ends[tp] for tp in partitions):
            for batch in await consumer.poll():
                _write(batch, None if wanted.follow else ends, wanted.show_offsets, out)
            out.flush()


def _tell_past_the_end(wanted: _Wanted, ends: dict[TopicPartition, int]) -> None:
    """Nothing is printed of a partition that ends before the offset asked for: say why."""
    for (topic, index), end in sorted(ends.items()):
        if wanted.offset is not None and wanted.offset > end:
            text = f"{topic}:{index} ends at offset {end}, before {wanted.offset}"
            typer.echo(text, err=True)


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
