"""A load through one client whose every record is looked for in the log afterwards."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Self

from tests.interop.clients import Client, Outcome, Producer, Sent
from tests.interop.running import Brokers, until

PAUSE_S = 0.002


class Load:
    """Numbered records to each partition in turn, until the context ends."""

    def __init__(self, client: Client, brokers: Brokers, topic: str, partitions: int) -> None:
        self._brokers, self._topic, self._partitions = brokers, topic, partitions
        self._producer: Producer = client.producer(brokers.kafka)
        self._sent: list[Sent] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._failure: BaseException | None = None
        self.outcomes: list[Outcome] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        self.outcomes = self._producer.close()
        assert self._failure is None, self._failure

    def more(self, records: int = 200) -> None:
        """Wait until this many more records have an outcome."""
        wanted = self._producer.acked() + records
        until(lambda: self._producer.acked() >= wanted or self._failure is not None, "more acks")

    def assert_exact(self) -> None:
        """Every record was acknowledged, and is stored once, in order, where its ack said."""
        assert not [one.error for one in self.outcomes if one.error]
        stored = self._brokers.stored(self._topic)
        for partition, records in stored.items():
            sent = [one.value for one in self._sent if one.partition == partition]
            found = Counter(one.value for one in records)
            lost = [value for value in sent if value not in found]
            twice = [value for value, count in found.items() if count > 1]
            assert not lost, f"partition {partition}: {len(lost)} lost, {lost[:3]}"
            assert not twice, f"partition {partition}: {len(twice)} twice, {twice[:3]}"
            assert [one.value for one in records] == sent, "the order is another one"
        where = {one.value: one.offset for records in stored.values() for one in records}
        for sent_one, outcome in zip(self._sent, self.outcomes, strict=True):
            assert outcome.offset in (-1, where[sent_one.value]), sent_one

    def _run(self) -> None:
        try:
            number = 0
            while not self._ending.wait(PAUSE_S):
                for partition in range(self._partitions):
                    record = Sent(partition, b"%d" % number)
                    self._sent.append(record)
                    self._producer.send(self._topic, record)
                    number += 1
        except BaseException as error:
            self._failure = error
