"""`oncelog log`: look into the files of a log, check them, and mend what nothing else can.

`dump` and `verify` only read: our directories and Apache Kafka's alike, beside a running broker
too. `repair` changes files: of a directory that no broker uses, after making a copy of it.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cluster.errors import OncelogError

if TYPE_CHECKING:
    from cluster.broker.disk import FileDisk
    from cluster.storage.inspect import Row
    from cluster.storage.verify import Finding

app = typer.Typer(help="Look into the files of a log and check them.", no_args_is_help=True)

_LOGS = "[0-9]*.log"  # files of a replica; broker.log is none

Where = Annotated[
    Path,
    typer.Argument(exists=True, help="A data directory, a partition's directory, or one file."),
]


class NoLog(OncelogError):
    """A path is neither a data directory nor a partition's; the text says which."""


class InUse(OncelogError):
    """A broker uses the directory."""


# -- dump


@app.command()
def dump(
    path: Where,
    *,
    records: Annotated[
        bool, typer.Option("--records", help="Print the records inside of batches too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Print what stands in the files of a log, in the words of Kafka's dump tool."""
    from cluster.broker.disk import FileDisk
    from cluster.storage.inspect import dump as rows_of

    root, files = _files(path)
    disk = FileDisk(root, read_only=True)
    for name in files:
        if not as_json and len(files) > 1:
            typer.echo(f"# {name}")
        try:
            for row in rows_of(disk, name, content=records):
                typer.echo(_json(name, row) if as_json else _line(row))
        except ValueError as error:
            if len(files) == 1:
                raise NoLog(f"{path}: {error}") from None
            typer.echo(f"# {error}", err=True)


def _files(path: Path) -> tuple[Path, list[str]]:
    """(a root, the files to dump below it): all of a directory, those of its partitions too."""
    path = path.resolve()
    if path.is_file():
        return path.parent.parent, [f"{path.parent.name}/{path.name}"]
    found = sorted(entry for entry in path.rglob("*") if entry.is_file() and entry.name != ".lock")
    return path.parent, [str(entry.relative_to(path.parent)) for entry in found]


def _line(row: Row) -> str:
    """A row as Kafka prints it."""
    words = [f"{key}: {_word(value)}" for key, value in row.fields.items()]
    return ("| " if row.kind == "record" else "") + " ".join(words)


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _json(name: str, row: Row) -> str:
    return json.dumps({"file": name, "kind": row.kind, **row.fields}, ensure_ascii=False)


# -- verify


@app.command()
def verify(
    path: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    *,
    deep: Annotated[
        bool, typer.Option("--deep", help="Decompress every batch and look at each record.")
    ] = False,
) -> None:
    """Check batches, indexes, epochs and producer states. Exit status 1 if anything is damaged."""
    from cluster.broker.disk import FileDisk, in_use
    from cluster.storage.verify import replicas

    root, directory = _directory(path)
    disk = FileDisk(root, read_only=True)
    if in_use(root):
        typer.echo(f"{root} is in use: what is being written may look cut off", err=True)
    began, damaged = time.monotonic(), 0
    directories = [directory] if directory else replicas(disk)
    checked = _Checked(disk, directories)
    for finding in checked.run(directory, deep=deep):
        damaged += not finding.note
        note = "note: " if finding.note else ""
        typer.echo(f"{root / finding.path}:{finding.position}: {note}{finding.what}")
    seconds = max(time.monotonic() - began, 1e-9)
    typer.echo(
        f"{len(directories)} logs, {checked.bytes:,} bytes checked in {seconds:.2f} s"
        f" ({checked.bytes / seconds / 1e9:.2f} GB/s): "
        + (f"{damaged} damages found" if damaged else "no damage found")
    )
    if damaged:
        raise typer.Exit(1)


def _directory(path: Path) -> tuple[Path, str | None]:
    """(root, partition's directory) of a path; None for a whole data directory."""
    from cluster.storage.names import parse_replica_directory

    path = path.resolve()
    if parse_replica_directory(path.name) is not None and any(path.glob(_LOGS)):
        return path.parent, path.name
    inside = [entry for entry in path.iterdir() if entry.is_dir()]
    if (path / "meta.properties").exists() or any(
        parse_replica_directory(entry.name) and any(entry.glob(_LOGS)) for entry in inside
    ):
        return path, None
    hint = f"; there are {path}/broker-*/data" if any(path.glob("broker-*/data")) else ""
    raise NoLog(f"{path} is no data directory and no partition's directory{hint}")


class _Checked:
    """A check under way, with a bar on the terminal that says how far it is."""

    def __init__(self, disk: FileDisk, directories: list[str]) -> None:
        from cluster.storage.verify import log_bytes

        self.bytes = 0
        self._disk = disk
        self._total = sum(log_bytes(disk, directory) for directory in directories)

    def run(self, directory: str | None, *, deep: bool) -> Iterator[Finding]:
        """Everything found, as it is found."""
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

        from cluster.storage.verify import OURS, ReplicaCheck, verify_directory

        if directory is None:
            found = verify_directory(self._disk, deep=deep)
        else:
            own = self._disk.exists(OURS)
            found = ReplicaCheck(self._disk, directory, deep=deep, gaps=not own).run()
        console = Console(stderr=True)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
            task = progress.add_task("checking", total=self._total)
            for item in found:
                if isinstance(item, int):
                    self.bytes += item
                    progress.update(task, completed=self.bytes)
                else:
                    yield item


# -- repair


@app.command()
def repair(
    path: Annotated[Path, typer.Argument(exists=True, file_okay=False)],
    *,
    cut: Annotated[
        bool, typer.Option("--cut", help="End the log before its first bad batch.")
    ] = False,
    skip: Annotated[
        bool, typer.Option("--skip", help="Put empty batches in the place of bad ones.")
    ] = False,
    backup: Annotated[
        Path | None,
        typer.Option(help="Where the copy goes. [default: beside the data directory]"),
    ] = None,
) -> None:
    """Give up what a partition's only replica cannot read. A copy of its directory is made first.

    Only for a log that no other replica has: everybody else fetches what is missing by itself.
    """
    from cluster.broker.disk import DataDirectory, DirectoryRefused

    root, directory = _directory(path)
    if directory is None:
        raise NoLog(f"{path} is a data directory: name the directory of one partition in it")
    if cut == skip:
        raise NoLog("say how: either --cut or --skip; `oncelog log verify` shows what is damaged")
    try:
        held = DataDirectory(root)
    except DirectoryRefused as error:
        raise InUse(str(error)) from None
    with held:
        kept = backup or root.parent / f"{root.name}-{directory}.backup-{int(time.time())}"
        if kept.exists():
            raise NoLog(f"{kept} exists already; name another place with --backup")
        shutil.copytree(root / directory, kept)
        typer.echo(f"copied to {kept}")
        _mend(held.disk, directory, by_cutting=cut)


def _mend(disk: FileDisk, directory: str, *, by_cutting: bool) -> None:
    from cluster.storage import mend

    if by_cutting:
        recovery = mend.cut(disk, directory)
        what = f"{recovery.cut_bytes:,} bytes were cut" if recovery.cut_bytes else "nothing was cut"
        typer.echo(f"{directory} ends at offset {recovery.next_offset}: {what}")
        return
    try:
        skipped = mend.skip(disk, directory)
    except mend.CannotSkip as error:
        raise NoLog(f"{error}; --cut ends the log there") from None
    for lost in skipped:
        typer.echo(f"{lost.path}: offsets {lost.offset} to {lost.next_offset - 1} are lost")
    if not skipped:
        typer.echo(f"{directory}: nothing to skip")
