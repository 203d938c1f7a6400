"""What we answer otherwise than Kafka does, judged by the log after each client's own reaction.

A record whose producer was forgotten is refused once it can no longer be told from a copy; a copy
that arrives late is never stored again, and never harms the producer whose copy it is (rule 6).
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from _fastseq.batch import encode_batch
from cluster.errors import INVALID_PRODUCER_EPOCH, REQUEST_TIMED_OUT, Code
from cluster.limits import FLOORS_MAX
from cluster.testing.process import environment
from cluster.wire import apis, messages
from tests.interop import suspended
from tests.interop.clients import Client, Producer, Sent
from tests.interop.conftest import CLIENTS
from tests.interop.raw import AT_ONCE, PRODUCE, Connection, produce_request
from tests.interop.running import Brokers, until
from tests.interop.test_records import read_all

EXPIRATION_MS = 1_000


def forgetful(brokers: Brokers) -> str:
    """A topic that forgets a producer after a second of silence."""
    return brokers.topic(producer_id_expiration_ms=str(EXPIRATION_MS))


@contextmanager
def leader_of(brokers: Brokers, topic: str) -> Iterator[Connection]:
    with Connection(brokers.address(brokers.leader(topic))) as connection:
        yield connection


def until_expired(connection: Connection, topic: str) -> None:
    """The leader has forgotten every producer, and written that down."""
    until(lambda: not connection.producers(topic).active_producers, "an expiry")


def send(producer: Producer, topic: str, numbers: range) -> None:
    """One batch each: the next record waits for the acknowledgement."""
    for number in numbers:
        wanted = producer.acked() + 1
        producer.send(topic, Sent(0, b"%d" % number))
        until(lambda wanted=wanted: producer.acked() >= wanted, "an ack")  # type: ignore[misc]


def values(brokers: Brokers, topic: str) -> list[bytes | None]:
    return [one.value for one in brokers.stored(topic)[0]]


def test_idle_client_goes_on_after_it_was_forgotten(brokers: Brokers, client: Client) -> None:
    topic = forgetful(brokers)
    producer = client.producer(brokers.kafka)
    with leader_of(brokers, topic) as leader:
        send(producer, topic, range(3))
        until_expired(leader, topic)
        send(producer, topic, range(3, 6))
        until_expired(leader, topic)
    assert not [one.error for one in producer.close() if one.error]
    assert values(brokers, topic) == [b"%d" % number for number in range(6)]


def test_control_batches_are_skipped_by_every_client(brokers: Brokers) -> None:
    topic = forgetful(brokers)
    with leader_of(brokers, topic) as leader:
        for turn in range(2):
            producer = CLIENTS[turn].producer(brokers.kafka)
            send(producer, topic, range(2 * turn, 2 * turn + 2))
            producer.close()
            until_expired(leader, topic)
        batches = leader.batches(topic)
    wanted = [b"0", b"1", b"2", b"3"]
    assert sum(one[22] & 0x20 != 0 for one in batches) >= 2
    offsets = [struct.unpack_from(">q", one)[0] for one in batches if not one[22] & 0x20]
    assert offsets != list(range(len(offsets)))  # there is a gap where no record is
    for reader in CLIENTS:
        found = read_all(reader.reader(brokers.kafka, topic, {0: 0}), len(wanted))
        assert [one.value for one in found] == wanted, reader.name
        assert [one.offset for one in found] == offsets, reader.name


def late_copies(connection: Connection, topic: str, batches: list[bytes]) -> list[Code]:
    """What the leader says to batches that were stored long ago, as they were sent then."""
    return [connection.produce(topic, struct.pack(">q", 0) + one[8:]) for one in batches]


def test_late_copy_below_the_window_harms_nobody(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic()
    producer = client.producer(brokers.kafka)
    send(producer, topic, range(8))
    with leader_of(brokers, topic) as leader:
        batches = leader.batches(topic)
        said = late_copies(leader, topic, batches)
    assert [code.number for code in said] == [REQUEST_TIMED_OUT.number] * 3 + [0] * 5
    send(producer, topic, range(8, 12))
    assert not [one.error for one in producer.close() if one.error]
    assert values(brokers, topic) == [b"%d" % number for number in range(12)]


def test_late_copy_at_a_floor_is_refused_and_so_is_everything_after_it(
    brokers: Brokers, client: Client
) -> None:
    topic = forgetful(brokers)
    producer = client.producer(brokers.kafka, timeout_ms=suspended.TIMEOUT_MS)
    send(producer, topic, range(3))
    with leader_of(brokers, topic) as leader:
        until_expired(leader, topic)
        batches = [one for one in leader.batches(topic) if not one[22] & 0x20]
        said = late_copies(leader, topic, batches)
    assert {code.number for code in said} == {INVALID_PRODUCER_EPOCH.number}
    assert values(brokers, topic) == [b"0", b"1", b"2"]
    producer.send(topic, Sent(0, b"3"))
    (*_, last) = producer.close()
    stored = Counter(values(brokers, topic))
    assert stored[b"3"] == (last.error is None)
    assert max(stored.values()) == 1


@pytest.mark.timeout(180)
def test_producer_under_the_mark_is_refused_for_good(brokers: Brokers) -> None:
    topic = forgetful(brokers)
    producers = [one.producer(brokers.kafka, timeout_ms=suspended.TIMEOUT_MS) for one in CLIENTS]
    for number, producer in enumerate(producers):
        send(producer, topic, range(3 * number, 3 * number + 3))
    with leader_of(brokers, topic) as leader:
        crowd(leader, topic, FLOORS_MAX + 1)
        until_expired(leader, topic)
        until(lambda: leader.producers(topic).floor_count <= FLOORS_MAX, "a collapse of floors")
    for number, producer in enumerate(producers):
        producer.send(topic, Sent(0, b"late %d" % number))
    outcomes = [producer.close()[-1] for producer in producers]
    stored = Counter(values(brokers, topic))
    for number, last in enumerate(outcomes):
        assert stored[b"late %d" % number] == (last.error is None)
        assert {stored[b"%d" % one] for one in range(3 * number, 3 * number + 3)} == {1}


def crowd(leader: Connection, topic: str, count: int) -> None:
    """So many other producers that the oldest ones' floors must collapse into the mark."""
    ids = leader.producer_ids(count)
    for start in range(0, count, AT_ONCE):
        batches = [
            encode_batch([(None, b"", 0, ())], producer_id=one, producer_epoch=0, base_sequence=0)
            for one in ids[start : start + AT_ONCE]
        ]
        leader.send(apis.PRODUCE, PRODUCE, *(produce_request(topic, one) for one in batches))
        for _ in batches:
            answer = leader.receive(messages.ProduceResponse, apis.PRODUCE, PRODUCE)
            assert not answer.responses[0].partition_responses[0].error_code


