"""What the tests ask of a Kafka client, whichever it is, and the three that are asked.

Each client is used as its documentation says, idempotent, with its own defaults for whatever a
test does not name: what must work is what an application would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
WITHIN_S = 60  # s a client may take for anything
TIMEOUT_MS = 60_000  # ms until a producer gives a record up
SESSION_MS = 6_000  # ms: the least a broker allows by Kafka's defaults
HEARTBEAT_MS = 200  # ms: how soon a member hears of a rebalance

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Sent:
    """A record for a producer."""

    partition: int
    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """A record from a consumer."""

    partition: int
    offset: int
    value: bytes | None
    key: bytes | None
    headers: Headers
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an application learns about a record: its offset, -1 if unknown, or an error."""

    offset: int = -1
    error: str | None = None


class Producer(Protocol):
    """An idempotent producer with acks=all."""

    def send(self, topic: str, record: Sent) -> None:
        """Hand over a record; may wait while the client's buffer is full."""

    def acked(self) -> int:
        """How many records have an outcome by now."""

    def close(self) -> list[Outcome]:
        """Wait for every record; the outcomes in the order of sending."""


class Consumer(Protocol):
    """A consumer that is given partitions by hand, or is a member of a group."""

    def assign(self, positions: dict[int, int]) -> None:
        """Read these partitions from these offsets on."""

    def subscribe(self) -> None:
        """Join the group, which begins at the beginning; commits only when told."""

    def poll(self) -> list[Read]:
        """What came within a moment."""

    def assignment(self) -> set[int]:
        """Partitions it reads now."""

    def commit(self) -> None:
        """Commit the positions it has polled to."""

    def close(self) -> None:
        """Leave."""


class Admin(Protocol):
    """The calls of each client's own admin class that the tests share."""

    def create_topic(self, name: str, partitions: int, config: dict[str, str]) -> None:
        """Three replicas; raises what the client raises."""

    def create_partitions(self, name: str, total: int) -> None:
        """Let a topic have `total` partitions."""

    def topics(self) -> set[str]:
        """Names of all topics that are not internal."""

    def partitions(self, name: str) -> int:
        """How many partitions a topic has."""

    def config(self, name: str) -> dict[str, str]:
        """All settings of a topic."""

    def set_config(self, name: str, key: str, value: str) -> None:
        """Change one setting."""

    def delete_records(self, name: str, partition: int, offset: int) -> int:
        """Records below `offset` go; returns where the log begins now."""

    def delete_topic(self, name: str) -> None:
        """Delete it."""

    def groups(self) -> set[str]:
        """Ids of all groups."""

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """Committed offsets by partition."""

    def close(self) -> None:
        """Close its connections."""


class OffsetsForTime(Protocol):
    """The first offset at or after a time by partition, None where there is none."""

    def __call__(
        self, bootstrap: str, topic: str, partitions: Sequence[int], timestamp_ms: int
    ) -> dict[int, int | None]:
        """Ask for them."""


@dataclass(frozen=True, slots=True)
class Client:
    """One client library: what it can, and what makes its producers, consumers and admins."""

    name: str
    null_headers: bool
    """Whether it can send a header without a value."""
    in_flight: int
    """Batches of one partition that it sends before the first is answered."""
    producers: Callable[[str, str, int], Producer]
    consumers: Callable[[str, str, str | None], Consumer]
    admin: Callable[[str], Admin]
    offsets_for_time: OffsetsForTime

    def producer(
        self, bootstrap: str, codec: str = "none", timeout_ms: int = TIMEOUT_MS
    ) -> Producer:
        """A producer that compresses with `codec` and gives a record up after `timeout_ms`."""
        return self.producers(bootstrap, codec, timeout_ms)

    def reader(self, bootstrap: str, topic: str, positions: dict[int, int]) -> Consumer:
        """Reads these partitions from these offsets on."""
        consumer = self.consumers(bootstrap, topic, None)
        consumer.assign(positions)
        return consumer

    def member(self, bootstrap: str, group: str, topic: str) -> Consumer:
        """A member of `group`, which begins at the beginning; commits only when told."""
        consumer = self.consumers(bootstrap, topic, group)
        consumer.subscribe()
        return consumer
