"""The second process of a run: consumes every partition and judges every record it reads.

`python -m cluster.load.auditor` with its arguments as one JSON object. It tells one JSON line
several times a second on stdout: {"read": n}. One line on stdin, {"unacknowledged": [[start, end,
partition], ...], "offending": path}, means that everything was sent: it reads on to the high
watermark, writes the offending ids to the path if there are any, tells {"findings": {...}} and
ends. It also ends when stdin closes, so that nobody has to look for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvloop

from cluster.client import Consumer
from cluster.load.checker import Checker
from cluster.load.findings import summary, write_offences
from cluster.load.workload import Span, Workload, read_ledger

TELL_EVERY_S = 0.2  # s between progress lines
COMMAND_BYTES_MAX = 2**26  # bytes of the one command: every span of a run that failed wholly
WAIT_MS = 100  # ms a fetch may wait for records: bounds how late the end is noticed
READ_BYTES = 4 * 1024 * 1024  # bytes asked for per fetch


class Auditor:
    """Reads `topic` from its beginning and feeds the checker."""

    def __init__(self, bootstrap: list[str], topic: str, workload: Workload) -> None:
        self._checker = Checker(workload)
        self._bootstrap = bootstrap
        self._partitions = [(topic, number) for number in range(workload.partitions)]
        self._ends: dict[tuple[str, int], int] = {}

    async def run(self, commands: asyncio.StreamReader) -> None:
        """Read while records come, until told that all were sent; then to the end."""
        async with Consumer(self._bootstrap, max_wait_ms=WAIT_MS, max_bytes=READ_BYTES) as consumer:
            consumer.assign(dict.fromkeys(self._partitions, 0))
            telling = asyncio.create_task(self._tell_often())
            reading = asyncio.create_task(self._read(consumer))
            line = asyncio.create_task(commands.readline())
            try:
                await asyncio.wait({line, reading}, return_when=asyncio.FIRST_COMPLETED)
                if line.done() and line.result():
                    self._ends = await consumer.end_offsets(self._partitions)
                    await reading
                    self._conclude(json.loads(line.result()))
                elif reading.done():
                    reading.result()  # before the command it ends by an error only
            finally:
                for task in (telling, reading, line):
                    task.cancel()
                await asyncio.gather(telling, reading, line, return_exceptions=True)

    async def _read(self, consumer: Consumer) -> None:
        """Until the ends, once they are known. A poll is never cancelled: it would lose records."""
        while not self._ends or any(consumer.position(tp) < self._ends[tp] for tp in self._ends):
            for batch in await consumer.poll():
                self._checker.see(batch.partition, batch.records)

    async def _tell_often(self) -> None:
        while True:
            _tell({"read": self._checker.read})
            await asyncio.sleep(TELL_EVERY_S)

    def _conclude(self, command: dict[str, Any]) -> None:
        findings = self._checker.findings([Span(*span) for span in command["unacknowledged"]])
        if not findings.exact:
            write_offences(Path(command["offending"]), findings)
        _tell({"findings": summary(findings)})


def _tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def _main(arguments: dict[str, Any]) -> None:
    ledger = read_ledger(Path(arguments["input"]))
    workload = Workload(ledger, records=arguments["records"], partitions=arguments["partitions"])
    commands = asyncio.StreamReader(limit=COMMAND_BYTES_MAX)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    await Auditor(arguments["bootstrap"], arguments["topic"], workload).run(commands)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_main(json.loads(sys.argv[1])))
