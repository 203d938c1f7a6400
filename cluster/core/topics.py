"""Creating topics, on the controller.

Owns the checks of a wish (name, counts, replicas, settings), and the one transaction that makes a
topic and all its partitions, or none of them.
"""

from __future__ import annotations

import hashlib
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster import errors
from cluster.core import records
from cluster.core.calls import Call
from cluster.core.configs import Configs
from cluster.core.controller import Controller
from cluster.core.defaults import INTERNAL_TOPICS, TopicDefaults
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.forwarding import Decider
from cluster.core.image import Image
from cluster.core.placing import Placed, Placing
from cluster.core.records import TopicRecord
from cluster.limits import (
    PARTITIONS_PER_TOPIC_MAX,
    REPLICAS_PER_BROKER_MAX,
    TOPIC_NAME_LENGTH_MAX,
    TOPICS_PER_REQUEST_MAX,
)
from cluster.wire import messages
from cluster.wire.primitives import WireError

_NAME_CHARACTERS = frozenset(string.ascii_letters + string.digits + "._-")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a wish cannot be."""

    code: errors.Code
    text: str | None = None


CreateDone = Callable[[TopicRecord | Refusal], None]


class Topics:
    """Topic requests of one broker, decided while it is the controller."""

    def __init__(self, image: Image, defaults: TopicDefaults, configs: Configs) -> None:
        """Serve from this image, with these defaults; `configs` checks settings."""
        self._image = image
        self._defaults = defaults
        self._configs = configs
        self._placing = Placing(image)

    # -- creating -----------------------------------------------------------------------------

    def create(self, call: Call, decider: Decider) -> None:
        """Create each topic in a transaction of its own; answer when all are decided."""
        request: messages.CreateTopicsRequest = call.body
        named = Counter(wish.name for wish in request.topics)
        results: dict[str, messages.CreatableTopicResult] = {}

        def decided(name: str, result: messages.CreatableTopicResult) -> None:
            results[name] = result
            if len(results) == len(named):
                call.answer(messages.CreateTopicsResponse(topics=list(results.values())))

        if not named:
            call.answer(messages.CreateTopicsResponse())
        for wish in {wish.name: wish for wish in request.topics}.values():
            if isinstance(decider, errors.Code):
                decided(wish.name, _refused(wish.name, Refusal(decider)))
            elif named[wish.name] > 1:
                refusal = Refusal(errors.INVALID_REQUEST, "the topic is named more than once")
                decided(wish.name, _refused(wish.name, refusal))
            else:
                self._create_one(wish, request.validate_only, decider, decided)

    def _create_one(
        self,
        wish: messages.CreatableTopic,
        validate_only: bool,
        controller: Controller,
        decided: Callable[[str, messages.CreatableTopicResult], None],
    ) -> None:
        internal = wish.name in INTERNAL_TOPICS
        reason = "brokers make this topic themselves" if internal else bad_name(wish.name)
        if reason is not None:
            decided(wish.name, _refused(wish.name, Refusal(self._name_code(wish.name), reason)))
            return

        def done(made: TopicRecord | Refusal) -> None:
            decided(wish.name, self._told(wish.name, made))

        designed = self.design(wish)
        if isinstance(designed, Refusal) or validate_only:
            done(designed if isinstance(designed, Refusal) else designed[0])
        else:
            self.make(*designed, controller, done)

    def _name_code(self, name: str) -> errors.Code:
        exists = name in self._image.topics
        return errors.TOPIC_ALREADY_EXISTS if exists else errors.INVALID_TOPIC_EXCEPTION

    def _told(self, name: str, made: TopicRecord | Refusal) -> messages.CreatableTopicResult:
        if isinstance(made, Refusal):
            return _refused(name, made)
        return messages.CreatableTopicResult(
            name=name,
            topic_id=bytes.fromhex(made.topic_id),
            num_partitions=made.partitions,
            replication_factor=made.replicas,
            configs=[
                messages.CreatableTopicConfigs(
                    name=entry.name,
                    value=entry.value,
                    read_only=entry.read_only,
                    config_source=entry.config_source,
                )
                for entry in self._configs.of_topic(made, None)
            ],
        )

    def make(
        self, topic: TopicRecord, placed: Placed, controller: Controller, done: CreateDone
    ) -> None:
        """Write a designed topic with its partitions, or nothing; `done` hears which."""

        def outcome(commit: Commit) -> None:
            if commit is Commit.COMMITTED or topic.topic_id in self._image.topics_by_id:
                done(topic)
            elif topic.name in self._image.topics:
                done(Refusal(errors.TOPIC_ALREADY_EXISTS))
            else:
                done(Refusal(errors.NOT_CONTROLLER, "try again"))

        key = records.topic_key(topic.name)
        conditions, puts = self._placing.writes(topic, 0, placed)
        conditions.append((key, 0))
        controller.write(conditions, [Put(key, records.encode(topic)), *puts], outcome)

    def design(self, wish: messages.CreatableTopic) -> tuple[TopicRecord, Placed] | Refusal:
        """What a wish would make, its name aside, or why it cannot be."""
        if wish.name in self._image.topics:
            return Refusal(errors.TOPIC_ALREADY_EXISTS)
        size = self._assigned(wish) if wish.assignments else self._sized(wish)
        if isinstance(size, Refusal):
            return size
        partitions, replicas, placed = size
        if self._placing.crowded(placed):
            text = f"a broker holds at most {REPLICAS_PER_BROKER_MAX} replicas, each an open file"
            return Refusal(errors.INVALID_PARTITIONS, text)
        own = {setting.name: setting.value for setting in wish.configs}
        try:
            config = self._configs.checked(own)
        except errors.ConfigError as error:
            return Refusal(errors.INVALID_CONFIG, str(error))
        topic_id = self._new_id(wish.name)
        topic = TopicRecord(wish.name, topic_id, partitions, replicas, config, own=tuple(own))
        return topic, placed

    def _sized(self, wish: messages.CreatableTopic) -> tuple[int, int, Placed] | Refusal:
        partitions = self._defaults.partitions if wish.num_partitions == -1 else wish.num_partitions
        if not 1 <= partitions <= PARTITIONS_PER_TOPIC_MAX:
            text = f"partitions must be from 1 to {PARTITIONS_PER_TOPIC_MAX}"
            return Refusal(errors.INVALID_PARTITIONS, text)
        replicas = wish.replication_factor
        if replicas == -1:
            replicas = self._defaults.replicas
        most = self._placing.replicas_max
        if not 1 <= replicas <= most:
            text = f"replicas must be from 1 to {most}, the brokers here"
            return Refusal(errors.INVALID_REPLICATION_FACTOR, text)
        return partitions, replicas, self._placing.choose(partitions, replicas)

    def _assigned(self, wish: messages.CreatableTopic) -> tuple[int, int, Placed] | Refusal:
        """A wish that says itself where each replica goes."""
        if wish.num_partitions != -1 or wish.replication_factor != -1:
            text = "with assignments, partitions and replicas must both be -1"
            return Refusal(errors.INVALID_REQUEST, text)
        wished = {entry.partition_index: entry.broker_ids for entry in wish.assignments}
        if sorted(wished) != list(range(len(wish.assignments))):
            text = "assignments must name the partitions from 0 on, each once"
            return Refusal(errors.INVALID_REPLICA_ASSIGNMENT, text)
        if len(wished) > PARTITIONS_PER_TOPIC_MAX:
            text = f"partitions must be from 1 to {PARTITIONS_PER_TOPIC_MAX}"
            return Refusal(errors.INVALID_PARTITIONS, text)
        nodes = [wished[index] for index in range(len(wished))]
        wrong = self._placing.wrong(nodes, None)
        if wrong is not None:
            return Refusal(errors.INVALID_REPLICA_ASSIGNMENT, wrong)
        return len(nodes), len(nodes[0]), [tuple(one) for one in nodes]

    def _new_id(self, name: str) -> str:
        """A topic id that nobody had before: every attempt stands on another store revision."""
        cluster = self._image.cluster
        assert cluster is not None
        text = f"{cluster.cluster_id}/{name}/{self._image.revision}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def bad_name(name: str) -> str | None:
    """Why this cannot be a topic's name, None if it can; Kafka's rules."""
    if not 0 < len(name) <= TOPIC_NAME_LENGTH_MAX:
        return f"a topic name has 1 to {TOPIC_NAME_LENGTH_MAX} characters"
    if name in (".", ".."):
        return "a topic name is not '.' or '..'"
    if not set(name) <= _NAME_CHARACTERS:
        return "a topic name has letters, digits, '.', '_' and '-' only"
    return None


def refuse_too_many(items: Sequence[object]) -> None:
    """WireError for more topics or resources than one request may name."""
    if len(items) > TOPICS_PER_REQUEST_MAX:
        raise WireError(f"{len(items)} in one request, at most {TOPICS_PER_REQUEST_MAX}")


def _refused(name: str, refusal: Refusal) -> messages.CreatableTopicResult:
    return messages.CreatableTopicResult(
        name=name,
        error_code=refusal.code.number,
        error_message=refusal.text,
        configs=None if refusal.code is errors.INVALID_CONFIG else [],
    )
