"""Checking a data directory, or one replica's, without changing anything.

Owns: what must hold between the files of a replica. Batches by checksum and order; indexes, leader
epochs and producer snapshots against the batches; with `deep` the records inside, decompressed. It
knows Apache Kafka's directories too: offsets may be missing there, and producers from a snapshot.

Everything found is a `Finding` with file and position. The checks are generators that yield
findings, and numbers of bytes done in between, so that whoever runs them can show how far they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from _fastseq.batch import HEADER_BYTES, epoch_starts, read_header, whole_batches
from _fastseq.table import ProducerEntry, ProducerTable
from cluster.limits import OFFSET_MAX
from cluster.storage import checkpoint, names
from cluster.storage.disk import Disk, DiskError, read_file
from cluster.storage.index import POINT, TIME
from cluster.storage.walking import REASONS, walk_batches
from cluster.wire.primitives import WireError
from cluster.wire.records import read_batches, read_records

OURS = "durability.properties"  # a file that only our brokers write
BESIDE = (names.EPOCHS, names.METADATA)
PASSED_OVER = "it is passed over at a start, as after a crash"
MARKERS = {
    names.DOUBTFUL: "something was cut or is missing, and no leader has been caught up with since",
    names.DAMAGED: "a broker could not read what it had synced",
    names.FAILED_SYNC: "a sync had failed: the end is cut at the next start",
}


class Finding(NamedTuple):
    """Something that is not as it must be; a `note` is worth knowing, but no damage."""

    path: str
    position: int
    what: str
    note: bool = False


Found = Iterator[Finding | int]


def replicas(disk: Disk) -> list[str]:
    """Directories of replicas in a data directory."""
    return [name for name in disk.list("") if names.parse_replica_directory(name) is not None]


def log_bytes(disk: Disk, directory: str) -> int:
    """Bytes of batches in a replica's directory."""
    total = 0
    for name in disk.list(directory):
        if names.offset_of(name, names.LOG) is not None:
            handle = disk.open(f"{directory}/{name}")
            total += disk.size(handle)
            disk.close(handle)
    return total


def verify_directory(disk: Disk, *, deep: bool = False) -> Found:
    """Check everything in a data directory."""
    ends: dict[tuple[str, int], int] = {}
    own = disk.exists(OURS)
    for directory in replicas(disk):
        check = ReplicaCheck(disk, directory, deep=deep, gaps=not own)
        yield from check.run()
        place = names.parse_replica_directory(directory)
        assert place is not None, "its name was parsed before"
        ends[place] = check.next_offset
    yield from _checkpoints(disk, ends)
    for name in disk.list(""):
        if name.endswith(("-stray", names.DELETED)):
            yield Finding(name, 0, "moved aside, or about to be removed", note=True)


def _checkpoints(disk: Disk, ends: dict[tuple[str, int], int]) -> Found:
    for name in disk.list(""):
        if name == checkpoint.META_PROPERTIES:
            try:
                checkpoint.parse_meta_properties(read_file(disk, name) or b"")
            except ValueError as error:
                yield Finding(name, 0, str(error))
        if name.endswith("-offset-checkpoint"):
            yield from _offsets(disk, name, ends)


def _offsets(disk: Disk, name: str, ends: dict[tuple[str, int], int]) -> Found:
    try:
        offsets = checkpoint.parse_offsets(read_file(disk, name) or b"")
    except ValueError as error:
        yield Finding(name, 0, str(error))
        return
    for (topic, index), offset in sorted(offsets.items()):
        end = ends.get((topic, index))
        if end is not None and offset > end:
            yield Finding(
                name, 0, f"{topic}-{index} is said to reach {offset}, its log ends at {end}"
            )


