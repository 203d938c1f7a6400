"""The file of a log's leader epochs, written behind what is in memory.

Owns: `leader-epoch-checkpoint`. An epoch that begins is in the file a little later, by way of the
sync workers: the batches say it too, so a file that lags is caught up with from their headers when
the log is opened. What was taken back must not be read again, when an epoch that was never written
in could hide another: a cut is in the file, durably, before anything follows it.

Invariant: the file holds the epochs of the last cut or later ones, never those of before it.
"""

from __future__ import annotations

from contextlib import suppress

from cluster.storage.checkpoint import format_epochs
from cluster.storage.disk import Disk, DiskError, replace_file
from cluster.storage.names import EPOCHS
from cluster.storage.syncing import EPOCH_FILE, SyncRequest

Entries = list[tuple[int, int]]


class EpochFile:
    """One replica's file of leader epochs."""

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._path = f"{directory}/{EPOCHS}"
        self._next = f"{self._path}.next.tmp"  # an opening sweeps it away
        self._handle: int | None = None
        self._cuts = 0
        self._due = False
        self._behind = False

    @property
    def in_flight(self) -> bool:
        """Whether a sync worker has the file that comes next."""
        return self._handle is not None

    def grown(self) -> None:
        """An epoch has begun: to be written when the next syncs leave."""
        self._due = self._behind = True

    def request(self, entries: Entries) -> SyncRequest | None:
        """The sync that is due, of the file that will take the place of the one there is."""
        if not self._due or self._handle is not None:
            return None
        self._due = False
        with suppress(DiskError):  # the batches say it; and whoever appends hears of this disk
            self._handle = self._disk.open(self._next, create=True)
            try:
                self._disk.truncate(self._handle, 0)
                self._disk.write(self._handle, 0, [format_epochs(entries)])
            except DiskError:
                self._let_go()
                raise
            return SyncRequest(self._handle, EPOCH_FILE, self._cuts, 0)
        return None

    def completed(self, cuts: int, errno: int, *, closed: bool) -> None:
        """The sync came back: the new file counts, unless the log was cut or closed meanwhile."""
        self._let_go()
        if errno == 0 and cuts == self._cuts and not closed:
            with suppress(DiskError):
                self._disk.rename(self._next, self._path)
                self._behind = self._due

    def _let_go(self) -> None:
        if self._handle is not None:
            handle, self._handle = self._handle, None
            with suppress(DiskError):
                self._disk.close(handle)

    def replace(self, entries: Entries) -> None:
        """Have exactly these, durably: the log was cut."""
        self._cuts += 1
        self._due = self._behind = False
        replace_file(self._disk, self._path, format_epochs(entries))

    def settle(self, entries: Entries) -> None:
        """Have these, durably: the log closes in order."""
        if self._behind:
            self.replace(entries)
