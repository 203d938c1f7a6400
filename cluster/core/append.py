"""The third step of a record's way: a turn's batches into table and log, together or not at all.

Owns the one call of a turn into `_fastseq`, the write of its arena, and what each slot is told.
State moves with the append (rule 1): the turn enters batches in the producer tables, the log
writes them, and where the write fails the log takes table and bytes back to the same offset, so
that a retry finds neither and a duplicate of the failed batch in the same turn is failed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from _fastseq import turn as hot
from _fastseq.batch import fence_batch, read_header
from cluster import errors
from cluster.core.hosted import Appended, Entry, Led
from cluster.storage.disk import DiskError


class Append:
    """Appends turn after turn."""

    def __init__(self, above_bound: Callable[[int], int]) -> None:
        """`above_bound` gives the error for a producer id that was never handed out."""
        self._turn = hot.Turn()
        self._above_bound = above_bound
        self.above_bound = 0
        self.storage_errors = 0

    def run(self, entries: Sequence[Entry], producer_id_bound: int, now_ms: int) -> list[Appended]:
        """Decide every entry, write what is new, and wait for or close every slot."""
        turn = self._turn
        turn.begin()
        terms: dict[hot.Lane, Led] = {}
        for number, entry in enumerate(entries):
            lane = entry.led.replica.log.lane
            terms[lane] = entry.led
            turn.add(
                lane, entry.batch, 0, len(entry.batch), number,
                native=entry.native, refuse_new=entry.refuse_new,
            )  # fmt: skip
        turn.run(producer_id_bound)
        appended = self._write(terms, now_ms)
        floored = self._tell(entries)
        if floored:
            appended += self._fence(floored, now_ms)
        return appended

    def controls(self, batches: Sequence[tuple[Led, bytes]], now_ms: int) -> list[Appended]:
        """Append control batches of the leaders' own (rule 4)."""
        turn = self._turn
        turn.begin()
        terms: dict[hot.Lane, Led] = {}
        for number, (led, batch) in enumerate(batches):
            terms[led.replica.log.lane] = led
            turn.add_control(led.replica.log.lane, batch, number)
        turn.run()
        return self._write(terms, now_ms)

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
        turn = self._turn
        turn.begin()
        turn.add(led.replica.log.lane, batch, 0, len(batch), 0)
        turn.run()
        appended = self._write({led.replica.log.lane: led}, now_ms)
        if appended:
            led.when_committed(turn.ends[0], done)
        else:
            done(turn.errors[0] or errors.KAFKA_STORAGE_ERROR.number)
        return appended

    def _fence(self, floored: Sequence[Entry], now_ms: int) -> list[Appended]:
        """What may be stored below a floor is refused for good: first the fence, then the word.

        The client answers 47 by taking new numbers, so it hears it once the fence is committed
        (rule 6); a fence that could not be written is no reason to say it.
        """
        wanted = {
            (id(entry.led), read_header(entry.batch).producer_id): entry.led for entry in floored
        }
        fences = [(led, fence_batch(producer_id)) for (_, producer_id), led in wanted.items()]
        appended = self.controls(fences, now_ms)
        written = {id(run.led) for run in appended}
        for entry in floored:
            if id(entry.led) not in written:
                entry.answer.refuse(entry.slot, errors.KAFKA_STORAGE_ERROR.number)
                continue
            self._refuse_once_committed(entry, errors.INVALID_PRODUCER_EPOCH.number)
        return appended

    def _refuse_once_committed(self, entry: Entry, error: int) -> None:
        """What an answer rests on may not be committed yet, and a client that is told takes new
        numbers: it must not hear of a fence that the next leader may not know.
        """
        entry.answer.slots[entry.slot].error = error
        end = entry.led.replica.log.next_offset
        entry.led.wait_committed(end, entry.answer, entry.slot)

    def _write(self, terms: dict[hot.Lane, Led], now_ms: int) -> list[Appended]:
        arena = memoryview(self._turn.arena)
        appended = []
        for lane, start, end, base_offset, next_offset in self._turn.runs:
            led = terms[lane]
            data = arena[start:end]
            try:
                led.replica.log.append(data, base_offset, next_offset, now_ms)
            except DiskError:
                self.storage_errors += 1
                continue
            appended.append(Appended(led, base_offset, next_offset, data))
        return appended

    def _tell(self, entries: Sequence[Entry]) -> list[Entry]:
        """Answer, or let wait, every entry but those that a fence must precede: these."""
        turn, floored = self._turn, []
        verdicts, codes, offsets, ends = turn.verdicts, turn.errors, turn.offsets, turn.ends
        for number, entry in enumerate(entries):
            slot, error = entry.answer.slots[entry.slot], codes[number]
            if verdicts[number] == hot.ABOVE_BOUND:
                self.above_bound += 1
                error = self._above_bound(read_header(entry.batch).producer_id)
            if not error and ends[number] > entry.led.replica.log.next_offset:
                error = errors.KAFKA_STORAGE_ERROR.number
            if verdicts[number] == hot.FLOORED:
                floored.append(entry)
            elif verdicts[number] == hot.FENCED:
                self._refuse_once_committed(entry, error)
            elif error:
                entry.answer.refuse(entry.slot, error)
            else:
                slot.base_offset = offsets[number]
                slot.verdict = verdicts[number]
                if entry.answer.acks == 0:
                    entry.answer.settle(entry.slot)
                else:
                    entry.led.wait(ends[number], entry.answer, entry.slot)
        return floored
