"""One broker process: the machine, with sockets, disk, store and clock around it.

Owns: the order of starting and ending, and the way of an event: every source delivers here, the
machine takes one step, its effects are done, the timer is set to its next deadline. All of that
happens on one event loop, so the machine sees one turn at a time: messages and syncs that come in
by the same look at the descriptors are one step, and what follows from them leaves together.

Invariants: the data directory is locked before anything in it is read and until the process ends;
the addresses are bound before they are registered; a machine that raised is never stepped again.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import resource
import secrets
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import NamedTuple

from cluster.broker.admission import Admission
from cluster.broker.clock import Alarm, now_ms
from cluster.broker.disk import DataDirectory, FileDisk
from cluster.broker.execute import Executor
from cluster.broker.exposition import MetricsServer
from cluster.broker.links import Links, sort
from cluster.broker.observed import Observed, Sockets
from cluster.broker.reads import Reads
from cluster.broker.settings import broker_settings, topic_defaults
from cluster.broker.store import Metadata
from cluster.broker.syncs import Syncs
from cluster.config import BrokerConfig, parse_topic_config
from cluster.control import machine
from cluster.control.sqlite import Options, SqliteStore
from cluster.control.store import MetadataStore
from cluster.core import events
from cluster.core.logs import NewIds
from cluster.core.node import Node
from cluster.core.settings import NodeSettings
from cluster.errors import OncelogError
from cluster.limits import LINGER_MS, READ_THREADS, STOP_MS
from cluster.net.kafka import KafkaListener
from cluster.net.zmq import RoutedMessage, RouterEndpoint
from cluster.storage.checkpoint import encode_id
from cluster.storage.recover import Recovery

log = logging.getLogger(__name__)

_WILDCARDS = frozenset({"*", "0.0.0.0", "[::]"})


class Listens(NamedTuple):
    """Where a broker listens, as "host:port": for brokers and native clients, and for Kafka's."""

    zmq: str
    kafka: str | None


class BrokerFailed(OncelogError):
    """The broker cannot start; the text says why."""


async def serve(config: BrokerConfig) -> str | None:
    """Run a broker until it was told to stop; what failed, None after an orderly stop.

    Raises OSError, OncelogError or DirectoryRefused when it cannot start.
    """
    allow_open_files()
    metrics = MetricsServer()
    async with AsyncExitStack() as opened:
        directory = opened.enter_context(DataDirectory(config.data_dir))
        store = await SqliteStore.open(
            config.store_path,
            Options(wal=config.store_wal),
            on_blocked=lambda seconds: _blocked(config, seconds),
        )
        opened.push_async_callback(store.close)
        opened.callback(metrics.close)
        url = None
        if config.listen_metrics is not None:
            url = await metrics.start(config.listen_metrics)
        broker = Broker(config, directory.disk, store, url)
        metrics.observe = broker.observe
        return await broker.run()


