"""The third step of a record's way: a turn's batches into table and log, together or not at all.

Owns the one call of a turn into `_fastseq`, the write of its arena, and what may only be told once
a further batch is in the log. State moves with the append (rule 1): the turn enters batches in the
producer tables, the log writes them, and where the write fails the log takes table and bytes back
to the same offset, so that a retry finds neither and a duplicate of the failed batch in the same
turn is failed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from _fastseq import produce as hot
from _fastseq.answers import Answers
from _fastseq.batch import fence_batch
from _fastseq.turn import ABOVE_BOUND, FLOORED, Lane, Turn
from cluster import errors
from cluster.core.events import ClientMessage
from cluster.core.hosted import Appended, Led
from cluster.limits import PRODUCE_WAIT_MS_MAX, WIRE_ELEMENTS_MAX
from cluster.storage.disk import DiskError

Batches = Sequence[tuple[int, bytes]]
"""Entries of a turn that must be looked into, each with its number."""


class Append:
    """Appends turn after turn."""

    def __init__(
        self,
        answers: Answers,
        routes: hot.Routes,
        above_bound: Callable[[int], int],
        refused: Callable[[Batches], Iterable[tuple[int, int]]],
    ) -> None:
        """`above_bound` gives the error for a producer id that was never handed out, `refused`
        looks into a turn's compressed batches: the (number, error) of those not to append.
        """
        self._turn = hot.ProduceTurn(answers, routes)
        self._own = Turn()
        self._above_bound = above_bound
        self._refused = refused
        self.above_bound = 0
        self.storage_errors = 0

    def collect(self, messages: Sequence[ClientMessage]) -> list[ClientMessage]:
        """Begin a turn with the produce requests among these; the others."""
        return self._turn.collect(messages)

    @property
    def collected(self) -> int:
        """How many produce requests wait for `run`."""
        return self._turn.collected

    def take(
        self, now_ms: int, loses_reply: Callable[[], bool] | None
    ) -> list[tuple[bytes, str, bool]]:
        """Read what was collected; (connection, reason, whether its version is why) of each bad."""
        return self._turn.take(now_ms, PRODUCE_WAIT_MS_MAX, WIRE_ELEMENTS_MAX, loses_reply)

    def run(self, producer_id_bound: int, now_ms: int, wall_ms: int) -> list[Appended]:
        """Decide every batch taken, write what is new, and wait for or close every slot."""
        turn = self._turn
        if turn.deep:
            for number, error in self._refused(turn.compressed()):
                turn.refuse_entry(number, error)
        turn.run(producer_id_bound, wall_ms)
        terms: dict[Lane, Led] = {term.lane: term.owner for term in turn.terms}
        appended = self._write(turn, terms, now_ms)
        left = self._tell()
        for term in turn.terms:
            if term.asking:
                term.owner.confirm()
        if left:
            appended += self._answer_left(left, now_ms)
        return appended

    def controls(self, batches: Sequence[tuple[Led, bytes]], now_ms: int) -> list[Appended]:
        """Append control batches of the leaders' own (rule 4)."""
        turn = self._own
        turn.begin()
        terms: dict[Lane, Led] = {}
        for number, (led, batch) in enumerate(batches):
            terms[led.replica.log.lane] = led
            turn.add_control(led.replica.log.lane, batch, number)
        turn.run()
        return self._write(turn, terms, now_ms)

    def internal(
        self, led: Led, batch: bytes, now_ms: int, done: Callable[[int], None]
    ) -> list[Appended]:
        """Append a batch of the broker's own, without a producer (id -1); the appended run, if any.

        `done(0)` follows once it is committed, by every in-sync member as with acks=all. Another
        number is an error: too few members or a batch or disk that refuses, and then nothing was
        stored and `done` is called before this returns; or the term has ended, and the batch may
        or may not survive.
        """
        if not led.members_present:
            done(errors.NOT_ENOUGH_REPLICAS.number)
            return []
        turn = self._own
        turn.begin()
        turn.add(led.replica.log.lane, batch, 0, len(batch), 0)
        turn.run()
        appended = self._write(turn, {led.replica.log.lane: led}, now_ms)
        if appended:
            led.when_committed(turn.ends[0], done)
        else:
            done(turn.errors[0] or errors.KAFKA_STORAGE_ERROR.number)
        return appended

    def _tell(self) -> list[int]:
        """Answer, or let wait, every entry but these."""
        return self._turn.tell()

    def _answer_left(self, left: Sequence[int], now_ms: int) -> list[Appended]:
        turn, verdicts = self._turn, self._turn.verdicts
        floored = []
        for number in left:
            if verdicts[number] == ABOVE_BOUND:
                self.above_bound += 1
                turn.refuse(number, self._above_bound(turn.producer_id(number)))
            else:
                assert verdicts[number] == FLOORED
                floored.append(number)
        return self._fence(floored, now_ms) if floored else []

    def _fence(self, floored: Sequence[int], now_ms: int) -> list[Appended]:
        """What may be stored below a floor is refused for good: first the fence, then the word.

        The client answers 47 by taking new numbers, so it hears it once the fence is committed
        (rule 6); a fence that could not be written is no reason to say it.
        """
        turn = self._turn
        leds = {number: turn.term(number).owner for number in floored}
        wanted = {(id(led), turn.producer_id(number)): led for number, led in leds.items()}
        fences = [(led, fence_batch(producer_id)) for (_, producer_id), led in wanted.items()]
        appended = self.controls(fences, now_ms)
        written = {id(run.led) for run in appended}
        for number, led in leds.items():
            if id(led) in written:
                turn.refuse_once_committed(number, errors.INVALID_PRODUCER_EPOCH.number)
            else:
                turn.refuse(number, errors.KAFKA_STORAGE_ERROR.number)
        return appended

    def _write(self, turn: Turn, terms: Mapping[Lane, Led], now_ms: int) -> list[Appended]:
        arena = memoryview(turn.arena)
        appended = []
        for lane, start, end, base_offset, next_offset in turn.runs:
            led = terms[lane]
            data = arena[start:end]
            try:
                led.replica.log.append(data, base_offset, next_offset, now_ms)
            except DiskError:
                self.storage_errors += 1
                led.stir()  # the log may have failed
                continue
            appended.append(Appended(led, base_offset, next_offset, data))
        return appended
