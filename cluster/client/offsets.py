"""Offsets by time, asked of the leaders of their partitions.

Owns the rounds of asking: partitions are grouped by leader, and those whose leader had moved are
asked again after fresh metadata, until all are answered or patience ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from cluster.client.metadata import NO_LEADER
from cluster.client.session import Session
from cluster.errors import LEADER_NOT_AVAILABLE, BrokerUnavailable, RequestError, code
from cluster.limits import CLIENT_REQUEST_MS
from cluster.wire.apis import LIST_OFFSETS
from cluster.wire.messages import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)

TopicPartition = tuple[str, int]

BEGIN = -2
"""The timestamp that stands for the first offset kept."""
END = -1
"""The timestamp that stands for the high watermark."""


async def list_offsets(
    session: Session, timestamps: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The first offset at or after each timestamp (ms), -1 where there is none.

    Raises RequestError or BrokerUnavailable when a partition cannot be asked within the patience.
    """
    session.track(topic for topic, _ in timestamps)
    found: dict[TopicPartition, int] = {}
    deadline = session.deadline()
    while True:
        missing = {where: at for where, at in timestamps.items() if where not in found}
        if not missing:
            return found
        failure = await _round(session, missing, found)
        if failure is None:
            continue
        await session.pause(deadline, failure)
        await session.refresh()


async def _round(
    session: Session, missing: Mapping[TopicPartition, int], found: dict[TopicPartition, int]
) -> RequestError | BrokerUnavailable | None:
    """Asks every leader once; why some partition is still missing."""
    by_node: dict[int, list[TopicPartition]] = {}
    for where in missing:
        by_node.setdefault(session.metadata.leader(*where), []).append(where)
    failure: RequestError | BrokerUnavailable | None = None
    for where in by_node.pop(NO_LEADER, ()):
        number = session.metadata.errors.get(where[0], LEADER_NOT_AVAILABLE.number)
        failure = RequestError(code(number), f"{where[0]}-{where[1]}")
    answers = await asyncio.gather(
        *(_ask(session, node, {where: missing[where] for where in wheres})
          for node, wheres in by_node.items()),
        return_exceptions=True,
    )  # fmt: skip
    for answer in answers:
        if isinstance(answer, BrokerUnavailable):
            failure = answer
        elif isinstance(answer, BaseException):
            raise answer
        else:
            failure = _collect(answer, found) or failure
    return failure


async def _ask(
    session: Session, node: int, timestamps: Mapping[TopicPartition, int]
) -> ListOffsetsResponse:
    topics: dict[str, list[ListOffsetsPartition]] = {}
    for (topic, partition), timestamp in timestamps.items():
        epoch = session.metadata.leader_epoch(topic, partition)
        topics.setdefault(topic, []).append(
            ListOffsetsPartition(
                partition_index=partition, current_leader_epoch=epoch, timestamp=timestamp
            )
        )
    body = ListOffsetsRequest(
        replica_id=-1,
        topics=[ListOffsetsTopic(name=name, partitions=asked) for name, asked in topics.items()],
    )
    timeout_ms = min(session.patience_ms, CLIENT_REQUEST_MS)
    return await session.ask_node(
        node, LIST_OFFSETS, body, ListOffsetsResponse, timeout_ms=timeout_ms
    )


def _collect(answer: ListOffsetsResponse, found: dict[TopicPartition, int]) -> RequestError | None:
    failure = None
    for topic in answer.topics:
        for partition in topic.partitions:
            if partition.error_code == 0:
                found[topic.name, partition.partition_index] = partition.offset
                continue
            error = code(partition.error_code)
            failure = RequestError(error, f"{topic.name}-{partition.partition_index}")
            if not error.retriable:
                raise failure
    return failure


def at(partitions: Iterable[TopicPartition], timestamp: int) -> dict[TopicPartition, int]:
    """The same timestamp for all of them."""
    return dict.fromkeys(partitions, timestamp)
