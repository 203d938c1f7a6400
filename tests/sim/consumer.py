"""A consumer of the simulated cluster: every partition from its start to the high watermark.

Owns where it is in each partition and what it has read. It asks whoever it believes to lead and
looks for another leader when no answer comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cluster.wire import messages
from cluster.wire.schema import Message
from tests.sim.committed import Stored, batches_of
from tests.sim.producer import TOPIC
from tests.sim.scheduler import MS
from tests.sim.wire import Wire

PATIENCE = 300 * MS
FETCH_WAIT_MS = 50

Consumed = Callable[[int, list[Stored]], None]
Skipped = Callable[[int, int], None]
OUT_OF_RANGE = 1


@dataclass
class Place:
    """Where the consumer is in one partition."""

    position: int = 0
    leader: int = -1
    asked: int = 0
    """Counts requests: an answer to an earlier one is too late."""


class Consumer:
    """Reads on until the run ends; `consumed` gets (partition, batches), `skipped` a log start."""

    def __init__(self, wire: Wire, partitions: int, consumed: Consumed, skipped: Skipped) -> None:
        self.places = [Place() for _ in range(partitions)]
        self._wire = wire
        self._consumed = consumed
        self._skipped = skipped
        wire.join("consumer", lambda _node_id, _up: None)
        for partition in range(partitions):
            self._next(partition)

    def _next(self, partition: int) -> None:
        place = self.places[partition]
        place.asked += 1
        number = place.asked

        def give_up() -> None:
            if place.asked == number:
                place.leader = -1
                self._next(partition)

        self._wire.clock.after(PATIENCE, give_up)
        if place.leader < 0:
            self._find(partition, number)
        else:
            self._fetch(partition, number)

    def _find(self, partition: int, number: int) -> None:
        place, node_id = self.places[partition], self._wire.any_node()

        def answered(response: Message) -> None:
            assert isinstance(response, messages.MetadataResponse)
            for topic in response.topics:
                for part in topic.partitions:
                    if part.partition_index == partition and place.asked == number:
                        place.leader = part.leader_id
            if place.leader >= 0 and place.asked == number:
                self._next(partition)

        if node_id is not None:
            body = messages.MetadataRequest(topics=[messages.MetadataRequestTopic(name=TOPIC)])
            self._wire.ask("consumer", node_id, body, answered)

    def _fetch(self, partition: int, number: int) -> None:
        place = self.places[partition]
        wanted = messages.FetchPartition(
            partition=partition, fetch_offset=place.position, partition_max_bytes=4096
        )
        body = messages.FetchRequest(
            max_wait_ms=FETCH_WAIT_MS,
            min_bytes=1,
            max_bytes=65536,
            topics=[messages.FetchTopic(topic=TOPIC, partitions=[wanted])],
        )

        def answered(response: Message) -> None:
            assert isinstance(response, messages.FetchResponse)
            if place.asked != number:
                return
            part = response.responses[0].partitions[0]
            if part.error_code == OUT_OF_RANGE and part.log_start_offset > place.position:
                place.position = part.log_start_offset
                self._skipped(partition, place.position)
                self._next(partition)
                return
            if part.error_code:
                place.leader = -1
                return  # the patience of this request brings another try
            read = batches_of(part.records or b"")
            if read:
                self._consumed(partition, read)
                place.position = read[-1].next_offset
            self._next(partition)

        self._wire.ask("consumer", place.leader, body, answered)
