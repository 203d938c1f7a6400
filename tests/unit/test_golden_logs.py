"""Our readers against Kafka's own dump of the same files, field by field."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from _fastseq.batch import BatchHeader, control_key, scan
from _fastseq.table import ProducerEntry, ProducerTable
from cluster.storage.index import SparseIndex
from cluster.wire.records import next_offset, read_batches, read_records

GOLDEN = Path(__file__).parent.parent / "golden"
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def dumps(kind: str) -> list[Path]:
    return sorted((GOLDEN / "dump").glob(f"*.{kind}.txt"))


def file_of(dump: Path, suffix: str) -> bytes:
    """The file that the dump is of: `many-producers-000...234.snapshot.txt` and the like."""
    topic, offset = dump.name.split(".")[0].rsplit("-", 1)
    return (GOLDEN / "log" / f"golden.{topic}-0" / f"{offset}{suffix}").read_bytes()


def fields(line: str) -> dict[str, str]:
    return dict(re.findall(r"(\w+): (\S+)", line))


def batch_fields(data: bytes, position: int, header: BatchHeader) -> dict[str, str]:
    """A batch in the words of Kafka's dump."""
    sequence_end = header.base_sequence + header.last_offset_delta
    append_time = header.attributes & 0x08
    intact = scan(data, position, position + header.size, header.base_offset)
    return {
        "baseOffset": str(header.base_offset),
        "lastOffset": str(header.next_offset - 1),
        "count": str(header.record_count),
        "baseSequence": str(header.base_sequence),
        "lastSequence": str(-1 if header.base_sequence < 0 else sequence_end),
        "producerId": str(header.producer_id),
        "producerEpoch": str(header.producer_epoch),
        "partitionLeaderEpoch": str(header.leader_epoch),
        "isTransactional": "true" if header.attributes & 0x10 else "false",
        "isControl": "true" if header.is_control else "false",
        "deleteHorizonMs": "OptionalLong.empty",
        "position": str(position),
        "LogAppendTime" if append_time else "CreateTime": str(header.max_timestamp),
        "size": str(header.size),
        "magic": str(header.magic),
        "compresscodec": CODECS[header.attributes & 0x07],
        "crc": str(header.crc),
        "isvalid": "true" if intact.batches == 1 and intact.reason == 0 else "false",
    }


@pytest.mark.parametrize("dump", dumps("log"), ids=lambda path: path.name[:-8])
def test_every_batch_reads_as_kafka_reads_it(dump: Path) -> None:
    data = file_of(dump, ".log")
    lines = [line for line in dump.read_text().splitlines() if line.startswith("baseOffset")]
    ours = [batch_fields(data, position, header) for position, header in read_batches(data)]
    assert ours == [fields(line) for line in lines]
    assert next_offset(data, 0) == int(ours[-1]["lastOffset"]) + 1


def dumped_records(dump: Path) -> Iterator[tuple[str, str]]:
    """Each record's numbers and headers, and its key and payload, in Kafka's words."""
    for line in dump.read_text().splitlines():
        if line.startswith("| ") and "endTxnMarker" not in line:
            numbers, content = line[2:].split(" key: ")
            yield numbers, content


@pytest.mark.parametrize("dump", dumps("records"), ids=lambda path: path.name[:-12])
def test_every_record_reads_as_kafka_reads_it(dump: Path) -> None:
    data = file_of(dump, ".log")
    sequences = {
        header.base_offset + delta: header.base_sequence + delta
        for _, header in read_batches(data)
        for delta in range(header.last_offset_delta + 1)
    }
    ours = []
    for record in read_records(data):
        assert record.key is not None
        assert record.value is not None
        names = ",".join(name for name, _ in record.headers)
        numbers = (
            f"offset: {record.offset} CreateTime: {record.timestamp}"
            f" keySize: {len(record.key)} valueSize: {len(record.value)}"
            f" sequence: {sequences[record.offset]} headerKeys: [{names}]"
        )
        ours.append((numbers, f"{record.key.decode()} payload: {record.value.decode()}"))
    assert ours == list(dumped_records(dump))


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec_holds_the_same_records(codec: str) -> None:
    name = "00000000000000000000.log"
    plain = (GOLDEN / "log" / "golden.none-0" / name).read_bytes()
    packed = (GOLDEN / "log" / f"golden.{codec}-0" / name).read_bytes()
    assert len(read_records(packed)) == 50
    assert read_records(packed) == read_records(plain)


