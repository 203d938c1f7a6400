"""What metrics are read from, and the shapes of their tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cluster.core.node import Node
from cluster.core.partition import Partition
from cluster.net.kafka import KafkaListener

Kind = Literal["counter", "gauge"]


class Sockets(NamedTuple):
    """What the sockets of a broker counted."""

    malformed: int
    """Messages with a wrong number of frames."""
    hangups: int
    """Requests that could not be answered."""
    unreachable: int
    """Replies whose client had gone."""
    unsent: int
    """Messages for a peer that was not connected."""
    beyond_bound: int = 0
    """Requests of ZeroMQ clients with too many unanswered."""
    kafka: KafkaListener | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What is read at a scrape."""

    node: Node
    sockets: Sockets


@dataclass(frozen=True, slots=True)
class PartitionMetric:
    """One series per partition; `read` answers None where the broker has nothing to say."""

    name: str
    kind: Kind
    text: str
    read: Callable[[Partition], int | None]
    fold: Callable[[Iterable[int]], int] = sum
    """How the partitions beyond the bound share one series."""


@dataclass(frozen=True, slots=True)
class BrokerMetric:
    """Series of the broker as a whole: by values of `label`, or one without a label."""

    name: str
    kind: Kind
    text: str
    read: Callable[[Observed], int | Mapping[str, int]]
    label: str | None = None
