"""`oncelog up`, `down`, `broker` and `demo`: the commands that start and end brokers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cluster.cli.find import run

ClusterDirectory = Annotated[
    Path, typer.Option("--dir", envvar="ONCELOG_DIR", help="Where the cluster keeps everything.")
]


def up(
    *,
    directory: ClusterDirectory,
    brokers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Brokers of a new cluster; an existing one keeps its own. [default: 3]"
        ),
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65_000,
            help="First ZeroMQ port; those for Kafka clients begin 100 above it, those of metrics"
            " 200. 0 takes free ports. [default: 5550, 9092 and 9650]",
        ),
    ] = None,
    allow_faults: Annotated[
        bool | None,
        typer.Option("--allow-faults/--no-faults", help="Let `oncelog chaos` break this cluster."),
    ] = None,
    flush: Annotated[
        str | None,
        typer.Option(
            metavar="batch|os", help="Count a batch once it is synced, or leave that to the system."
        ),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once ready; end it with `oncelog down`.")
    ] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Start a cluster on this machine and keep it running, in the foreground or detached.

    On an existing directory the cluster in it is started again.
    """
    from cluster.cli import supervisor
    from cluster.testing.layout import Settings

    settings = Settings(brokers, base_port, allow_faults, flush)
    if detach:
        supervisor.detach(directory.resolve(), settings)
    else:
        run(supervisor.supervise(directory.resolve(), settings, ready_fd))


def down(*, directory: ClusterDirectory) -> None:
    """End the cluster that `oncelog up` runs on a directory, in good order."""
    from cluster.cli import supervisor

    supervisor.end(directory.resolve())


def broker(
    *,
    config: Annotated[Path, typer.Option(help="The broker's configuration file (TOML).")],
) -> None:
    """Run one broker in the foreground."""
    from cluster.broker.__main__ import main

    raise typer.Exit(main(["--config", str(config)]))


def demo(
    *,
    records: Annotated[
        int, typer.Option(min=1, max=100_000_000, help="Transfers to settle.")
    ] = 1_000_000,
    ledger: Annotated[
        Path | None,
        typer.Option("--input", help="Ledger to repeat (CSV). [default: examples/transfers.csv]"),
    ] = None,
    offending: Annotated[
        Path, typer.Option(help="Where offending ids are written if the run is not exact.")
    ] = Path("demo-offending-ids.csv"),
) -> None:
    """Keep a ledger exact while acks are lost, a follower is paused and a leader is killed."""
    from cluster.cli.demo import settle, until_signalled

    raise typer.Exit(run(until_signalled(settle(records, ledger, offending.resolve()))))
