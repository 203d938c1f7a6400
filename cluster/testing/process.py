"""One broker process: started, awaited, signalled, and never left behind.

Owns: the process, its pidfd and its log file. A broker prints one JSON line when it serves and
logs to stderr, which goes to `broker.log` in its directory.

Invariants: signals go through the pidfd, so none ever reaches a process that took over a used
pid. The kernel ends the broker when the thread that started it ends (PR_SET_PDEATHSIG), so even
a killed supervisor leaves none behind.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import cluster
from cluster.errors import OncelogError

CONFIG_NAME = "broker.toml"
LOG_NAME = "broker.log"
CONFIG_EXIT_STATUS = 2  # what a broker ends with when its configuration is wrong
LOG_TAIL_BYTES = 4096  # bytes of the log looked through for the reason of a failed start

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl


class BrokerFailed(OncelogError):
    """A broker ended before it served; `status` is its exit status, negative for a signal."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ready:
    """The addresses a broker serves at, as it reports them."""

    zmq: str
    kafka: str | None
    metrics: str | None


class BrokerProcess:
    """The process of broker `node_id`, configured by `directory`/broker.toml.

    `start` it, await `ready`; `exited` is set once it is gone, whoever ended it.
    """

    def __init__(self, node_id: int, directory: Path, *, orphan_signal: signal.Signals) -> None:
        """`orphan_signal` is what the kernel sends the broker when its supervisor is gone."""
        self.node_id = node_id
        self.directory = directory
        self.addresses: Ready | None = None
        self._last: Ready | None = None
        self.exited = asyncio.Event()
        self.exited.set()
        self.paused = False
        self._orphan_signal = orphan_signal
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._stdout: asyncio.ReadTransport | None = None

    @property
    def pid(self) -> int:
        """Process id, also of a process that has ended."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def status(self) -> int:
        """Exit status of the ended process, minus the number of the signal that ended it."""
        assert self._process is not None, "not started"
        return self._process.returncode

    @property
    def running(self) -> bool:
        """True from start until the process is gone, paused or not."""
        return not self.exited.is_set()

    async def start(self) -> None:
        """Start the process and wait until it serves; raises BrokerFailed if it ends first."""
        reader = await self._spawn()
        line = await reader.readline()
        if not line:
            await self.exited.wait()
            raise BrokerFailed(f"broker {self.node_id} did not start: {self.reason()}", self.status)
        told = json.loads(line)
        self.addresses = Ready(told["zmq"], told.get("kafka"), told.get("metrics"))
        self._last = self.addresses

    async def _spawn(self) -> asyncio.StreamReader:
        assert not self.running, "a broker runs once at a time"
        self._process = self._fork()
        self.exited.clear()
        self.paused = False
        self.addresses = None
        loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._on_exit)
        reader = asyncio.StreamReader()
        self._stdout, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._process.stdout
        )
        return reader

    def _fork(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-m", "cluster.broker"]
        command += ["--config", str(self.directory / CONFIG_NAME)]
        if self._last is not None:
            # Clients know the broker by its address: free ports are taken once.
            metrics = urlsplit(self._last.metrics or "").netloc
            others = [self._last.kafka, metrics]
            command += ["--at", self._last.zmq, *(at or "127.0.0.1:0" for at in others)]
        with (self.directory / LOG_NAME).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(),
                start_new_session=True,  # the terminal's Ctrl-C is for the supervisor to handle
                preexec_fn=die_with_parent(self._orphan_signal),  # noqa: PLW1509 - one thread
            )

    def _on_exit(self) -> None:
        assert self._process is not None, "not started"
        if self._process.poll() is None:
            return
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._stdout is not None:
            self._stdout.close()
        self.paused = False
        self.exited.set()

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens if the process is gone."""
        if self._pidfd < 0:
            return
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)
        if number in (signal.SIGSTOP, signal.SIGCONT):
            self.paused = number == signal.SIGSTOP

    async def stop(self, *, within_s: float) -> None:
        """End it in good order, or at once if it takes longer than `within_s` seconds."""
        self.send(signal.SIGTERM)
        self.send(signal.SIGCONT)  # a stopped process handles nothing
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), within_s)
        await self.kill()

    async def kill(self) -> None:
        """End it at once (SIGKILL) and wait until it is gone."""
        self.send(signal.SIGKILL)
        await self.exited.wait()

    def reason(self) -> str:
        """The last thing the broker logged, as the reason why it ended."""
        with suppress(OSError):
            lines = (self.directory / LOG_NAME).read_bytes()[-LOG_TAIL_BYTES:].splitlines()
            if lines:
                return lines[-1].decode(errors="replace").strip()
        return f"exit status {self.status}"


def environment() -> dict[str, str]:
    """Ours, for a child that must find the package where this process found it."""
    root = str(Path(cluster.__file__).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, known] if known else [root])}


def die_with_parent(number: signal.Signals) -> Callable[[], None]:
    """What a child runs before its program, so that the kernel ends it with this thread."""
    parent = os.getpid()

    def prepare() -> None:
        _prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)

    return prepare