def allow_open_files() -> None:
    """Ask for as many open files as the system lets this process have: each replica keeps one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _blocked(config: BrokerConfig, seconds: float) -> None:
    if seconds:
        held = machine.lock_holders(config.store_path)
        names = ", ".join(f"{h.pid}{' (stopped)' * h.stopped}" for h in held) or "not known"
        log.warning("the store is locked since %.1f s by process %s", seconds, names)
    else:
        log.warning("the store is no longer locked")


class Broker:
    """A broker: `await run()`, in the turn of the loop that made it, serves until its end."""

    def __init__(
        self,
        config: BrokerConfig,
        disk: FileDisk,
        store: MetadataStore,
        metrics_url: str | None = None,
    ) -> None:
        """Read whose directory it is and bind the address for clients and brokers.

        Raises BrokerFailed, DiskError or OSError.
        """
        loop = self._loop = asyncio.get_running_loop()
        self._config = config
        self._metrics_url = metrics_url
        self._ended: asyncio.Future[str | None] = loop.create_future()
        self._gathered: list[events.Data] = []
        self._clients: list[events.ClientMessage] = []
        self._admission = Admission()
        self._woken = False
        self._router = RouterEndpoint(loop, config.listen_zmq, on_turn=self._arrived)
        self._kafka: KafkaListener | None = None
        try:
            if config.listen_kafka is not None:
                self._kafka = KafkaListener(
                    loop, config.listen_kafka, make=events.ClientMessage, wake=self._wake
                )
            self.node = make_node(config, disk, self._listens(), metrics_url)
        except BaseException:
            self._router.close()
            if self._kafka is not None:
                self._kafka.discard()
            raise
        self._links = Links(
            loop, config.node_id, self.deliver,
            heartbeat_ms=config.heartbeat_ms, heartbeat_timeout_ms=config.heartbeat_timeout_ms,
        )  # fmt: skip
        self._syncs = Syncs(loop, config.sync_threads, self.gather)
        self._reads = Reads(loop, READ_THREADS, disk.buffers, self.gather)
        self._metadata = Metadata(store, self.deliver, lease_ms=config.lease_ms)
        self._executor = Executor(
            loop, router=self._router, admission=self._admission, kafka=self._kafka,
            links=self._links, syncs=self._syncs,
            reads=self._reads,
            metadata=self._metadata, stopped=self._end,
        )  # fmt: skip
        self._alarm = Alarm(loop, lambda: self.deliver(events.Tick()))
        self._malformed = 0
        self._serving: asyncio.Task[None] | None = None
        self._controllers_begun = self._damage_found = 0

    # -- from start to end --------------------------------------------------------------------

    async def run(self) -> str | None:
        """Serve; what failed, None after an orderly stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._signalled, number)
        self._metadata.start()
        try:
            return await self._ended
        finally:
            self._alarm.cancel()
            await self._metadata.close()
            self._syncs.close()
            self._reads.close()
            self._links.close(LINGER_MS)
            self._router.close(LINGER_MS)
            if self._serving is not None:
                self._serving.cancel()
            if self._kafka is not None:
                await self._kafka.close(LINGER_MS)

    def _signalled(self, number: signal.Signals) -> None:
        """Stop in good order; at once when asked a second time or when that takes too long."""
        log.info("stopping: %s", number.name)
        for again in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(again, self._end, f"{again.name} during the stop")
        self._loop.call_later(STOP_MS / 1000, self._end, f"no orderly stop within {STOP_MS} ms")
        self.deliver(events.StopRequested())

    def _end(self, failure: str | None) -> None:
        if not self._ended.done():
            self._ended.set_result(failure)

    # -- events -------------------------------------------------------------------------------

    def gather(self, event: events.Data) -> None:
        """Keep data until everything that this turn of the loop brings has come in."""
        self._wake()
        self._gathered.append(event)

    def deliver(self, event: events.Event) -> None:
        """One step of the machine at once, together with what was gathered before."""
        self._step([*self._take(), event])

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._take_turn)

    def _take_turn(self) -> None:
        self._woken = False
        happened = self._take()
        if happened:
            self._step(happened)
        elif self._kafka is not None:
            self._kafka.settle()

    def _take(self) -> list[events.Event]:
        """What was gathered. Requests come last, those of all clients together: what the peers
        sent moves watermarks that requests may then see.
        """
        happened: list[events.Event] = [*self._gathered]
        clients = self._clients
        self._gathered, self._clients = [], []
        if self._kafka is not None:
            clients += self._kafka.drain()
        if clients:
            happened.append(events.ClientTurn(clients))
        return happened

    def _step(self, happened: Sequence[events.Event]) -> None:
        """One step of the machine, and what it wants done."""
        if self._ended.done():
            return
        try:
            self._executor.do(self.node.turn(happened, now_ms()))
            self._metadata.alive(now_ms())
        except Exception:
            # The machine's state cannot be trusted any more; what was acknowledged is on disk.
            log.exception("the broker failed at %s", [type(event).__name__ for event in happened])
            self._end("an internal error; its traceback stands in the log above")
            return
        if self._kafka is not None:
            self._kafka.settle()
        self._alarm.set(self.node.next_deadline_ms())
        if self._serving is None and self.node.serving:
            self._serving = self._loop.create_task(self._begin())
        if self._damage_found != self.node.scrubber.found:
            self._damage_found = self.node.scrubber.found
            log.error("stored bytes have gone bad: `oncelog log verify` says where")
        if self._controllers_begun != self.node.controllers_begun:
            self._controllers_begun = self.node.controllers_begun
            log.info("this broker is the controller now")

    def _arrived(self, messages: Sequence[RoutedMessage]) -> None:
        found = sort(messages)
        self._malformed += found.malformed
        self._clients += self._admission.admitted(found.clients)
        if found.peers:
            self._gathered.append(events.PeerTurn(found.peers))
        self._wake()

    # -- telling ------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Let Kafka's clients in, now that there is something to tell them, and say so."""
        try:
            if self._kafka is not None:
                await self._kafka.serve()
        except OSError as error:
            self._end(str(error))
        else:
            self._announce()

    def _listens(self) -> Listens:
        """Where this broker's clients and brokers find it."""
        kafka = None if self._kafka is None else self._kafka.endpoint
        return Listens(self._router.endpoint, kafka)

    def _announce(self) -> None:
        """The one line on standard output: this broker serves, here."""
        for directory, found in self.node.logs.recoveries:
            log.warning("recovery of %s: %s", directory, told(found))
        logs = self.node.logs
        if logs.opened_bytes:
            log.info(
                "%d logs opened, %d bytes read and replayed in %d ms of work",
                logs.opened_logs, logs.opened_bytes, logs.opened_ms,
            )  # fmt: skip
        ready = {
            "event": "ready",
            "node_id": self._config.node_id,
            "zmq": self._router.endpoint,
            "kafka": self._listens().kafka,
            "metrics": self._metrics_url,
            "pid": os.getpid(),
        }
        with suppress(BrokenPipeError):  # whoever started this broker does not listen any more
            sys.stdout.write(json.dumps(ready) + "\n")
            sys.stdout.flush()
        where = ", Kafka clients at ".join(filter(None, self._listens()))
        log.info("serving at %s, in incarnation %d", where, self.node.incarnation)
        gc.freeze()  # what there is now stays: collections need not look at it again

    def observe(self) -> Observed:
        """What a scrape reads."""
        sockets = Sockets(
            self._malformed, self._executor.hangups, self._router.unreachable, self._links.unsent,
            self._admission.dropped, self._kafka,
        )  # fmt: skip
        return Observed(self.node, sockets)


