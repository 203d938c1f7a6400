"""Adding partitions to topics and deleting topics, on the controller.

Owns the checks of both, and their transactions: all new partitions of a topic appear together, and
a topic goes together with all its partitions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import msgspec

from cluster import errors
from cluster.core import records
from cluster.core.calls import Call
from cluster.core.controller import Controller
from cluster.core.defaults import INTERNAL_TOPICS
from cluster.core.effects import Put
from cluster.core.events import Commit
from cluster.core.forwarding import Decider
from cluster.core.image import Image
from cluster.core.placing import Placed, Placing
from cluster.core.records import TopicRecord
from cluster.core.topics import Refusal
from cluster.limits import PARTITIONS_PER_TOPIC_MAX, REPLICAS_PER_BROKER_MAX
from cluster.wire import messages


class TopicChanges:
    """Requests that change topics there are; decided while this broker is the controller."""

    def __init__(self, image: Image) -> None:
        """Serve from this image."""
        self._image = image
        self._placing = Placing(image)

    # -- adding partitions --------------------------------------------------------------------

    def add_partitions(self, call: Call, decider: Decider) -> None:
        """Add partitions to each topic in a transaction of its own."""
        request: messages.CreatePartitionsRequest = call.body
        named = Counter(wish.name for wish in request.topics)
        results: list[messages.CreatePartitionsTopicResult] = []

        def decided(name: str, refusal: Refusal | None) -> None:
            code, text = (errors.NONE, None) if refusal is None else (refusal.code, refusal.text)
            results.append(messages.CreatePartitionsTopicResult(name, code.number, text))
            if len(results) == len(named):
                call.answer(messages.CreatePartitionsResponse(results=results))

        if not named:
            call.answer(messages.CreatePartitionsResponse())
        for wish in {wish.name: wish for wish in request.topics}.values():
            if isinstance(decider, errors.Code):
                decided(wish.name, Refusal(decider))
            elif named[wish.name] > 1:
                text = "the topic is named more than once"
                decided(wish.name, Refusal(errors.INVALID_REQUEST, text))
            else:
                self._add_to_one(wish, request.validate_only, decider, decided)

    def _add_to_one(
        self,
        wish: messages.CreatePartitionsTopic,
        validate_only: bool,
        controller: Controller,
        decided: Callable[[str, Refusal | None], None],
    ) -> None:
        grown = self._grown(wish)
        if isinstance(grown, Refusal) or validate_only:
            decided(wish.name, grown if isinstance(grown, Refusal) else None)
            return
        topic, placed = grown
        key, before = records.topic_key(topic.name), topic.partitions - len(placed)

        def outcome(commit: Commit) -> None:
            now = self._image.topics_by_id.get(topic.topic_id)
            done = commit is Commit.COMMITTED or (now is not None and now == topic)
            decided(topic.name, None if done else Refusal(errors.NOT_CONTROLLER, "try again"))

        conditions, puts = self._placing.writes(topic, before, placed)
        conditions.append((key, self._image.version(key)))
        controller.write(conditions, [Put(key, records.encode(topic)), *puts], outcome)

    def _grown(self, wish: messages.CreatePartitionsTopic) -> tuple[TopicRecord, Placed] | Refusal:
        stored = self._image.topics.get(wish.name)
        if stored is None:
            return Refusal(errors.UNKNOWN_TOPIC_OR_PARTITION)
        topic = stored.value
        if wish.name in INTERNAL_TOPICS:
            return Refusal(errors.INVALID_TOPIC_EXCEPTION, "the topic is the brokers' own")
        more = wish.count - topic.partitions
        if more <= 0 or wish.count > PARTITIONS_PER_TOPIC_MAX:
            text = (
                f"the topic has {topic.partitions} partitions; {wish.count} is not more, or above"
                f" the most, {PARTITIONS_PER_TOPIC_MAX}"
            )
            return Refusal(errors.INVALID_PARTITIONS, text)
        placed = self._placed_more(wish, topic, more)
        if not isinstance(placed, Refusal) and self._placing.crowded(placed):
            text = f"a broker holds at most {REPLICAS_PER_BROKER_MAX} replicas, each an open file"
            return Refusal(errors.INVALID_PARTITIONS, text)
        if isinstance(placed, Refusal):
            return placed
        return msgspec.structs.replace(topic, partitions=wish.count), placed

    def _placed_more(
        self, wish: messages.CreatePartitionsTopic, topic: TopicRecord, more: int
    ) -> Placed | Refusal:
        if not wish.assignments:  # older kafka-python sends an empty list for null
            return self._placing.choose(more, topic.replicas)
        nodes = [assignment.broker_ids for assignment in wish.assignments]
        wrong = self._placing.wrong(nodes, topic.replicas)
        if len(nodes) != more:
            wrong = f"{more} partitions are to be added, but {len(nodes)} are assigned"
        if wrong is not None:
            return Refusal(errors.INVALID_REPLICA_ASSIGNMENT, wrong)
        return [tuple(one) for one in nodes]

    # -- deleting -----------------------------------------------------------------------------

    def delete(self, call: Call, decider: Decider) -> None:
        """Delete each topic with its partitions; answer when all are decided."""
        request: messages.DeleteTopicsRequest = call.body
        wished = [(wish.name, wish.topic_id) for wish in request.topics]
        wished += [(name, bytes(16)) for name in request.topic_names]
        results: list[messages.DeletableTopicResult] = []

        def decided(result: messages.DeletableTopicResult) -> None:
            results.append(result)
            if len(results) == len(wished):
                call.answer(messages.DeleteTopicsResponse(responses=results))

        if not wished:
            call.answer(messages.DeleteTopicsResponse())
        for name, topic_id in wished:
            self._delete_one(name, topic_id, decider, decided)

    def _delete_one(
        self,
        name: str | None,
        topic_id: bytes,
        decider: Decider,
        decided: Callable[[messages.DeletableTopicResult], None],
    ) -> None:
        found = self._found(name, topic_id)
        if isinstance(decider, errors.Code) or isinstance(found, errors.Code):
            code = decider if isinstance(decider, errors.Code) else found
            assert isinstance(code, errors.Code)
            decided(messages.DeletableTopicResult(name, topic_id, code.number))
            return
        topic = found
        key = records.topic_key(topic.name)

        def outcome(commit: Commit) -> None:
            gone = commit is Commit.COMMITTED or topic.topic_id not in self._image.topics_by_id
            code = errors.NONE if gone else errors.NOT_CONTROLLER
            its_id = bytes.fromhex(topic.topic_id)
            decided(messages.DeletableTopicResult(topic.name, its_id, code.number))

        keys = [records.partition_key(*partition) for partition in
                self._image.partitions_of(topic)]  # fmt: skip
        decider.write([(key, self._image.version(key))], (), outcome, (key, *keys))

    def _found(self, name: str | None, topic_id: bytes) -> TopicRecord | errors.Code:
        if name is not None and any(topic_id):
            return errors.INVALID_REQUEST
        if name is None:
            topic = self._image.topics_by_id.get(topic_id.hex())
            return errors.UNKNOWN_TOPIC_ID if topic is None else topic
        if name in INTERNAL_TOPICS:
            return errors.INVALID_TOPIC_EXCEPTION
        stored = self._image.topics.get(name)
        return errors.UNKNOWN_TOPIC_OR_PARTITION if stored is None else stored.value