class ReplicaCheck:
    """One replica: `run`, and then `next_offset` is where its log ends."""

    def __init__(self, disk: Disk, directory: str, *, deep: bool, gaps: bool) -> None:
        """With `gaps` offsets may be missing, as compaction leaves them."""
        self.next_offset = 0
        self._disk = disk
        self._directory = directory
        self._deep = deep
        self._gaps = gaps
        self._epochs: list[tuple[int, int]] = []
        self._table = ProducerTable()
        self._snapshots: list[int] = []
        self._replays = True

    def run(self) -> Found:
        """All of it."""
        files = self._disk.list(self._directory)
        yield from self._names(files)
        bases = sorted(base for f in files if (base := names.offset_of(f, names.LOG)) is not None)
        self._begin_table(files, bases)
        for base, after in pairwise([*bases, -1]):
            yield from self._segment(base)
            if after >= 0 and self.next_offset != after and not self._gaps:
                what = f"the segment ends at {self.next_offset}, the next begins at {after}"
                yield Finding(self._path(base, names.LOG), 0, what)
        yield from self._compare_epochs(bases)
        for offset in self._snapshots:
            if offset > self.next_offset:
                path = self._path(offset, names.WINDOWS)
                yield Finding(path, 0, f"is of {offset}, the log ends at {self.next_offset}")

    def _path(self, offset: int, suffix: str) -> str:
        return names.segment_file(self._directory, offset, suffix)

    # -- names

    def _names(self, files: list[str]) -> Found:
        bases = {names.offset_of(name, names.LOG) for name in files}
        for name in files:
            path = f"{self._directory}/{name}"
            suffix = name[name.rfind(".") :] if "." in name else ""
            if name in MARKERS:
                yield Finding(path, 0, MARKERS[name], note=True)
            elif name.startswith(names.CUT) or name == names.DIFFERED:
                yield Finding(path, 0, "was kept for whoever looks into it", note=True)
            elif suffix in names.SEGMENT_SUFFIXES and names.offset_of(name, suffix) not in bases:
                yield Finding(path, 0, "belongs to no segment", note=True)
            elif not self._known(name, suffix):
                yield Finding(path, 0, "is no file of a log", note=True)
        yield from self._identity()

    @staticmethod
    def _known(name: str, suffix: str) -> bool:
        suffixes = (*names.SEGMENT_SUFFIXES, names.SNAPSHOT, names.WINDOWS)
        return name in BESIDE or any(names.offset_of(name, known) is not None for known in suffixes)

    def _identity(self) -> Found:
        path = f"{self._directory}/{names.METADATA}"
        try:
            checkpoint.parse_topic_id(read_file(self._disk, path) or b"")
        except ValueError as error:
            yield Finding(path, 0, str(error))

    # -- batches

    def _segment(self, base: int) -> Found:
        """Every batch of one segment and its indexes; past damage as far as lengths tell."""
        path = self._path(base, names.LOG)
        handle = self._disk.open(path)
        try:
            size, position = self._disk.size(handle), 0
            self.next_offset = max(self.next_offset, base)
            points = _Points(self._entries(base))
            newest, sound = -1, True
            while position < size:
                walk = walk_batches(
                    self._disk, handle, position, self.next_offset,
                    size=size, check_crc=True, contiguous=not self._gaps,
                )  # fmt: skip
                reason = 0
                for data, at, found in walk:
                    reason, newest = found.reason, max(newest, found.max_timestamp)
                    yield from points.check(
                        data, at, found.end_position, self._path(base, ".index")
                    )
                    yield from self._whole(path, data, at, found.end_position)
                    self.next_offset = found.next_offset
                    position = at + found.end_position
                    yield found.end_position
                if not reason:
                    break
                yield Finding(path, position, REASONS[reason])
                sound = False
                position = self._past(handle, position, size)
            yield from points.rest(self._path(base, names.INDEX), position)
            if sound:
                yield from self._times(base, newest)
        except DiskError as error:
            yield Finding(path, 0, str(error))
        finally:
            self._disk.close(handle)

    def _past(self, handle: int, position: int, size: int) -> int:
        """Where the batch after a bad one begins, if that can be told; else the end of the file."""
        self._replays = False
        head = self._disk.read(handle, position, HEADER_BYTES)
        if len(head) < HEADER_BYTES:
            return size
        header = read_header(head)
        if header.magic != 2 or not HEADER_BYTES <= header.size <= size - position:
            return size
        after = self._disk.read(handle, position + header.size, HEADER_BYTES)
        if len(after) == HEADER_BYTES and read_header(after).base_offset >= self.next_offset:
            self.next_offset = read_header(after).base_offset
        elif len(after) < HEADER_BYTES and 0 < header.record_count == header.last_offset_delta + 1:
            self.next_offset += header.record_count  # the last one, and its length is believed
        return position + header.size

    def _whole(self, path: str, data: bytes, at: int, end: int) -> Found:
        """What must be true of sound batches besides their checksums."""
        if self._epochs or end:
            known = self._epochs[-1][0] if self._epochs else -1
            self._epochs += epoch_starts(data, 0, end, known)
        yield from self._replay(data, end)
        if self._deep and end:
            yield from _inside(path, data, at, end)

    # -- producers

    def _begin_table(self, files: list[str], bases: list[int]) -> None:
        found = (names.offset_of(name, names.WINDOWS) for name in files)
        kafka = (names.offset_of(name, names.SNAPSHOT) for name in files)
        self._snapshots = sorted({at for at in (*found, *kafka) if at is not None})
        start = bases[0] if bases else 0
        self._table.clear(start)
        self._replays = start == 0

    def _replay(self, data: bytes, end: int) -> Found:
        """Move the table over these batches, stopping at every snapshot to compare."""
        start = 0
        while start < end:
            limit = next((at for at in self._snapshots if at > self._table.next_offset), OFFSET_MAX)
            stop, _ = whole_batches(data, start, end, limit)
            if stop == start:
                stop = end  # a snapshot inside of a batch is none of this log
            try:
                self._table.apply_run(data, start, stop)
            except ValueError:
                self._replays = False
                return
            start = stop
            if self._table.next_offset in self._snapshots:
                yield from self._compare(self._table.next_offset)

    def _compare(self, offset: int) -> Found:
        """A snapshot against the table at its offset; with the log's beginning gone, believed."""
        path, loaded = self._path(offset, names.WINDOWS), ProducerTable()
        data = read_file(self._disk, path)
        if data is not None:
            try:
                loaded.load(data)
            except ValueError as error:
                yield Finding(path, 0, f"{error}; {PASSED_OVER}", note=True)
                data = None
        if data is not None and self._replays and loaded.digest != self._table.digest:
            yield Finding(path, 0, "the producer state is not what the batches say")
        elif data is not None and not self._replays:
            self._table.load(data)
            self._replays = True
        yield from self._compare_kafka(offset)

    def _compare_kafka(self, offset: int) -> Found:
        path, loaded = self._path(offset, names.SNAPSHOT), ProducerTable()
        data = read_file(self._disk, path)
        if data is None:
            return
        try:
            loaded.load_kafka(data, offset)
        except ValueError as error:
            yield Finding(path, 0, f"{error}; {PASSED_OVER}", note=True)
            return
        for entry in loaded.entries() if self._replays else ():
            mine = self._table.get(entry.producer_id)
            if mine is None or _last(mine) != _last(entry):
                yield Finding(path, 0, f"producer {entry.producer_id} is not what the batches say")

    # -- indexes and epochs

    def _entries(self, base: int) -> list[tuple[int, int]]:
        data = read_file(self._disk, self._path(base, names.INDEX)) or b""
        rows = POINT.iter_unpack(data[: len(data) // POINT.size * POINT.size])
        return [
            (base + offset, position) for offset, position in rows if (offset, position) != (0, 0)
        ]

    def _times(self, base: int, newest: int) -> Found:
        path = self._path(base, names.TIME_INDEX)
        data = read_file(self._disk, path) or b""
        before = (-1, base - 1)
        for number, (timestamp, offset) in enumerate(
            TIME.iter_unpack(data[: len(data) // TIME.size * TIME.size])
        ):
            if (timestamp, offset) == (0, 0):
                continue  # not filled yet
            here = (timestamp, base + offset)
            inside = here[1] < self.next_offset and timestamp <= newest
            if not inside or timestamp <= before[0] or here[1] < before[1]:
                yield Finding(path, number * TIME.size, "an entry is not what the batches say")
                return
            before = here

    def _compare_epochs(self, bases: list[int]) -> Found:
        path = f"{self._directory}/{names.EPOCHS}"
        data = read_file(self._disk, path)
        if data is None and not self._epochs:
            return
        try:
            known = checkpoint.parse_epochs(data or b"")
        except ValueError as error:
            yield Finding(path, 0, str(error))
            return
        start = bases[0] if bases else 0
        for epoch, offset in self._epochs:
            if not any(e == epoch and (s == offset or s <= offset == start) for e, s in known):
                yield Finding(path, 0, f"epoch {epoch} begins at {offset}, which is not said there")
        for epoch, offset in known:
            if offset > self.next_offset:
                yield Finding(path, 0, f"epoch {epoch} begins at {offset}, past the end of the log")


class _Points:
    """The entries of an offset index, met one after the other as the batches go by."""

    def __init__(self, entries: list[tuple[int, int]]) -> None:
        self._entries = entries
        self._at = 0

    def check(self, data: bytes, start: int, length: int, path: str) -> Found:
        """Entries for batches in data[:length], which lies at `start` of the file."""
        entries, at, end = self._entries, self._at, start + length
        while at < len(entries) and entries[at][1] < end:
            offset, position = entries[at]
            inside = 0 <= position - start <= length - HEADER_BYTES
            if not inside or read_header(data, position - start).next_offset - 1 != offset:
                yield Finding(path, at * POINT.size, "an entry points to no batch of its offset")
                at = len(entries)
                break
            at += 1
        self._at = at

    def rest(self, path: str, end: int) -> Found:
        """Entries behind the end of the file."""
        if self._at < len(self._entries):
            yield Finding(path, self._at * POINT.size, f"an entry points past the end, {end}")


def _last(entry: ProducerEntry) -> tuple[int, int, int]:
    """What Kafka keeps of a producer: epoch, last sequence, end of its last batch."""
    batch = entry.batches[-1] if entry.batches else None
    if batch is None:
        return entry.producer_epoch, -1, -1
    return entry.producer_epoch, batch.last_sequence, batch.next_offset


def _inside(path: str, data: bytes, start: int, end: int) -> Found:
    """Decompress every batch of data[:end] and look at each record."""
    view = memoryview(data)[:end]
    for at, header in read_batches(view):
        try:
            records = read_records(view[at : at + header.size], check_crc=False)
        except WireError as error:
            yield Finding(path, start + at, str(error))
            continue
        offsets = [record.offset - header.base_offset for record in records]
        if offsets != sorted(set(offsets)) or (offsets and offsets[-1] > header.last_offset_delta):
            yield Finding(path, start + at, "records whose offsets do not fit their batch")
