"""Leaders whose connection was just lost: whoever asks for them waits a moment for the next one.

A client asks who leads within milliseconds of a leader's death, before the election is over, and
an answer that names the dead one, or nobody, costs it its own backoff: half a second and more.
librdkafka loses as much when one answer brings the next leader and leaves the dead broker out of
the list: it may drop that broker, and its partitions with it, before they have moved.

Owns which brokers were lost and until when that is new. Invariant: nobody waits longer than
`LEADER_WAIT_MS` from the loss, however often it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from cluster.core.image import Image, PartitionId
from cluster.core.records import TopicRecord
from cluster.limits import LEADER_WAIT_MS, LOST_LISTED_MS


class _Loss(NamedTuple):
    incarnation: int
    at_ms: int


class Losses:
    """What one broker has lost lately."""

    def __init__(self, image: Image) -> None:
        """Nobody is missed."""
        self._image = image
        self._lost: dict[int, _Loss] = {}

    def lost(self, node_id: int, incarnation: int, now_ms: int) -> None:
        """The connection to a broker is lost."""
        self._lost[node_id] = _Loss(incarnation, now_ms)

    def found(self, node_id: int) -> None:
        """It is there again."""
        self._lost.pop(node_id, None)

    def listed(self, now_ms: int) -> Iterable[int]:
        """Brokers that clients are told of though they may be dead."""
        for node_id, loss in list(self._lost.items()):
            if now_ms - loss.at_ms >= LOST_LISTED_MS:
                del self._lost[node_id]
        return self._lost

    def awaited(self, topics: Iterable[TopicRecord], now_ms: int) -> tuple[list[PartitionId], int]:
        """Partitions of these topics that should get another leader soon, and until when."""
        deadlines = [loss.at_ms + LEADER_WAIT_MS for loss in self._lost.values()]
        until_ms = max(deadlines, default=now_ms)
        if until_ms <= now_ms:
            return [], now_ms
        keys = (key for topic in topics for key in self._image.partitions_of(topic))
        return [key for key in keys if self._leaderless(key)], until_ms

    def decided(self, keys: list[PartitionId]) -> bool:
        """Whether all of these have a leader again; those that have are taken from the list."""
        while keys and not self._leaderless(keys[-1]):
            keys.pop()
        return not keys

    def _leaderless(self, key: PartitionId) -> bool:
        record = self._image.partitions.get(key)
        if record is None:
            return False
        loss = self._lost.get(record.value.leader)
        return loss is not None and loss.incarnation == record.value.leader_incarnation
