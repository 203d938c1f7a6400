"""Replays what a run does to each partition through the checker of the protocol's model.

Owns the translation: what was seen of the real code becomes the model's events, in the order in
which it happened. What a batch says, not the number it travels under, is its content.
"""

from __future__ import annotations

from cluster.core.leader import Leader
from cluster.core.records import PartitionRecord
from cluster.errors import Outcome
from tests.model.trace import (
    Ack,
    Append,
    Commit,
    Digest,
    Elect,
    Event,
    Refuse,
    TraceChecker,
    TraceError,
    Truncate,
)
from tests.sim.checkers import Answer, At, Checker, Violation, content_of
from tests.sim.committed import Stored, bytes_between
from tests.sim.store import Session

Content = tuple[str, int]


class AllowedByTheModel(Checker):
    """G1 to G7 as the model states them: the trace of every partition is one that it allows."""

    def __init__(self) -> None:
        self._models: dict[int, TraceChecker] = {}
        self._contents: dict[Stored, Content] = {}
        """By the batch without its place, so that each is read once."""

    def _observe(self, number: int, event: Event) -> None:
        model = self._models.setdefault(number, TraceChecker())
        try:
            model.observe(event)
        except TraceError as error:
            raise Violation(f"partition {number}, by the model: {error}") from None

    # -- logs ---------------------------------------------------------------------------------

    def opened(self, at: At, dropped: list[Stored]) -> None:
        self._dropped(at, dropped)

    def cut(self, at: At, dropped: list[Stored]) -> None:
        self._dropped(at, dropped)

    def _dropped(self, at: At, dropped: list[Stored]) -> None:
        if dropped:
            self._observe(at.number, Truncate(at.node_id, dropped[0].base_offset))

    def grown(self, at: At, added: list[Stored]) -> None:
        for batch in added:
            self._observe(at.number, self._appended(at, batch))
        if not at.log.failed:
            end = at.log.next_offset
            self._observe(at.number, Digest(at.node_id, end, at.log.table.digest))

    def _appended(self, at: At, batch: Stored) -> Append:
        count = batch.next_offset - batch.base_offset
        sent = batch._replace(base_offset=0, next_offset=count, leader_epoch=-1)
        content = self._contents.get(sent)
        if content is None:
            data = bytes_between(at.log, batch.base_offset, batch.next_offset)
            content = self._contents[sent] = content_of(data)
        numbered = batch.producer_id >= 0
        return Append(
            at.node_id,
            batch.leader_epoch,
            batch.base_offset,
            batch.next_offset,
            content,
            (batch.producer_id, batch.producer_epoch) if numbered else None,
            batch.base_sequence,
        )

    # -- leaders and answers ------------------------------------------------------------------

    def wrote(
        self, writer: Session, number: int, before: PartitionRecord | None, after: PartitionRecord
    ) -> None:
        if after.leader >= 0 and (before is None or before.leader_epoch != after.leader_epoch):
            self._observe(number, Elect(after.leader, after.leader_epoch))

    def watermark(self, at: At, before: int, leader: Leader | None) -> None:
        if leader is not None:
            self._observe(at.number, Commit(at.node_id, leader.epoch, at.high_watermark))

    def answered(self, answer: Answer) -> None:
        # A producer without numbers may store a batch twice, and is told of either place.
        if answer.acks == -1 and answer.sent.producer_id >= 0:
            said = Ack(content_of(answer.batch), answer.base_offset, answer.duplicate)
            self._observe(answer.at.number, said)

    def resolved(self, number: int, outcome: Outcome, content: Content) -> None:
        if outcome is Outcome.NOT_STORED:
            self._observe(number, Refuse(content))
