"""What runs behind `oncelog up`: one process that starts the brokers and keeps them alive.

Owns: the lock on the directory and the signals. SIGTERM and SIGINT end the cluster in good order:
brokers hand over what they lead, flush, and leave a clean marker. A second signal ends them at
once. A supervisor that is killed takes its brokers with it: the kernel tells them to stop.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import typer

from cluster.cli.find import CommandFailed
from cluster.config import IN_SYNC_DEFAULT, REPLICAS_DEFAULT
from cluster.testing.layout import (
    Settings,
    already_running,
    end_leftovers,
    hold,
    prepare,
    supervisor,
)
from cluster.testing.local import LocalCluster, NotReady
from cluster.testing.process import CONFIG_EXIT_STATUS, BrokerFailed, environment

LOG_NAME = "supervisor.log"
READY = "ready in"
CANNOT_LISTEN = "cannot listen on"  # how a broker begins to say which address it cannot have
OTHER_PORTS = "; --base-port P takes other ports, --base-port 0 free ones"
ENDED_WITHIN_S = 20.0  # s that `oncelog down` waits: brokers have ten, and are killed then
END_AT_ONCE_WITHIN_S = 5.0  # s likewise after the second signal, which kills them
END_POLL_S = 0.02  # s between looks at a supervisor that is ending


async def supervise(directory: Path, settings: Settings, ready_fd: int | None) -> None:
    """Run the cluster until a signal ends it. `ready_fd` hears what the terminal hears."""
    _make(directory)
    with hold(directory):
        homes = prepare(directory, settings)
        end_leftovers(directory)
        ending = _signals()
        cluster = LocalCluster(
            directory, homes, revive=True, orphan_signal=signal.SIGTERM, tell=_say
        )
        starting = asyncio.create_task(cluster.start())
        try:
            if await _comes_first(starting, ending):
                _tell(await _outcome(starting, cluster), ready_fd)
                await ending.wait()
        finally:
            starting.cancel()
            ending.clear()
            stopping = asyncio.create_task(cluster.stop())
            if not await _comes_first(stopping, ending):
                await cluster.stop(within_s=0)
            await stopping


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandFailed(f"{directory}: {error.strerror}") from None


def _signals() -> asyncio.Event:
    """An event set by each SIGINT and SIGTERM."""
    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ending.set)
    return ending


async def _comes_first(task: asyncio.Task[None], ending: asyncio.Event) -> bool:
    """Wait for the task or for a signal; True if the task is done and no signal came."""
    waiting = asyncio.create_task(ending.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return task.done() and not ending.is_set()


async def _outcome(starting: asyncio.Task[None], cluster: LocalCluster) -> list[str]:
    """What there is to say once the cluster was started, and what a small one cannot do."""
    try:
        await starting
    except NotReady as error:
        return [f"oncelog: {error}; the cluster keeps running"]
    except BrokerFailed as error:
        if error.status != CONFIG_EXIT_STATUS:
            hint = OTHER_PORTS if CANNOT_LISTEN in str(error) else ""
            raise CommandFailed(f"{error}{hint}") from None
        typer.echo(f"oncelog: {error}", err=True)
        raise typer.Exit(CONFIG_EXIT_STATUS) from None
    count = len(cluster.brokers)
    lines = [f"{READY} {_age_ms()} ms: {', '.join(cluster.bootstrap)}"]
    if cluster.kafka:
        lines.append(f"Kafka clients: bootstrap.servers={','.join(cluster.kafka)}")
    if metrics := [member.metrics for member in cluster.members() if member.metrics]:
        lines.append(f"metrics: {' '.join(metrics)}")
    if count < REPLICAS_DEFAULT:
        lines.append(
            f"fewer than {REPLICAS_DEFAULT} brokers: topics get"
            f" {count} replica{'s' if count > 1 else ''}, min in-sync {min(count, IN_SYNC_DEFAULT)}"
        )
    return lines


def _tell(lines: list[str], ready_fd: int | None) -> None:
    for line in lines:
        _say(line)
    if ready_fd is not None:
        with os.fdopen(ready_fd, "w", encoding="utf-8") as pipe:
            pipe.write("".join(f"{line}\n" for line in lines))


def _age_ms() -> int:
    """Milliseconds since this process was started, its own imports included (proc(5))."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started_s) * 1000)


def _say(line: str) -> None:
    typer.echo(line)
    sys.stdout.flush()


def detach(directory: Path, settings: Settings) -> None:
    """Start a supervisor in the background and return once the cluster is ready."""
    _make(directory)
    running = supervisor(directory)
    if running is not None:
        raise already_running(directory, running)
    log_path = directory / LOG_NAME
    read_end, write_end = os.pipe()
    command = [sys.executable, "-P", "-m", "cluster.cli", "up", "--dir", str(directory)]
    command += [*_arguments(settings), "--ready-fd", str(write_end)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            pass_fds=(write_end,),
            start_new_session=True,
        )
    os.close(write_end)
    with os.fdopen(read_end, encoding="utf-8") as pipe:
        told = pipe.read()
    if told.startswith(READY):
        typer.echo(told, nl=False)
        return
    if told:
        typer.echo(told, nl=False, err=True)
        raise typer.Exit(1)
    status = process.wait()
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    mute = f"oncelog: it did not start and could write nothing to {log_path}: is the disk full?"
    typer.echo(lines[-1] if lines else mute, err=True)
    raise typer.Exit(status or 1)


def _arguments(settings: Settings) -> list[str]:
    """`settings` as options of `oncelog up`."""
    arguments = []
    if settings.brokers is not None:
        arguments += ["--brokers", str(settings.brokers)]
    if settings.base_port is not None:
        arguments += ["--base-port", str(settings.base_port)]
    if settings.allow_faults is not None:
        arguments.append("--allow-faults" if settings.allow_faults else "--no-faults")
    if settings.flush is not None:
        arguments += ["--flush", settings.flush]
    return arguments


def end(directory: Path) -> None:
    """End the cluster of `directory` and wait until nothing of it runs."""
    pid = supervisor(directory)
    if pid is None:
        if not end_leftovers(directory):
            raise CommandFailed(f"no cluster runs in {directory}")
        typer.echo(f"what was left of the cluster in {directory} has ended")
        return
    for within_s in (ENDED_WITHIN_S, END_AT_ONCE_WITHIN_S):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + within_s
        while supervisor(directory) == pid:
            if time.monotonic() > deadline:
                break
            time.sleep(END_POLL_S)
        else:
            typer.echo(f"the cluster in {directory} has ended")
            return
    raise CommandFailed(f"the cluster in {directory} does not end (pid {pid})")
