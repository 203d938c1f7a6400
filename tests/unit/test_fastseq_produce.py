"""Produce requests from frame to reply: read, entered, answered now or once an end is reached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from _fastseq import batch, turn
from _fastseq.answers import Answers
from _fastseq.produce import ProduceTurn, Route, Routes
from _fastseq.table import ProducerTable
from _fastseq.waiters import Term
from cluster.wire import codec, messages

VERSIONS = range(3, 12)
TIMED_OUT, DEPOSED, GAP = 7, 6, 45
Part = tuple[int, bytes | None]


class Message(NamedTuple):
    connection: bytes
    frame: bytes | memoryview
    native: bool = True


def request(
    *topics: tuple[str, Sequence[Part]],
    version: int = 11,
    acks: int = -1,
    timeout_ms: int = 100,
    correlation_id: int = 1,
    transactional_id: str | None = None,
) -> bytes:
    data = [
        messages.TopicProduceData(
            name=name,
            partition_data=[messages.PartitionProduceData(index=i, records=r) for i, r in parts],
        )
        for name, parts in topics
    ]
    body = messages.ProduceRequest(
        transactional_id=transactional_id, acks=acks, timeout_ms=timeout_ms, topic_data=data
    )
    return codec.encode_request(0, version, correlation_id, "someone", body)


def produced(first: int, *, producer_id: int = 7, epoch: int = 0) -> bytes:
    return batch.encode_batch(
        [(None, b"v", 1_000, ())],
        producer_id=producer_id, producer_epoch=epoch, base_sequence=first,
    )  # fmt: skip


class Broker:
    """Topic t with three partitions, all led here but the last one."""

    def __init__(self) -> None:
        self.answers = Answers(
            lambda connection, frame: (connection, frame),
            lambda connection: (connection, None),
            lambda connection, reason: (connection, reason),
            lambda node_id, native: (f"host{node_id}", 9 if native else 8, None),
        )
        self.routes = Routes()
        self.short = 0
        self.terms = []
        for index in range(3):
            route = Route()
            lane = turn.Lane(ProducerTable(), leader_epoch=3)
            self.terms.append(Term(lane, self.answers, None, lambda: (self.short, 5, True)))
            if index < 2:
                route.term = self.terms[-1]
            else:
                route.leader, route.leader_epoch = 4, 9
            self.routes.add("t", index, route)
        self.turn = ProduceTurn(self.answers, self.routes)

    def serve(
        self, *frames: bytes, native: bool = True, lost: bool = False, now_ms: int = 0
    ) -> list[tuple[bytes, str, bool]]:
        """One turn; what was no request."""
        sent = [Message(b"c%d" % i, frame, native) for i, frame in enumerate(frames)]
        assert self.turn.collect(sent) == []
        bad = self.turn.take(now_ms, 1_000, 1_000, (lambda: True) if lost else None)
        self.turn.run(1 << 40, 77)
        self.left = self.turn.tell()
        return bad

    def replies(self, version: int = 11) -> list[list[tuple[int, int, int]]]:
        """(partition, error, base offset) of each partition of each reply."""
        found = []
        for _, frame in self.answers.drain():
            _, body = codec.decode_response(0, version, frame)
            assert isinstance(body, messages.ProduceResponse)
            parts = [part for topic in body.responses for part in topic.partition_responses]
            found.append([(part.index, part.error_code, part.base_offset) for part in parts])
        return found


@pytest.mark.parametrize("version", VERSIONS)
def test_request_and_reply_of_every_version_are_those_of_the_codec(version: int) -> None:
    broker = Broker()
    broker.serve(
        request(
            ("t", [(0, produced(0)), (2, produced(0)), (1, produced(1)), (7, None)]),
            ("unknown", [(0, b"")]),
            ("", []),
            version=version,
            correlation_id=99,
        )
    )
    assert broker.answers.drain() == []
    broker.terms[0].reached(1, 1)
    ((connection, frame),) = broker.answers.drain()
    assert connection == b"c0"
    part = messages.PartitionProduceResponse
    flexible, led = version >= 9, version >= 10
    elsewhere = part(index=2, error_code=6, base_offset=-1)
    if led:
        leader = messages.LeaderIdAndEpoch(leader_id=4, leader_epoch=9)
        elsewhere = part(index=2, error_code=6, base_offset=-1, current_leader=leader)
    body = messages.ProduceResponse(
        responses=[
            messages.TopicProduceResponse(
                name="t",
                partition_responses=[
                    part(index=0, log_start_offset=5, verdict=turn.NEW if flexible else 0),
                    elsewhere,
                    part(index=1, error_code=GAP, base_offset=-1, log_start_offset=5),
                    part(index=7, error_code=3, base_offset=-1),
                ],
            ),
            messages.TopicProduceResponse(
                name="unknown", partition_responses=[part(error_code=3, base_offset=-1)]
            ),
            messages.TopicProduceResponse(name="", partition_responses=[]),
        ],
        node_endpoints=[messages.NodeEndpoint(node_id=4, host="host4", port=9)] if led else [],
    )
    assert codec.decode_response(0, version, frame) == codec.decode_response(
        0, version, codec.encode_response(0, version, 99, body)
    )
    assert frame == codec.encode_response(0, version, 99, body)


@pytest.mark.parametrize("version", [3, 11])
def test_cut_request_is_malformed_wherever_it_is_cut(version: int) -> None:
    whole = request(("t", [(0, produced(0)), (1, None)]), ("x", [(1, b"")]), version=version)
    for size in range(2, len(whole)):
        broker = Broker()
        ((connection, reason, of_version),) = broker.serve(whole[:size])
        assert (connection, of_version) == (b"c0", False)
        assert "malformed" in reason
        assert broker.answers.drain() == []
        assert broker.terms[0].lane.next_offset == 0
    assert Broker().serve(whole + b"\0") == [], "what follows is left alone"
    assert Broker().serve(whole) == []


@pytest.mark.parametrize(
    "name", ["\x7f", "\x80", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\U0010ffff"]
)
def test_name_is_unknown_as_long_as_it_is_one(name: str) -> None:
    frame = request((f"a{name}b", [(0, None)]))
    broker = Broker()
    assert broker.serve(frame) == []
    assert broker.replies() == [[(0, 3, -1)]]
    at = frame.index(name.encode())
    for wrong in range(256):
        changed = (
            frame[: at + len(name.encode()) - 1] + bytes([wrong]) + frame[at + len(name.encode()) :]
        )
        try:
            changed[at - 1 : at + len(name.encode()) + 1].decode()
        except UnicodeDecodeError:
            assert Broker().serve(changed) != []
        else:
            assert Broker().serve(changed) == []


@pytest.mark.parametrize(
    "name", [b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe0\x80\x80", b"\xff"]
)
def test_name_that_is_no_text_is_malformed(name: bytes) -> None:
    frame = request(("x" * len(name), [(0, None)])).replace(b"x" * len(name), name)
    assert "malformed" in Broker().serve(frame)[0][1]


def test_count_beyond_the_frame_or_the_bound_asks_for_no_memory() -> None:
    frame = bytearray(request(("t", [(0, b"")]), version=3))
    at = frame.index(b"\0\1t") - 4
    frame[at : at + 4] = (1 << 30).to_bytes(4, "big")
    assert "malformed" in Broker().serve(bytes(frame))[0][1]
    many = request(("t", [(0, None)] * 1_001))
    assert "malformed" in Broker().serve(many)[0][1]


@pytest.mark.parametrize("version", [0, 2, 12, -1])
def test_version_that_is_not_served_is_said(version: int) -> None:
    frame = b"\0\0" + version.to_bytes(2, "big", signed=True) + bytes(20)
    ((_, reason, of_version),) = Broker().serve(frame)
    assert of_version
    assert f"version {version} " in reason


def test_other_messages_are_left_to_others() -> None:
    broker = Broker()
    other, short = Message(b"a", b"\0\1rest"), Message(b"b", b"\0")
    ours = Message(b"c", memoryview(request(("t", [(0, produced(0))]))))
    assert broker.turn.collect([other, ours, short]) == [other, short]
    assert broker.turn.collected == 1


def test_zstd_is_not_for_clients_that_may_not_know_it() -> None:
    packed = bytearray(produced(0))
    packed[22] = 4
    for version, error in ((6, 76), (7, 2)):
        broker = Broker()
        broker.serve(request(("t", [(0, bytes(packed))]), version=version))
        assert broker.replies(version) == [[(0, error, -1)]]


def test_partition_named_twice_gets_neither_batch() -> None:
    broker = Broker()
    broker.serve(
        request(("t", [(0, produced(0)), (1, produced(0)), (0, produced(0))]), ("t", [(0, b"")])),
        request(("t", [(0, produced(0))]), correlation_id=2),
    )
    broker.terms[0].reached(9, 9)
    broker.terms[1].reached(9, 9)
    assert broker.replies() == [
        [(0, 0, 0)],
        [(0, 87, -1), (1, 0, 0), (0, 87, -1), (0, 87, -1)],
    ]


def test_acks_and_transactions_are_looked_at_before_topics() -> None:
    broker = Broker()
    broker.serve(request(("no", [(0, b"")]), acks=2), request(("t", [(0, b"")]), acks=5))
    assert broker.replies() == [[(0, 21, -1)], [(0, 21, -1)]]
    broker.serve(request(("t", [(0, produced(0))]), transactional_id="t"))
    assert broker.replies() == [[(0, 53, -1)]]


def test_request_of_nothing_is_answered() -> None:
    broker = Broker()
    broker.serve(request(), request(("t", [])))
    assert broker.replies() == [[], []]


def test_too_few_members_refuse_what_is_new_and_acks_all_alone() -> None:
    broker = Broker()
    broker.short = 19
    broker.serve(request(("t", [(0, produced(0))])))
    broker.serve(request(("t", [(0, produced(0))]), acks=1))
    broker.terms[0].reached(1, 0)
    assert broker.replies() == [[(0, 19, -1)], [(0, 0, 0)]]
    broker.serve(request(("t", [(0, produced(0))])))
    assert broker.replies() == []
    broker.terms[0].reached(1, 1)
    assert broker.replies() == [[(0, 0, 0)]]


# -- what waits -----------------------------------------------------------------------------------


def test_answers_leave_in_the_order_of_the_log() -> None:
    broker = Broker()
    broker.serve(*[request(("t", [(0, produced(i))]), correlation_id=i) for i in range(3)])
    broker.serve(request(("t", [(0, produced(0))])))  # a duplicate steps before what is younger
    broker.terms[0].reached(0, 0)
    assert broker.replies() == []
    broker.terms[0].reached(3, 2)
    assert broker.replies() == [[(0, 0, 0)], [(0, 0, 0)], [(0, 0, 1)]]
    assert len(broker.terms[0]) == 1
    broker.terms[0].reached(3, 3)
    assert broker.replies() == [[(0, 0, 2)]]
    assert len(broker.terms[0]) == 0


def test_many_wait_in_order_however_they_come() -> None:
    broker = Broker()
    for i in range(100):
        broker.serve(request(("t", [(0, produced(i))])))
        for back in range(min(i, 4)):
            broker.serve(request(("t", [(0, produced(i - back))])))
    offsets = []
    for end in range(101):
        broker.terms[0].reached(end, end)
        offsets += [parts[0][2] for parts in broker.replies()]
    assert offsets == sorted(offsets)
    assert set(offsets) == set(range(100))


def test_answer_of_several_partitions_leaves_with_the_last() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(0)), (1, produced(0))])))
    broker.terms[1].reached(1, 1)
    assert broker.replies() == []
    broker.terms[0].reached(1, 1)
    assert broker.replies() == [[(0, 0, 0), (1, 0, 0)]]


def test_acks_of_the_leader_alone_wait_for_its_disk() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(0))]), acks=1))
    broker.terms[0].reached(0, 0)
    assert broker.replies() == []
    broker.terms[0].reached(1, 0)
    assert broker.replies() == [[(0, 0, 0)]]


def test_end_of_the_term_fails_what_waits_and_nothing_twice() -> None:
    broker = Broker()
    broker.serve(
        request(("t", [(0, produced(0))])),
        request(("t", [(0, produced(1))]), acks=1),
    )
    broker.terms[0].fail(DEPOSED)
    assert broker.replies() == [[(0, DEPOSED, 0)], [(0, DEPOSED, 1)]]
    broker.terms[0].fail(DEPOSED)
    broker.terms[0].reached(9, 9)
    assert broker.replies() == []


def test_what_has_timed_out_is_forgotten_though_the_watermark_stands_still() -> None:
    broker = Broker()
    for i in range(100):
        broker.serve(request(("t", [(0, produced(i))]), timeout_ms=i))
    broker.terms[0].expire(49)
    assert broker.replies() == [[(0, TIMED_OUT, i)] for i in range(50)]
    assert len(broker.terms[0]) == 50
    broker.terms[0].expire(49)
    assert broker.replies() == []
    broker.terms[0].reached(100, 100)
    assert broker.replies() == [[(0, 0, i)] for i in range(50, 100)]


def test_late_release_changes_nothing_of_what_was_answered() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(0)), (1, produced(0))])))
    broker.terms[0].expire(100)
    assert broker.replies() == [[(0, TIMED_OUT, 0), (1, TIMED_OUT, 0)]]
    broker.terms[1].reached(1, 1)
    assert broker.replies() == []
    assert len(broker.terms[1]) == 0


def test_waiting_answers_go_with_their_broker() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(0)), (1, produced(0))])))
    broker.serve(request(("t", [(9, b"")])))
    del broker


def test_gap_of_a_kafka_client_waits_until_every_member_has_confirmed() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(5))])), native=True)
    assert broker.replies() == [[(0, GAP, -1)]]
    assert broker.terms[0].asking == 0
    broker.serve(request(("t", [(0, produced(5))])), native=False)
    first = broker.terms[0].asking
    broker.serve(request(("t", [(0, produced(7))])), native=False)
    assert 0 < first < broker.terms[0].asking
    assert broker.replies() == []
    broker.terms[0].confirmed(first)
    assert broker.replies() == [[(0, GAP, -1)]]
    broker.terms[0].expire(100)
    assert broker.replies() == [[(0, TIMED_OUT, -1)]]
    assert broker.terms[0].asking == 0


def test_end_of_the_term_before_the_confirmation_leaves_the_outcome_open() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(5))])), native=False)
    broker.terms[0].fail(DEPOSED)
    assert broker.replies() == [[(0, DEPOSED, -1)]]


# -- time of the append ---------------------------------------------------------------------------


def test_time_of_the_append_is_stored_and_told() -> None:
    broker = Broker()
    broker.terms[0].lane.append_time = True
    broker.serve(request(("t", [(0, produced(0))])))
    stored = batch.read_header(broker.turn.arena)
    assert (stored.attributes, stored.max_timestamp) == (8, 77)
    assert batch.scan(broker.turn.arena, 0, -1, 0).batches == 1
    assert batch.decode_batch(broker.turn.arena)[0].timestamp == 77
    broker.terms[0].reached(1, 1)
    ((_, frame),) = broker.answers.drain()
    body = codec.decode_response(0, 11, frame)[1]
    assert isinstance(body, messages.ProduceResponse)
    assert body.responses[0].partition_responses[0].log_append_time_ms == 77


def test_retry_is_known_by_its_range_where_the_broker_stamps() -> None:
    broker = Broker()
    broker.terms[0].lane.append_time = True
    broker.serve(request(("t", [(0, produced(0))])))
    other = batch.encode_batch(
        [(None, b"w", 2_000, ())], producer_id=7, producer_epoch=0, base_sequence=0
    )
    broker.serve(request(("t", [(0, other)])))
    assert list(broker.turn.verdicts) == [turn.DUPLICATE]


# -- misuse from Python ---------------------------------------------------------------------------


def test_numbers_of_no_entry_are_refused() -> None:
    broker = Broker()
    broker.serve(request(("t", [(0, produced(0))])))
    for call in (broker.turn.term, broker.turn.settle, broker.turn.producer_id):
        with pytest.raises(ValueError, match="number"):
            call(1)
    with pytest.raises(ValueError, match="error"):
        broker.turn.refuse(0, 0)
    with pytest.raises(ValueError, match="index"):
        broker.routes.add("t", -1, Route())
    with pytest.raises(TypeError, match="frame"):
        broker.turn.collect([Message(b"c", "text")])  # type: ignore[arg-type]


def test_route_that_was_replaced_is_not_dropped() -> None:
    broker = Broker()
    old, new = Route(), Route()
    broker.routes.add("u", 1, old)
    broker.routes.add("u", 1, new)
    broker.routes.drop("u", 1, old)
    new.term = broker.terms[0]
    broker.serve(request(("u", [(1, produced(0)), (0, b"")])))
    broker.terms[0].reached(1, 1)
    assert broker.replies() == [[(1, 0, 0), (0, 3, -1)]]
    broker.routes.drop("u", 1, new)
    broker.serve(request(("u", [(1, b"")])))
    assert broker.replies() == [[(1, 3, -1)]]
