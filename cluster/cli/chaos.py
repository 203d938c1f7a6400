"""`oncelog chaos`: break a cluster on purpose. Answers only where `allow_faults = true`.

Acks are dropped by the broker itself; pausing, resuming and killing are signals to its process,
whose pid stands in DIR/cluster.json. A killed broker is started again by `oncelog up`.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.find import Bootstrap, CommandFailed, Directory, addresses, run
from cluster.errors import RequestError

app = typer.Typer(help="Break a cluster on purpose (allow_faults = true).", no_args_is_help=True)

ClusterDirectory = Annotated[
    Path, typer.Option("--dir", envvar="ONCELOG_DIR", help="Directory given to `oncelog up`.")
]
ALLOW = "end the cluster and start it with `oncelog up --allow-faults`"
Broker = Annotated[int, typer.Option("--broker", metavar="ID", help="The broker to act on.")]


@app.command()
def pause(*, broker: Broker, directory: ClusterDirectory) -> None:
    """Stop a broker's process where it is (SIGSTOP), until `oncelog chaos resume`."""
    _signal(directory, broker, signal.SIGSTOP)
    typer.echo(f"broker {broker} paused")


@app.command()
def resume(*, broker: Broker, directory: ClusterDirectory) -> None:
    """Let a paused broker go on (SIGCONT)."""
    _signal(directory, broker, signal.SIGCONT)
    typer.echo(f"broker {broker} resumed")


@app.command()
def kill(*, broker: Broker, directory: ClusterDirectory) -> None:
    """End a broker at once (SIGKILL); `oncelog up` starts it again."""
    _signal(directory, broker, signal.SIGKILL)
    typer.echo(f"broker {broker} killed")


@app.command("drop-acks")
def drop_acks(
    *,
    percent: Annotated[int, typer.Option(min=0, max=100, help="0 drops none any more.")],
    broker: Annotated[
        int | None, typer.Option("--broker", metavar="ID", help="Only this one. [default: all]")
    ] = None,
    directory: Directory = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Withhold that many percent of the acks, after the append and the commit."""
    told = run(_drop_acks(addresses(directory, bootstrap), percent, broker))
    whose = f"broker{'s' if len(told) > 1 else ''} {', '.join(map(str, told))}"
    what = f"dropping {percent} % of the acks" if percent else "dropping none of the acks"
    typer.echo(f"{what} of {whose}")


async def _drop_acks(found: list[str], percent: int, broker: int | None) -> list[int]:
    from cluster.client import Admin

    async with Admin(found) as admin:
        known = sorted((await admin.describe_cluster()).brokers)
        if broker is not None and broker not in known:
            raise CommandFailed(f"there is no broker {broker}, only {', '.join(map(str, known))}")
        chosen = known if broker is None else [broker]
        for node_id in chosen:
            try:
                await admin.fault(node_id, "drop-acks", percent=percent)
            except RequestError as error:
                raise CommandFailed(f"{error}: {ALLOW}") from None
    return chosen


def _signal(directory: Path, broker: int, number: signal.Signals) -> None:
    from cluster.testing.layout import faults_allowed, read_members, send

    members = {member.id: member for member in read_members(directory)}
    if broker not in members:
        raise CommandFailed(f"broker {broker} does not run in {directory}")
    if not faults_allowed(directory, broker):
        config = directory / f"broker-{broker}" / "broker.toml"
        raise CommandFailed(f"{config} does not say allow_faults = true: {ALLOW}")
    if not send(directory, members[broker], number):
        raise CommandFailed(f"broker {broker} has ended")
