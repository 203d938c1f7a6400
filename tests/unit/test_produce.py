"""The producer machine, event by event: what is sent when, and what each record is told."""

from collections.abc import Sequence

import pytest

from _fastseq.batch import decode_batch, read_header
from cluster.core.batches import next_sequence
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
from cluster.limits import GAP_ANSWERS_MAX, METADATA_BACKOFF_MS, RETRANSMIT_MS_MIN

WHERE = ("t", 0)


class Bench:
    """A machine, its clock, and what it asked for."""

    def __init__(
        self, *, ready: bool = True, acks: int = -1, idempotent: bool = True, linger_ms: int = 0,
        batch_bytes: int = 65_536, in_flight_max: int = 5,
    ) -> None:  # fmt: skip
        self.machine = ProducerMachine(
            ProducerOptions(
                acks=acks, idempotent=idempotent, linger_ms=linger_ms, batch_bytes=batch_bytes,
                in_flight_max=in_flight_max, request_timeout_ms=1_000, delivery_timeout_ms=10_000,
            )
        )  # fmt: skip
        self.now_ms = 0
        self.sent: list[SendProduce] = []
        self.resolved: list[Resolved] = []
        self.asked: list[Effect] = []
        self.next_id = 7
        if ready:
            self.step(Connected(1))
            self.step(Connected(2))
            self.step(MetadataKnown({WHERE: 1, ("t", 1): 2}))
            self.grant()

    def step(self, event: Event) -> list[Effect]:
        return self.take(self.machine.step(event, self.now_ms))

    def take(self, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            match effect:
                case SendProduce():
                    self.sent.append(effect)
                case Resolved():
                    self.resolved.append(effect)
                case _:
                    self.asked.append(effect)
        return effects

    def grant(self) -> None:
        self.step(ProducerIdKnown(self.next_id, 0))
        self.next_id += 1

    def send(self, *values: bytes, partition: int = 0) -> list[SendProduce]:
        """Appends each value, in a batch of its own, and returns what was sent at once."""
        before = len(self.sent)
        for value in values:
            record = (self.now_ms, None, value, ())
            self.machine.append(("t", partition), record, value, self.now_ms)
            self.machine.flush()
            self.step(Tick())
        return self.sent[before:]

    def answer(self, send: SendProduce, error: int = 0, offset: int = -1, verdict: int = 1) -> None:
        self.step(ProduceAnswered(send.request_id, error, offset, verdict if not error else 0))

    def wait(self, ms: int) -> list[SendProduce]:
        before = len(self.sent)
        self.now_ms += ms
        self.step(Tick())
        return self.sent[before:]

    def outcomes(self) -> list[tuple[object, Outcome, int]]:
        return [
            (span.token, effect.outcome, effect.base_offset)
            for effect in self.resolved
            for span in effect.spans
        ]


def sequences(sends: Sequence[SendProduce]) -> list[int]:
    return [read_header(send.batch).base_sequence for send in sends]


def values(send: SendProduce) -> list[bytes | None]:
    return [record.value for record in decode_batch(send.batch)]


def test_nothing_is_sent_before_leader_connection_and_id_are_known() -> None:
    bench = Bench(ready=False)
    assert bench.send(b"a") == []
    assert bench.asked == [NeedProducerId(), NeedMetadata(("t",))]
    bench.step(MetadataKnown({WHERE: 1}))
    assert bench.sent == []
    bench.step(Connected(1))
    assert bench.sent == []
    bench.grant()
    assert [send.node for send in bench.sent] == [1]
    header = read_header(bench.sent[0].batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (7, 0, 0)


def test_batches_carry_consecutive_sequences_per_partition() -> None:
    bench = Bench(batch_bytes=100_000)
    bench.machine.append_many(WHERE, [(None, b"x")] * 3, 5, "many", 0)
    bench.machine.flush()
    bench.step(Tick())
    bench.send(b"a")
    bench.send(b"b", partition=1)
    sent = bench.sent
    assert [(send.partition, seq) for send, seq in zip(sent, sequences(sent), strict=True)] == [
        (0, 0), (0, 3), (1, 0),
    ]  # fmt: skip


def test_sequences_wrap_to_zero() -> None:
    assert next_sequence(2**31 - 2, 1) == 2**31 - 1
    assert next_sequence(2**31 - 1, 1) == 0
    assert next_sequence(2**31 - 2, 5) == 3


def test_records_linger_until_time_or_size_sends_them_together() -> None:
    bench = Bench(linger_ms=5, batch_bytes=200)
    for number in range(3):
        bench.machine.append(WHERE, (0, None, b"%d" % number, ()), number, bench.now_ms)
        bench.step(Tick())
    assert bench.sent == []
    assert bench.machine.next_deadline_ms() == 5
    assert [values(send) for send in bench.wait(5)] == [[b"0", b"1", b"2"]]
    bench.machine.append(WHERE, (0, None, bytes(150), ()), 3, bench.now_ms)
    bench.step(Tick())
    assert len(bench.sent) == 2


def test_many_records_are_cut_into_full_batches_whose_spans_name_them_all() -> None:
    bench = Bench(batch_bytes=1_000)
    records = [(b"key", b"%05d" % number) for number in range(500)]
    bench.machine.append_many(WHERE, records, 5, "run", 0)
    bench.machine.flush()
    bench.step(Tick())
    while not bench.machine.idle:
        for send in [send for send in bench.sent if send.request_id > len(bench.resolved)]:
            bench.answer(send, offset=0)
    assert all(len(send.batch) <= 1_064 for send in bench.sent)
    assert len(bench.sent) < 10
    assert [value for send in bench.sent for value in values(send)] == [v for _, v in records]
    spans = [span for effect in bench.resolved for span in effect.spans]
    assert [(span.first, span.start) for span in spans] == [
        (0, sum(other.count for other in spans[:index])) for index, _ in enumerate(spans)
    ]
    assert sum(span.count for span in spans) == 500
    assert bench.machine.buffered_bytes == 0


def test_a_large_record_does_not_swell_a_batch_begun_before_it() -> None:
    bench = Bench(batch_bytes=65_536)
    records: list[tuple[bytes | None, bytes | None]] = [
        (None, bytes(30_000)), (None, bytes(60_000)), (None, None), (bytes(65_000), b""),
    ]  # fmt: skip
    bench.machine.append_many(WHERE, records, 5, "run", 0)
    bench.machine.flush()
    bench.step(Tick())
    assert [len(values(send)) for send in bench.sent] == [1, 2, 1]
    assert all(len(send.batch) <= 65_536 for send in bench.sent)


def test_at_most_five_batches_are_unanswered_counted_from_the_oldest() -> None:
    bench = Bench()
    sent = bench.send(*(b"%d" % n for n in range(8)))
    assert sequences(sent) == [0, 1, 2, 3, 4]
    bench.answer(sent[1], offset=1)  # proves 0 stored; it is asked for again, nothing new goes
    assert sequences(bench.sent[5:]) == [0]
    bench.answer(bench.sent[5], offset=0, verdict=2)
    assert sequences(bench.sent[6:]) == [5, 6]


def test_an_ack_of_a_later_batch_resends_those_whose_acks_were_lost_at_once() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b", b"c", b"d")
    bench.answer(sent[2], offset=2)
    again = bench.sent[4:]
    assert [send.batch for send in again] == [sent[0].batch, sent[1].batch]
    bench.answer(again[0], offset=0, verdict=2)
    bench.answer(again[1], offset=1, verdict=2)
    bench.answer(sent[3], offset=3)
    assert sorted(offset for _, _, offset in bench.outcomes()) == [0, 1, 2, 3]
    assert bench.machine.counts.duplicates == 2
    assert bench.machine.idle


def test_an_ack_on_another_connection_proves_no_loss() -> None:
    bench = Bench()
    first = bench.send(b"a")
    bench.step(MetadataKnown({WHERE: 2}))
    later = bench.sent[1:]
    assert [send.node for send in later] == [2]
    bench.answer(first[0], offset=0)
    assert len(bench.sent) == 2
    assert bench.machine.idle


def test_the_oldest_batch_is_retried_alone_and_the_rest_follows_its_ack_in_order() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b", b"c")
    bench.step(Disconnected(1))
    bench.send(b"d")
    assert len(bench.sent) == 3
    bench.step(Connected(1))
    bench.step(MetadataKnown({WHERE: 1}))
    assert [send.batch for send in bench.sent[3:]] == [sent[0].batch]
    bench.answer(bench.sent[3], offset=0, verdict=2)
    assert sequences(bench.sent[4:]) == [1, 2, 3]


def test_a_new_leader_gets_what_the_old_one_has_not_answered() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b")
    bench.step(MetadataKnown({WHERE: 2}))
    assert [(send.node, send.batch) for send in bench.sent[2:]] == [(2, sent[0].batch)]
    bench.answer(bench.sent[2], error=6)
    bench.wait(METADATA_BACKOFF_MS)
    assert bench.asked[-1] == NeedMetadata(("t",))


def test_an_unanswered_batch_is_sent_again_after_the_round_trip_tells_it_is_late() -> None:
    bench = Bench()
    (first,) = bench.send(b"a")
    assert bench.machine.next_deadline_ms() == 1_000  # nothing is known yet
    bench.now_ms += 2
    bench.answer(first, offset=0)
    (second,) = bench.send(b"b")
    assert bench.wait(RETRANSMIT_MS_MIN - 1) == []
    (again,) = bench.wait(1)
    assert again.batch == second.batch
    assert bench.machine.next_deadline_ms() == bench.now_ms + 2 * RETRANSMIT_MS_MIN
    bench.answer(second, offset=1)  # the first attempt's answer was late, not lost
    assert bench.machine.idle
    assert bench.machine.counts.retries == 1


def test_retransmissions_slow_down_to_the_request_timeout_and_ask_for_the_leader() -> None:
    bench = Bench()
    (first,) = bench.send(b"a")
    bench.answer(first, offset=0)
    bench.send(b"b")
    waits = []
    for _ in range(6):
        deadline = bench.machine.next_deadline_ms()
        assert deadline is not None
        waits.append(deadline - bench.now_ms)
        bench.wait(waits[-1])
        bench.step(MetadataKnown({WHERE: 1}))
    assert waits == [100, 200, 400, 800, 1_000, 1_000]
    assert NeedMetadata(("t",)) in bench.asked


def test_a_retriable_refusal_backs_off_and_holds_later_batches_back() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b")
    bench.answer(sent[0], error=19)
    bench.answer(sent[1], error=45)
    bench.send(b"c")
    assert len(bench.sent) == 2
    assert bench.machine.next_deadline_ms() == 10
    (again,) = bench.wait(10)
    assert again.batch == sent[0].batch
    bench.answer(again, offset=0)
    assert sequences(bench.sent[3:]) == [1, 2]
    assert bench.resolved[0].code.number == 0


def test_a_refused_first_attempt_is_not_stored_when_time_is_up() -> None:
    bench = Bench()
    (sent,) = bench.send(b"a")
    bench.answer(sent, error=19)
    bench.now_ms = 10_000
    bench.step(Tick())
    assert bench.outcomes() == [(b"a", Outcome.NOT_STORED, -1)]
    assert bench.resolved[0].code.number == 19


def test_one_lost_attempt_makes_the_outcome_possibly_stored() -> None:
    bench = Bench()
    bench.send(b"a")
    (again,) = bench.wait(1_000)
    bench.answer(again, error=87)
    assert bench.outcomes() == [(b"a", Outcome.POSSIBLY_STORED, -1)]


def test_a_late_refusal_of_the_first_attempt_joins_in() -> None:
    bench = Bench()
    (first,) = bench.send(b"a")
    (again,) = bench.wait(1_000)
    bench.answer(first, error=19)
    assert bench.resolved == []
    bench.answer(again, error=87)
    assert bench.outcomes() == [(b"a", Outcome.NOT_STORED, -1)]


def test_a_request_that_never_left_stored_nothing() -> None:
    bench = Bench()
    (sent,) = bench.send(b"a")
    bench.step(Unsent(sent.request_id))
    bench.now_ms = 10_000
    bench.step(Tick())
    assert bench.outcomes() == [(b"a", Outcome.NOT_STORED, -1)]


def test_after_a_possibly_stored_failure_the_queue_fails_and_a_fresh_id_goes_on() -> None:
    bench = Bench(in_flight_max=1)
    bench.send(b"a", b"b")
    bench.wait(10_000)
    assert bench.outcomes() == [
        (b"a", Outcome.POSSIBLY_STORED, -1), (b"b", Outcome.NOT_STORED, -1),
    ]  # fmt: skip
    assert bench.send(b"c") == []
    assert bench.asked[-1] == NeedProducerId()
    bench.grant()
    header = read_header(bench.sent[-1].batch)
    assert (header.producer_id, header.base_sequence) == (8, 0)
    assert values(bench.sent[-1]) == [b"c"]


def test_after_a_refusal_known_not_stored_the_queue_goes_on_under_a_fresh_id() -> None:
    bench = Bench(in_flight_max=1)
    (sent,) = bench.send(b"a", b"b")
    bench.answer(sent, error=87)
    bench.grant()
    assert values(bench.sent[-1]) == [b"b"]
    assert sequences(bench.sent[-1:]) == [0]
    assert bench.outcomes() == [(b"a", Outcome.NOT_STORED, -1)]


def test_batches_in_flight_behind_a_refused_one_are_never_renumbered() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b", b"c")
    for send, error in zip(sent, [87, 45, 45], strict=True):
        bench.answer(send, error)
    for _ in range(2 * GAP_ANSWERS_MAX):
        bench.answer(bench.sent[-1], error=45)
        bench.wait(500)
        bench.step(MetadataKnown({WHERE: 1}))
    assert {read_header(send.batch).producer_id for send in bench.sent} == {7}
    assert bench.outcomes() == [(value, Outcome.NOT_STORED, -1) for value in (b"a", b"b", b"c")]


def test_another_partition_keeps_its_id_when_one_is_spent() -> None:
    bench = Bench()
    (sent,) = bench.send(b"a")
    bench.send(b"x", partition=1)
    bench.answer(sent, error=87)
    bench.send(b"b")
    bench.grant()
    bench.send(b"y", partition=1)
    ids = [(send.partition, read_header(send.batch).producer_id) for send in bench.sent]
    assert ids == [(0, 7), (1, 7), (0, 8), (1, 7)]


def test_a_batch_proved_by_a_later_ack_is_stored_even_if_its_own_never_comes() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b")
    bench.answer(sent[1], offset=1)
    bench.step(Disconnected(1))
    bench.wait(10_000)
    assert bench.outcomes() == [(b"b", Outcome.STORED, 1), (b"a", Outcome.STORED, -1)]


def test_a_gap_that_an_older_batch_explains_never_fails_the_later_one() -> None:
    bench = Bench()
    sent = bench.send(b"a", b"b")
    bench.answer(sent[0], error=19)
    bench.answer(sent[1], error=45)
    for _ in range(2 * GAP_ANSWERS_MAX):
        (again,) = bench.wait(500)
        bench.answer(again, error=19)
    (again,) = bench.wait(500)
    bench.answer(again, offset=0)
    bench.answer(bench.sent[-1], offset=1)
    assert [outcome for _, outcome, _ in bench.outcomes()] == [Outcome.STORED] * 2


def test_a_gap_that_nothing_explains_is_asked_again_before_it_fails() -> None:
    bench = Bench()
    (sent,) = bench.send(b"a")
    for _ in range(GAP_ANSWERS_MAX):
        assert bench.resolved == []
        bench.answer(bench.sent[-1], error=45)
        bench.wait(500)
        bench.step(MetadataKnown({WHERE: 1}))
    assert bench.outcomes() == [(b"a", Outcome.NOT_STORED, -1)]
    assert {send.batch for send in bench.sent} == {sent.batch}


def test_duplicate_sequence_answers_are_success_without_an_offset() -> None:
    bench = Bench()
    (sent,) = bench.send(b"a")
    bench.answer(sent, error=46)
    assert bench.outcomes() == [(b"a", Outcome.STORED, -1)]


def test_answers_nobody_waits_for_are_ignored() -> None:
    bench = Bench()
    (sent,) = bench.send(b"a")
    bench.answer(sent, offset=0)
    bench.answer(sent, error=87)
    bench.step(ProduceAnswered(12345, 0, 3, 1))
    assert len(bench.resolved) == 1


def test_without_idempotence_retries_carry_no_numbers() -> None:
    bench = Bench(idempotent=False, ready=False)
    bench.step(Connected(1))
    bench.step(MetadataKnown({WHERE: 1}))
    (sent,) = bench.send(b"a")
    (again,) = bench.wait(1_000)
    header = read_header(again.batch)
    assert (header.producer_id, header.producer_epoch, header.base_sequence) == (-1, -1, -1)
    bench.answer(again, error=87)
    assert bench.outcomes() == [(b"a", Outcome.POSSIBLY_STORED, -1)]
    assert [values(send) for send in bench.send(b"b")] == [[b"b"]]
    assert NeedProducerId() not in bench.asked
    assert sent.batch == again.batch


def test_acks_zero_resolves_without_an_answer_and_without_a_promise() -> None:
    bench = Bench(acks=0, idempotent=False)
    bench.send(b"a", b"b")
    assert [outcome for _, outcome, _ in bench.outcomes()] == [Outcome.POSSIBLY_STORED] * 2
    assert [effect.code.number for effect in bench.resolved] == [0, 0]
    assert bench.machine.idle


def test_an_unknown_topic_is_named_when_time_is_up() -> None:
    bench = Bench(ready=False)
    bench.send(b"a")
    bench.step(MetadataKnown({}, {"t": 3}))
    bench.wait(10_000)
    assert bench.resolved[0].code.number == 3
    assert bench.outcomes() == [(b"a", Outcome.NOT_STORED, -1)]


def test_abandoning_resolves_everything_by_what_is_known() -> None:
    bench = Bench(in_flight_max=2)
    sent = bench.send(b"a", b"b", b"c")
    bench.answer(sent[0], error=19)
    bench.take(bench.machine.abandon(bench.now_ms))
    assert [outcome for _, outcome, _ in bench.outcomes()] == [
        Outcome.NOT_STORED, Outcome.POSSIBLY_STORED, Outcome.NOT_STORED,
    ]  # fmt: skip
    assert bench.machine.idle
    assert bench.machine.buffered_bytes == 0


def test_metadata_is_asked_for_at_a_bounded_rate() -> None:
    bench = Bench(ready=False)
    bench.send(b"a")
    for _ in range(METADATA_BACKOFF_MS):
        bench.wait(1)
    assert bench.asked.count(NeedMetadata(("t",))) == 2
    assert bench.machine.next_deadline_ms() == bench.now_ms + METADATA_BACKOFF_MS


@pytest.mark.parametrize(
    "wrong",
    [
        {"acks": 2}, {"acks": 0}, {"in_flight_max": 6}, {"in_flight_max": 0}, {"linger_ms": -1},
        {"batch_bytes": 0}, {"request_timeout_ms": 0}, {"request_timeout_ms": 120_001},
    ],
)  # fmt: skip
def test_options_that_cannot_be_right_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        ProducerOptions(**wrong)  # type: ignore[arg-type]
