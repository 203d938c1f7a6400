"""A produce request that is being answered: one slot per partition, sent when all are decided.

Owns what is known of each slot. A slot is open, settled (its verdict stands) or refused (an
error replaces it). A late settlement of a slot that was already refused, by its time-out or by
the end of the term, changes nothing: the client was told "possibly stored" and that is true.
"""

from __future__ import annotations

import msgspec

from cluster.wire import codec, messages
from cluster.wire.produced import encode_produced


class Slot(msgspec.Struct, gc=False):
    """One partition of a produce request."""

    topic: str
    partition: int
    error: int = 0
    base_offset: int = -1
    verdict: int = 0
    start_offset: int = -1
    open: bool = True

    def response(self) -> messages.PartitionProduceResponse:
        """What the client is told of this partition."""
        return messages.PartitionProduceResponse(
            index=self.partition,
            error_code=self.error,
            base_offset=self.base_offset,
            log_append_time_ms=-1,
            log_start_offset=self.start_offset,
            verdict=self.verdict,
        )


class ProduceAnswer(msgspec.Struct, gc=False):
    """One produce request of one connection, until its reply leaves."""

    connection: bytes
    correlation_id: int
    version: int
    acks: int
    deadline_ms: int
    slots: list[Slot] = msgspec.field(default_factory=list)
    waiting: int = 0
    faulty: bool = False
    """A fault was ordered: if everything was stored, the reply is lost."""
    sent: bool = False
    native: bool = True
    """The carrier is not bound to answer in order, so nothing at all may be answered."""

    def add(self, topic: str, partition: int) -> int:
        """A slot for one partition; its number."""
        self.slots.append(Slot(topic, partition))
        self.waiting += 1
        return len(self.slots) - 1

    def settle(self, slot: int) -> bool:
        """The slot's verdict stands. True when that completed the answer."""
        return self._close(slot)

    def refuse(self, slot: int, error: int) -> bool:
        """The slot ends with `error`, its base offset kept if it has one. True when complete."""
        if self.slots[slot].open:
            self.slots[slot].error = error
            self.slots[slot].verdict = 0
        return self._close(slot)

    def expire(self, error: int) -> bool:
        """Every open slot ends with `error`. True when that completed the answer."""
        complete = False
        for number, slot in enumerate(self.slots):
            if slot.open:
                complete = self.refuse(number, error)
        return complete

    @property
    def stored(self) -> bool:
        """Whether no partition was refused."""
        return all(slot.error == 0 for slot in self.slots)

    def encode(self) -> bytes:
        """The response frame."""
        if len(self.slots) == 1:
            (slot,) = self.slots
            return encode_produced(self.version, self.correlation_id, slot.topic, slot.response())
        by_topic: dict[str, list[messages.PartitionProduceResponse]] = {}
        for slot in self.slots:
            by_topic.setdefault(slot.topic, []).append(slot.response())
        body = messages.ProduceResponse(
            responses=[
                messages.TopicProduceResponse(name=name, partition_responses=parts)
                for name, parts in by_topic.items()
            ]
        )
        return codec.encode_response(0, self.version, self.correlation_id, body)

    def _close(self, slot: int) -> bool:
        if not self.slots[slot].open:
            return False
        self.slots[slot].open = False
        self.waiting -= 1
        return self.waiting == 0
