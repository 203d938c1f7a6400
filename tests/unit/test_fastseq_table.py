"""The producer table: replay, Kafka's snapshots, exact rollback, the journal's bound, dumps."""

import struct
from pathlib import Path

import pytest

from _fastseq import batch
from _fastseq.crc32c import crc32c
from _fastseq.table import CachedBatch, ProducerTable

GOLDEN = Path(__file__).parents[1] / "golden" / "log"
TOPICS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
VECTOR = bytes.fromhex(
    "0001e385a52d0000000100000000000000070003000000060000000000000065000000010000018bcfe5680a"
    "ffffffffffffffffffffffff"
)


def stamped(offset: int, producer_id: int = 7, epoch: int = 0, first: int = 0) -> bytes:
    """A batch of one record as a leader stored it."""
    data = batch.encode_batch(
        [(None, b"v", 1000 + offset, ())],
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=first,
    )
    return struct.pack(">q", offset) + data[8:]


def filled(count: int, **options: int) -> ProducerTable:
    table = ProducerTable(**options)
    for i in range(count):
        table.apply(stamped(i, first=i))
    return table


def positions(data: bytes) -> list[int]:
    found, at = [], 0
    while at < len(data):
        found.append(at)
        at += batch.read_header(data, at).size
    return found


def test_window_keeps_the_last_five_batches() -> None:
    (entry,) = filled(7).entries()
    assert (entry.producer_id, entry.producer_epoch, entry.accepted) == (7, 0, 7)
    assert [cached.first_sequence for cached in entry.batches] == [2, 3, 4, 5, 6]
    header = batch.read_header(stamped(6, first=6))
    assert entry.batches[-1] == CachedBatch(6, 6, 6, 7, header.crc)
    assert entry.last_timestamp == 1006


@pytest.mark.parametrize("topic", TOPICS)
def test_replay_gives_the_snapshots_that_kafka_wrote(topic: str) -> None:
    table = ProducerTable()
    for path in sorted((GOLDEN / topic).glob("*.log")):
        data = path.read_bytes()
        end = table.apply_run(data, 0, len(data))
        snapshot = (GOLDEN / topic / f"{end:020d}.snapshot").read_bytes()
        assert table.dump_kafka() == snapshot
        loaded = ProducerTable()
        loaded.load_kafka(snapshot, end)
        assert loaded.dump_kafka() == snapshot
        assert loaded.next_offset == loaded.journal_start == end


@pytest.mark.parametrize("topic", ["golden.transactions-0", "golden.many-producers-0"])
def test_rollback_restores_every_earlier_state_to_the_byte(topic: str) -> None:
    data = next((GOLDEN / topic).glob("*.log")).read_bytes()
    table = ProducerTable()
    states = [(0, table.dump(), table.digest)]
    for at in positions(data):
        table.apply(data, at)
        states.append((table.next_offset, table.dump(), table.digest))
    for offset, dumped, digest in reversed(states):
        assert table.rollback(offset)
        assert (table.next_offset, table.dump(), table.digest) == (offset, dumped, digest)
    table.apply_run(data, 0, len(data))
    assert table.dump() == states[-1][1]


def test_golden_snapshot_vector_loads_and_dumps() -> None:
    table = ProducerTable()
    table.load_kafka(VECTOR, 102)
    (entry,) = table.entries()
    assert (entry.producer_id, entry.producer_epoch, entry.last_timestamp) == (
        7,
        3,
        1_700_000_000_010,
    )
    assert entry.batches == (CachedBatch(5, 6, 100, 102, 0),)
    assert entry.accepted == 2
    assert table.dump_kafka() == VECTOR


def test_rollback_brings_the_evicted_sixth_batch_back() -> None:
    table = filled(5)
    before = table.dump()
    table.apply(stamped(5, first=5))
    assert table.rollback(5)
    assert table.dump() == before


def test_rollback_takes_a_batch_that_reaches_past_the_offset_whole() -> None:
    table = filled(2)
    data = batch.encode_batch([(None, b"", 0, ())] * 5, producer_id=7, base_sequence=2)
    table.apply(struct.pack(">q", 2) + data[8:])
    assert table.rollback(4)
    assert table.next_offset == 2


