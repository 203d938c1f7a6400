"""Where the replicas of new partitions go, and what their first records say.

Owns the choice of brokers (round robin, the emptiest first), the check of a choice that the wish
makes itself, and the bound on replicas per broker. Nothing is written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cluster.core import elections, records
from cluster.core.effects import Put
from cluster.core.image import Image
from cluster.core.records import PartitionRecord, TopicRecord
from cluster.limits import REPLICAS_MAX, REPLICAS_PER_BROKER_MAX

Placed = list[tuple[int, ...]]
"""Node ids of each new partition, preferred leader first."""


class Placing:
    """Places partitions over the brokers of an image."""

    def __init__(self, image: Image) -> None:
        """Places over this image's brokers."""
        self._image = image

    @property
    def replicas_max(self) -> int:
        """The most replicas that a partition can have here."""
        return min(len(self._image.brokers), REPLICAS_MAX)

    def choose(self, partitions: int, replicas: int) -> Placed:
        """Brokers for each partition; who leads few partitions comes first."""
        return elections.place(partitions, replicas, self._hosts(replicas), self._load())

    def wrong(self, wished: Sequence[Sequence[int]], replicas: int | None) -> str | None:
        """Why these assignments cannot be, None if they can; Kafka's rules."""
        for nodes in wished:
            if not nodes:
                return "a partition needs a replica"
            if len(set(nodes)) != len(nodes):
                return "a broker holds one replica of a partition"
            unknown = [node for node in nodes if node not in self._image.brokers]
            if unknown:
                return f"there is no broker {unknown[0]}"
            replicas = len(nodes) if replicas is None else replicas
            if len(nodes) != replicas:
                return f"{len(nodes)} replicas, where the others have {replicas}"
            if all(self._image.alive(node) is None for node in nodes):
                return f"none of the brokers {list(nodes)} is alive"
            if len(nodes) > REPLICAS_MAX:
                return f"at most {REPLICAS_MAX} replicas"
        return None

    def crowded(self, placed: Placed) -> bool:
        """Whether a broker would get more replicas than it may hold."""
        held = Counter(node for record in self._image.partitions.values()
                       for node in record.value.replicas)  # fmt: skip
        held.update(node for nodes in placed for node in nodes)
        return any(held[node] > REPLICAS_PER_BROKER_MAX for node in {n for p in placed for n in p})

    def records(self, topic: TopicRecord, placed: Placed) -> list[PartitionRecord]:
        """The first records: led by the first replica alive, in sync are all that are alive.

        Who is away for a moment joins its replicas when it is back; until then it is not in sync.
        """
        made = []
        for nodes in placed:
            insync = tuple(node for node in nodes if self._image.alive(node) is not None)
            replicas = (*insync, *(node for node in nodes if node not in insync))
            incarnation = self._image.alive(replicas[0])
            assert incarnation is not None, "whoever places is alive itself"
            made.append(
                PartitionRecord(
                    leader=replicas[0],
                    leader_incarnation=incarnation,
                    leader_epoch=0,
                    replicas=replicas,
                    isr=insync,
                    doubtful=(),
                    stores=tuple(self._image.store_id(node, topic) or "" for node in replicas),
                )
            )
        return made

    def writes(
        self, topic: TopicRecord, first: int, placed: Placed
    ) -> tuple[list[tuple[str, int]], list[Put]]:
        """Conditions and writes that make a topic's partitions from index `first` on."""
        conditions, puts = [], []
        for index, record in enumerate(self.records(topic, placed), first):
            key = records.partition_key(topic.topic_id, index)
            puts.append(Put(key, records.encode(record)))
            conditions.append((key, 0))
        return conditions, puts

    def _hosts(self, replicas: int) -> list[int]:
        """Brokers to place on: those alive, and of the others as many as the wish still needs."""
        alive = self._image.alive_nodes()
        away = [node for node in sorted(self._image.brokers) if node not in alive]
        return alive + away[: max(0, replicas - len(alive))]

    def _load(self) -> dict[int, int]:
        load: dict[int, int] = {}
        for record in self._image.partitions.values():
            load[record.value.leader] = load.get(record.value.leader, 0) + 1
        return load
