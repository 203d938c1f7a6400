"""Finding the cluster: the options that every command shares, and how a command's work is run.

`--dir DIR` reads the addresses that `oncelog up` wrote to DIR/cluster.json, `--bootstrap` takes
ZeroMQ addresses; with neither, the port that `oncelog up` uses by default is tried.
"""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cluster.errors import OncelogError

if TYPE_CHECKING:
    from cluster.client import Admin

T = TypeVar("T")

DEFAULT_ADDRESS = "127.0.0.1:5550"

Directory = Annotated[
    Path | None,
    typer.Option("--dir", envvar="ONCELOG_DIR", help="Directory given to `oncelog up`."),
]
Bootstrap = Annotated[
    str | None,
    typer.Option(
        envvar="ONCELOG_BOOTSTRAP",
        metavar="HOST:PORT,...",
        help=f"ZeroMQ addresses of brokers. [default: {DEFAULT_ADDRESS}]",
        show_default=False,
    ),
]

Json = Annotated[bool, typer.Option("--json", help="One object a line.")]


class CommandFailed(OncelogError):
    """A command could not do what was asked; the text is the one line that the user sees."""


def addresses(directory: Path | None, bootstrap: str | None) -> list[str]:
    """Where to look for brokers. Raises CommandFailed if DIR holds no running cluster."""
    if directory is not None and bootstrap is not None:
        raise typer.BadParameter("give --dir or --bootstrap, not both")
    if directory is not None:
        from cluster.testing.layout import read_members

        return [member.zmq for member in read_members(directory) if member.zmq]
    given = [address.strip() for address in (bootstrap or DEFAULT_ADDRESS).split(",")]
    for address in given:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit() and int(port) < 2**16):
            raise typer.BadParameter(f"{address!r} is not HOST:PORT", param_hint="--bootstrap")
    return given


def parse_place(text: str) -> tuple[str, int | None]:
    """`TOPIC` or `TOPIC:PARTITION`, which no topic's name can be mistaken for."""
    name, colon, index = text.rpartition(":")
    if not colon:
        return text, None
    if not (name and index.isdigit()):
        raise typer.BadParameter(f"{text!r} is not TOPIC or TOPIC:PARTITION")
    return name, int(index)


async def partitions_of(admin: Admin, name: str, index: int | None) -> list[int]:
    """The one partition, or all that the topic has."""
    if index is not None:
        return [index]
    return sorted((await admin.describe_topic(name)).partitions)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end, on the loop that brokers and clients are made for."""
    import asyncio

    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