def test_rollback_below_the_trimmed_offset_is_refused() -> None:
    table = filled(10)
    table.trim(4)
    before = table.dump()
    assert table.journal_start == 4
    assert not table.rollback(3)
    assert table.dump() == before
    assert table.rollback(4)
    assert table.next_offset == 4


def test_full_journal_forgets_its_oldest_entry() -> None:
    table = filled(10, journal_entries=3)
    assert table.journal_start == 7
    assert not table.rollback(6)
    assert table.rollback(7)
    assert [cached.first_sequence for cached in table.entries()[0].batches] == [2, 3, 4, 5, 6]


def test_trim_cannot_pass_the_end_of_the_log() -> None:
    table = filled(3)
    table.trim(100)
    assert table.journal_start == 3
    table.apply(stamped(3, first=3))
    assert table.rollback(3)


def test_rollback_removes_producers_that_shared_a_run_of_the_index() -> None:
    table = ProducerTable()
    for i in range(1000):
        table.apply(stamped(i, producer_id=i * 7919))
    assert len(table) == 1000
    assert table.rollback(500)
    known = [table.get(i * 7919) is not None for i in range(1000)]
    assert known == [True] * 500 + [False] * 500


def test_lower_epoch_in_the_log_resets_the_state_to_it() -> None:
    table = filled(3)
    table.apply(stamped(3, epoch=5, first=0))
    table.apply(stamped(4, epoch=2, first=9))
    (entry,) = table.entries()
    assert (entry.producer_epoch, entry.accepted, len(entry.batches)) == (2, 1, 1)


def test_jump_in_a_foreign_log_starts_the_window_anew() -> None:
    table = filled(3)
    table.apply(stamped(3, first=50))
    (entry,) = table.entries()
    assert (entry.accepted, [c.first_sequence for c in entry.batches]) == (1, [50])


def test_batches_without_a_producer_only_move_the_end() -> None:
    table = ProducerTable(5)
    assert table.apply(stamped(7, producer_id=-1)) == 8
    assert (len(table), table.next_offset) == (0, 8)


def test_emptied_control_batch_and_unknown_control_types_change_nothing() -> None:
    emptied = bytearray(batch.encode_batch([(b"\0\0\0\1", b"", 0, ())], producer_id=7))
    struct.pack_into(">hi", emptied, 21, 0x30, 0)
    struct.pack_into(">ii", emptied, 57, 0, 0)
    fence = batch.encode_batch([(b"\0\0\0\x64", b"", 0, ())], attributes=0x20)
    table = ProducerTable()
    table.apply(bytes(emptied[:8]) + struct.pack(">i", 49) + bytes(emptied[12:61]))
    table.apply(struct.pack(">q", table.next_offset) + fence[8:])
    assert (len(table), table.next_offset) == (0, 2)


def test_run_is_applied_whole_or_not_at_all() -> None:
    table = filled(2)
    before = table.dump()
    good = stamped(2, first=2)
    for bad in (good[:-1], stamped(1), bytes(61), b"x"):
        with pytest.raises(ValueError, match="cannot be applied"):
            table.apply_run(good + bad, 0, len(good + bad))
        assert table.dump() == before
    assert table.apply_run(good + stamped(3, first=3), 0, -1) == 4


def test_apply_takes_exactly_one_batch() -> None:
    two = stamped(0) + stamped(1, first=1)
    size = len(stamped(0))
    table = ProducerTable()
    with pytest.raises(ValueError, match="2 batches"):
        table.apply(two, 0, len(two))
    assert table.apply(two) == 1
    assert table.apply(two, size, size) == 2
    with pytest.raises(ValueError, match="position"):
        table.apply(two, len(two))


def test_dump_keeps_whole_windows_and_loads_into_the_same_state() -> None:
    table = filled(8)
    table.apply(stamped(8, producer_id=2**62, epoch=32767))
    loaded = ProducerTable()
    loaded.load(table.dump())
    assert loaded.entries() == table.entries()
    assert (loaded.digest, loaded.next_offset, loaded.journal_start) == (table.digest, 9, 9)
    loaded.apply(stamped(9, first=8))
    table.apply(stamped(9, first=8))
    assert loaded.dump() == table.dump()


