"""`oncelog group`: list and describe consumer groups, show and move their offsets, delete them."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Literal

import typer

from cluster.cli.find import Bootstrap, Directory, Json, addresses, run
from cluster.errors import ConfigError

app = typer.Typer(
    help="List, describe and delete consumer groups, see how far they are, and move them.",
    no_args_is_help=True,
)
Name = Annotated[str, typer.Argument(metavar="GROUP")]


@app.command("list")
def list_(
    *, as_json: Json = False, directory: Directory = None, bootstrap: Bootstrap = None
) -> None:
    """List all groups: name, state, and the broker that coordinates it."""
    run(_list(addresses(directory, bootstrap), as_json=as_json))


async def _list(found: list[str], *, as_json: bool) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        for one in await admin.list_groups():
            text = f"{one.group}  {one.state}  broker {one.coordinator}"
            typer.echo(json.dumps(dataclasses.asdict(one)) if as_json else text)


@app.command()
def describe(
    name: Name,
    *,
    as_json: Json = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show a group's state, and its members with the partitions that each reads."""
    run(_describe(addresses(directory, bootstrap), name, as_json=as_json))


async def _describe(found: list[str], name: str, *, as_json: bool) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        group = await admin.describe_group(name)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(group)))
        return
    assignor = f", assigns by {group.assignor}" if group.assignor else ""
    typer.echo(f"{group.group}: {group.state}, broker {group.coordinator} coordinates{assignor}")
    for member in group.members:
        places = " ".join(f"{topic}-{index}" for topic, index in sorted(member.partitions))
        typer.echo(f"  {member.instance_id or member.member_id}: {places or 'no partitions'}")


@app.command()
def offsets(
    name: Name,
    *,
    to: Annotated[
        Literal["earliest", "latest"] | None,
        typer.Option(help="Move the group there; it must have no members."),
    ] = None,
    topic: Annotated[
        str | None, typer.Option(help="Only this topic; with --to it may be new to the group.")
    ] = None,
    as_json: Json = False,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Show what a group has committed and how many records lie beyond, or move it."""
    found = addresses(directory, bootstrap)
    if to is not None:
        run(_move(found, name, to, topic))
    run(_offsets(found, name, topic, as_json=as_json))


async def _offsets(found: list[str], name: str, topic: str | None, *, as_json: bool) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        committed = {
            where: offset
            for where, offset in (await admin.group_offsets(name)).items()
            if topic is None or where[0] == topic
        }
        if not committed:
            await admin.describe_group(name)  # which fails if there is no such group
        ends = await admin.end_offsets(list(committed))
    for where, offset in sorted(committed.items()):
        told = {"committed": offset, "end": ends[where], "lag": ends[where] - offset}
        if as_json:
            typer.echo(json.dumps({"topic": where[0], "partition": where[1], **told}))
        else:
            words = "  ".join(f"{key} {value}" for key, value in told.items())
            typer.echo(f"{where[0]}-{where[1]}  {words}")
    if not committed:
        typer.echo("nothing is committed", err=True)


async def _move(found: list[str], name: str, to: str, topic: str | None) -> None:
    from cluster.client import Admin, Consumer

    async with Admin(found) as admin, Consumer(found) as consumer:
        if topic is None:
            places = list(await admin.group_offsets(name))
        else:
            places = await consumer.partitions(topic)
        if not places:
            raise ConfigError("--topic", "none", "a topic: the group has committed nothing yet")
        ask = consumer.begin_offsets if to == "earliest" else consumer.end_offsets
        await admin.set_group_offsets(name, await ask(places))


@app.command()
def delete(name: Name, directory: Directory = None, bootstrap: Bootstrap = None) -> None:
    """Delete a group that has no members, and its offsets."""
    run(_delete(addresses(directory, bootstrap), name))


async def _delete(found: list[str], name: str) -> None:
    from cluster.client import Admin

    async with Admin(found) as admin:
        await admin.delete_group(name)
    typer.echo(f"group {name} deleted")
