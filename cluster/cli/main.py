"""The command `oncelog`: its commands put together, and its errors as one clear line each.

Exit status: 0 done, 1 could not be done, 2 wrong use or wrong configuration, 130 interrupted.
Commands import what they need when they run, so that `oncelog --help` stays quick.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cluster.cli import chaos, group, lifecycle, log, producers, records, topic
from cluster.errors import BrokerUnavailable, ConfigError, OncelogError

_WHERE = "; give --dir DIR of `oncelog up`, or its ZeroMQ addresses with --bootstrap, not Kafka's"

app = typer.Typer(
    name="oncelog",
    help="A replicated, idempotent, partitioned log: a retry never becomes a second message.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _tell_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"oncelog {version('oncelog')}")
        except PackageNotFoundError:  # run from its sources, not installed
            typer.echo("oncelog, not installed")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_tell_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """What the command takes before the name of another."""


app.command()(lifecycle.up)
app.command()(lifecycle.down)
app.command()(lifecycle.broker)
app.command()(records.produce)
app.command()(records.consume)
app.command()(lifecycle.demo)
app.add_typer(topic.app, name="topic")
app.add_typer(group.app, name="group")
app.add_typer(log.app, name="log")
app.add_typer(producers.app, name="producers")
app.add_typer(chaos.app, name="chaos")


def main() -> None:
    """Run the command of this process's arguments and exit with its status."""
    try:
        app()
    except ConfigError as error:
        _fail(error, 2)
    except BrokerUnavailable as error:
        hint = _WHERE if str(error).startswith("no broker answers") else ""
        _fail(f"{error}{hint}", 1)
    except OncelogError as error:
        _fail(error, 1)
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: OncelogError | str, status: int) -> None:
    typer.echo(f"oncelog: {error}", err=True)
    sys.exit(status)
