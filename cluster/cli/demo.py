"""`oncelog demo`: a ledger of transfers kept exact while the cluster under it is broken.

Three brokers, one producer in this process, one auditor in a second one. Composes what must not
know each other: the load (`cluster.load`) and the local cluster (`cluster.testing`). Whatever
happens, Ctrl-C included, no process is left; the data is removed unless the run was not exact.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from cluster.cli.find import CommandFailed
from cluster.cli.hands import ClusterHands
from cluster.cli.screen import Screen
from cluster.client import Admin, Producer
from cluster.load.audit import Assignment, Audit
from cluster.load.faults import Fault, FaultRunner, demo_plan, lost_acks_plan
from cluster.load.report import RunReport, cost_lines
from cluster.load.scrape import Scraper, Target
from cluster.load.settle import Settlement
from cluster.load.workload import Transfer, Workload, read_ledger
from cluster.testing.layout import Settings, prepare
from cluster.testing.local import LocalCluster
from cluster.testing.process import environment

BROKERS = 3
PARTITIONS = 6
REPLICAS = 3
IN_SYNC = 2
ACKS_DROPPED_PERCENT = 5
DUPLICATES = "oncelog_duplicates_rejected_total"
UNSAFE_SHARE = 10  # the run without idempotence has one record for so many of the safe one
UNSAFE_RECORDS_MAX = 100_000
UNSAFE_BATCH_BYTES = 4 * 1024  # bytes: many small batches, so that some of their acks are lost
BATCH_BYTES = 64 * 1024
BUFFER_BYTES = 8 * 1024 * 1024  # bytes under way: enough for full batches on every partition
LEDGER = Path("examples", "transfers.csv")


@dataclass(frozen=True, slots=True)
class _Run:
    """One of the demo's two runs."""

    topic: str
    records: int
    idempotent: bool
    batch_bytes: int
    plan: list[Fault]
    offending: Path
    """Where the auditor writes offending ids, if there are any."""


async def until_signalled(work: Coroutine[Any, Any, int]) -> int:
    """Run `work`; the first signal cancels it, later ones do not disturb its cleaning up."""
    task = asyncio.ensure_future(work)
    signalled: list[int] = []

    def cancel(number: int) -> None:
        signalled.append(number)
        if len(signalled) == 1:
            task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, cancel, number)
    try:
        return await task
    except asyncio.CancelledError:
        typer.echo("interrupted; nothing is left running", err=True)
        return 128 + signalled[0]


async def settle(records: int, given: Path | None, offending: Path) -> int:
    """The whole demo; 0 if the main run was exact. `given` is a ledger in place of ours."""
    path = given or _example()
    ledger = read_ledger(path)
    directory = Path(tempfile.mkdtemp(prefix="oncelog-demo-"))
    keep = True
    try:
        homes = prepare(directory, Settings(BROKERS, base_port=0, allow_faults=True))
        began = time.monotonic()
        async with LocalCluster(directory, homes) as cluster:
            screen = Screen()
            ready_ms = round((time.monotonic() - began) * 1000)
            screen.say(f"{BROKERS} brokers ready in {ready_ms} ms, ledger {path}")
            runs = _Runs(cluster, screen, path, ledger)
            exact = await runs.exactly_once(records, offending)
            await runs.without_idempotence(records)
            keep = not exact
    except (asyncio.CancelledError, BrokenPipeError, SystemExit):
        keep = False  # interrupted, or nobody reads what it prints (rich exits then)
        raise
    finally:
        if keep:
            typer.echo(f"data and logs of the brokers are kept in {directory}", err=True)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    return 0 if exact else 1


def _example() -> Path:
    """The ledger of the repository that this package lies in, or of the current directory."""
    for root in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (root / LEDGER).is_file():
            return root / LEDGER
    raise CommandFailed(f"{LEDGER} is not here; give a ledger with --input FILE")


@dataclass(frozen=True, slots=True)
class _Runs:
    """The demo's runs over one cluster and one ledger."""

    cluster: LocalCluster
    screen: Screen
    input: Path
    ledger: Sequence[Transfer]

    async def exactly_once(self, records: int, offending: Path) -> bool:
        """The main run, with every fault; True if nothing at all was wrong."""
        self.screen.say(f"settling {records:,} transfers, idempotent, acks=all")
        plan = demo_plan(records)
        report = await self._settle(_Run("transfers", records, True, BATCH_BYTES, plan, offending))
        self.screen.table("exactly once, through every fault", report.rows(), good=report.exact)
        if not report.exact:
            self.screen.say(f"NOT EXACT: offending ids are in {offending}", "bold red")
        return report.exact

    async def without_idempotence(self, records: int) -> None:
        """A shorter run with lost acks only, to show what their retries would have cost."""
        fewer = max(1, min(records // UNSAFE_SHARE, UNSAFE_RECORDS_MAX))
        self.screen.say(f"the same without idempotence: {fewer:,} transfers, acks dropped")
        ids = self.cluster.directory / "duplicated-ids.csv"
        run = _Run("transfers-unsafe", fewer, False, UNSAFE_BATCH_BYTES, lost_acks_plan(), ids)
        report = await self._settle(run)
        self.screen.table("idempotence off", report.rows(), good=report.exact)
        for line in cost_lines(report):
            self.screen.say(line)

    async def _settle(self, run: _Run) -> RunReport:
        bootstrap = self.cluster.bootstrap
        workload = Workload(self.ledger, records=run.records, partitions=PARTITIONS)
        async with AsyncExitStack() as stack:
            admin = await stack.enter_async_context(Admin(bootstrap))
            await self._create(admin, run.topic)
            scraper = Scraper(DUPLICATES, f'topic="{run.topic}"', self._targets)
            watching = asyncio.create_task(scraper.watch())
            stack.callback(watching.cancel)
            assigned = Assignment(bootstrap, run.topic, self.input, run.records, PARTITIONS)
            errors = self.cluster.directory / "auditor.log"
            audit = await Audit.start(assigned, errors, environment())
            stack.push_async_callback(audit.close)
            producer = await stack.enter_async_context(
                Producer(
                    bootstrap,
                    idempotent=run.idempotent,
                    batch_bytes=run.batch_bytes,
                    buffer_bytes=BUFFER_BYTES,
                )
            )
            hands = ClusterHands(self.cluster, admin, scraper, topic=run.topic)
            faults = FaultRunner(run.plan, hands, ACKS_DROPPED_PERCENT, tell=self._tell_fault)
            settlement = Settlement(producer, run.topic, workload, faults)
            with self.screen.progress(
                run.records, lambda: (settlement.acked, audit.read)
            ) as progress:
                moving = asyncio.create_task(progress.move())
                stack.callback(moving.cancel)
                await settlement.run()
                await hands.settle()
                findings = await audit.finish(settlement.unacknowledged, run.offending)
            await scraper.scrape()
        if settlement.error is not None:
            self.screen.say(f"not acknowledged, for the first time: {settlement.error}", "red")
        return settlement.report(findings, duplicates_rejected=scraper.total)

    async def _create(self, admin: Admin, topic: str) -> None:
        await admin.create_topic(
            topic,
            partitions=PARTITIONS,
            replicas=REPLICAS,
            config={"min.insync.replicas": str(IN_SYNC)},
        )

    def _targets(self) -> list[Target]:
        members = self.cluster.members()
        return [Target(m.id, m.pid, m.metrics) for m in members if m.metrics is not None]

    def _tell_fault(self, number: int, text: str) -> None:
        self.screen.say(f"  record {number:,}: {text}", "yellow")
