"""A disk in memory that keeps across a crash only what was synced, and perhaps more.

Owns: files as what readers see beside what a crash leaves, names likewise per directory, and the
faults a test injects. Without faults and crashes it is a plain Disk for unit tests.

What a crash may do, chosen by the generator given: keep any part of the unsynced writes of a file
(none, all, the first of them with the next one torn, any of them with zeros where others were), and
any part of the unsynced changes of names. A failed sync loses its writes for good although they can
still be read, as the page cache does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from errno import EEXIST, EIO, EISDIR, ENOENT, ENOSPC, ENOTEMPTY
from random import Random

from cluster.storage.disk import Buffer, DiskError

Change = tuple[int, int, bytes | None]  # number, position or length, bytes (None: truncate)


def _apply(data: bytearray, position: int, piece: bytes | None) -> None:
    if piece is None:
        data[position:] = bytes(max(position - len(data), 0))
        return
    data.extend(bytes(max(position - len(data), 0)))
    data[position : position + len(piece)] = piece


@dataclass
class File:
    """What readers see, what is durable, and the numbered changes in between."""

    visible: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    changes: list[Change] = field(default_factory=list)

    def change(self, number: int, position: int, piece: bytes | None) -> None:
        _apply(self.visible, position, piece)
        self.changes.append((number, position, piece))

    def sync(self, until: int) -> None:
        for number, position, piece in self.changes:
            if number < until:
                _apply(self.durable, position, piece)
        self.changes = [change for change in self.changes if change[0] >= until]

    def lose(self, until: int) -> None:
        """Forget writes for good; a cut is metadata, which a later sync still makes durable."""
        self.changes = [c for c in self.changes if c[0] >= until or c[2] is None]

    def crash(self, rng: Random) -> None:
        for _, position, piece in _survivors(self.changes, rng):
            _apply(self.durable, position, piece)
        self.visible = bytearray(self.durable)
        self.changes = []


def _survivors(changes: list[Change], rng: Random) -> list[Change]:
    """The unsynced changes of one file that a crash leaves."""
    match rng.randrange(4):
        case 0:
            return []
        case 1:
            return changes
        case 2:
            return [_torn(change, rng) for change in changes if rng.random() < 0.5]
        case _:
            kept = rng.randrange(len(changes) + 1)
            return [*changes[:kept], *(_torn(change, rng) for change in changes[kept : kept + 1])]


def _torn(change: Change, rng: Random) -> Change:
    number, position, piece = change
    return (number, position, piece if piece is None else piece[: rng.randrange(len(piece) + 1)])


Entry = "File | Folder"
NameChange = tuple[str, "File | Folder | None"]


@dataclass
class Folder:
    """Names as seen, as durable, and the groups of changes in between (a rename is one group)."""

    visible: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[list[NameChange]] = field(default_factory=list)

    def change(self, *group: NameChange) -> None:
        for name, entry in group:
            _name(self.visible, name, entry)
        self.changes.append(list(group))

    def sync(self) -> None:
        for group in self.changes:
            for name, entry in group:
                _name(self.durable, name, entry)
        self.changes = []

    def sync_only(self, groups: tuple[list[NameChange], ...]) -> None:
        """Make some changes durable: those that are not yet."""
        wanted = {id(group) for group in groups}
        for group in self.changes:
            if id(group) in wanted:
                for name, entry in group:
                    _name(self.durable, name, entry)
        self.changes = [group for group in self.changes if id(group) not in wanted]

    def crash(self, rng: Random) -> None:
        in_order = rng.random() < 0.5
        kept = rng.randrange(len(self.changes) + 1)
        for number, group in enumerate(self.changes):
            if number < kept if in_order else rng.random() < 0.5:
                for name, entry in group:
                    _name(self.durable, name, entry)
        self.visible = dict(self.durable)
        self.changes = []
        for _, entry in sorted(self.visible.items()):
            entry.crash(rng)


def _name(names: dict[str, File | Folder], name: str, entry: File | Folder | None) -> None:
    if entry is None:
        names.pop(name, None)
    else:
        names[name] = entry


@dataclass
class Faults:
    """What fails from now on. A countdown of n lets n - 1 calls pass; 0 is off.

    Probabilities need `rng`. A failing write stores the first half of its bytes.
    """

    write_countdown: int = 0
    write_probability: float = 0.0
    write_errno: int = ENOSPC
    truncate_countdown: int = 0
    sync_countdown: int = 0
    sync_probability: float = 0.0
    name_countdown: int = 0
    capacity_bytes: int = 0
    misdirect_countdown: int = 0
    """The write that this counts down to lands elsewhere in its file, and says that it did not."""
    read_countdown: int = 0
    read_probability: float = 0.0
    """How often a read that waits for the device fails."""
    rng: Random = field(default_factory=lambda: Random(0))

    def due(self, call: str) -> bool:
        countdown = getattr(self, f"{call}_countdown")
        if countdown:
            setattr(self, f"{call}_countdown", countdown - 1)
            if countdown == 1:
                return True
        probability = getattr(self, f"{call}_probability", 0.0)
        return bool(probability) and self.rng.random() < probability


@dataclass(frozen=True)
class SyncTicket:
    """A sync that has begun: the writes before it count when it ends well."""

    file: File | Folder
    until: int
    boot: int
    names: tuple[list[NameChange], ...] = ()
    """Of a directory: the changes that it had when the sync began."""


@dataclass(frozen=True)
class ReadTicket:
    """A read that has begun, and what it would answer if it ended at once."""

    file: File
    position: int
    length: int
    before: bytes


class SimulatedDisk:
    """The Disk protocol over files in memory."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.calls: dict[str, int] = {}
        self.cold = 0.0
        """How often a read finds only part of it in the page cache; at 1, nothing ever."""
        self._chance = Random(0)
        self._root = Folder()
        self._handles: dict[int, tuple[str, File | Folder]] = {}
        self._next_handle = 3
        self._next_change = 0
        self._boot = 0

    # -- what tests ask and do

    @property
    def open_handles(self) -> int:
        """Handles given out and not closed."""
        return len(self._handles)

    @property
    def used_bytes(self) -> int:
        """Bytes of all files."""
        return sum(len(file.visible) for file in _files(self._root))

    def crash(self, rng: Random) -> None:
        """Lose power: handles are void, and what was not synced is at the generator's mercy."""
        self._root.crash(rng)
        self._handles.clear()
        self._boot += 1

    def kill(self) -> None:
        """End the process that holds the handles; what it wrote can still be read."""
        self._handles.clear()
        self._boot += 1

    def rot(self, path: str, position: int, bit: int) -> None:
        """One bit of a file is not what it was, neither on the disk nor in memory."""
        file = self._lookup(path)
        for data in (file.durable, file.visible):
            if position < len(data):
                data[position] ^= 1 << bit

    def mend(self) -> None:
        """Nothing fails any more."""
        self.faults = Faults()

    def begin_sync(self, handle: int) -> SyncTicket:
        """A sync worker takes a request: what is written from now on is not covered."""
        entry = self._handles[handle][1]
        names = tuple(entry.changes) if isinstance(entry, Folder) else ()
        return SyncTicket(entry, self._next_change, self._boot, names)

    def finish_sync(self, ticket: SyncTicket) -> int:
        """The sync worker is done: 0 or an error number. Void after a crash."""
        self._count("sync")
        if ticket.boot != self._boot:
            return EIO
        if self.faults.due("sync"):
            if isinstance(ticket.file, File):
                ticket.file.lose(ticket.until)
            return EIO
        if isinstance(ticket.file, Folder):
            ticket.file.sync_only(ticket.names)
        else:
            ticket.file.sync(ticket.until)
        return 0

    def begin_read(self, handle: int, position: int, length: int) -> ReadTicket:
        """A read worker takes a request; the file may change before it answers."""
        return ReadTicket(self._file(handle), position, length, self.read(handle, position, length))

    def finish_read(self, ticket: ReadTicket) -> tuple[bytes, int]:
        """(bytes, error number): what was there at one moment, the first or the last."""
        if self.faults.due("read"):
            return b"", EIO
        if self._chance.random() < 0.5:
            return ticket.before, 0
        return bytes(ticket.file.visible[ticket.position :][: ticket.length]), 0

    def contents(self, path: str) -> bytes:
        """What a reader sees in a file."""
        return bytes(self._lookup(path).visible)

    def _count(self, call: str) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1

    # -- names

    def _folder(self, path: str) -> Folder:
        folder = self._root
        for name in path.split("/") if path else []:
            entry = folder.visible.get(name)
            if not isinstance(entry, Folder):
                raise DiskError(ENOENT, path, "open")
            folder = entry
        return folder

    def _parent(self, path: str) -> tuple[Folder, str]:
        directory, _, name = path.rpartition("/")
        return self._folder(directory), name

    def _lookup(self, path: str) -> File:
        folder, name = self._parent(path)
        entry = folder.visible.get(name)
        if entry is None:
            raise DiskError(ENOENT, path, "open")
        if isinstance(entry, Folder):
            raise DiskError(EISDIR, path, "open")
        return entry

    def _fail_names(self, path: str, operation: str) -> None:
        if self.faults.due("name"):
            raise DiskError(EIO, path, operation)

    def exists(self, path: str) -> bool:
        try:
            folder, name = self._parent(path)
        except DiskError:
            return False
        return name in folder.visible

    def list(self, path: str) -> list[str]:
        return sorted(self._folder(path).visible)

    def make_directory(self, path: str) -> None:
        self._fail_names(path, "create")
        folder, name = self._parent(path)
        if name in folder.visible:
            raise DiskError(EEXIST, path, "create")
        folder.change((name, Folder()))

    def remove_directory(self, path: str) -> None:
        self._fail_names(path, "remove")
        folder, name = self._parent(path)
        self._folder(path)
        folder.change((name, None))

    def rename(self, old: str, new: str) -> None:
        self._fail_names(old, "rename")
        source, old_name = self._parent(old)
        target, new_name = self._parent(new)
        if old_name not in source.visible:
            raise DiskError(ENOENT, old, "rename")
        assert source is target, "nothing here moves between directories"
        if isinstance(target.visible.get(new_name), Folder):
            raise DiskError(ENOTEMPTY, new, "rename")
        source.change((old_name, None), (new_name, source.visible[old_name]))

    def unlink(self, path: str) -> None:
        self._fail_names(path, "remove")
        self._lookup(path)
        folder, name = self._parent(path)
        folder.change((name, None))

    def sync_directory(self, path: str) -> None:
        self._count("sync_directory")
        self._fail_names(path, "sync")
        self._folder(path).sync()

    # -- files

    def _file(self, handle: int) -> File:
        assert handle in self._handles, "a handle from before a crash, or closed"
        entry = self._handles[handle][1]
        assert isinstance(entry, File), "a handle of a directory"
        return entry

    def open(self, path: str, *, create: bool = False) -> int:
        folder, name = self._parent(path)
        if create and name not in folder.visible:
            self._fail_names(path, "open")
            folder.change((name, File()))
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[handle] = (path, self._lookup(path))
        return handle

    def open_directory(self, path: str) -> int:
        self._fail_names(path, "open")
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[handle] = (path, self._folder(path))
        return handle

    def close(self, handle: int) -> None:
        assert handle in self._handles, "a handle from before a crash, or closed"
        del self._handles[handle]

    def size(self, handle: int) -> int:
        return len(self._file(handle).visible)

    def write(self, handle: int, position: int, buffers: Sequence[Buffer]) -> None:
        self._count("write")
        file, data = self._file(handle), b"".join(buffers)
        grown = max(position + len(data) - len(file.visible), 0)
        room = self.faults.capacity_bytes
        full = bool(room) and self.used_bytes + grown > room
        if full or self.faults.due("write"):
            self._change(file, position, data[: len(data) // 2])
            errno = ENOSPC if full else self.faults.write_errno
            raise DiskError(errno, self._handles[handle][0], "write")
        if self.faults.due("misdirect"):
            self._change(file, position, bytes(len(data)))  # the file has grown all the same
            position = self._chance.randrange(position + 1)
        self._change(file, position, data)

    def _change(self, file: File, position: int, piece: bytes | None) -> None:
        file.change(self._next_change, position, piece)
        self._next_change += 1

    def read(self, handle: int, position: int, length: int) -> bytes:
        self._count("read")
        return bytes(self._file(handle).visible[position : position + length])

    def read_cached(self, handle: int, position: int, length: int) -> bytes:
        data = self.read(handle, position, length)
        if not data or self._chance.random() >= self.cold:
            return data
        return b"" if self.cold == 1 else data[: self._chance.randrange(len(data))]

    def truncate(self, handle: int, length: int) -> None:
        file = self._file(handle)
        if self.faults.due("truncate"):
            raise DiskError(EIO, self._handles[handle][0], "truncate")
        self._change(file, length, None)

    def sync(self, handle: int) -> None:
        path, _ = self._handles[handle]
        if self.finish_sync(self.begin_sync(handle)):
            raise DiskError(EIO, path, "sync")


def _files(folder: Folder) -> list[File]:
    files: list[File] = []
    for entry in folder.visible.values():
        files.extend([entry] if isinstance(entry, File) else _files(entry))
    return files
