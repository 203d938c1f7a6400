"""Consumer groups as one part of a broker: their services, their place in a step, their topic.

Composes the coordinator of groups with what is asked about offsets and groups. Owns the making of
the internal topic: a broker that is asked for a coordinator while there is none tells the
controller, which makes it with as many replicas as there are brokers, up to the setting. A lost
message costs nothing, since clients ask again.
"""

from __future__ import annotations

from collections.abc import Iterator

from cluster.core.append import Append
from cluster.core.calls import Handlers
from cluster.core.controller import Controller
from cluster.core.group_offsets import GroupOffsets
from cluster.core.group_queries import GroupQueries
from cluster.core.groups import Groups
from cluster.core.hosted import Appended, Find
from cluster.core.image import Image
from cluster.core.outbox import Outbox
from cluster.core.records import TopicRecord
from cluster.core.settings import NodeSettings
from cluster.core.topics import Refusal, Topics
from cluster.limits import GROUP_RECORD_BYTES_MAX, GROUP_SEGMENT_BYTES
from cluster.wire import messages, stream
from cluster.wire.group_records import TOPIC

_CONFIG = {
    "segment.bytes": str(GROUP_SEGMENT_BYTES),
    "max.message.bytes": str(2 * GROUP_RECORD_BYTES_MAX),
    "retention.ms": "-1",
    "retention.bytes": "-1",
}
"""Nothing is deleted but what the coordinator has written anew."""


class Coordinator:
    """Consumer groups on one broker."""

    def __init__(
        self, settings: NodeSettings, image: Image, out: Outbox, find: Find, *,
        append: Append, handlers: Handlers, topics: Topics,
    ) -> None:  # fmt: skip
        """Register every handler; `topics` makes topics where the controller is."""
        self.groups = Groups(
            image, find, append, settings.groups,
            wall_offset_ms=settings.wall_offset_ms, chance=settings.chance,
        )  # fmt: skip
        self._settings = settings.groups
        self._known = settings.topics.keys
        self._image = image
        self._out = out
        self._topics = topics
        self._making = False
        for service in (self.groups, GroupOffsets(image, self.groups),
                        GroupQueries(image, self.groups)):  # fmt: skip
            service.register(handlers.register)

    def look(self, now_ms: int) -> None:
        """What time alone brings, and work in slices."""
        self.groups.look(now_ms)

    def follow(self, now_ms: int) -> None:
        """Roles may have changed."""
        self.groups.follow(now_ms)

    def flush(self, now_ms: int) -> Iterator[list[Appended]]:
        """Append what the step asked for."""
        return self.groups.flush(now_ms)

    def next_deadline_ms(self) -> int:
        """When `look` is due."""
        return self.groups.next_deadline_ms()

    # -- the topic ----------------------------------------------------------------------------

    @property
    def wanted(self) -> bool:
        """Whether the topic is missed."""
        return self.groups.wanted

    def advance(self, controller: Controller | None) -> None:
        """Make the topic, or tell the controller that it is missed."""
        self.groups.wanted = False
        stored = self._image.controller
        if TOPIC in self._image.topics or stored is None:
            return
        if controller is not None:
            self._make(controller)
        else:
            self._out.control(stored.value.node_id, stream.WantGroups())

    def _make(self, controller: Controller) -> None:
        if self._making:
            return
        replicas = min(self._settings.topic_replicas, len(self._image.brokers))
        wish = messages.CreatableTopic(
            name=TOPIC,
            num_partitions=self._settings.topic_partitions,
            replication_factor=replicas,
            configs=[
                messages.CreatableTopicConfig(name=name, value=value)
                for name, value in _CONFIG.items()
                if name in self._known or not self._known
            ],
        )
        designed = self._topics.design(wish)
        if isinstance(designed, Refusal):
            return
        self._making = True
        self._topics.make(*designed, controller, self._made)

    def _made(self, _made: TopicRecord | Refusal) -> None:
        self._making = False
