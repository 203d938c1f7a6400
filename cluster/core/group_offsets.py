"""Offsets that groups commit: who may commit them, what is stored, what is answered.

Owns the service of OffsetCommit, OffsetFetch and OffsetDelete. A commit is answered once it is
committed by every in-sync replica; a fetch answers what is committed and nothing that is on its
way. An error of the whole group is told for each partition, as clients expect.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

from cluster import errors
from cluster.core.calls import Call
from cluster.core.group_shard import Place, Shard
from cluster.core.group_state import State
from cluster.core.groups import Groups
from cluster.core.image import Image
from cluster.core.subscriptions import topics_read
from cluster.limits import COMMITTED_OFFSETS_MAX
from cluster.wire import messages
from cluster.wire.group_records import OffsetValue
from cluster.wire.schema import Message

Codes = dict[Place, errors.Code]


class GroupOffsets:
    """Committed offsets of the groups coordinated here."""

    def __init__(self, image: Image, groups: Groups) -> None:
        """`groups` knows where a group is."""
        self._image = image
        self._groups = groups

    def register(self, register: Callable[..., None]) -> None:
        """Serve what consumers ask about offsets."""
        register(messages.OffsetCommitRequest, self._commit)
        register(messages.OffsetFetchRequest, self._fetch)
        register(messages.OffsetDeleteRequest, self._delete)

    # -- committing ---------------------------------------------------------------------------

    def _commit(self, call: Call) -> Message | None:
        request: messages.OffsetCommitRequest = call.body
        shard = self._groups.shard_of(request.group_id, call.now_ms)
        code = shard if isinstance(shard, errors.Code) else self._may_commit(shard, call)
        if isinstance(shard, errors.Code) or code is not errors.NONE:
            return _committed(request, dict.fromkeys(_places(request), code))
        values, codes = self._checked(shard, request, call.now_ms)
        if not values:
            return _committed(request, codes)

        def told(code: errors.Code) -> None:
            ended = dict.fromkeys(values, code)
            call.answer(_committed(request, codes | ended))

        shard.commit(request.group_id, values, told)
        return None

    def _may_commit(self, shard: Shard, call: Call) -> errors.Code:
        request: messages.OffsetCommitRequest = call.body
        generation = request.generation_id_or_member_epoch
        group = shard.groups.get(request.group_id)
        if group is None:
            return errors.NONE if generation < 0 else errors.ILLEGAL_GENERATION
        code = group.may_commit(
            request.member_id, request.group_instance_id, generation, call.now_ms
        )
        self._groups.watch(shard, group)
        return code

    def _checked(
        self, shard: Shard, request: messages.OffsetCommitRequest, now_ms: int
    ) -> tuple[dict[Place, OffsetValue | None], Codes]:
        """What is to be stored, and what cannot be."""
        values: dict[Place, OffsetValue | None] = {}
        codes: Codes = {}
        longest = self._groups.settings.offset_metadata_max_bytes
        full = self._groups.offset_count >= COMMITTED_OFFSETS_MAX
        kept = shard.offsets.get(request.group_id, {})
        wall_ms = self._groups.wall_ms(now_ms)
        for topic in request.topics:
            for part in topic.partitions:
                place = (topic.name, part.partition_index)
                metadata = part.committed_metadata or ""
                if not self._exists(place):
                    codes[place] = errors.UNKNOWN_TOPIC_OR_PARTITION
                elif len(metadata.encode()) > longest:
                    codes[place] = errors.OFFSET_METADATA_TOO_LARGE
                elif full and place not in kept:
                    codes[place] = errors.INVALID_COMMIT_OFFSET_SIZE
                else:
                    values[place] = OffsetValue(
                        offset=part.committed_offset,
                        leader_epoch=part.committed_leader_epoch,
                        metadata=metadata,
                        commit_timestamp=wall_ms,
                    )
        return values, codes

    def _exists(self, place: Place) -> bool:
        topic = self._image.topics.get(place[0])
        return topic is not None and 0 <= place[1] < topic.value.partitions

    # -- fetching -----------------------------------------------------------------------------

    def _fetch(self, call: Call) -> Message:
        request: messages.OffsetFetchRequest = call.body
        if call.header.api_version >= 8:
            return messages.OffsetFetchResponse(
                groups=[self._fetch_one(one, call) for one in request.groups]
            )
        asked = messages.OffsetFetchRequestGroup(group_id=request.group_id, topics=request.topics)
        found = self._fetch_one(asked, call)
        topics = found.topics
        if found.error_code and call.header.api_version < 2:
            topics = _failed(request.topics or (), found.error_code)
        return messages.OffsetFetchResponse(topics=topics, error_code=found.error_code)

    def _fetch_one(
        self, asked: messages.OffsetFetchRequestGroup, call: Call
    ) -> messages.OffsetFetchResponseGroup:
        shard = self._groups.shard_of(asked.group_id, call.now_ms)
        if isinstance(shard, errors.Code):
            return messages.OffsetFetchResponseGroup(
                group_id=asked.group_id, error_code=shard.number
            )
        kept = shard.offsets.get(asked.group_id, {})
        wanted: Iterable[tuple[str, Iterable[int]]]
        if asked.topics is None:
            by_topic: dict[str, list[int]] = {}
            for topic, index in sorted(kept):
                by_topic.setdefault(topic, []).append(index)
            wanted = by_topic.items()
        else:
            wanted = [(topic.name, topic.partition_indexes) for topic in asked.topics]
        return messages.OffsetFetchResponseGroup(
            group_id=asked.group_id,
            topics=[
                messages.OffsetFetchResponseTopic(
                    name=name, partitions=[_found(kept.get((name, i)), i) for i in indexes]
                )
                for name, indexes in wanted
            ],
        )

    # -- deleting -----------------------------------------------------------------------------

    def _delete(self, call: Call) -> Message | None:
        request: messages.OffsetDeleteRequest = call.body
        shard = self._groups.shard_of(request.group_id, call.now_ms)
        if isinstance(shard, errors.Code):
            return messages.OffsetDeleteResponse(error_code=shard.number)
        group = shard.groups.get(request.group_id)
        if group is None or group.state is State.DEAD:
            return messages.OffsetDeleteResponse(error_code=errors.GROUP_ID_NOT_FOUND.number)
        read = set[str]()
        if group.state is not State.EMPTY:
            subscribed = topics_read(group)
            if subscribed is None:
                return messages.OffsetDeleteResponse(error_code=errors.NON_EMPTY_GROUP.number)
            read = subscribed
        codes: Codes = {}
        for topic in request.topics:
            for part in topic.partitions:
                place = (topic.name, part.partition_index)
                codes[place] = self._deletable(place, read)
        gone = [place for place, code in codes.items() if code is errors.NONE]
        kept = shard.offsets.get(request.group_id, {})
        told = partial(self._deleted, call, codes, gone)
        stored = [place for place in gone if place in kept]
        if stored:
            shard.commit(request.group_id, dict.fromkeys(stored), told)
        else:
            told(errors.NONE)
        return None

    def _deletable(self, place: Place, read: set[str]) -> errors.Code:
        if not self._exists(place):
            return errors.UNKNOWN_TOPIC_OR_PARTITION
        return errors.GROUP_SUBSCRIBED_TO_TOPIC if place[0] in read else errors.NONE

    def _deleted(
        self, call: Call, codes: Codes, gone: Sequence[Place], code: errors.Code
    ) -> None:  # fmt: skip
        request: messages.OffsetDeleteRequest = call.body
        ended = codes | dict.fromkeys(gone, code)
        call.answer(
            messages.OffsetDeleteResponse(
                topics=[
                    messages.OffsetDeleteResponseTopic(
                        name=topic.name,
                        partitions=[
                            messages.OffsetDeleteResponsePartition(
                                partition_index=part.partition_index,
                                error_code=ended[topic.name, part.partition_index].number,
                            )
                            for part in topic.partitions
                        ],
                    )
                    for topic in request.topics
                ]
            )
        )


def _places(request: messages.OffsetCommitRequest) -> list[Place]:
    return [(topic.name, part.partition_index) for topic in request.topics
            for part in topic.partitions]  # fmt: skip


def _committed(
    request: messages.OffsetCommitRequest, codes: Codes
) -> messages.OffsetCommitResponse:
    return messages.OffsetCommitResponse(
        topics=[
            messages.OffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    messages.OffsetCommitResponsePartition(
                        partition_index=part.partition_index,
                        error_code=codes[topic.name, part.partition_index].number,
                    )
                    for part in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _found(value: OffsetValue | None, index: int) -> messages.OffsetFetchResponsePartition:
    if value is None:
        return messages.OffsetFetchResponsePartition(
            partition_index=index, committed_offset=-1, metadata=""
        )
    return messages.OffsetFetchResponsePartition(
        partition_index=index,
        committed_offset=value.offset,
        committed_leader_epoch=value.leader_epoch,
        metadata=value.metadata,
    )


def _failed(
    topics: Iterable[messages.OffsetFetchRequestTopic], error: int
) -> list[messages.OffsetFetchResponseTopic]:
    """Version 1 tells an error of the group for each partition."""
    return [
        messages.OffsetFetchResponseTopic(
            name=topic.name,
            partitions=[
                messages.OffsetFetchResponsePartition(
                    partition_index=index, committed_offset=-1, metadata="", error_code=error
                )
                for index in topic.partition_indexes
            ],
        )
        for topic in topics
    ]
