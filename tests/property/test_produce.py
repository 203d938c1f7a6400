"""The producer machine against an adversary that is both network and cluster.

The adversary loses, delays and doubles answers, breaks connections, delivers requests of dead
connections late, changes leaders, cuts uncommitted tails, and refuses at will. Whatever it does:
nothing reported STORED is missing, nothing reported NOT_STORED is there, nothing is there twice,
and what is stored stands in the order of its appending.
"""

import random
from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from _fastseq.batch import decode_batch, read_header
from cluster.core.produce import ProducerMachine
from cluster.core.producer_events import (
    Connected,
    Disconnected,
    Effect,
    Event,
    MetadataKnown,
    NeedMetadata,
    NeedProducerId,
    ProduceAnswered,
    ProducerIdKnown,
    ProducerOptions,
    Resolved,
    SendProduce,
    Tick,
    Unsent,
)
from cluster.errors import Outcome

WHERE = ("t", 0)
NODES = (1, 2, 3)
REFUSALS = [2, 3, 5, 7, 13, 19, 20, 56]  # before the append
AFTERWARDS = [7, 20, 56]  # the batch was appended all the same
FINAL = [10, 87, 47]


@dataclass
class Window:
    """What the log says of one producer: its epoch and last five batches."""

    epoch: int
    batches: list[tuple[int, int, int]] = field(default_factory=list)  # first, last, base offset


@dataclass
class Stored:
    offset: int
    producer: tuple[int, int]
    first: int
    values: list[int]


class Cluster:
    """One partition: a log, of which a prefix is committed, and the acks that wait for it."""

    def __init__(self, numbered: bool) -> None:
        self.numbered = numbered
        self.log: list[Stored] = []
        self.committed = 0
        self.leader = 1
        self.waiting: list[tuple[int, int, ProduceAnswered]] = []  # end, node, answer

    @property
    def end(self) -> int:
        return self.log[-1].offset + len(self.log[-1].values) if self.log else 0

    def windows(self) -> dict[int, Window]:
        table: dict[int, Window] = {}
        for batch in self.log:
            pid, epoch = batch.producer
            window = table.get(pid)
            if window is None or window.epoch != epoch:
                window = table[pid] = Window(epoch)
            last = (batch.first + len(batch.values) - 1) % 2**31
            window.batches = [*window.batches, (batch.first, last, batch.offset)][-5:]
        return table

    def produce(self, node: int, send: SendProduce) -> ProduceAnswered | None:
        """Answers at once, or None: when the batch is committed."""
        if node != self.leader:
            return ProduceAnswered(send.request_id, 6)
        header = read_header(send.batch)
        values = [int(record.value or b"") for record in decode_batch(send.batch)]
        assert header.record_count == len(values)
        if not self.numbered:
            return self._append(node, send, Stored(self.end, (-1, -1), -1, values))
        first = header.base_sequence
        last = (first + len(values) - 1) % 2**31
        window = self.windows().get(header.producer_id)
        if window is not None and window.epoch == header.producer_epoch:
            for known_first, known_last, offset in window.batches:
                if (known_first, known_last) == (first, last):
                    answer = ProduceAnswered(send.request_id, 0, offset, 2)
                    return self._wait(offset + len(values), node, answer)
        expected = 0 if window is None else (window.batches[-1][1] + 1) % 2**31
        if first != expected:
            return ProduceAnswered(send.request_id, 45)
        producer = (header.producer_id, header.producer_epoch)
        return self._append(node, send, Stored(self.end, producer, first, values))

    def _append(self, node: int, send: SendProduce, batch: Stored) -> ProduceAnswered | None:
        self.log.append(batch)
        answer = ProduceAnswered(send.request_id, 0, batch.offset, 1)
        return self._wait(self.end, node, answer)

    def _wait(self, end: int, node: int, answer: ProduceAnswered) -> ProduceAnswered | None:
        if end <= self.committed:
            return answer
        self.waiting.append((end, node, answer))
        return None

    def commit(self) -> list[tuple[int, ProduceAnswered]]:
        self.committed = self.end
        done = sorted(self.waiting, key=lambda waiting: waiting[0])
        self.waiting = []
        return [(node, answer) for _, node, answer in done]

    def elect(self, leader: int, kept: int) -> list[tuple[int, ProduceAnswered]]:
        """Another leader, which has at least the committed part; waiting acks die."""
        self.leader = leader
        while self.log and self.log[-1].offset >= self.committed and kept < self.end:
            self.log.pop()
        died = [(n, ProduceAnswered(a.request_id, 6)) for _, n, a in self.waiting]
        self.waiting = []
        return died


