"""What a broker serves beside records: metadata, offsets, topics, settings, producers.

Composes those services over one image, registers their handlers, and gives them the end of each
step, where what waits for the controller or for a topic is answered.
"""

from __future__ import annotations

import re

from cluster import errors
from cluster.core.calls import Call, Handler, Handlers
from cluster.core.config_changes import ConfigChanges
from cluster.core.configs import Configs
from cluster.core.forwarding import Forwarding, Serve
from cluster.core.hosted import Find
from cluster.core.image import Image
from cluster.core.metadata import ClusterMetadata
from cluster.core.peers import Peers
from cluster.core.producer_lists import ProducerLists
from cluster.core.queries import Queries
from cluster.core.record_deletion import RecordDeletion
from cluster.core.settings import NodeSettings
from cluster.core.topic_changes import TopicChanges
from cluster.core.topics import Topics, refuse_too_many
from cluster.wire import messages, stream
from cluster.wire.apis import APIS, OURS_FROM, PRODUCE
from cluster.wire.schema import Message

_SOFTWARE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
"""Names and versions of client software, as Kafka takes them (KIP-511)."""


class Services:
    """The services of one broker."""

    def __init__(
        self,
        settings: NodeSettings,
        image: Image,
        find: Find,
        *,
        handlers: Handlers,
        forwarding: Forwarding,
    ) -> None:
        """Register every handler; `forwarding` finds the controller."""
        self.forwarding = forwarding
        self._handlers = handlers
        configs = Configs(
            image, settings.node_id,
            defaults=settings.topics, check=settings.check_config, broker=settings.broker,
        )  # fmt: skip
        queries = Queries(find)
        topics = self.topics = Topics(image, settings.topics, configs)
        changes = TopicChanges(image)
        config_changes = ConfigChanges(image, settings.topics, configs)
        self.metadata = ClusterMetadata(
            image, settings.node_id, settings.topics,
            create=handlers.serve, internal_partitions=settings.groups.topic_partitions,
        )  # fmt: skip
        reading: dict[type[Message], Handler] = {
            messages.ApiVersionsRequest: self._api_versions,
            messages.MetadataRequest: self.metadata.metadata,
            messages.DescribeClusterRequest: self.metadata.describe_cluster,
            messages.DescribeConfigsRequest: configs.describe,
            messages.ListOffsetsRequest: queries.list_offsets,
            messages.OffsetForLeaderEpochRequest: queries.offset_for_leader_epoch,
            messages.DescribeProducersRequest: ProducerLists(find).describe,
            messages.DeleteRecordsRequest: RecordDeletion(find).delete,
        }
        deciding: dict[type[Message], Serve] = {
            messages.CreateTopicsRequest: topics.create,
            messages.DeleteTopicsRequest: changes.delete,
            messages.CreatePartitionsRequest: changes.add_partitions,
            messages.AlterConfigsRequest: config_changes.alter,
            messages.IncrementalAlterConfigsRequest: config_changes.alter_some,
        }
        for request, handler in reading.items():
            handlers.register(request, handler)
        for request, serve in deciding.items():
            handlers.register(request, _bounded(forwarding.deciding(request, serve)))

    def advance(self, peers: Peers, now_ms: int) -> None:
        """The end of a step: pass on, pass back, answer."""
        for sender, message in peers.forwards():
            if isinstance(message, stream.Forward):
                self.forwarding.take(sender, message, now_ms)
            else:
                self.forwarding.answered(sender, message, now_ms)
        self.forwarding.advance(now_ms)
        self.metadata.advance(now_ms)

    def _api_versions(self, call: Call) -> messages.ApiVersionsResponse:
        """The APIs this broker serves; of our own only the native client knows."""
        request: messages.ApiVersionsRequest = call.body
        named = (request.client_software_name, request.client_software_version)
        if call.header.api_version >= 3 and not all(map(_SOFTWARE.fullmatch, named)):
            return messages.ApiVersionsResponse(error_code=errors.INVALID_REQUEST.number)
        keys = [
            messages.ApiVersion(key, api.version_min, api.version_max)
            for key, api in sorted(APIS.items())
            if (key == PRODUCE or self._handlers.serves(api.request))
            and (call.native or key < OURS_FROM)
        ]
        return messages.ApiVersionsResponse(api_keys=keys)


def _bounded(handler: Handler) -> Handler:
    """WireError for a request that names too much, before it is passed on to anybody."""

    def bounded(call: Call) -> Message | None:
        body = call.body
        for items in ("topics", "topic_names", "resources"):
            refuse_too_many(getattr(body, items, ()))
        return handler(call)

    return bounded
