"""The file of a log's leader epochs, written behind what is in memory.

Owns: `leader-epoch-checkpoint`. An epoch that was written in is in the file a little later, by way
of the sync workers: the batches say it too, so a file that lags is caught up with from their
headers when the log is opened. One without a record says nothing of how far a log reaches, and
waits for its first: then a thousand idle partitions that change their leader have no file to write,
and none to write again when what nobody wrote in is taken back.

What was taken back must not be read again, when an epoch that was never written in could hide
another: if the file may show it, a cut is in the file, durably, before anything follows it.

Invariant: the file holds the epochs of the last cut or later ones, never those of before it.
"""

from __future__ import annotations

from contextlib import suppress

from cluster.limits import OFFSET_MAX
from cluster.storage.checkpoint import format_epochs
from cluster.storage.disk import Disk, DiskError, replace_file
from cluster.storage.epochs import Epochs
from cluster.storage.names import EPOCHS
from cluster.storage.syncing import EPOCH_FILE, SyncRequest

Entries = list[tuple[int, int]]


class EpochFile:
    """One replica's file of leader epochs."""

    def __init__(self, disk: Disk, directory: str, entries: Entries | None) -> None:
        """`entries` is what the file holds, None if that is not known."""
        self._disk = disk
        self._path = f"{directory}/{EPOCHS}"
        self._next = f"{self._path}.next.tmp"  # an opening sweeps it away
        self._handle: int | None = None
        self._cuts = 0
        self._reach = OFFSET_MAX if entries is None else _reach(entries)
        """Where the last epoch begins that the file may show."""
        self._reach_next = -1
        """Likewise of the file that comes next."""
        self._due = False
        self._behind = False

    @property
    def due(self) -> bool:
        """Whether there is an epoch that the file does not show."""
        return self._due

    def tells_below(self, epochs: Epochs) -> int:
        """Below which offset the file knows every leader epoch."""
        return epochs.start_after(self._reach) if self._behind else OFFSET_MAX

    @property
    def in_flight(self) -> bool:
        """Whether a sync worker has the file that comes next."""
        return self._handle is not None

    def grown(self) -> None:
        """An epoch has begun: to be written when it is asked for and has a record."""
        self._due = self._behind = True

    def request(self, entries: Entries, next_offset: int) -> SyncRequest | None:
        """The sync that is due, of the file that will take the place of the one there is."""
        if not self._due or self._handle is not None:
            return None
        written = _written(entries, next_offset)
        if not written or _reach(written) <= self._reach:
            return None  # what is new has no record yet
        self._due = written != entries
        with suppress(DiskError):  # the batches say it; and whoever appends hears of this disk
            self._handle = self._disk.open(self._next, create=True)
            try:
                self._disk.truncate(self._handle, 0)
                self._disk.write(self._handle, 0, [format_epochs(written)])
            except DiskError:
                self._let_go()
                raise
            self._reach_next = _reach(written)
            return SyncRequest(self._handle, EPOCH_FILE, self._cuts, 0)
        return None

    def completed(self, cuts: int, errno: int, *, closed: bool) -> None:
        """The sync came back: the new file counts, unless the log was cut or closed meanwhile."""
        self._let_go()
        if cuts != self._cuts or closed:
            return
        again, self._due = self._due, True  # if this fails it is tried again
        if errno == 0:
            with suppress(DiskError):
                self._disk.rename(self._next, self._path)
                self._reach, self._behind = self._reach_next, again
                self._due = again

    def _let_go(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(DiskError):
                self._disk.close(handle)

    def cut(self, entries: Entries, offset: int) -> None:
        """Epochs that begin at `offset` or later are taken back: durably, where the file says so.

        What a sync worker has of them never counts.
        """
        if self._reach >= offset:
            self.replace(entries)
        elif self._handle is not None and self._reach_next >= offset:
            self._cuts += 1
            self._due = self._behind = True

    def replace(self, entries: Entries) -> None:
        """Have exactly these, durably: the log was cut."""
        self._cuts += 1
        self._due = self._behind = False
        self._reach = OFFSET_MAX  # until it is known which of both is there
        replace_file(self._disk, self._path, format_epochs(entries))
        self._reach = _reach(entries)

    def settle(self, entries: Entries, next_offset: int) -> None:
        """Have those with a record, durably: the log closes in order."""
        written = _written(entries, next_offset)
        if self._behind and _reach(written) > self._reach:
            self.replace(written)


def _written(entries: Entries, next_offset: int) -> Entries:
    """Those in which something was written: the last may be too new for that."""
    return entries[:-1] if entries and entries[-1][1] >= next_offset else entries


def _reach(entries: Entries) -> int:
    return entries[-1][1] if entries else -1