class Adversary:
    """A walk of weighted chances; the same numbers give the same walk."""

    def __init__(
        self, numbers: random.Random, *, idempotent: bool = True, patient: bool = False
    ) -> None:
        self.numbers = numbers
        self.refusals = REFUSALS if patient else REFUSALS + FINAL
        self.idempotent = idempotent
        self.now_ms = 1_000
        self.machine = ProducerMachine(
            ProducerOptions(
                idempotent=idempotent,
                linger_ms=numbers.choice([0, 2]),
                batch_bytes=61 + 9 * numbers.randint(1, 3),
                in_flight_max=numbers.choice([1, 2, 5, 5, 5]),
                request_timeout_ms=100,
                delivery_timeout_ms=10**9 if patient else numbers.choice([150, 400, 2_000]),
            )
        )
        self.cluster = Cluster(idempotent)
        self.next_id = numbers.randrange(2**40)
        self.next_value = 0
        self.up: set[int] = set()
        self.requests: dict[int, deque[SendProduce]] = {node: deque() for node in NODES}
        self.answers: dict[int, deque[ProduceAnswered]] = {node: deque() for node in NODES}
        self.zombies: deque[tuple[int, SendProduce]] = deque()
        self.wants_metadata = self.wants_id = False
        self.outcomes: dict[int, Resolved] = {}
        self.offsets: dict[int, int] = {}
        self.sent_bytes: dict[tuple[int, int, int], bytes] = {}
        rules = [
            (self.append, 8), (self.append_many, 4), (self.wait, 10), (self.connect, 4),
            (self.disconnect, 1), (self.deliver_late, 2), (self.deliver, 20), (self.refuse, 2),
            (self.answer_error_after_append, 2), (self.send_fails, 1), (self.answer, 24),
            (self.commit, 12), (self.elect, 1), (self.metadata, 10), (self.grant_id, 4),
        ]  # fmt: skip
        # Some walks never meet some kinds of trouble, so that others go deeper.
        self.rules = [rule for rule, _ in rules]
        self.weights = [
            weight if weight >= 4 or numbers.random() < 0.6 else 0 for _, weight in rules
        ]

    def walk(self, steps: int) -> None:
        for rule in self.numbers.choices(self.rules, self.weights, k=steps):
            rule()
            self.check()
        self.finish()

    def node(self) -> int:
        others = self.numbers.choice(NODES)
        return self.numbers.choice([self.cluster.leader, self.cluster.leader, others])

    # The machine's effects

    def step(self, event: Event) -> None:
        self.do(self.machine.step(event, self.now_ms))

    def do(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case SendProduce():
                    self.sending(effect)
                case NeedMetadata():
                    self.wants_metadata = True
                case NeedProducerId():
                    assert not self.wants_id
                    self.wants_id = True
                case Resolved():
                    self.resolved(effect)

    def sending(self, send: SendProduce) -> None:
        assert send.node in self.up
        header = read_header(send.batch)
        if self.idempotent:
            key = (header.producer_id, header.producer_epoch, header.base_sequence)
            assert self.sent_bytes.setdefault(key, send.batch) == send.batch
        self.requests[send.node].append(send)

    def resolved(self, effect: Resolved) -> None:
        for span in effect.spans:
            assert isinstance(span.token, int)
            for position in range(span.count):
                value = span.token + span.start + position
                assert value not in self.outcomes
                self.outcomes[value] = effect
                if effect.base_offset >= 0:
                    self.offsets[value] = effect.base_offset + span.first + position

    # What the application does

    def append(self) -> None:
        record = (self.now_ms, None, b"%d" % self.next_value, ())
        self.machine.append(WHERE, record, self.next_value, self.now_ms)
        self.next_value += 1
        self.step(Tick())

    def append_many(self) -> None:
        count = self.numbers.randint(1, 8)
        records = [(None, b"%d" % (self.next_value + n)) for n in range(count)]
        self.machine.append_many(WHERE, records, self.now_ms, self.next_value, self.now_ms)
        self.next_value += count
        self.step(Tick())

    def wait(self) -> None:
        self.now_ms += self.numbers.choice([1, 1, 3, 3, 20, 60, 110])
        self.step(Tick())

    # What the network does

    def connect(self) -> None:
        self.connect_to(self.node())

    def connect_to(self, node: int) -> None:
        if node not in self.up:
            self.up.add(node)
            self.step(Connected(node))

    def disconnect(self) -> None:
        node, late = self.node(), self.numbers.random() < 0.5
        if node in self.up:
            self.up.discard(node)
            if late:
                self.zombies.extend((node, send) for send in self.requests[node])
            self.requests[node].clear()
            self.answers[node].clear()
            self.cluster.waiting = [w for w in self.cluster.waiting if w[1] != node]
            self.step(Disconnected(node))

    def deliver_late(self) -> None:
        if not self.zombies:
            return
        node, send = self.zombies.popleft()
        self.cluster.produce(node, send)
        self.cluster.waiting = [
            w for w in self.cluster.waiting if w[2].request_id != send.request_id
        ]

    def deliver(self) -> None:
        self.deliver_to(self.node(), self.numbers.random() < 0.5)

    def deliver_to(self, node: int, all_of_them: bool) -> None:
        requests = self.requests[node]
        while requests:
            answer = self.cluster.produce(node, requests.popleft())
            if answer is not None:
                self.answers[node].append(answer)
            if not all_of_them:
                break

    def refuse(self) -> None:
        node = self.node()
        error = self.numbers.choice(self.refusals)
        if self.requests[node]:
            send = self.requests[node].popleft()
            self.answers[node].append(ProduceAnswered(send.request_id, error))

    def answer_error_after_append(self) -> None:
        node, error = self.node(), self.numbers.choice(AFTERWARDS)
        if self.requests[node]:
            send = self.requests[node].popleft()
            answer = self.cluster.produce(node, send)
            waiting = self.cluster.waiting
            self.cluster.waiting = [w for w in waiting if w[2].request_id != send.request_id]
            if answer is None or answer.error == 0:
                answer = ProduceAnswered(send.request_id, error)
            self.answers[node].append(answer)

    def send_fails(self) -> None:
        node = self.node()
        if self.requests[node]:
            send = self.requests[node].pop()
            self.step(Unsent(send.request_id))

    def answer(self) -> None:
        self.answer_from(self.node(), self.numbers.choice([0, 1, 1, 1, 1, 2]))

    def answer_from(self, node: int, copies: int) -> None:
        if self.answers[node]:
            answer = self.answers[node].popleft()
            for _ in range(copies):
                self.step(answer)

    def commit(self) -> None:
        self.hand_out(self.cluster.commit())

    def elect(self) -> None:
        leader, keep = self.numbers.choice(NODES), self.numbers.randint(0, 12)
        self.hand_out(self.cluster.elect(leader, self.cluster.committed + keep))

    def hand_out(self, answers: list[tuple[int, ProduceAnswered]]) -> None:
        for node, answer in answers:
            if node in self.up:
                self.answers[node].append(answer)

    def metadata(self) -> None:
        if self.wants_metadata:
            old = self.numbers.choice([*NODES, -1])
            leader = self.cluster.leader
            self.learn(self.numbers.choice([leader, leader, leader, leader, old]))

    def learn(self, leader: int) -> None:
        self.wants_metadata = False
        self.step(MetadataKnown({WHERE: leader}))

    def grant_id(self) -> None:
        if not self.wants_id:
            return
        self.wants_id = False
        self.next_id += 1
        self.step(ProducerIdKnown(self.next_id, 0))

    # What must hold

    def check(self) -> None:
        self.what_was_reported_is_true()
        if self.idempotent:
            self.the_log_has_nothing_twice_and_no_gap()

    def the_log_has_nothing_twice_and_no_gap(self) -> None:
        values = [value for batch in self.cluster.log for value in batch.values]
        assert len(values) == len(set(values))
        by_producer: dict[tuple[int, int], list[int]] = {}
        for batch in self.cluster.log:
            by_producer.setdefault(batch.producer, []).extend(batch.values)
        for stored in by_producer.values():
            assert stored == sorted(stored)

    def what_was_reported_is_true(self) -> None:
        at = {
            value: batch.offset + position
            for batch in reversed(self.cluster.log)
            for position, value in enumerate(batch.values)
        }
        committed = self.cluster.committed
        for value, effect in self.outcomes.items():
            if effect.outcome is Outcome.STORED:
                assert value in at
                assert at[value] < committed
                if self.idempotent and value in self.offsets:
                    assert self.offsets[value] == at[value]
            elif effect.outcome is Outcome.NOT_STORED:
                assert value not in at
        if self.idempotent:
            stored = [v for v, e in self.outcomes.items() if e.outcome is Outcome.STORED]
            assert sorted(stored) == sorted(stored, key=lambda value: at[value])

    def finish(self) -> None:
        self.settle()
        self.append()
        self.settle()
        assert self.outcomes[self.next_value - 1].outcome is Outcome.STORED
        while self.zombies:
            self.deliver_late()
        self.cluster.commit()
        self.check()

    def settle(self) -> None:
        for _ in range(4_000):
            if self.machine.idle:
                break
            self.be_kind()
        assert self.machine.idle
        assert self.machine.next_deadline_ms() is None
        assert self.machine.buffered_bytes == 0
        assert set(self.outcomes) == set(range(self.next_value))

    def be_kind(self) -> None:
        """Everything works, and time goes exactly to the machine's next deadline."""
        for node in NODES:
            self.connect_to(node)
            self.deliver_to(node, True)
        self.commit()
        for node in NODES:
            while self.answers[node]:
                self.answer_from(node, 1)
        self.grant_id()
        if self.wants_metadata:
            self.learn(self.cluster.leader)
        deadline = self.machine.next_deadline_ms()
        if deadline is not None and not any(self.requests.values()):
            self.now_ms = max(self.now_ms, deadline)
            self.step(Tick())


SEEDS = st.integers(0, 2**32)
STEPS = st.integers(50, 400)


@given(SEEDS, STEPS)
@settings(max_examples=300)
def test_no_adversary_makes_an_idempotent_producer_lie_lose_or_repeat(
    seed: int, steps: int
) -> None:
    Adversary(random.Random(seed)).walk(steps)


@given(SEEDS, STEPS)
@settings(max_examples=150)
def test_with_time_and_no_final_refusal_everything_is_stored_once(seed: int, steps: int) -> None:
    adversary = Adversary(random.Random(seed), patient=True)
    adversary.walk(steps)
    assert {effect.outcome for effect in adversary.outcomes.values()} == {Outcome.STORED}
    stored = [value for batch in adversary.cluster.log for value in batch.values]
    assert stored == list(range(adversary.next_value))


@given(SEEDS, STEPS)
@settings(max_examples=50)
def test_without_idempotence_outcomes_hold_and_only_duplicates_appear(
    seed: int, steps: int
) -> None:
    Adversary(random.Random(seed), idempotent=False).walk(steps)
