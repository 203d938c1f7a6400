"""Creating and deleting topics, on the controller.

Owns the checks of a wish (name, counts, settings), the placement of a new topic's replicas, and
the one transaction that makes a topic and all its partitions, or none of them.
"""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cluster import errors
from cluster.core import elections, records
from cluster.core.controller import Controller
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.image import Image
from cluster.core.records import PartitionRecord, TopicRecord
from cluster.limits import (
    PARTITIONS_PER_TOPIC_MAX,
    REPLICAS_MAX,
    REPLICAS_PER_BROKER_MAX,
    TOPIC_NAME_LENGTH_MAX,
    TOPICS_PER_REQUEST_MAX,
)
from cluster.wire import messages
from cluster.wire.primitives import WireError

CheckConfig = Callable[[Mapping[str, str]], None]
"""Raises `cluster.errors.ConfigError` naming the key and the allowed values."""
Answer = Callable[[messages.CreateTopicsResponse | messages.DeleteTopicsResponse], None]
_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")


@dataclass(frozen=True, slots=True)
class TopicDefaults:
    """What a topic gets where its creator names nothing."""

    partitions: int = 6
    replicas: int = 3
    config: Mapping[str, str] = field(default_factory=dict)


class Topics:
    """Topic requests of one broker; served while it is the controller."""

    def __init__(self, image: Image, defaults: TopicDefaults, check: CheckConfig) -> None:
        """Serve from this image, with these defaults and checks of settings."""
        self._image = image
        self._defaults = defaults
        self._check = check

    # -- creating -----------------------------------------------------------------------------

    def create(
        self,
        request: messages.CreateTopicsRequest,
        controller: Controller | None,
        answer: Answer,
    ) -> None:
        """Create each topic in a transaction of its own; answer when all are decided.

        WireError for more topics than one request may name; so does `delete`.
        """
        _refuse_too_many(len(request.topics))
        results: dict[str, messages.CreatableTopicResult] = {}
        pending = {wish.name for wish in request.topics}

        def decided(name: str, result: messages.CreatableTopicResult) -> None:
            results[name] = result
            pending.discard(name)
            if not pending:
                answer(messages.CreateTopicsResponse(topics=list(results.values())))

        if not pending:
            answer(messages.CreateTopicsResponse())
        for wish in {wish.name: wish for wish in request.topics}.values():
            if controller is None:
                decided(wish.name, _refused(wish.name, errors.NOT_CONTROLLER, None))
            else:
                self._create_one(wish, request.validate_only, controller, decided)

    def _create_one(
        self,
        wish: messages.CreatableTopic,
        validate_only: bool,
        controller: Controller,
        decided: Callable[[str, messages.CreatableTopicResult], None],
    ) -> None:
        made = self._design(wish)
        if isinstance(made, messages.CreatableTopicResult):
            decided(wish.name, made)
            return
        topic, partitions = made
        result = messages.CreatableTopicResult(
            name=topic.name,
            topic_id=bytes.fromhex(topic.topic_id),
            num_partitions=topic.partitions,
            replication_factor=topic.replicas,
            configs=[
                messages.CreatableTopicConfigs(name=name, value=value, config_source=1)
                for name, value in sorted(topic.config.items())
            ],
        )
        if validate_only:
            decided(wish.name, result)
            return

        def outcome(commit: Commit) -> None:
            if commit is Commit.COMMITTED or topic.topic_id in self._image.topics_by_id:
                decided(wish.name, result)
            elif topic.name in self._image.topics:
                decided(wish.name, _refused(wish.name, errors.TOPIC_ALREADY_EXISTS, None))
            else:
                decided(wish.name, _refused(wish.name, errors.NOT_CONTROLLER, "try again"))

        puts = [Put(records.topic_key(topic.name), records.encode(topic))]
        conditions = [(records.topic_key(topic.name), 0)]
        for index, record in enumerate(partitions):
            key = records.partition_key(topic.topic_id, index)
            puts.append(Put(key, records.encode(record)))
            conditions.append((key, 0))
        controller.write(conditions, puts, outcome)

    def _design(
        self, wish: messages.CreatableTopic
    ) -> tuple[TopicRecord, list[PartitionRecord]] | messages.CreatableTopicResult:
        reason = bad_name(wish.name)
        if reason is not None:
            return _refused(wish.name, errors.INVALID_TOPIC_EXCEPTION, reason)
        if wish.name in self._image.topics:
            return _refused(wish.name, errors.TOPIC_ALREADY_EXISTS, None)
        if wish.assignments:
            reason = "replicas are placed by the controller"
            return _refused(wish.name, errors.INVALID_REPLICA_ASSIGNMENT, reason)
        partitions = self._defaults.partitions if wish.num_partitions == -1 else wish.num_partitions
        if not 1 <= partitions <= PARTITIONS_PER_TOPIC_MAX:
            reason = f"partitions must be from 1 to {PARTITIONS_PER_TOPIC_MAX}"
            return _refused(wish.name, errors.INVALID_PARTITIONS, reason)
        most = min(len(self._image.brokers), REPLICAS_MAX)
        replicas = wish.replication_factor
        if replicas == -1:
            replicas = self._defaults.replicas
        if not 1 <= replicas <= most:
            reason = f"replicas must be from 1 to {most}, the brokers here"
            return _refused(wish.name, errors.INVALID_REPLICATION_FACTOR, reason)
        nodes = self._hosts(replicas)
        if self._crowded(nodes, partitions * replicas):
            reason = f"a broker holds at most {REPLICAS_PER_BROKER_MAX} replicas, each an open file"
            return _refused(wish.name, errors.INVALID_PARTITIONS, reason)
        config = {**self._defaults.config}
        config.update({setting.name: setting.value or "" for setting in wish.configs})
        try:
            self._check(config)
        except errors.ConfigError as error:
            return _refused(wish.name, errors.INVALID_CONFIG, str(error))
        topic = TopicRecord(wish.name, self._new_id(wish.name), partitions, replicas, config)
        return topic, self._partitions(topic, nodes)

    def _hosts(self, replicas: int) -> list[int]:
        """Brokers to place on: those alive, and of the others as many as the wish still needs.

        Who is away for a moment joins its replicas when it is back; until then it is not in sync.
        """
        alive = self._image.alive_nodes()
        away = [node for node in sorted(self._image.brokers) if node not in alive]
        return alive + away[: max(0, replicas - len(alive))]

    def _crowded(self, nodes: list[int], more: int) -> bool:
        """Whether so many more replicas are too many for one of these brokers; they go round."""
        held = Counter(node for record in self._image.partitions.values()
                       for node in record.value.replicas)  # fmt: skip
        fullest = max(held[node] for node in nodes)
        return fullest + -(-more // len(nodes)) > REPLICAS_PER_BROKER_MAX

    def _new_id(self, name: str) -> str:
        """A topic id that nobody had before: every attempt stands on another store revision."""
        cluster = self._image.cluster
        assert cluster is not None
        text = f"{cluster.cluster_id}/{name}/{self._image.revision}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _partitions(self, topic: TopicRecord, nodes: list[int]) -> list[PartitionRecord]:
        made = []
        for placed in elections.place(topic.partitions, topic.replicas, nodes, self._load()):
            insync = tuple(node for node in placed if self._image.alive(node) is not None)
            replicas = (*insync, *(node for node in placed if node not in insync))
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

    def _load(self) -> dict[int, int]:
        load: dict[int, int] = {}
        for record in self._image.partitions.values():
            load[record.value.leader] = load.get(record.value.leader, 0) + 1
        return load

    # -- deleting -----------------------------------------------------------------------------

    def delete(
        self,
        request: messages.DeleteTopicsRequest,
        controller: Controller | None,
        answer: Answer,
    ) -> None:
        """Delete each topic with its partitions; answer when all are decided."""
        wished = [(wish.name, wish.topic_id) for wish in request.topics]
        wished += [(name, bytes(16)) for name in request.topic_names]
        _refuse_too_many(len(wished))
        results: list[messages.DeletableTopicResult] = []

        def decided(result: messages.DeletableTopicResult) -> None:
            results.append(result)
            if len(results) == len(wished):
                answer(messages.DeleteTopicsResponse(responses=results))

        if not wished:
            answer(messages.DeleteTopicsResponse())
        for name, topic_id in wished:
            self._delete_one(name, topic_id, controller, decided)

    def _delete_one(
        self,
        name: str | None,
        topic_id: bytes,
        controller: Controller | None,
        decided: Callable[[messages.DeletableTopicResult], None],
    ) -> None:
        def result(code: errors.Code) -> messages.DeletableTopicResult:
            return messages.DeletableTopicResult(
                name=name, topic_id=topic_id, error_code=code.number
            )

        if controller is None:
            decided(result(errors.NOT_CONTROLLER))
            return
        stored = self._image.topics.get(name) if name is not None else None
        topic = (
            self._image.topics_by_id.get(topic_id.hex())
            if name is None
            else (None if stored is None else stored.value)
        )
        if topic is None:
            unknown = errors.UNKNOWN_TOPIC_ID if name is None else errors.UNKNOWN_TOPIC_OR_PARTITION
            decided(result(unknown))
            return
        key = records.topic_key(topic.name)

        def outcome(commit: Commit) -> None:
            gone = commit is Commit.COMMITTED or topic.topic_id not in self._image.topics_by_id
            decided(result(errors.NONE if gone else errors.NOT_CONTROLLER))

        keys = [records.partition_key(*partition) for partition in
                self._image.partitions_of(topic)]  # fmt: skip
        controller.write([(key, self._image.version(key))], (), outcome, (key, *keys))


def bad_name(name: str) -> str | None:
    """Why this cannot be a topic's name, None if it can; Kafka's rules."""
    if not 0 < len(name) <= TOPIC_NAME_LENGTH_MAX:
        return f"a topic name has 1 to {TOPIC_NAME_LENGTH_MAX} characters"
    if name in (".", ".."):
        return "a topic name is not '.' or '..'"
    if not set(name) <= _NAME_CHARACTERS:
        return "a topic name has letters, digits, '.', '_' and '-' only"
    return None


def _refuse_too_many(topics: int) -> None:
    if topics > TOPICS_PER_REQUEST_MAX:
        raise WireError(f"{topics} topics in one request, at most {TOPICS_PER_REQUEST_MAX}")


def _refused(name: str, code: errors.Code, message: str | None) -> messages.CreatableTopicResult:
    return messages.CreatableTopicResult(
        name=name,
        error_code=code.number,
        error_message=message,
        configs=None if code is errors.INVALID_CONFIG else [],
    )
