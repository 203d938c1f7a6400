"""What is in the files of a data directory, as rows of named values in the words of Kafka's dump.

Owns: reading every kind of file, ours and Apache Kafka's, for somebody who wants to look at it.
Files are only read, a window at a time. Nothing that stands in a file is believed: what does not
fit is a row with `damage`, and the batches after it follow where they can be found.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from _fastseq.batch import (
    CONTROL_COLLAPSE,
    CONTROL_EXPIRE,
    CONTROL_FENCE,
    HEADER_BYTES,
    SCAN_CRC,
    BatchHeader,
    Record,
    decode_batch,
    read_header,
    scan,
)
from _fastseq.crc32c import crc32c
from _fastseq.table import ProducerTable
from cluster.limits import SCAN_WINDOW_BYTES
from cluster.storage import checkpoint, names
from cluster.storage.aside import TAIL, WHOLE
from cluster.storage.damage import read_damage
from cluster.storage.disk import Disk, parent, read_file
from cluster.storage.index import POINT, TIME
from cluster.wire.primitives import WireError
from cluster.wire.records import read_records

Value = int | str | bool | None
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
CONTROLS = {
    0: "ABORT",
    1: "COMMIT",
    2: "LEADER_CHANGE",
    3: "SNAPSHOT_HEADER",
    4: "SNAPSHOT_FOOTER",
    5: "KRAFT_VERSION",
    6: "KRAFT_VOTERS",
    CONTROL_EXPIRE: "EXPIRE",
    CONTROL_COLLAPSE: "COLLAPSE",
    CONTROL_FENCE: "FENCE",
}
_CONTROL_VALUES = {  # after the version: names of the fields and their layout
    0: ("coordinatorEpoch", ">i"),
    1: ("coordinatorEpoch", ">i"),
    CONTROL_EXPIRE: ("cutoff", ">q"),
    CONTROL_COLLAPSE: ("producerIdBound producerEpochBound", ">qh"),
    CONTROL_FENCE: ("producerId producerEpoch", ">qh"),
}
_PRODUCER = struct.Struct(">qhiqiqiq")  # an entry of Kafka's producer snapshot
_ABORTED = struct.Struct(">hqqqq")  # an entry of Kafka's index of aborted transactions
NONE = "OptionalLong.empty"  # Kafka's word for no number


class Row(NamedTuple):
    """One line: what it is about, and its values in order; keys and payloads are text."""

    kind: str
    fields: dict[str, Value]


class Batch(NamedTuple):
    """A batch of a file as it is, and what is wrong with it ("" if nothing)."""

    position: int
    header: BatchHeader
    data: memoryview
    damage: str


def dump(disk: Disk, path: str, *, content: bool = False) -> Iterator[Row]:
    """Rows of one file; with `content` the records inside of batches too.

    ValueError if this is no file of a data directory.
    """
    name = path.rpartition("/")[2]
    readers: dict[str, Callable[[Disk, str], Iterator[Row]]] = {
        names.INDEX: _index,
        names.TIME_INDEX: _time_index,
        names.TRANSACTION_INDEX: _aborted,
        names.SNAPSHOT: _snapshot,
        names.WINDOWS: _windows,
    }
    suffix = name[name.rfind(".") :] if "." in name else name
    if suffix in (names.LOG, TAIL, WHOLE):
        return _log(disk, path, content=content)
    if suffix in readers:
        return readers[suffix](disk, path)
    if not _is_text(name):
        raise ValueError(f"{name} is not a file of a log")
    return _texts(disk, path, name)


# -- batches


def batches(disk: Disk, path: str) -> Iterator[Batch]:
    """Every batch of a file of batches, damaged ones included as far as their length can be read.

    The last one has no bytes where the file holds none that could be a batch.
    """
    handle = disk.open(path)
    try:
        size, position = disk.size(handle), 0
        while position < size:
            data = disk.read(handle, position, min(SCAN_WINDOW_BYTES, size - position))
            if not 0 < _size(data, 0) <= len(data):
                data = disk.read(handle, position, min(max(_size(data, 0), 0), size - position))
            end = 0
            for batch in _whole(data, position):
                yield batch
                end += batch.header.size
            if not end:
                yield _unreadable(disk.read(handle, position, HEADER_BYTES), position, size)
                return
            position += end
    finally:
        disk.close(handle)


def _size(data: bytes, at: int) -> int:
    """Bytes of the batch that begins here, -1 if none does."""
    if len(data) < at + HEADER_BYTES:
        return -1
    header = read_header(data, at)
    return header.size if header.magic == 2 and header.size >= HEADER_BYTES else -1


def _whole(data: bytes, position: int) -> Iterator[Batch]:
    at, view = 0, memoryview(data)
    while 0 < (size := _size(data, at)) <= len(data) - at:
        header = read_header(data, at)
        found = scan(data, at, at + size, max(header.base_offset, 0))
        damage = "" if found.batches else _reason(found.reason)
        yield Batch(position + at, header, view[at : at + size], damage)
        at += size


def _reason(reason: int) -> str:
    return "a checksum is wrong" if reason == SCAN_CRC else "an impossible batch header"


def _unreadable(head: bytes, position: int, size: int) -> Batch:
    header = read_header(head.ljust(HEADER_BYTES, b"\0"))
    torn = header.magic == 2 and header.size > size - position and len(head) == HEADER_BYTES
    what = "a batch is cut off" if torn or len(head) < HEADER_BYTES else "bytes that are no batch"
    return Batch(position, header, memoryview(b""), f"{what}: {size - position} bytes to the end")


def _log(disk: Disk, path: str, *, content: bool) -> Iterator[Row]:
    for batch in batches(disk, path):
        if not batch.data:
            yield Row("damage", {"position": batch.position, "damage": batch.damage})
            return
        yield Row("batch", header_fields(batch))
        if content:
            yield from _records(batch)


def header_fields(batch: Batch) -> dict[str, Value]:
    """A batch's header in the words of Kafka's dump."""
    header = batch.header
    last = header.base_sequence + header.last_offset_delta
    time = "LogAppendTime" if header.attributes & 0x08 else "CreateTime"
    codec = header.attributes & 0x07
    fields: dict[str, Value] = {
        "baseOffset": header.base_offset,
        "lastOffset": header.next_offset - 1,
        "count": header.record_count,
        "baseSequence": header.base_sequence,
        "lastSequence": -1 if header.base_sequence < 0 else last % 2**31,
        "producerId": header.producer_id,
        "producerEpoch": header.producer_epoch,
        "partitionLeaderEpoch": header.leader_epoch,
        "isTransactional": bool(header.attributes & 0x10),
        "isControl": header.is_control,
        "deleteHorizonMs": header.base_timestamp if header.attributes & 0x40 else NONE,
        "position": batch.position,
        time: header.max_timestamp,
        "size": header.size,
        "magic": header.magic,
        "compresscodec": CODECS[codec] if codec < len(CODECS) else f"unknown ({codec})",
        "crc": header.crc,
        "isvalid": not batch.damage,
    }
    if batch.damage:
        fields["damage"] = batch.damage
    if header.is_control and not batch.damage:
        fields["control"] = control_name(batch)
    return fields


def control_name(batch: Batch) -> str:
    """What a control batch says, as a word."""
    kind = _control(batch)[0]
    return CONTROLS.get(kind, f"unknown ({kind})") if kind >= 0 else "empty"


def _control(batch: Batch) -> tuple[int, Record | None]:
    """(type, record) of a control batch; -1 for one whose record is gone, or cannot be read."""
    with suppress(ValueError, IndexError):
        (record,) = decode_batch(batch.data)
        if record.key is not None and len(record.key) >= 4:
            return int.from_bytes(record.key[2:4], signed=True), record
    return -1, None


def _records(batch: Batch) -> Iterator[Row]:
    header = batch.header
    time = "LogAppendTime" if header.attributes & 0x08 else "CreateTime"
    if header.is_control:
        kind, record = _control(batch)
        if record is not None:
            yield Row("record", _record(record, time, -1) | _told(kind, record.value or b""))
        return
    try:
        records = read_records(batch.data, check_crc=False)
    except WireError as error:
        yield Row("damage", {"position": batch.position, "damage": str(error)})
        return
    for record in records:
        delta = record.offset - header.base_offset
        sequence = -1 if header.base_sequence < 0 else (header.base_sequence + delta) % 2**31
        fields = _record(record, time, sequence)
        if record.key is not None:
            fields["key"] = _text(record.key)
        if record.value is not None:
            fields["payload"] = _text(record.value)
        yield Row("record", fields)


def _record(record: Record, time: str, sequence: int) -> dict[str, Value]:
    keys = ",".join(name for name, _ in record.headers)
    return {
        "offset": record.offset,
        time: record.timestamp,
        "keySize": -1 if record.key is None else len(record.key),
        "valueSize": -1 if record.value is None else len(record.value),
        "sequence": sequence,
        "headerKeys": f"[{keys}]",
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _told(kind: int, value: bytes) -> dict[str, Value]:
    """What a control record says, by its type."""
    name = CONTROLS.get(kind, f"unknown ({kind})")
    fields: dict[str, Value] = {"endTxnMarker" if kind in (0, 1) else "control": name}
    labels, layout = _CONTROL_VALUES.get(kind, ("", ""))
    if layout and len(value) >= 2 + struct.calcsize(layout):
        fields |= zip(labels.split(), struct.unpack_from(layout, value, 2), strict=True)
    return fields


# -- beside the batches


def _entries(data: bytes, layout: struct.Struct) -> Iterator[tuple[int, ...]]:
    whole = len(data) // layout.size * layout.size
    yield from layout.iter_unpack(data[:whole])


def _base(path: str, suffix: str) -> int:
    return names.offset_of(path.rpartition("/")[2], suffix) or 0


def _index(disk: Disk, path: str) -> Iterator[Row]:
    base, data = _base(path, names.INDEX), read_file(disk, path) or b""
    for offset, position in _entries(data, POINT):
        if (offset, position) != (0, 0):  # zeros that are not filled yet
            yield Row("point", {"offset": base + offset, "position": position})


def _time_index(disk: Disk, path: str) -> Iterator[Row]:
    base, data = _base(path, names.TIME_INDEX), read_file(disk, path) or b""
    for timestamp, offset in _entries(data, TIME):
        if (timestamp, offset) != (0, 0):
            yield Row("time", {"timestamp": timestamp, "offset": base + offset})


def _aborted(disk: Disk, path: str) -> Iterator[Row]:
    for version, producer, first, last, stable in _entries(read_file(disk, path) or b"", _ABORTED):
        yield Row("aborted", {
            "version": version, "producerId": producer, "firstOffset": first, "lastOffset": last,
            "lastStableOffset": stable,
        })  # fmt: skip


def _snapshot(disk: Disk, path: str) -> Iterator[Row]:
    data = read_file(disk, path) or b""
    count = int.from_bytes(data[6:10])
    if data[:2] != b"\0\1" or crc32c(data[6:]) != int.from_bytes(data[2:6]):
        yield Row("damage", {"position": 0, "damage": "not a producer snapshot, or damaged"})
    elif len(data) != 10 + count * _PRODUCER.size:
        yield Row("damage", {"position": 10, "damage": f"not as long as {count} producers are"})
    else:
        for entry in _entries(data[10:], _PRODUCER):
            yield Row("producer", _producer(entry))


def _producer(entry: tuple[int, ...]) -> dict[str, Value]:
    producer, epoch, sequence, offset, delta, timestamp, coordinator, first = entry
    return {
        "producerId": producer,
        "producerEpoch": epoch,
        "coordinatorEpoch": coordinator,
        "currentTxnFirstOffset": NONE if first < 0 else f"OptionalLong[{first}]",
        "lastTimestamp": timestamp,
        "firstSequence": sequence if sequence < 0 else (sequence - delta) % 2**31,
        "lastSequence": sequence,
        "lastOffset": offset,
        "offsetDelta": delta,
        "timestamp": timestamp,
    }


def _windows(disk: Disk, path: str) -> Iterator[Row]:
    table = ProducerTable()
    try:
        table.load(read_file(disk, path) or b"")
    except ValueError as error:
        yield Row("damage", {"position": 0, "damage": str(error)})
        return
    mark_id, mark_epoch = table.mark
    yield Row("state", {
        "nextOffset": table.next_offset, "producers": len(table), "floors": table.floor_count,
        "markProducerId": mark_id, "markProducerEpoch": mark_epoch,
        "digest": f"{table.digest:016x}",
    })  # fmt: skip
    for entry in table.entries():
        for batch in entry.batches:
            yield Row("window", {
                "producerId": entry.producer_id, "producerEpoch": entry.producer_epoch,
                "accepted": entry.accepted, "firstSequence": batch.first_sequence,
                "lastSequence": batch.last_sequence, "baseOffset": batch.base_offset,
                "lastOffset": batch.next_offset - 1, "crc": batch.crc,
            })  # fmt: skip
    floors, cursor = table.floors_after(-1, 1_000), -1
    while floors:
        for floor in floors:
            cursor = floor.producer_id
            yield Row("floor", {
                "producerId": cursor, "producerEpoch": floor.producer_epoch,
                "nextSequence": floor.next_sequence,
            })  # fmt: skip
        floors = table.floors_after(cursor, 1_000)


def _is_text(name: str) -> bool:
    return name.endswith("-offset-checkpoint") or name in (
        names.EPOCHS, names.METADATA, names.DAMAGED, names.DOUBTFUL, names.FAILED_SYNC,
        checkpoint.META_PROPERTIES, checkpoint.CLEAN_MARKER, "durability.properties",
    )  # fmt: skip


def _texts(disk: Disk, path: str, name: str) -> Iterator[Row]:
    data = read_file(disk, path) or b""
    try:
        if name == names.EPOCHS:
            rows = [Row("epoch", {"epoch": e, "startOffset": s}) for e, s in _parsed_epochs(data)]
        elif name.endswith("-offset-checkpoint"):
            rows = [
                Row("offset", {"topic": topic, "partition": index, "offset": offset})
                for (topic, index), offset in checkpoint.parse_offsets(data).items()
            ]
        elif name == names.METADATA:
            topic_id = checkpoint.encode_id(checkpoint.parse_topic_id(data))
            rows = [Row("metadata", {"topicId": topic_id})]
        elif name == names.DAMAGED:
            found = read_damage(disk, parent(path))
            assert found is not None, "the file was just read"
            rows = [Row("damaged", {
                "offset": found.offset, "claimedEnd": found.claimed_end, "reason": found.reason,
            })]  # fmt: skip
        else:
            rows = _plain(data)
    except ValueError as error:
        rows = [Row("damage", {"position": 0, "damage": str(error)})]
    yield from rows


def _parsed_epochs(data: bytes) -> list[tuple[int, int]]:
    return checkpoint.parse_epochs(data)


def _plain(data: bytes) -> list[Row]:
    """Files that are text for people already, and markers."""
    lines = data.decode("utf-8", "backslashreplace").splitlines() or ["(empty)"]
    return [Row("text", {"text": line}) for line in lines]
