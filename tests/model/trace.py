"""Replays what a run of the real code did to one partition against the guarantees.

The simulator calls `TraceChecker.observe` with each event, in the order in which things happened,
and gets a `TraceError` naming the guarantee the moment one is broken. The checker keeps every
replica's log and the longest log ever called committed, as the model does (invariants.py).
Offsets are half-open; sequences wrap at 2**31. Each observation costs what it adds.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import assert_never

SEQUENCES = 2**31


class TraceError(AssertionError):
    """A trace that the model does not allow; the message begins with the guarantee."""


@dataclass(frozen=True, slots=True)
class Append:
    """A replica's log and table grew by one batch, whether as leader or as follower."""

    replica: int
    epoch: int  # the leader epoch stamped into the batch
    base_offset: int
    next_offset: int
    content: Hashable  # what the user wrote, whatever number it travels under
    producer: tuple[int, int] | None = None  # (id, epoch); None without one, control batches too
    base_sequence: int = -1


@dataclass(frozen=True, slots=True)
class Truncate:
    """A replica's log was cut, by its leader, by recovery or with its disk."""

    replica: int
    offset: int


@dataclass(frozen=True, slots=True)
class Elect:
    """The store names a leader. `unclean` is the operator's word that data may go."""

    replica: int
    epoch: int
    unclean: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """A leader moved its high watermark."""

    replica: int
    epoch: int
    high_watermark: int


@dataclass(frozen=True, slots=True)
class Ack:
    """A producer was told that a batch is stored; offset -1 where it is no longer known."""

    content: Hashable
    base_offset: int
    duplicate: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """An application was told that a batch is not stored, for good."""

    content: Hashable


@dataclass(frozen=True, slots=True)
class Digest:
    """A replica's producer table, as a number, at an offset its log has."""

    replica: int
    next_offset: int
    digest: int


Event = Append | Truncate | Elect | Commit | Ack | Refuse | Digest


@dataclass(frozen=True, slots=True)
class _Batch:
    append: Append
    sequence_before: int  # what its producer was expected to send
    chain: int  # of the log up to and with this batch

    @property
    def place(self) -> tuple[int, int, int, Hashable]:
        a = self.append
        return a.epoch, a.base_offset, a.next_offset, a.content


@dataclass(slots=True)
class _Replica:
    log: list[_Batch] = field(default_factory=list)
    held: dict[Hashable, int] = field(default_factory=dict)  # content -> base offset
    expected: dict[tuple[int, int], int] = field(default_factory=dict)
    agreed: int = 0  # batches known to be equal to the committed ones

    @property
    def end(self) -> int:
        return self.log[-1].append.next_offset if self.log else 0


