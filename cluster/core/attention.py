"""Which partitions the regular look must look at: those that time alone may change.

Owns the set of partitions under watch and the times at which producers expire in the others. A
partition is watched from its last change on until it is at rest: everybody holds everything and
nobody waits. Ten thousand idle partitions then cost a look nothing.

Invariant: a partition that is not watched changes only by an event, which puts it under watch.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping

from cluster.core.image import PartitionId
from cluster.core.partition import Partition


class Attention:
    """The watch of one broker over its partitions."""

    def __init__(self, partitions: Mapping[PartitionId, Partition]) -> None:
        """Watch over what is in `partitions` then."""
        self._partitions = partitions
        self._watched: dict[PartitionId, None] = {}
        self._expiries: list[tuple[int, PartitionId]] = []
        self._expires_ms: dict[PartitionId, int] = {}
        self.sweeping: list[Partition] = []
        """Led partitions that were looked at last: producers may expire in them."""

    def __len__(self) -> int:
        """How many are under watch."""
        return len(self._watched)

    def stirred(self, keys: Iterable[PartitionId]) -> None:
        """These have changed."""
        self._watched.update(dict.fromkeys(keys))

    def look(self, now_ms: int) -> list[PartitionId]:
        """Look at all that are watched; those that are not at rest."""
        self._wake(now_ms)
        self.sweeping = []
        restless = []
        for key in list(self._watched):
            partition = self._partitions.get(key)
            if partition is None:
                del self._watched[key]
                continue
            partition.look(now_ms)
            if partition.leader is not None:
                self.sweeping.append(partition)
            if partition.at_rest:
                del self._watched[key]
                self._sleep(key, partition)
            else:
                restless.append(key)
        return restless

    def _sleep(self, key: PartitionId, partition: Partition) -> None:
        """Come back when a producer may have been idle for long enough."""
        leader = partition.leader
        due_ms = None if leader is None else leader.next_expiry_ms()
        if due_ms is not None and due_ms < self._expires_ms.get(key, due_ms + 1):
            self._expires_ms[key] = due_ms
            heapq.heappush(self._expiries, (due_ms, key))

    def _wake(self, now_ms: int) -> None:
        while self._expiries and self._expiries[0][0] <= now_ms:
            due_ms, key = heapq.heappop(self._expiries)
            if self._expires_ms.get(key) == due_ms:
                del self._expires_ms[key]
            self._watched[key] = None
