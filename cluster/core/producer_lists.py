"""The producers that a partition's leader remembers, for whoever asks: in pages, or one of them.

Owns the answer to DescribeProducers. Kafka's clients get the first of them; ours asks page by page
and is told of windows, idle times, memory and floors too. Walking never takes longer than a page:
what comes or goes between two pages may be missed.
"""

from __future__ import annotations

from _fastseq.table import ProducerEntry, ProducerTable
from cluster import errors
from cluster.core.calls import Call
from cluster.core.hosted import Find, Led
from cluster.limits import PRODUCERS_LISTED_MAX, PRODUCERS_PAGE, PRODUCERS_SHOWN
from cluster.wire import messages
from cluster.wire.messages import DescribeProducersPartitionResponse as Listed


class ProducerLists:
    """DescribeProducers on one broker."""

    def __init__(self, find: Find) -> None:
        """`find` gives this broker's partition of a topic."""
        self._find = find

    def describe(self, call: Call) -> messages.DescribeProducersResponse:
        """One entry for every partition that is asked about."""
        request: messages.DescribeProducersRequest = call.body
        room = PRODUCERS_LISTED_MAX
        topics = []
        for topic in request.topics:
            parts = []
            for index in topic.partition_indexes:
                part = self._listed(topic.name, index, call, room)
                room -= len(part.active_producers)
                parts.append(part)
            topics.append(messages.DescribeProducersTopicResponse(topic.name, parts))
        return messages.DescribeProducersResponse(topics=topics)

    def _listed(self, topic: str, index: int, call: Call, room: int) -> Listed:
        request: messages.DescribeProducersRequest = call.body
        partition = self._find(topic, index)
        if partition is None or partition.leader is None:
            unknown = errors.UNKNOWN_TOPIC_OR_PARTITION
            code = unknown if partition is None else errors.NOT_LEADER_OR_FOLLOWER
            return Listed(partition_index=index, error_code=code.number, error_message=code.text)
        led = partition.leader
        table = led.replica.log.table
        floors = []
        if request.producer_id >= 0:
            entry = table.get(request.producer_id)
            found, cursor = ([] if entry is None else [entry]), -1
            floor = table.floor(request.producer_id)
            if floor is not None:
                floors.append(messages.ProducerFloor(*floor[:3]))
        elif room > 0:
            cursor = max(0, request.cursor)
            page = PRODUCERS_PAGE if call.native else PRODUCERS_SHOWN
            found, cursor = table.entries_after(cursor, min(page, room))
        else:
            found, cursor = [], max(0, request.cursor)
        return Listed(
            partition_index=index,
            active_producers=[
                _whole(entry, led, table, call.now_ms) if call.native else _plain(entry)
                for entry in found
            ],
            next_cursor=cursor,
            floors=floors,
            producers=len(table),
            floor_count=table.floor_count,
            table_bytes=table.bytes,
            budget_bytes=table.budget_bytes,
            mark_id=table.mark[0],
            mark_epoch=table.mark[1],
        )


def _plain(entry: ProducerEntry) -> messages.ProducerState:
    """What Kafka tells of a producer."""
    return messages.ProducerState(
        producer_id=entry.producer_id,
        producer_epoch=entry.producer_epoch,
        last_sequence=entry.batches[-1].last_sequence if entry.batches else -1,
        last_timestamp=entry.last_timestamp,
    )


def _whole(
    entry: ProducerEntry, led: Led, table: ProducerTable, now_ms: int
) -> messages.ProducerState:
    """All that is known of it."""
    batches = [messages.RememberedBatch(*batch) for batch in entry.batches]
    last = batches[-1] if batches else None
    return messages.ProducerState(
        producer_id=entry.producer_id,
        producer_epoch=entry.producer_epoch,
        last_sequence=-1 if last is None else last.last_sequence,
        last_timestamp=entry.last_timestamp,
        batches=batches,
        idle_ms=-1 if last is None else led.sweep.times.idle_ms(last.next_offset, now_ms),
        bytes=table.entry_bytes(entry.producer_id),
        accepted=entry.accepted,
    )