def make_node(
    config: BrokerConfig, disk: FileDisk, listens: Listens, metrics_url: str | None
) -> Node:
    """The machine; BrokerFailed if the directory is another node's or another cluster's."""
    settings = node_settings(config, listens, metrics_url)
    try:
        node = Node(settings, disk, now_ms())
    except ValueError as error:
        raise BrokerFailed(f"{config.data_dir}: {error}") from None
    known = node.logs.cluster_id
    if None not in (known, settings.cluster_id) and known != settings.cluster_id:
        raise BrokerFailed(
            f"{config.data_dir} belongs to cluster {known}, not to {settings.cluster_id}, which"
            " cluster_id asks for"
        )
    return node


def node_settings(config: BrokerConfig, listens: Listens, metrics_url: str | None) -> NodeSettings:
    """What the machine is told, of this configuration and this machine."""
    host, port = _reachable(listens.zmq)
    wanted = None if config.cluster_id is None else encode_id(bytes.fromhex(config.cluster_id))
    return NodeSettings(
        node_id=config.node_id,
        host=host,
        port=port,
        boot_id=machine.boot_id(),
        new_ids=NewIds(
            cluster=wanted or encode_id(uuid.uuid4().bytes),
            directory=encode_id(uuid.uuid4().bytes),
            durability=encode_id(uuid.uuid4().bytes),
        ),
        cluster_id=wanted,
        kafka=_advertised(config, listens),
        metrics=metrics_url,
        lag_ms=config.replica_lag_time_max_ms,
        scrub_bytes_per_second=config.scrub_bytes_per_second,
        retention_check_ms=config.retention_check_interval_ms,
        allow_faults=config.allow_faults,
        topics=topic_defaults(config),
        groups=config.groups,
        wall_offset_ms=time.time_ns() // 1_000_000 - now_ms(),
        chance=secrets.randbits(128),
        check_config=_check_topic,
        broker=broker_settings(config, kafka=_advertised(config, listens)),
        producer_bytes_max=config.producer_bytes_max,
    )


def _reachable(endpoint: str) -> tuple[str, int]:
    """Host and port that others find this address at."""
    host, _, port = endpoint.rpartition(":")
    return socket.gethostname() if host in _WILDCARDS else host, int(port)


def _advertised(config: BrokerConfig, listens: Listens) -> str | None:
    """Where Kafka's clients are told to find this broker: "host:port"."""
    if listens.kafka is None:
        return None
    host, port = _reachable(listens.kafka)
    if config.advertised_kafka is not None:
        host, _, wanted = config.advertised_kafka.rpartition(":")
        port = int(wanted) or port
    return f"{host}:{port}"


def _check_topic(config: Mapping[str, str]) -> None:
    parse_topic_config(config)


def told(found: Recovery) -> str:
    """What recovery of a log did, in words."""
    notes = list(found.notes)
    if found.cut_bytes:
        kept = f", kept in {', '.join(found.kept)}" if found.kept else ""
        notes.append(
            f"{found.cut_bytes} bytes were cut at offset {found.next_offset}: {found.reason}{kept}"
        )
    if found.damage:
        notes.append(
            f"what was synced cannot be read from offset {found.damage.offset} on:"
            f" {found.damage.reason}; it is kept until another replica leads"
        )
    return "; ".join(notes)