@contextmanager
def child(client: Client, brokers: Brokers, topic: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.interop.suspended", client.name, brokers.kafka, topic]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # also when it is stopped


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


@pytest.fixture(scope="module")
def behind_proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("proxied"), proxied=True) as running:
        yield running


@pytest.mark.timeout(180)
def test_machine_suspended_past_expiry_stores_nothing_twice(
    behind_proxies: Brokers, client: Client
) -> None:
    brokers = behind_proxies
    topic = forgetful(brokers)
    with leader_of(brokers, topic) as leader, child(client, brokers, topic) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        brokers.lose_answers()
        try:
            go(process)
            unanswered = 1 + client.in_flight
            until(lambda: len(leader.batches(topic)) >= unanswered, "batches without answers")
            process.send_signal(signal.SIGSTOP)
            until_expired(leader, topic)
        finally:
            brokers.hang_up()
        process.send_signal(signal.SIGCONT)
        assert process.stdout.readline() == "sent\n"
        errors = json.loads(process.stdout.readline())
    stored = Counter(values(brokers, topic))
    assert max(stored.values()) == 1, stored
    assert errors[0] is None
    assert None not in errors[1:unanswered], "none of these can be told from a copy"
    for number, error in enumerate(errors[unanswered:], start=client.in_flight):
        assert stored[b"%d" % number] == (error is None)
