"""Leader epochs of one replica: at which offset each leader began.

Owns: the ordered list of (epoch, start offset), strictly growing in epoch and never falling in
start, and the lookups that find where two logs part (KIP-101, KIP-279). The list is kept on disk by
the log; what the file lost is found again in the headers of the batches.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from _fastseq.batch import epoch_starts
from cluster.limits import OFFSET_MAX
from cluster.storage.disk import Buffer

UNDEFINED = (-1, -1)


class Epochs:
    """Where each leader epoch begins in one log."""

    def __init__(self, entries: list[tuple[int, int]] | None = None) -> None:
        self._entries = list(entries or [])

    @property
    def entries(self) -> list[tuple[int, int]]:
        """(epoch, start offset) in order, as a copy."""
        return list(self._entries)

    @property
    def last_epoch(self) -> int:
        """The latest epoch, -1 if none was ever assigned."""
        return self._entries[-1][0] if self._entries else -1

    def assign(self, epoch: int, start_offset: int) -> bool:
        """Begin an epoch; whatever it supersedes goes. True if the list changed."""
        if epoch == self.last_epoch:
            return False
        kept = [entry for entry in self._entries if entry[0] < epoch and entry[1] < start_offset]
        self._entries = [*kept, (epoch, start_offset)]
        return True

    def observe(self, data: Buffer, start: int, end: int) -> bool:
        """Begin the epochs found in stored batches [start, end). True if the list changed."""
        starts = epoch_starts(data, start, end, self.last_epoch)
        for epoch, start_offset in starts:
            self.assign(epoch, start_offset)
        return bool(starts)

    def truncate(self, next_offset: int) -> bool:
        """Forget the epochs that begin at or after the end of the log. True if the list changed."""
        kept = bisect_left(self._entries, next_offset, key=lambda entry: entry[1])
        changed = kept < len(self._entries)
        del self._entries[kept:]
        return changed

    def epoch_at(self, offset: int) -> int:
        """The leader epoch that wrote this offset, -1 if none did."""
        after = bisect_right(self._entries, offset, key=lambda entry: entry[1])
        return self._entries[after - 1][0] if after else -1

    def start_after(self, offset: int) -> int:
        """Where the first epoch begins that begins after `offset`; OFFSET_MAX if none does."""
        after = bisect_right(self._entries, offset, key=lambda entry: entry[1])
        return self._entries[after][1] if after < len(self._entries) else OFFSET_MAX

    def end_of(self, epoch: int, next_offset: int) -> tuple[int, int]:
        """(epoch, end offset) of the newest epoch here that is not above `epoch`.

        UNDEFINED for an epoch later than any here; for one earlier than any here, the epoch asked
        for and the start of the first one known, as OffsetsForLeaderEpoch answers.
        """
        if not self._entries or epoch < 0 or epoch > self.last_epoch:
            return UNDEFINED
        if epoch == self.last_epoch:
            return epoch, next_offset
        after = bisect_right(self._entries, epoch, key=lambda entry: entry[0])
        floor = self._entries[after - 1][0] if after else epoch
        return floor, self._entries[after][1]