def test_transaction_markers_are_passed_over_and_read_by_their_type() -> None:
    dump = next(path for path in dumps("records") if path.name.startswith("transactions"))
    data = file_of(dump, ".log")
    markers = [control_key(data, position) for position, h in read_batches(data) if h.is_control]
    dumped = re.findall(r"endTxnMarker: (\w+)", dump.read_text())
    assert [("ABORT", "COMMIT")[marker or 0] for marker in markers] == dumped
    assert len(read_records(data)) == 30


def test_records_stamped_at_append_all_carry_the_batch_timestamp() -> None:
    data = (GOLDEN / "log/golden.log-append-time-0/00000000000000000000.log").read_bytes()
    assert {record.timestamp for record in read_records(data)} == {1795513785112}


def offset_of(dump: Path) -> int:
    return int(dump.name.split(".")[0].rsplit("-", 1)[1])


def producer_fields(entry: ProducerEntry) -> dict[str, str]:
    """A producer in the words of Kafka's dump, which knows its last batch only."""
    (batch,) = entry.batches
    return {
        "producerId": str(entry.producer_id),
        "producerEpoch": str(entry.producer_epoch),
        "lastTimestamp": str(entry.last_timestamp),
        "firstSequence": str(batch.first_sequence),
        "lastSequence": str(batch.last_sequence),
        "lastOffset": str(batch.next_offset - 1),
        "offsetDelta": str(batch.next_offset - 1 - batch.base_offset),
        "timestamp": str(entry.last_timestamp),
    }


@pytest.mark.parametrize("dump", dumps("snapshot"), ids=lambda path: path.name[:-13])
def test_every_snapshot_reads_as_kafka_reads_it(dump: Path) -> None:
    table = ProducerTable()
    table.load_kafka(file_of(dump, ".snapshot"), offset_of(dump))
    ours = [producer_fields(entry) for entry in table.entries()]
    theirs = sorted(
        (fields(line) for line in dump.read_text().splitlines()),
        key=lambda entry: int(entry["producerId"]),
    )
    for entry in theirs:  # transactions: not in our table
        assert entry.pop("currentTxnFirstOffset") == "OptionalLong.empty"
        assert int(entry.pop("coordinatorEpoch")) in (-1, 0)
    assert ours == theirs


@pytest.mark.parametrize("topic", [*CODECS, "log-append-time", "many-producers", "transactions"])
def test_replaying_a_log_gives_the_last_batches_of_its_snapshot(topic: str) -> None:
    log = (GOLDEN / f"log/golden.{topic}-0/00000000000000000000.log").read_bytes()
    (snapshot,) = (GOLDEN / f"log/golden.{topic}-0").glob("*.snapshot")
    loaded, replayed = ProducerTable(), ProducerTable()
    loaded.load_kafka(snapshot.read_bytes(), int(snapshot.stem))
    replayed.apply_run(log, 0, len(log))
    assert replayed.next_offset == int(snapshot.stem)

    def last_batches(table: ProducerTable) -> list[tuple[int, int, int, int, int]]:
        return [
            (e.producer_id, e.producer_epoch, b.first_sequence, b.base_offset, b.next_offset)
            for e in table.entries()
            for b in e.batches[-1:]
        ]

    assert last_batches(replayed) == last_batches(loaded)


@pytest.mark.parametrize("dump", dumps("index"), ids=lambda path: path.name[:-10])
def test_every_index_reads_as_kafka_reads_it(dump: Path) -> None:
    files = file_of(dump, ".index"), file_of(dump, ".timeindex")
    index = SparseIndex.load(offset_of(dump), *files)
    ours = [{"offset": str(offset), "position": str(at)} for offset, at in index.points]
    assert ours == [fields(line) for line in dump.read_text().splitlines()]
    if ours:
        assert index.dump() == files
