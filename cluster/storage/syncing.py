"""Group commit: which written bytes have reached the disk.

Owns: the segments with bytes not known to be durable, the requests handed to sync workers, and the
log's generation (rule 8 of docs/protocol.md).

Invariants: `synced_end` moves only over a contiguous run of synced segments; a result of an older
generation moves nothing; a segment is pinned while bytes of it are unsynced or a request for it is
out.
"""

from __future__ import annotations

import msgspec

from cluster.storage.segment import Segment

EPOCH_FILE = -1  # stands for a segment's base where the file of leader epochs is synced


class SyncRequest(msgspec.Struct, frozen=True, gc=False):
    """One file to sync: when done, its bytes below offset `end` are durable."""

    handle: int
    segment_base: int
    generation: int
    end: int


class _Unsynced:
    """A segment with its offsets written and synced so far."""

    __slots__ = ("in_flight", "pinned", "segment", "synced", "written")

    def __init__(self, segment: Segment, next_offset: int) -> None:
        self.segment = segment
        self.synced = self.written = next_offset
        self.in_flight = self.pinned = False

    def let_go(self) -> None:
        """Nothing written waits for a sync through this file any more."""
        if self.pinned:
            self.pinned = False
            self.segment.file.unpin()


class SyncBook:
    """What is written, in flight and synced; the last entry is the active segment."""

    def __init__(self, active: Segment, next_offset: int) -> None:
        self.generation = 0
        self.synced_end = next_offset
        self._entries: list[_Unsynced] = []
        self._requested: dict[tuple[int, int], Segment] = {}
        self.add(active, next_offset)

    def add(self, segment: Segment, next_offset: int) -> None:
        """A new active segment, durable up to `next_offset`."""
        self._entries.append(_Unsynced(segment, next_offset))

    def wrote(self, next_offset: int) -> None:
        """The active segment has grown."""
        entry = self._entries[-1]
        entry.written = next_offset
        if not entry.pinned:
            entry.pinned = True
            entry.segment.file.pin()

    def requests(self, *, active: bool) -> list[SyncRequest]:
        """Requests for what is unsynced and not in flight; without `active`, of rolled ones only.

        The end of each is what is written now: later bytes need another request.
        """
        requests = []
        for entry in self._entries if active else self._entries[:-1]:
            if entry.in_flight or entry.synced == entry.written:
                continue
            entry.in_flight = True
            segment = entry.segment
            segment.file.pin()
            self._requested[segment.base_offset, self.generation] = segment
            requests.append(
                SyncRequest(segment.open(), segment.base_offset, self.generation, entry.written)
            )
        return requests

    @property
    def requested(self) -> int:
        """Requests that have not come back, of any generation."""
        return len(self._requested)

    def completed(self, segment_base: int, generation: int) -> bool:
        """A request came back, whatever its result. False if it was not one of this book."""
        segment = self._requested.pop((segment_base, generation), None)
        if segment is None:
            return False
        segment.file.unpin()
        return True

    def synced(self, segment_base: int, generation: int, end: int) -> bool:
        """A request of this segment succeeded. True if `synced_end` moved."""
        if generation != self.generation:
            return False
        for entry in self._entries:
            if entry.segment.base_offset == segment_base:
                entry.in_flight = False
                entry.synced = max(entry.synced, end)
        return self._advance()

    def sync_through(self, segment: Segment) -> None:
        """Sync the segments up to and with this one here and now, raising DiskError."""
        for entry in self._entries:
            if entry.segment.base_offset > segment.base_offset:
                break
            if entry.synced < entry.written:
                entry.segment.sync()
                entry.synced = entry.written
        self._advance()

    def restart(self, active: Segment, next_offset: int) -> None:
        """Begin a generation with everything below `next_offset` durable: the log was cut."""
        self.close()
        self.generation += 1
        self._entries.clear()
        self.add(active, next_offset)
        self.synced_end = next_offset

    def close(self) -> None:
        """Let go of every segment; those with a request out close when it comes back."""
        for entry in self._entries:
            entry.let_go()

    def _advance(self) -> bool:
        entries, before = self._entries, self.synced_end
        while len(entries) > 1 and entries[0].synced == entries[0].written:
            entries.pop(0).let_go()
        if entries[-1].synced == entries[-1].written:
            entries[-1].let_go()  # an idle log needs no file open
        self.synced_end = entries[0].synced
        return self.synced_end > before