class TraceChecker:
    """One partition's history. `committed_end` is how far consumers may have read."""

    def __init__(self) -> None:
        self._replicas: dict[int, _Replica] = {}
        self._committed: list[_Batch] = []
        self._committed_at: dict[Hashable, int] = {}
        self._terms: dict[int, int] = {}  # epoch -> leader
        self._watermarks: dict[int, int] = {}  # epoch -> high watermark
        self._refused: set[Hashable] = set()
        self._digests: dict[tuple[int, int], int] = {}
        self.given_up = 0  # committed batches lost to unclean elections

    @property
    def committed_end(self) -> int:
        """One past the last offset that any leader called committed."""
        return self._committed[-1].append.next_offset if self._committed else 0

    def observe(self, event: Event) -> None:
        """Take one event in; raises TraceError if it breaks a guarantee."""
        match event:
            case Append():
                self._append(event)
            case Truncate():
                self._truncate(event)
            case Elect():
                self._elect(event)
            case Commit():
                self._commit(event)
            case Ack():
                self._ack(event)
            case Refuse():
                self._refuse(event)
            case Digest():
                self._digest(event)
            case _ as never:
                assert_never(never)

    def _append(self, event: Append) -> None:
        replica = self._replicas.setdefault(event.replica, _Replica())
        if event.base_offset != replica.end:
            raise TraceError(f"{event} does not continue the log, which ends at {replica.end}")
        if event.content in self._refused:
            raise TraceError(f'G6: {event} was told "not stored"')
        before = 0
        if event.producer is not None:
            if event.content in replica.held:
                raise TraceError(f"G1, G3: {event} is at {replica.held[event.content]} already")
            before = replica.expected.get(event.producer, 0)
            if event.base_sequence != before:
                raise TraceError(f"G2: {event}, the sequence expected was {before}")
            count = event.next_offset - event.base_offset
            replica.expected[event.producer] = (before + count) % SEQUENCES
            replica.held[event.content] = event.base_offset
        chain = replica.log[-1].chain if replica.log else 0
        chain = hash((chain, event.epoch, event.next_offset, event.content))
        replica.log.append(_Batch(event, before, chain))

    def _truncate(self, event: Truncate) -> None:
        replica = self._replicas.setdefault(event.replica, _Replica())
        while replica.end > event.offset:
            batch = replica.log.pop()
            producer = batch.append.producer
            if producer is not None:
                del replica.held[batch.append.content]
                replica.expected[producer] = batch.sequence_before
        replica.agreed = min(replica.agreed, len(replica.log))

    def _elect(self, event: Elect) -> None:
        if self._terms and event.epoch <= max(self._terms):
            raise TraceError(f"rule 11: {event}, but epoch {max(self._terms)} was given before")
        self._terms[event.epoch] = event.replica
        replica = self._replicas.setdefault(event.replica, _Replica())
        self._agree(replica)
        if replica.agreed == len(self._committed):
            return
        if not event.unclean:
            raise TraceError(
                f"G1, G4: {event} without {self._committed[replica.agreed].append}, "
                f"{self.committed_end} was committed"
            )
        for batch in self._committed[replica.agreed :]:
            self._committed_at.pop(batch.append.content, None)
        self.given_up += len(self._committed) - replica.agreed
        del self._committed[replica.agreed :]
        for other in self._replicas.values():
            other.agreed = min(other.agreed, len(self._committed))

    def _agree(self, replica: _Replica) -> None:
        """Compare with the committed log as far as both go."""
        while replica.agreed < min(len(replica.log), len(self._committed)):
            if replica.log[replica.agreed].place != self._committed[replica.agreed].place:
                return
            replica.agreed += 1

    def _commit(self, event: Commit) -> None:
        replica = self._replicas.setdefault(event.replica, _Replica())
        if self._terms.get(event.epoch) != event.replica:
            raise TraceError(f"rule 9: {event}, but that epoch is another's")
        if event.high_watermark < self._watermarks.get(event.epoch, 0):
            raise TraceError(f"G4: {event} moves back from {self._watermarks[event.epoch]}")
        if event.high_watermark > replica.end:
            raise TraceError(f"G4: {event} is beyond the log, which ends at {replica.end}")
        self._watermarks[event.epoch] = event.high_watermark
        self._agree(replica)
        while self.committed_end < event.high_watermark and self._agrees(replica):
            batch = replica.log[replica.agreed]
            self._committed.append(batch)
            self._committed_at[batch.append.content] = batch.append.base_offset
            replica.agreed += 1
        reached = replica.log[replica.agreed - 1].append.next_offset if replica.agreed else 0
        if reached < event.high_watermark:
            raise TraceError(f"G1, G4: {event}, but another log was committed from {reached} on")

    def _agrees(self, replica: _Replica) -> bool:
        return replica.agreed == len(self._committed)

    def _ack(self, event: Ack) -> None:
        offset = self._committed_at.get(event.content)
        if offset is None:
            raise TraceError(f"{'G7' if event.duplicate else 'G1, G6'}: {event} is not committed")
        if event.base_offset not in (-1, offset):
            raise TraceError(f"G6: {event} is at {offset}")

    def _refuse(self, event: Refuse) -> None:
        self._refused.add(event.content)
        for number, replica in self._replicas.items():
            if event.content in replica.held:
                raise TraceError(f"G6: {event}, but replica {number} holds it")

    def _digest(self, event: Digest) -> None:
        replica = self._replicas.setdefault(event.replica, _Replica())
        chain = 0
        for batch in reversed(replica.log):
            if batch.append.next_offset <= event.next_offset:
                chain = batch.chain
                break
        known = self._digests.setdefault((event.next_offset, chain), event.digest)
        if known != event.digest:
            raise TraceError(f"G5: {event}, another replica with the same log has {known}")
