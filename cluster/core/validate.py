"""The second step of a record's way: may this request be served here at all?

Owns the checks that come before a batch is looked at: acks, topic, leader, and whether enough
in-sync members are present. Whatever passes becomes an entry of the turn; the batch itself, and
whether it is a retry, is `_fastseq`'s to say. A retry of something stored is answered even while
new writes are refused, so the lack of members is told to the turn and not checked before it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container

from cluster import errors
from cluster.core.answer import ProduceAnswer
from cluster.core.hosted import Entry, Find, Led
from cluster.wire import messages

ACKS_ALL, ACKS_LEADER, ACKS_NONE = -1, 1, 0


def entries_of(
    request: messages.ProduceRequest, answer: ProduceAnswer, find: Find, *, native: bool
) -> list[Entry]:
    """The batches of a request to decide; every other slot of the answer is closed with why."""
    entries: list[Entry] = []
    repeated = _named_more_than_once(request)
    for topic in request.topic_data:
        for part in topic.partition_data:
            slot = answer.add(topic.name, part.index)
            found = _checked(request, topic.name, part, find)
            if (topic.name, part.index) in repeated:
                found = errors.INVALID_RECORD
            if isinstance(found, errors.Code):
                answer.refuse(slot, found.number)
                continue
            short = request.acks == ACKS_ALL and not found.members_present
            refuse = errors.NOT_ENOUGH_REPLICAS.number if short else 0
            answer.slots[slot].start_offset = found.replica.log.start_offset
            batch = b"" if part.records is None else part.records
            entries.append(Entry(found, batch, answer, slot, refuse, native))
    return entries


def _named_more_than_once(request: messages.ProduceRequest) -> Container[tuple[str, int]]:
    """Partitions with more than one batch: which of them would be answered first is not said."""
    if len(request.topic_data) == 1 and len(request.topic_data[0].partition_data) == 1:
        return ()
    named = [(topic.name, part.index) for topic in request.topic_data
             for part in topic.partition_data]  # fmt: skip
    if len(named) == len(set(named)):
        return ()
    return {where for where, times in Counter(named).items() if times > 1}


def _checked(
    request: messages.ProduceRequest,
    topic: str,
    part: messages.PartitionProduceData,
    find: Find,
) -> Led | errors.Code:
    if request.acks not in (ACKS_ALL, ACKS_LEADER, ACKS_NONE):
        return errors.INVALID_REQUIRED_ACKS
    if request.transactional_id is not None:
        return errors.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    partition = find(topic, part.index)
    if partition is None:
        return errors.UNKNOWN_TOPIC_OR_PARTITION
    return errors.NOT_LEADER_OR_FOLLOWER if partition.leader is None else partition.leader
