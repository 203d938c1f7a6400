"""Three brokers in three network namespaces: one of them can be cut off from the others.

Owns the namespaces, the bridge between them and this process, and the routes. Clients reach every
broker all the time; what is cut is between brokers, without a reset that anybody would see. The
store of a single machine is a file, so the one cut off still reads it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from cluster.testing.process import CONFIG_NAME, BrokerProcess
from tests.interop.running import Brokers

CLONE_NEWNET = 0x40000000
NODES = (1, 2, 3)
_libc = ctypes.CDLL(None, use_errno=True)


class Namespaced(Brokers):
    """Brokers that may be cut off: `with Namespaced(directory) as brokers`. Needs root."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._name = f"once{os.getpid() % 100_000}"
        self._net = f"10.77.{os.getpid() % 250}"

    def __enter__(self) -> Self:
        try:
            self._connect()
            return super().__enter__()
        except BaseException:
            self._disconnect()
            raise

    def __exit__(self, *error: object) -> None:
        try:
            super().__exit__(*error)
        finally:
            self._disconnect()

    def cut(self, node_id: int) -> None:
        """Nothing passes between this broker and the others."""
        self._routes("add", node_id)

    def heal(self, node_id: int) -> None:
        """Everything passes again."""
        self._routes("del", node_id)

    def _routes(self, verb: str, node_id: int) -> None:
        for other in NODES:
            if other != node_id:
                self._inside(node_id, "route", verb, "blackhole", f"{self._address(other)}/32")
                self._inside(other, "route", verb, "blackhole", f"{self._address(node_id)}/32")

    def _address(self, node_id: int) -> str:
        return f"{self._net}.{node_id}"

    def _space(self, node_id: int) -> str:
        return f"{self._name}-{node_id}"

    def _inside(self, node_id: int, *arguments: str) -> None:
        _ip("-n", self._space(node_id), *arguments)

    def _connect(self) -> None:
        _ip("link", "add", self._name, "type", "bridge")
        _ip("addr", "add", f"{self._net}.254/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        for node_id in NODES:
            space = self._space(node_id)
            _ip("netns", "add", space)
            _ip("link", "add", space, "type", "veth", "peer", "name", "eth0", "netns", space)
            _ip("link", "set", space, "master", self._name, "up")
            self._inside(node_id, "link", "set", "lo", "up")
            self._inside(node_id, "addr", "add", f"{self._address(node_id)}/24", "dev", "eth0")
            self._inside(node_id, "link", "set", "eth0", "up")

    def _disconnect(self) -> None:
        for node_id in NODES:
            _ip("netns", "del", self._space(node_id), check=False)
        _ip("link", "del", self._name, check=False)

    def _place(self) -> None:
        for node_id, broker in self.cluster.brokers.items():
            path = broker.directory / CONFIG_NAME
            told = path.read_text().replace("127.0.0.1", self._address(node_id))
            path.write_text(f"{told}allow_unauthenticated = true\n")
            _start_inside(broker, Path("/run/netns") / self._space(node_id))


def _start_inside(broker: BrokerProcess, space: Path) -> None:
    fork = broker._fork

    def inside() -> subprocess.Popen[bytes]:
        with _entered(space):
            return fork()

    broker._fork = inside  # type: ignore[method-assign]


@contextmanager
def _entered(space: Path) -> Iterator[None]:
    """This thread is in another network namespace, and so is what it starts."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(space, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_namespace(there)
        yield
    finally:
        _set_namespace(home)
        os.close(there)
        os.close(home)


def _set_namespace(handle: int) -> None:
    if _libc.setns(handle, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def allowed() -> bool:
    """Whether this process may make network namespaces."""
    try:
        made = _ip("netns", "add", "once-try", check=False)
    except FileNotFoundError:
        return False
    if made:
        _ip("netns", "del", "once-try")
    return made


def _ip(*arguments: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *arguments], check=check, capture_output=True).returncode == 0
