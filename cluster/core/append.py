"""The third step of a record's way: a turn's batches into table and log, together or not at all.

Owns the one call of a turn into `_fastseq`, the write of its arena, and what each slot is told.
State moves with the append (rule 1): the turn enters batches in the producer tables, the log
writes them, and where the write fails the log takes table and bytes back to the same offset, so
that a retry finds neither and a duplicate of the failed batch in the same turn is failed with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from _fastseq import turn as hot
from _fastseq.batch import read_header
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
        self._tell(entries)
        return appended

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

    def _tell(self, entries: Sequence[Entry]) -> None:
        turn = self._turn
        verdicts, codes, offsets, ends = turn.verdicts, turn.errors, turn.offsets, turn.ends
        for number, entry in enumerate(entries):
            slot, error = entry.answer.slots[entry.slot], codes[number]
            if verdicts[number] == hot.ABOVE_BOUND:
                self.above_bound += 1
                error = self._above_bound(read_header(entry.batch).producer_id)
            if not error and ends[number] > entry.led.replica.log.next_offset:
                error = errors.KAFKA_STORAGE_ERROR.number
            if verdicts[number] == hot.FENCED:
                # What fences it may not be committed yet, and a client that is told takes new
                # numbers: it must not hear of a fence that the next leader may not know.
                slot.error = error
                entry.led.wait_committed(
                    entry.led.replica.log.next_offset, entry.answer, entry.slot
                )
                continue
            if error:
                entry.answer.refuse(entry.slot, error)
                continue
            slot.base_offset = offsets[number]
            slot.verdict = verdicts[number]
            if entry.answer.acks == 0:
                entry.answer.settle(entry.slot)
            else:
                entry.led.wait(ends[number], entry.answer, entry.slot)
