"""`oncelog topic`: create, list, describe, change and delete topics."""

from __future__ import annotations

import dataclasses
import json
import uuid
from typing import Annotated

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
from cluster.errors import OFFSET_OUT_OF_RANGE, ConfigError, RequestError

IN_SYNC_KEY = "min.insync.replicas"

app = typer.Typer(help="Create, list, describe, change and delete topics.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="TOPIC")]


@app.command()
def create(
    name: Name,
    *,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="[default: what the brokers are set to, 6]")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="[default: 3, or as many as there are brokers]")
    ] = None,
    config: Annotated[
        list[str] | None, typer.Option("--config", metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    if_not_exists: Annotated[
        bool, typer.Option("--if-not-exists", help="An existing topic is no error.")
    ] = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Create a topic. In a cluster of one or two brokers it gets fewer replicas."""
    settings = parse_config(config or [])
    found = addresses(directory, bootstrap)
    if directory is not None:
        from cluster.testing.layout import broker_directories

        replicas, settings, told = capped(len(broker_directories(directory)), replicas, settings)
        for line in told:
            typer.echo(line, err=True)
    size = (partitions or -1, replicas or -1)
    run(_create(found, name, size, settings, if_not_exists=if_not_exists))


def parse_config(pairs: list[str]) -> dict[str, str]:
    """`key=value` arguments as a mapping; raises ConfigError for any other form."""
    settings = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key and equals):
            raise ConfigError("--config", pair, "KEY=VALUE")
        settings[key.strip()] = value.strip()
    return settings


def capped(
    brokers: int, replicas: int | None, settings: dict[str, str]
) -> tuple[int, dict[str, str], list[str]]:
    """Replicas and settings that so many brokers can keep, and what there is to say about it."""
    from cluster.config import IN_SYNC_DEFAULT, REPLICAS_DEFAULT

    told = []
    wanted = replicas or REPLICAS_DEFAULT
    kept = min(wanted, brokers)
    if kept < wanted:
        told.append(f"replicas: {kept} instead of {wanted}, the cluster has no more brokers")
    in_sync = settings.get(IN_SYNC_KEY, str(IN_SYNC_DEFAULT))
    if in_sync.isdigit() and int(in_sync) > kept:
        told.append(f"{IN_SYNC_KEY}: {kept} instead of {in_sync}, there are no more replicas")
        settings = settings | {IN_SYNC_KEY: str(kept)}
    return kept, settings, told


async def _create(
    found: list[str],
    name: str,
    size: tuple[int, int],
    settings: dict[str, str],
    *,
    if_not_exists: bool,
) -> None:
    from cluster.client import Admin

    partitions, replicas = size
    async with Admin(found) as admin:
        await admin.create_topic(
            name,
            partitions=partitions,
            replicas=replicas,
            config=settings,
            if_not_exists=if_not_exists,
        )
        topic = await admin.describe_topic(name)
    replicas = len(topic.partitions[0].replicas)
    in_sync = topic.config.get(IN_SYNC_KEY)
    typer.echo(
        f"topic {name}: {len(topic.partitions)} partitions, {replicas} replicas,"
        f" min in-sync {in_sync}"
    )


@app.command("list")
def list_(*, directory: Directory = None, bootstrap: Bootstrap = None) -> None:
    """Print the name of every topic, one a line."""
    run(_list(addresses(directory, bootstrap)))


async def _list(found: list[str]) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        for name in sorted(await admin.list_topics()):
            typer.echo(name)


@app.command()
def describe(
    name: Name,
    *,
    as_json: Json = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Print a topic's partitions, with leader, epoch and in-sync replicas, and its settings."""
    run(_describe(addresses(directory, bootstrap), name, as_json=as_json))


async def _describe(found: list[str], name: str, *, as_json: bool) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        topic = await admin.describe_topic(name)
    if as_json:
        told = dataclasses.asdict(topic)
        typer.echo(json.dumps(told | {"topic_id": str(uuid.UUID(bytes=topic.topic_id))}))
        return
    typer.echo("partition  leader  epoch  replicas  in sync")
    for index, part in sorted(topic.partitions.items()):
        replicas, in_sync = _ids(part.replicas), _ids(part.in_sync)
        leader = "none" if part.leader < 0 else part.leader
        typer.echo(f"{index:9}  {leader:>6}  {part.leader_epoch:5}  {replicas:8}  {in_sync}")
    for key, value in sorted(topic.config.items()):
        typer.echo(f"{key}={value}")


def _ids(nodes: tuple[int, ...]) -> str:
    return ",".join(map(str, nodes))


@app.command()
def delete(name: Name, *, directory: Directory = None, bootstrap: Bootstrap = None) -> None:
    """Delete a topic and everything in it."""
    run(_delete(addresses(directory, bootstrap), name))


async def _delete(found: list[str], name: str) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        await admin.delete_topic(name)
    typer.echo(f"topic {name} deleted")


@app.command()
def alter(
    name: Name,
    *,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="May be repeated.")
    ] = None,
    unset: Annotated[
        list[str] | None,
        typer.Option("--unset", metavar="KEY", help="Back to its default. May be repeated."),
    ] = None,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Change settings of a topic; they take effect at once in what runs."""
    settings: dict[str, str | None] = {**parse_config(change or [])}
    settings |= dict.fromkeys(unset or [])
    if not settings:
        raise typer.BadParameter("give --set KEY=VALUE or --unset KEY")
    run(_alter(addresses(directory, bootstrap), name, settings))


async def _alter(found: list[str], name: str, settings: dict[str, str | None]) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        await admin.alter_topic(name, settings)
        topic = await admin.describe_topic(name)
    for key in sorted(settings):
        typer.echo(f"{key}={topic.config.get(key)}")


@app.command()
def partitions(
    name: Name,
    *,
    total: Annotated[int, typer.Option("--total", min=1, help="How many it shall have in all.")],
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Give a topic more partitions. Records stay where they are; keys may go elsewhere now."""
    run(_partitions(addresses(directory, bootstrap), name, total))


async def _partitions(found: list[str], name: str, total: int) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        await admin.add_partitions(name, total)
    typer.echo(f"topic {name}: {total} partitions")


@app.command("delete-records")
def delete_records(
    place: Annotated[str, typer.Argument(metavar="TOPIC[:PARTITION]")],
    *,
    before: Annotated[
        int | None, typer.Option("--before", min=0, help="First offset that is kept.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Delete all that is committed now.")
    ] = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Delete the oldest records, of one partition or of all of a topic, for good."""
    if (before is None) is not everything:
        raise typer.BadParameter("give --before OFFSET or --all, one of them")
    name, index = parse_place(place)
    if before is not None and index is None:
        raise typer.BadParameter("an offset is of one partition: give TOPIC:PARTITION")
    run(_delete_records(addresses(directory, bootstrap), name, index, before))


async def _delete_records(
    found: list[str], name: str, index: int | None, before: int | None
) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        for number in await partitions_of(admin, name, index):
            try:
                low = await admin.delete_records(name, number, -1 if before is None else before)
            except RequestError as error:
                if error.code is not OFFSET_OUT_OF_RANGE:
                    raise
                end = (await admin.end_offsets([(name, number)]))[name, number]
                raise CommandFailed(f"{error}, committed up to offset {end}") from None
            typer.echo(f"{name}:{number} begins at offset {low}")
