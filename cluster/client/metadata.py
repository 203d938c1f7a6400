"""The cluster as a client knows it: brokers, topics, and who leads which partition.

Owns the merging of metadata answers. Brokers learn of a change one after the other, so an answer
may be older than the one before: of the same topic (by its id), a leader of an older epoch never
replaces a newer one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cluster.wire.messages import (
    MetadataResponse,
    MetadataResponsePartition,
    MetadataResponseTopic,
)

NO_LEADER = -1


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition: who leads it, since which epoch, and who replicates it, by node id."""

    leader: int
    """-1 when there is none."""
    leader_epoch: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic with its partitions by index."""

    name: str
    topic_id: bytes
    partitions: dict[int, PartitionInfo]


@dataclass(slots=True)
class Metadata:
    """What the answers so far say."""

    cluster_id: str | None = None
    controller: int = -1
    brokers: dict[int, str] = field(default_factory=dict)
    """Addresses ("host:port") by node id, of the brokers alive."""
    topics: dict[str, TopicInfo] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    """Error codes of topics that were asked for and are not there."""

    def apply(self, answer: MetadataResponse, *, everything: bool) -> None:
        """Merges an answer; one for `everything` also says which topics are gone."""
        self.cluster_id = answer.cluster_id
        self.controller = answer.controller_id
        self.brokers = {broker.node_id: f"{broker.host}:{broker.port}" for broker in answer.brokers}
        if everything:
            named = {topic.name for topic in answer.topics}
            self.topics = {name: info for name, info in self.topics.items() if name in named}
        for topic in answer.topics:
            if topic.name is None:
                continue
            if topic.error_code:
                self.errors[topic.name] = topic.error_code
                if not topic.partitions:
                    self.topics.pop(topic.name, None)
            else:
                self.errors.pop(topic.name, None)
                self.topics[topic.name] = self._merged(topic.name, topic)

    def leader(self, topic: str, partition: int) -> int:
        """Node id of the partition's leader, -1 when none is known."""
        info = self.topics.get(topic)
        if info is None or partition not in info.partitions:
            return NO_LEADER
        return info.partitions[partition].leader

    def leader_epoch(self, topic: str, partition: int) -> int:
        """Its leader epoch, -1 when unknown."""
        info = self.topics.get(topic)
        if info is None or partition not in info.partitions:
            return -1
        return info.partitions[partition].leader_epoch

    def _merged(self, name: str, topic: MetadataResponseTopic) -> TopicInfo:
        old = self.topics.get(name)
        if old is not None and old.topic_id != topic.topic_id:
            old = None
        partitions = {}
        for partition in topic.partitions:
            index = partition.partition_index
            known = None if old is None else old.partitions.get(index)
            new = _partition(partition)
            newer = known is None or known.leader_epoch <= new.leader_epoch
            partitions[index] = new if newer or known is None else known
        return TopicInfo(name, topic.topic_id, partitions)


def _partition(answer: MetadataResponsePartition) -> PartitionInfo:
    return PartitionInfo(
        answer.leader_id,
        answer.leader_epoch,
        tuple(answer.replica_nodes),
        tuple(answer.isr_nodes),
    )
