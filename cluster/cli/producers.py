"""`oncelog producers`: whom the leaders of partitions remember, and what of them.

Owns two forms of it: a table for people, and with --json one object a line for programs.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.cli.find import (
    Bootstrap,
    CommandFailed,
    Directory,
    Json,
    addresses,
    parse_place,
    partitions_of,
    run,
)

if TYPE_CHECKING:
    from cluster.client import Admin, FloorInfo, ProducerInfo, ProducersInfo

app = typer.Typer(
    help="Producers that brokers remember, to recognise their retries.", no_args_is_help=True
)

_COLUMNS = ("partition", "producer", "epoch", "last sequence", "last offset", "idle", "bytes")


@app.command("list")
def list_(
    place: Annotated[str, typer.Argument(metavar="TOPIC[:PARTITION]")],
    *,
    producer_id: Annotated[
        int | None, typer.Option("--id", min=0, help="Only this producer, its floor too.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="At most so many, 0 for all.")] = 1_000,
    as_json: Json = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """List the producers of a topic or partition, page by page."""
    name, index = parse_place(place)
    found = addresses(directory, bootstrap)
    run(_list(found, (name, index), producer_id, limit, as_json=as_json))


@app.command()
def show(
    producer_id: Annotated[int, typer.Argument(metavar="ID", min=0)],
    *,
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="TOPIC[:PARTITION]", help="[default: all topics]"),
    ] = None,
    as_json: Json = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show what is remembered of one producer: window, ages, memory and floors."""
    place = None if topic is None else parse_place(topic)
    run(_show(addresses(directory, bootstrap), place, producer_id, as_json=as_json))


async def _list(
    found: list[str],
    place: tuple[str, int | None],
    producer_id: int | None,
    limit: int,
    *,
    as_json: bool,
) -> None:
    from cluster.client import Admin

    told = 0
    async with Admin(found) as admin:
        async for page, one in _entries(admin, place, producer_id):
            if limit and told == limit:
                typer.echo(f"more than {limit}: see --limit", err=True)
                return
            if as_json:
                typer.echo(json.dumps(_object(page, one)))
            else:
                if not told:
                    typer.echo("  ".join(_COLUMNS))
                typer.echo(_row(page, one))
            told += 1
    if not told:
        typer.echo("no producer is remembered", err=True)


async def _entries(
    admin: Admin, place: tuple[str, int | None], producer_id: int | None
) -> AsyncIterator[tuple[ProducersInfo, ProducerInfo | FloorInfo]]:
    """Everything that a list shows, with the page that it came in."""
    for index in await partitions_of(admin, *place):
        async for page in _pages(admin, place[0], index, producer_id):
            for one in _both(page):
                yield page, one


def _both(page: ProducersInfo) -> list[ProducerInfo | FloorInfo]:
    return [*page.producers, *page.floors]


async def _pages(
    admin: Admin, name: str, index: int, producer_id: int | None
) -> AsyncIterator[ProducersInfo]:
    """Every page of a partition, or what there is of one producer."""
    if producer_id is not None:
        yield await admin.producer(name, index, producer_id)
        return
    at = 0
    while at >= 0:
        page = await admin.producers(name, index, at)
        yield page
        at = page.next_page


async def _show(
    found: list[str], place: tuple[str, int | None] | None, producer_id: int, *, as_json: bool
) -> None:
    from cluster.client import Admin

    known = 0
    async with Admin(found) as admin:
        places = [place] if place else [(name, None) for name in await admin.list_topics()]
        for name, wanted in places:
            for index in await partitions_of(admin, name, wanted):
                page = await admin.producer(name, index, producer_id)
                known += len(page.producers) + len(page.floors)
                for line in _told(page, as_json=as_json):
                    typer.echo(line)
    if not known:
        raise CommandFailed(f"no partition remembers producer {producer_id}")


def _told(page: ProducersInfo, *, as_json: bool) -> list[str]:
    if as_json:
        return [json.dumps(_object(page, one)) for one in _both(page)]
    place, lines = f"{page.topic}:{page.partition}", []
    for one in page.producers:
        lines.append(
            f"{place}  epoch {one.epoch}, last sequence {one.last_sequence}, last offset"
            f" {one.last_offset}, idle {age(one.idle_ms)}, {one.bytes} bytes,"
            f" {one.accepted} records accepted"
        )
        lines += [
            f"    sequences {b.first_sequence} to {b.last_sequence} at offset {b.base_offset},"
            f" crc {b.crc:08x}"
            for b in one.window
        ]
    lines += [f"{place}  {_floor_text(floor)}" for floor in page.floors]
    return lines


def _row(page: ProducersInfo, one: ProducerInfo | FloorInfo) -> str:
    from cluster.client import FloorInfo

    last: tuple[object, ...]
    if isinstance(one, FloorInfo):
        last = (f"floor {one.next_sequence}", "", "", "")
    else:
        last = (one.last_sequence, one.last_offset, age(one.idle_ms), one.bytes)
    values = (page.partition, one.producer_id, one.epoch, *last)
    return "  ".join(
        f"{value:>{len(title)}}" for value, title in zip(values, _COLUMNS, strict=True)
    ).rstrip()


def _object(page: ProducersInfo, one: ProducerInfo | FloorInfo) -> dict[str, Any]:
    return {"topic": page.topic, "partition": page.partition, **dataclasses.asdict(one)}


def _floor_text(floor: FloorInfo) -> str:
    return f"expired in epoch {floor.epoch}; goes on at sequence {floor.next_sequence}"


def age(idle_ms: int) -> str:
    """A time in its largest unit that is not zero."""
    if idle_ms < 0:
        return "?"
    for size, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s")):
        if idle_ms >= size:
            return f"{idle_ms // size} {unit}"
    return f"{idle_ms} ms"
