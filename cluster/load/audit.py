"""The first process's view of the second: starts the auditor, follows it, hears its findings.

Owns: the auditor's process. It ends with `close`, or when its stdin closes with this process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cluster.errors import OncelogError
from cluster.load.workload import Span

FINDINGS_WITHIN_S = 120.0  # s the auditor may lag behind the last ack
LINE_BYTES_MAX = 2**20  # bytes of one line of the auditor: its findings are a few hundred


class AuditFailed(OncelogError):
    """The auditor ended without findings."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the auditor is to read, and what it must find there."""

    bootstrap: Sequence[str]
    topic: str
    input: Path
    records: int
    partitions: int


class Audit:
    """A running auditor. `read` is how many records it has judged so far."""

    def __init__(self, process: Process) -> None:
        self.read = 0
        self._process = process
        self._findings: asyncio.Future[dict[str, Any]] = asyncio.Future()
        self._following = asyncio.create_task(self._follow())

    @classmethod
    async def start(cls, assignment: Assignment, errors: Path, environment: dict[str, str]) -> Self:
        """Start the second process; what it has to complain about goes to the file `errors`."""
        arguments = {
            "bootstrap": list(assignment.bootstrap),
            "topic": assignment.topic,
            "input": str(assignment.input),
            "records": assignment.records,
            "partitions": assignment.partitions,
        }
        with errors.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "cluster.load.auditor", json.dumps(arguments)),
                stdin=PIPE,
                stdout=PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
                limit=LINE_BYTES_MAX,
            )
        return cls(process)

    async def finish(self, unacknowledged: Sequence[Span], offending: Path) -> dict[str, Any]:
        """Everything was sent: the findings, as `cluster.load.auditor.summary` tells them."""
        assert self._process.stdin is not None
        command = {"unacknowledged": unacknowledged, "offending": str(offending)}
        with suppress(ConnectionError):
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            await self._process.stdin.drain()
        try:
            return await asyncio.wait_for(self._findings, FINDINGS_WITHIN_S)
        except TimeoutError:
            text = f"the auditor read {self.read:,} records and then no more"
            raise AuditFailed(text) from None

    async def close(self) -> None:
        """End the process if it has not ended by itself."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._following
        if self._findings.done() and not self._findings.cancelled():
            self._findings.exception()  # whoever wanted it has read it
        self._findings.cancel()

    async def _follow(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            told = json.loads(line)
            if "findings" in told:
                self.read = told["findings"]["read"]
                self._findings.set_result(told["findings"])
            else:
                self.read = told["read"]
        if not self._findings.done():
            status = await self._process.wait()
            self._findings.set_exception(AuditFailed(f"the auditor ended with status {status}"))