def test_equal_states_dump_equally_whatever_the_order_of_producers() -> None:
    one, two = ProducerTable(), ProducerTable()
    for offset, producer in enumerate([5, 3, 9]):
        one.apply(stamped(offset, producer_id=producer))
    two.load(one.dump())
    assert (one.dump(), one.digest) == (two.dump(), two.digest)
    assert [entry.producer_id for entry in one.entries()] == [3, 5, 9]


def test_every_damage_to_a_dump_is_noticed_and_changes_nothing() -> None:
    dumped = filled(8).dump()
    table = filled(3)
    before = table.dump()
    for at in range(len(dumped)):
        spoilt = bytearray(dumped)
        spoilt[at] ^= 0x41
        with pytest.raises(ValueError, match="producer state"):
            table.load(spoilt)
    for size in range(len(dumped)):
        with pytest.raises(ValueError, match="producer state"):
            table.load(dumped[:size])
    assert table.dump() == before


def test_every_damage_to_a_kafka_snapshot_is_noticed() -> None:
    for at in range(len(VECTOR)):
        spoilt = bytearray(VECTOR)
        spoilt[at] ^= 0x41
        with pytest.raises(ValueError, match="snapshot"):
            ProducerTable().load_kafka(spoilt, 1000)
    for size in range(len(VECTOR)):
        with pytest.raises(ValueError, match="snapshot"):
            ProducerTable().load_kafka(VECTOR[:size], 1000)
    with pytest.raises(ValueError, match="producer 0 of 1"):
        ProducerTable().load_kafka(VECTOR, 101)


def resealed(dumped: bytearray) -> bytes:
    struct.pack_into(">I", dumped, 12, crc32c(dumped[16:]))
    return bytes(dumped)


def test_section_of_a_later_version_is_skipped_only_if_it_says_so() -> None:
    dumped = bytearray(filled(2).dump())
    struct.pack_into(">I", dumped, 24, 5)
    skippable = resealed(dumped + struct.pack(">IQ", 0x80000005, 3) + b"abc")
    table = ProducerTable()
    table.load(skippable)
    assert table.next_offset == 2
    needed = resealed(dumped + struct.pack(">IQ", 6, 3) + b"abc")
    with pytest.raises(ValueError, match="section 6"):
        table.load(needed)


def test_numbers_that_make_no_sense_are_damage_though_the_checksum_is_right() -> None:
    good = filled(3).dump()
    entry, cached = 44, 96
    for code, at, value in [
        (">q", 16, 2),  # next offset below the batches
        (">q", entry, -1),  # producer id
        (">q", entry + 8, 2),  # accepted below the window
        (">q", entry + 24, 2),  # another end than that of the newest batch
        (">i", entry + 44, 7),  # another next sequence
        (">b", entry + 50, 6),  # six batches
        (">b", entry + 51, 8),  # by-range bit of a batch that is not there
        (">i", cached + 8, -1),  # sequence
        (">i", cached + 12, -1),  # records
        (">i", cached + 20 + 8, 7),  # not contiguous
        (">q", cached + 20, 1),  # offsets that do not ascend
        (">I", cached + 16, 7),  # a checksum that the digest does not know
    ]:
        spoilt = bytearray(good)
        struct.pack_into(code, spoilt, at, value)
        with pytest.raises(ValueError, match="producer state is damaged"):
            ProducerTable().load(resealed(spoilt))


def test_clear_forgets_everything() -> None:
    table = filled(5)
    table.clear(100)
    assert (len(table), table.next_offset, table.journal_start) == (0, 100, 100)
    table.apply(stamped(100))
    assert table.entries()[0].accepted == 1


def test_wrong_arguments_are_named() -> None:
    table = ProducerTable()
    with pytest.raises(ValueError, match="next_offset"):
        ProducerTable(-1)
    with pytest.raises(ValueError, match="journal_entries"):
        ProducerTable(journal_entries=0)
    with pytest.raises(TypeError, match="producer_id"):
        table.get("7")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data"):
        table.load("x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offset"):
        table.rollback(-1)
    with pytest.raises(ValueError, match="end"):
        table.apply_run(b"", 0, 1)
