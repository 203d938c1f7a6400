"""Produce requests that are changed at random, and one broker's turn over several of them.

Whatever a frame says, it is refused as a whole or every partition of it is answered; what waits is
released, expired or failed in any order, and each reply is one that the codec reads. A part of
`tests/fuzz.py`.
"""

from __future__ import annotations

import random
import struct
from typing import NamedTuple

from _fastseq import batch, turn
from _fastseq.answers import Answers
from _fastseq.produce import ProduceTurn, Route, Routes
from _fastseq.table import ProducerTable
from _fastseq.waiters import Term
from cluster.wire import codec, messages

PARTITIONS = 4
REPLIES_VERSION = struct.Struct(">h")


class Message(NamedTuple):
    """What a turn sees of a client's message: the connection tells the version."""

    connection: bytes
    frame: bytes
    native: bool


def frames() -> list[bytes]:
    """Sound requests of every version."""
    found = []
    for version in range(3, 12):
        for sequence in range(3):
            data = batch.encode_batch(
                [(None, b"value", 1_000, ())],
                producer_id=7, producer_epoch=0, base_sequence=sequence,
            )  # fmt: skip
            parts = [
                messages.PartitionProduceData(index=index, records=data if index < 3 else None)
                for index in range(PARTITIONS + 1)
            ]
            topics = [
                messages.TopicProduceData(name="t", partition_data=parts[sequence:]),
                messages.TopicProduceData(name="unknown", partition_data=parts[:1]),
            ]
            body = messages.ProduceRequest(acks=-1, timeout_ms=50 * sequence, topic_data=topics)
            found.append(codec.encode_request(0, version, sequence, "fuzz", body))
    return found


class Broker:
    """Four partitions, one of them led elsewhere."""

    def __init__(self, chance: random.Random) -> None:
        self.answers = Answers(
            lambda connection, frame: (connection, frame),
            lambda connection: (connection, None),
            lambda connection, reason: (connection, None),
            lambda node_id, native: ("host", node_id, "rack") if native else None,
        )
        routes = Routes()
        self.terms = []
        for index in range(PARTITIONS):
            route = Route()
            lane = turn.Lane(ProducerTable(), leader_epoch=3)
            lane.append_time = chance.random() < 0.2
            term = Term(lane, self.answers, None, lambda: (chance.choice([0, 0, 19]), 0, True))
            self.terms.append(term)
            if index:
                route.term = term
            else:
                route.leader, route.leader_epoch = 2, 5
            routes.add("t", index, route)
        self.turn = ProduceTurn(self.answers, routes)

    def serve(self, chance: random.Random, sent: list[bytes], now_ms: int) -> None:
        """One turn over these frames."""
        made = [Message(frame[2:4], frame, chance.random() < 0.5) for frame in sent]
        self.turn.collect(made)
        faulty = (lambda: chance.random() < 0.3) if chance.random() < 0.2 else None
        self.turn.take(now_ms, 100, 1_000, faulty)
        for number, _ in self.turn.compressed():
            if chance.random() < 0.5:
                self.turn.refuse_entry(number, 87)
        self.turn.run(chance.choice([0, 8, 1 << 40]), 5)
        for number in self.turn.tell():
            self.turn.producer_id(number)
            if chance.random() < 0.5:
                self.turn.refuse(number, 45)
            else:
                self.turn.refuse_once_committed(number, 47)

    def settle(self, chance: random.Random, now_ms: int) -> None:
        """Something that waits is answered, and all that is answered is read."""
        term = chance.choice(self.terms)
        match chance.randrange(5):
            case 0 | 1:
                end = term.lane.next_offset
                term.reached(end, end)
            case 2:
                term.expire(now_ms)
            case 3:
                term.confirmed(term.asking)
            case _:
                term.fail(6)
        for version, frame in self.answers.drain():
            if frame is not None:
                (number,) = REPLIES_VERSION.unpack(version)
                codec.decode_response(0, number, frame)


def exercise_requests(chance: random.Random, sent: list[bytes]) -> None:
    """A broker that gets these frames over several turns."""
    broker = Broker(chance)
    for now_ms in range(0, 200, 50):
        broker.serve(chance, [chance.choice(sent) for _ in range(chance.randrange(6))], now_ms)
        broker.settle(chance, now_ms)
    for term in broker.terms:
        assert term.lane.table.digest == term.lane.table.recompute_digest()
