"""Consumer groups: members share the partitions, commits last, and whoever comes next resumes."""

from __future__ import annotations

import threading
from collections import Counter
from functools import partial
from types import TracebackType
from typing import Self

from tests.interop.clients import Client, Consumer, Sent
from tests.interop.conftest import CLIENTS
from tests.interop.running import Brokers, until

PARTITIONS = 6


class Member:
    """A consumer that polls in a thread of its own, as an application does."""

    def __init__(self, client: Client, bootstrap: str, group: str, topic: str) -> None:
        self.values: list[bytes | None] = []
        self.partitions: set[int] = set()
        self.failure: BaseException | None = None
        self._make = partial(client.member, bootstrap, group, topic)
        self._ending = threading.Event()
        self._wanted = threading.Event()
        self._committed = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ending.set()
        self._thread.join()
        assert self.failure is None or kind is not None, self.failure

    def commit(self) -> None:
        """Commit what was polled so far."""
        self._committed.clear()
        self._wanted.set()
        until(lambda: self._committed.is_set() or self.failure is not None, "a commit")
        assert self.failure is None, self.failure

    def _run(self) -> None:
        try:
            consumer = self._make()
            try:
                while not self._ending.is_set():
                    self._turn(consumer)
            finally:
                consumer.close()
        except BaseException as error:
            self.failure = error

    def _turn(self, consumer: Consumer) -> None:
        self.values += [one.value for one in consumer.poll()]
        self.partitions = consumer.assignment()
        if self._wanted.is_set():
            self._wanted.clear()
            consumer.commit()
            self._committed.set()


def produce(brokers: Brokers, topic: str, values: range) -> list[bytes]:
    """Numbered records, spread over the partitions."""
    producer = CLIENTS[0].producer(brokers.kafka)
    for number in values:
        producer.send(topic, Sent(number % PARTITIONS, b"%d" % number))
    assert not [one for one in producer.close() if one.error]
    return [b"%d" % number for number in values]


def shared(members: list[Member]) -> bool:
    """Every partition belongs to one member, and none is idle."""
    owned = [member.partitions for member in members]
    return all(owned) and sorted(n for one in owned for n in one) == list(range(PARTITIONS))


def until_shared(*members: Member) -> None:
    until(
        lambda: shared(list(members)) or any(member.failure for member in members),
        "a balance of the partitions",
    )
    assert not [member.failure for member in members if member.failure]


def until_read(values: list[bytes], *members: Member) -> None:
    """The members got exactly these, each once."""

    def read() -> list[bytes | None]:
        return [value for member in members for value in member.values]

    until(lambda: len(read()) >= len(values) or any(m.failure for m in members), "reading")
    assert not [member.failure for member in members if member.failure]
    assert Counter(read()) == Counter(values)


def test_members_share_what_is_written_and_their_successor_resumes_at_the_commit(
    brokers: Brokers, client: Client
) -> None:
    topic = brokers.topic(partitions=PARTITIONS)
    group = f"{client.name}-shared"
    before = produce(brokers, topic, range(300))
    with Member(client, brokers.kafka, group, topic) as first:
        until_shared(first)
        until_read(before, first)
        first.commit()
        first.values.clear()
        with Member(client, brokers.kafka, group, topic) as second:
            until_shared(first, second)
            more = produce(brokers, topic, range(300, 600))
            until_read(more, first, second)
            first.commit()
            second.commit()
        first.values.clear()
        until_shared(first)
        alone = produce(brokers, topic, range(600, 660))
        until_read(alone, first)
    with Member(client, brokers.kafka, group, topic) as successor:
        until_read(alone, successor)  # read by the first, and never committed


def test_members_of_different_clients_share_one_group(brokers: Brokers) -> None:
    topic = brokers.topic(partitions=PARTITIONS)
    one, two, three = (Member(client, brokers.kafka, "mixed", topic) for client in CLIENTS)
    with one, two, three:
        until_shared(one, two, three)
        until_read(produce(brokers, topic, range(300)), one, two, three)


def test_commits_outlive_the_coordinator(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic(partitions=PARTITIONS)
    group = f"{client.name}-durable"
    before = produce(brokers, topic, range(60))
    with Member(client, brokers.kafka, group, topic) as member:
        until_read(before, member)
        member.commit()
        member.values.clear()
        coordinator = brokers.coordinator(group)
        brokers.kill(coordinator)
        try:
            more = produce(brokers, topic, range(60, 120))
            until_read(more, member)
            member.commit()
        finally:
            brokers.restart(coordinator)
    last = produce(brokers, topic, range(120, 180))
    with Member(client, brokers.kafka, group, topic) as successor:
        until_read(last, successor)
