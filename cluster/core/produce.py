"""The idempotent producer of one client, sans-IO: what is sent, sent again, and what became of it.

Owns: the backlog of every partition (`cluster.core.backlog`), the attempts under way, the current
producer id, and the joining of all attempts of a batch into one outcome (G6). Driven by `append`
and by `step`; `next_deadline_ms` says when to call `step(Tick())`.

Invariants:
- Each batch is resolved exactly once: STORED after an acknowledgement (or proof by a later one);
  NOT_STORED only if every attempt was answered that it did not store; else POSSIBLY_STORED.
- A number is never used for other bytes. When a sent batch fails, its partition goes on under a
  fresh producer id, with batches that were never sent, once nothing of it is in flight; if the
  failed batch may be stored, those waiting behind it fail too, since order would be broken.
- An unanswered oldest batch is sent again after a time-out that follows the round trip; others
  wait for it, or for proof by a later acknowledgement that their own was lost.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import msgspec

from cluster.core.backlog import Backlog
from cluster.core.batches import ANONYMOUS, NO_NODE, Batch, Header, Identity, KeyValue, State
from cluster.core.producer_events import (
    VERDICT_DUPLICATE,
    VERDICT_NONE,
    Connected,
    Disconnected,
    Effect,
    Event,
    MetadataKnown,
    NeedMetadata,
    NeedProducerId,
    ProduceAnswered,
    ProducerCounts,
    ProducerIdKnown,
    ProducerOptions,
    Resolved,
    SendProduce,
    Tick,
    Unsent,
)
from cluster.errors import (
    DUPLICATE_SEQUENCE_NUMBER,
    NETWORK_EXCEPTION,
    NONE,
    OUT_OF_ORDER_SEQUENCE_NUMBER,
    REQUEST_TIMED_OUT,
    Attempt,
    Code,
    Outcome,
    code,
)
from cluster.limits import (
    GAP_ANSWERS_MAX,
    METADATA_BACKOFF_MS,
    RETRY_BACKOFF_MS,
    RETRY_BACKOFF_MS_MAX,
)


class _Attempt(msgspec.Struct, frozen=True):
    backlog: Backlog
    batch: Batch
    node: int
    head: bool
    """Everything before the batch was resolved when it was sent."""


class ProducerMachine:
    """Takes records, emits requests, and resolves each batch once."""

    def __init__(self, options: ProducerOptions) -> None:
        self.options = options
        self.counts = ProducerCounts()
        self.buffered_bytes = 0
        """Bytes of records whose fate is not known."""
        self._backlogs: dict[tuple[str, int], Backlog] = {}
        self._active: dict[tuple[str, int], Backlog] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._connected: set[int] = set()
        self._leaders: dict[tuple[str, int], int] = {}
        self._identity = None if options.idempotent else ANONYMOUS
        self._identity_asked = False
        self._metadata_next_ms = 0
        self._last_request = 0
        self._effects: list[Effect] = []

    # Records in

    def append(
        self,
        where: tuple[str, int],
        record: tuple[int, bytes | None, bytes | None, Sequence[Header]],
        token: Hashable,
        now_ms: int,
    ) -> None:
        """Takes one record (timestamp, key, value, headers) for (topic, partition)."""
        self.buffered_bytes += self._activate(where).append(record, token, now_ms)
        self.counts.records += 1

    def append_many(
        self,
        where: tuple[str, int],
        records: Sequence[KeyValue],
        timestamp_ms: int,
        token: Hashable,
        now_ms: int,
    ) -> None:
        """Takes (key, value) records of one timestamp; their spans carry `token`."""
        backlog = self._activate(where)
        self.buffered_bytes += backlog.extend(records, timestamp_ms, token, now_ms)
        self.counts.records += len(records)

    def flush(self) -> None:
        """Nothing appended so far lingers."""
        for backlog in self._active.values():
            backlog.close_open()

    @property
    def idle(self) -> bool:
        """The fate of every record is known."""
        return not self._active

    def _activate(self, where: tuple[str, int]) -> Backlog:
        backlog = self._active.get(where)
        if backlog is not None:
            return backlog
        backlog = self._backlogs.get(where)
        if backlog is None:
            topic, partition = where
            backlog = self._backlogs[where] = Backlog(
                topic,
                partition,
                batch_bytes=self.options.batch_bytes,
                in_flight_max=self.options.in_flight_max,
            )
            backlog.leader = self._leaders.get(where, NO_NODE)
            backlog.leader_fresh = backlog.leader != NO_NODE
        self._active[where] = backlog
        return backlog

    # Events

    def step(self, event: Event, now_ms: int) -> list[Effect]:
        """Takes one event; what is to be done now."""
        match event:
            case ProduceAnswered():
                self._on_answer(event, now_ms)
            case Tick():
                self._on_tick(now_ms)
            case Unsent(request_id):
                self._on_unsent(request_id, now_ms)
            case Connected(node):
                self._connected.add(node)
                self._pump(self._active.values(), now_ms)
            case Disconnected(node):
                self._on_disconnected(node, now_ms)
            case MetadataKnown():
                self._on_metadata(event, now_ms)
            case ProducerIdKnown(producer_id, epoch):
                self._identity = Identity(producer_id, epoch)
                self._identity_asked = False
                self._pump(self._active.values(), now_ms)
        effects, self._effects = self._effects, []
        return effects

    def abandon(self, now_ms: int) -> list[Effect]:
        """Resolves everything at once by what is known, for a producer that stops."""
        for backlog in list(self._active.values()):
            why = code(backlog.last_code or REQUEST_TIMED_OUT.number)
            while backlog.sent:
                self._fail(backlog, backlog.sent[0], why, now_ms)
            self._refuse(backlog, backlog.drop_unsent(), REQUEST_TIMED_OUT)
            self._settle(backlog)
        effects, self._effects = self._effects, []
        return effects

    @property
    def refused_for(self) -> Code:
        """The latest error that something still waits to see the end of; NONE if nothing does."""
        codes = (backlog.last_code for backlog in self._active.values() if backlog.last_code)
        return code(next(codes, 0))

    def next_deadline_ms(self) -> int | None:
        """When `step(Tick())` has something to do, if nothing else happens before."""
        deadlines = [
            deadline
            for backlog in self._active.values()
            if (deadline := self._deadline(backlog)) is not None
        ]
        return min(deadlines, default=None)

    def _on_answer(self, event: ProduceAnswered, now_ms: int) -> None:
        attempt = self._attempts.pop(event.request_id, None)
        if attempt is None:
            return  # of a batch that is resolved, or of a connection that ended
        backlog, batch = attempt.backlog, attempt.batch
        if event.error in (NONE.number, DUPLICATE_SEQUENCE_NUMBER.number):
            self._stored(attempt, event, now_ms)
        else:
            error = code(event.error)
            backlog.last_code = event.error
            if error.attempt is Attempt.NOT_STORED:
                batch.doubtful -= 1
            if batch.latest == event.request_id:  # an older answer leaves the newer one to decide
                self._rejected(attempt, error, now_ms)
        self._pump((backlog,), now_ms)

    def _on_unsent(self, request_id: int, now_ms: int) -> None:
        attempt = self._attempts.pop(request_id, None)
        if attempt is None:
            return
        backlog, batch = attempt.backlog, attempt.batch
        batch.doubtful -= 1
        backlog.leader_fresh = False
        if batch.latest == request_id and batch.state is State.WAITING:
            backlog.retry(batch, now_ms, alone=True)
        self._pump((backlog,), now_ms)

    def _on_disconnected(self, node: int, now_ms: int) -> None:
        self._connected.discard(node)
        for request_id, attempt in list(self._attempts.items()):
            if attempt.node != node:
                continue
            del self._attempts[request_id]
            attempt.backlog.last_code = NETWORK_EXCEPTION.number
            if attempt.batch.latest == request_id and attempt.batch.state is State.WAITING:
                attempt.backlog.retry(attempt.batch, now_ms, alone=True)
        for backlog in self._active.values():
            if backlog.leader == node:
                backlog.leader_fresh = False
        self._pump(self._active.values(), now_ms)

    def _on_metadata(self, event: MetadataKnown, now_ms: int) -> None:
        self._leaders.update(event.leaders)
        for where, leader in event.leaders.items():
            backlog = self._backlogs.get(where)
            if backlog is None:
                continue
            backlog.leader_fresh = leader != NO_NODE
            backlog.leader = leader
            # An answer of the old leader may still come; the new one need not wait for it.
            for batch in backlog.sent:
                if batch.state is State.WAITING and leader not in (batch.node, NO_NODE):
                    backlog.retry(batch, now_ms, alone=True)
        for backlog in self._active.values():
            error = event.errors.get(backlog.topic, 0)
            if error:
                backlog.leader_fresh = False
                backlog.last_code = error
        self._pump(self._active.values(), now_ms)

    def _on_tick(self, now_ms: int) -> None:
        for backlog in list(self._active.values()):
            self._expire(backlog, now_ms)
            head = backlog.sent[0] if backlog.sent else None
            if head is None or head.state is not State.WAITING:
                continue
            if now_ms >= backlog.retransmit_ms(head, self.options.request_timeout_ms):
                backlog.retry(head, now_ms, alone=True)
                if head.attempts > 1:
                    backlog.leader_fresh = False
        self._pump(list(self._active.values()), now_ms)

    # Sending

    def _pump(self, backlogs: Iterable[Backlog], now_ms: int) -> None:
        """Sends what may be sent, and asks for what is missing to send the rest."""
        blocked = []
        for backlog in list(backlogs):
            if backlog.unsent:
                self._identified(backlog)  # ask early: the leader may still have to be found
            while (batch := self._next(backlog, now_ms)) is not None:
                self._send(backlog, batch, now_ms)
            if self._leaderless(backlog):
                blocked.append(backlog.topic)
            self._settle(backlog)
        if blocked and now_ms >= self._metadata_next_ms:
            self._metadata_next_ms = now_ms + METADATA_BACKOFF_MS
            self._effects.append(NeedMetadata(tuple(dict.fromkeys(blocked))))

    def _next(self, backlog: Backlog, now_ms: int) -> Batch | None:
        if not self._reachable(backlog):
            return None
        batch = backlog.next_retry()
        if batch is not None:
            return batch if batch.retry_at_ms <= now_ms else None
        due_ms = backlog.open_due_ms(self.options.linger_ms)
        if due_ms is None or due_ms > now_ms or not self._identified(backlog):
            return None
        return backlog.take(now_ms) if backlog.window_open else None

    def _identified(self, backlog: Backlog) -> bool:
        """The backlog has an identity for new batches; asks for one when it is time."""
        if backlog.identified:
            return True
        if backlog.sent:
            return False
        if self._identity is not None and self._fresh_for(backlog):
            backlog.adopt(self._identity)
            return True
        self._identity = None
        if not self._identity_asked:
            self._identity_asked = True
            self._effects.append(NeedProducerId())
        return False

    def _fresh_for(self, backlog: Backlog) -> bool:
        return self._identity is not None and self._identity != backlog.identity

    def _reachable(self, backlog: Backlog) -> bool:
        return backlog.leader_fresh and backlog.leader in self._connected

    def _leaderless(self, backlog: Backlog) -> bool:
        """Something is to be sent and nobody is there to take it."""
        return not self._reachable(backlog) and (backlog.unsent or backlog.next_retry() is not None)

    def _send(self, backlog: Backlog, batch: Batch, now_ms: int) -> None:
        self._last_request += 1
        request_id = self._last_request
        batch.send(request_id, backlog.leader, now_ms)
        head = batch is backlog.sent[0]
        self._attempts[request_id] = _Attempt(backlog, batch, backlog.leader, head)
        counts = self.counts
        counts.attempts += 1
        if batch.attempts == 1:
            counts.batches += 1
        else:
            counts.retries += 1
        options = self.options
        where = (backlog.topic, backlog.partition)
        acks, timeout_ms = options.acks, options.request_timeout_ms
        self._effects.append(
            SendProduce(backlog.leader, request_id, *where, batch.payload, acks, timeout_ms)
        )
        if options.acks == 0:
            self._resolve(backlog, batch, Outcome.POSSIBLY_STORED, NONE)
            backlog.acknowledge(batch, now_ms)

    # Fates

    def _stored(self, attempt: _Attempt, event: ProduceAnswered, now_ms: int) -> None:
        backlog, batch = attempt.backlog, attempt.batch
        if batch.latest == event.request_id:
            for lost in backlog.lost_before(batch):
                backlog.retry(lost, now_ms, alone=False)
        if event.verdict == VERDICT_DUPLICATE:
            self.counts.duplicates += 1
        offset, verdict = event.base_offset, event.verdict
        self._resolve(backlog, batch, Outcome.STORED, NONE, base_offset=offset, verdict=verdict)
        backlog.acknowledge(batch, now_ms)

    def _rejected(self, attempt: _Attempt, error: Code, now_ms: int) -> None:
        backlog, batch = attempt.backlog, attempt.batch
        if error.refresh_metadata:
            backlog.leader_fresh = False
        at_ms = now_ms + min(RETRY_BACKOFF_MS << min(batch.attempts - 1, 10), RETRY_BACKOFF_MS_MAX)
        if error is OUT_OF_ORDER_SEQUENCE_NUMBER:
            if not attempt.head:
                at_ms = now_ms  # an older batch has not arrived yet, and goes first
            else:
                # A deposed leader may miss what the new one has: ask again before giving up.
                batch.gaps += 1
                backlog.leader_fresh = False
            retriable = batch.gaps < GAP_ANSWERS_MAX
        else:
            retriable = error.retriable
        if not retriable:
            self._fail(backlog, batch, error, now_ms)
        elif batch.state is State.WAITING:
            backlog.retry(batch, at_ms, alone=True)

    def _expire(self, backlog: Backlog, now_ms: int) -> None:
        before_ms = now_ms - self.options.delivery_timeout_ms + 1
        why = code(backlog.last_code or REQUEST_TIMED_OUT.number)
        while backlog.sent and backlog.sent[0].created_ms < before_ms:
            self._fail(backlog, backlog.sent[0], why, now_ms)
        self._refuse(backlog, backlog.drop_unsent(before_ms), why)

    def _fail(self, backlog: Backlog, batch: Batch, why: Code, now_ms: int) -> None:
        """Gives up a sent batch; what waits behind one that may be stored fails with it."""
        if backlog.proved(batch):
            self._resolve(backlog, batch, Outcome.STORED, NONE)
            backlog.acknowledge(batch, now_ms)
            return
        outcome = Outcome.POSSIBLY_STORED if batch.doubtful else Outcome.NOT_STORED
        self._resolve(backlog, batch, outcome, why)
        backlog.give_up(batch, now_ms)
        if batch.doubtful and backlog.spent:
            self._refuse(backlog, backlog.drop_unsent(), why)

    def _refuse(self, backlog: Backlog, batches: list[Batch], why: Code) -> None:
        for batch in batches:
            self._resolve(backlog, batch, Outcome.NOT_STORED, why)

    def _resolve(
        self,
        backlog: Backlog,
        batch: Batch,
        outcome: Outcome,
        why: Code,
        *,
        base_offset: int = -1,
        verdict: int = VERDICT_NONE,
    ) -> None:
        for request_id in batch.requests:
            self._attempts.pop(request_id, None)
        self.buffered_bytes -= batch.size
        if outcome is Outcome.STORED:
            self.counts.acked += batch.records
        elif why is not NONE:
            self.counts.failed += batch.records
        where = (backlog.topic, backlog.partition)
        self._effects.append(Resolved(*where, batch.spans, outcome, base_offset, verdict, why))

    def _settle(self, backlog: Backlog) -> None:
        backlog.check()
        if backlog.empty:
            self._active.pop((backlog.topic, backlog.partition), None)

    # Time

    def _deadline(self, backlog: Backlog) -> int | None:
        options = self.options
        found = []
        head = backlog.sent[0] if backlog.sent else None
        oldest = head.created_ms if head is not None else backlog.oldest_unsent_ms
        if oldest is not None:
            found.append(oldest + options.delivery_timeout_ms)
        if head is not None and head.state is State.WAITING:
            found.append(backlog.retransmit_ms(head, self.options.request_timeout_ms))
        if self._leaderless(backlog):
            found.append(self._metadata_next_ms)
        elif (retry := backlog.next_retry()) is not None:
            found.append(retry.retry_at_ms)
        elif (backlog.identified or self._fresh_for(backlog)) and backlog.window_open:
            due_ms = backlog.open_due_ms(options.linger_ms)
            if due_ms is not None:
                found.append(due_ms)
        return min(found, default=None)
