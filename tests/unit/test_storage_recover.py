"""Opening a log: a clean one is believed, any other checked, and nothing cut in silence."""

from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from _fastseq.turn import DUPLICATE, GAP
from cluster.broker.disk import FileDisk
from cluster.storage import names
from cluster.storage.checkpoint import parse_topic_id
from cluster.storage.disk import DiskError, read_file, write_file
from cluster.storage.recover import open_log
from cluster.storage.settings import LogConfig
from cluster.wire.records import read_records
from tests.batches import make_batch
from tests.unit.log_fixture import ANY, CONFIG, TOPIC, Replica, next_offset

GOLDEN = Path(__file__).parent.parent / "golden" / "log"
SEGMENT = "t-0/00000000000000000000.log"


@pytest.fixture
def replica() -> Replica:
    """A log of 90 single records over several segments, synced."""
    replica = Replica()
    for _ in range(30):
        replica.append(3)
    replica.sync()
    return replica


def active(replica: Replica) -> str:
    return "t-0/" + [name for name in replica.disk.list("t-0") if name.endswith(".log")][-1]


def damage(replica: Replica, path: str, position: int, data: bytes) -> None:
    """Change bytes under a log that is not open; a negative position counts from the end."""
    handle = replica.disk.open(path)
    size = replica.disk.size(handle)
    replica.disk.write(handle, size + position if position < 0 else position, [data])
    replica.disk.sync(handle)
    replica.disk.close(handle)


def stop(replica: Replica) -> None:
    replica.log.close(clean=False)


def test_a_new_log_is_empty_and_durable() -> None:
    replica = Replica()
    assert (replica.recovery.next_offset, replica.recovery.cut_bytes) == (0, 0)
    for seed in range(5):
        assert replica.crash(seed).next_offset == 0
        assert not replica.log.doubtful
        assert replica.recovery.notes == ()


def test_a_clean_log_opens_without_replay_and_recognises_every_retry(replica: Replica) -> None:
    replica.sequence -= 5
    retries = [replica.batch() for _ in range(5)]
    whole, reads = replica.contents(), replica.disk.calls["read"]
    replica.reopen()
    assert replica.recovery.replayed_batches == 0
    assert replica.recovery.snapshot_offset == 90
    assert replica.disk.calls["read"] - reads < 15
    assert replica.contents() == whole
    assert replica.take(*retries) == [DUPLICATE] * 5


def test_a_crash_leaves_every_retry_recognised_too(replica: Replica) -> None:
    replica.sequence -= 5
    retries = [replica.batch() for _ in range(5)]
    replica.crash()
    assert replica.recovery.replayed_batches > 0
    assert replica.take(*retries) == [DUPLICATE] * 5


@pytest.mark.parametrize(
    ("position", "data", "reason"),
    [
        (-1, b"\xff", "a checksum is wrong"),
        (-219, bytes(219), "bytes that are no batch"),
        (-73 + 8, bytes([255] * 4), "an impossible batch length"),
        (-73 + 16, b"\x01", "bytes that are no batch"),
        (-73 + 23, bytes([255] * 4), "an impossible batch header"),
    ],
)
def test_a_damaged_tail_is_cut_and_said(
    replica: Replica, position: int, data: bytes, reason: str
) -> None:
    stop(replica)
    damage(replica, active(replica), position, data)
    log = replica.open()
    recovery = replica.recovery
    assert log.next_offset == recovery.next_offset == recovery.cut_from_offset
    assert log.next_offset == 90 + position // 73
    assert recovery.cut_bytes == 73 * (90 - log.next_offset)
    assert recovery.reason == reason
    assert recovery.doubtful
    assert log.doubtful
    assert log.table.next_offset == log.next_offset


def test_a_torn_tail_is_cut_and_said(replica: Replica) -> None:
    stop(replica)
    torn = make_batch(90, 4)[:-3]
    damage(replica, active(replica), len(replica.disk.contents(active(replica))), torn)
    replica.open()
    assert replica.log.next_offset == 90
    recovery = replica.recovery
    assert (recovery.cut_bytes, recovery.cut_from_offset, recovery.cut_to_offset) == (
        len(torn),
        90,
        94,
    )
    assert recovery.reason == "a batch is cut off"


def test_zeros_at_the_tail_are_cut(replica: Replica) -> None:
    stop(replica)
    damage(replica, active(replica), len(replica.disk.contents(active(replica))), bytes(40))
    assert replica.open().next_offset == 90
    assert replica.recovery.cut_bytes == 40


def test_a_stale_batch_at_the_tail_is_not_taken_for_data(replica: Replica) -> None:
    stop(replica)
    stale = replica.disk.contents(SEGMENT)[:80]
    damage(replica, active(replica), len(replica.disk.contents(active(replica))), stale)
    assert replica.open().next_offset == 90
    assert replica.recovery.reason == "offsets go backwards"


def test_the_doubt_is_durable_before_the_cut(replica: Replica) -> None:
    stop(replica)
    damage(replica, active(replica), -1, b"\xff")
    for countdown in range(1, 12):
        replica.disk.faults.name_countdown = countdown
        with suppress(DiskError):
            replica.open()
        replica.disk.faults.name_countdown = 0
        size = len(replica.disk.contents(active(replica)))
        replica.disk.crash(Random(countdown))
        if len(replica.disk.contents(active(replica))) < size:
            assert replica.disk.exists("t-0/doubtful")
    assert replica.open().doubtful


def test_damage_in_the_middle_takes_the_later_segments_along(replica: Replica) -> None:
    stop(replica)
    damage(replica, SEGMENT, -1, b"\xff")
    log = replica.open()
    assert log.next_offset < 40
    assert replica.recovery.cut_to_offset > 80
    assert [n for n in replica.disk.list("t-0") if n.endswith(".log")] == [SEGMENT[4:]]
    assert log.table.next_offset == log.next_offset
    again = replica.crash()
    assert (again.next_offset, replica.recovery.cut_bytes) == (log.next_offset, 0)


def test_a_missing_segment_ends_the_log_before_it(replica: Replica) -> None:
    stop(replica)
    second = [name for name in replica.disk.list("t-0") if name.endswith(".log")][1]
    replica.disk.unlink(f"t-0/{second}")
    assert replica.open().next_offset == names.offset_of(second, ".log")
    assert "does not begin" in replica.recovery.reason


def test_below_the_recovery_point_nothing_is_checked(replica: Replica) -> None:
    stop(replica)
    damage(replica, SEGMENT, -1, b"\xff")
    assert replica.open(recovery_point=90).next_offset == 90
    assert not replica.log.doubtful


def test_a_clean_stop_with_a_damaged_tail_is_not_clean(replica: Replica) -> None:
    replica.log.close(clean=True)
    damage(replica, active(replica), len(replica.disk.contents(active(replica))), bytes(10))
    assert replica.open(clean=True, recovery_point=90).next_offset == 90
    assert replica.log.doubtful


def test_damage_met_while_replaying_is_found_by_scanning_everything(replica: Replica) -> None:
    replica.log.close(clean=True)
    for name in replica.disk.list("t-0"):
        if name.endswith((".windows", ".snapshot")):
            replica.disk.unlink(f"t-0/{name}")
    damage(replica, SEGMENT, 100, bytes(100))
    log = replica.open(clean=True, recovery_point=90)
    assert log.next_offset < 40
    assert log.damage is not None
    assert log.damage.claimed_end == 90
    assert "scanned everything" in replica.recovery.notes[0]
    assert replica.disk.open_handles < 6


def test_snapshots_past_a_cut_do_not_come_back(replica: Replica) -> None:
    replica.log.take_snapshot()
    stop(replica)
    damage(replica, active(replica), -1, b"\xff")
    end = replica.open().next_offset
    replica.sequence = end
    assert end < 90
    while replica.log.next_offset < 95:
        replica.append(1, value=b"other")
    entries = replica.log.table.entries()
    replica.sync()
    assert replica.crash().table.entries() == entries


@pytest.mark.parametrize("suffix", [".windows", ".snapshot", ".index", ".timeindex"])
@pytest.mark.parametrize("content", [None, b"", b"junk" * 30])
def test_lost_or_damaged_helpers_are_never_fatal(
    replica: Replica, suffix: str, content: bytes | None
) -> None:
    entries, whole = replica.log.table.entries(), replica.contents()
    for clean in (True, False):
        replica.log.close(clean=clean)
        for name in replica.disk.list("t-0"):
            if name.endswith(suffix):
                replica.disk.unlink(f"t-0/{name}")
                if content is not None:
                    write_file(replica.disk, f"t-0/{name}", content, sync=True)
        replica.open(clean=clean, recovery_point=90)
        assert replica.log.table.entries() == entries
        assert replica.contents() == whole
        assert not replica.log.doubtful


@pytest.mark.parametrize("content", [None, b"", b"junk", b"0\n1\n0 0\n"])
def test_lost_leader_epochs_are_found_in_the_batches(content: bytes | None) -> None:
    replica = Replica()
    for epoch in (0, 3, 4):
        replica.log.lane.leader_epoch = epoch
        replica.append(20)
    for clean in (True, False):
        replica.log.close(clean=clean)
        replica.disk.unlink("t-0/leader-epoch-checkpoint")
        if content is not None:
            write_file(replica.disk, "t-0/leader-epoch-checkpoint", content, sync=True)
        assert replica.open(clean=clean).epochs == [(0, 0), (3, 20), (4, 40)]
        assert replica.log.last_epoch == replica.log.lane.leader_epoch == 4


def test_epochs_past_the_end_are_forgotten(replica: Replica) -> None:
    stop(replica)
    text = b"0\n3\n0 0\n2 90\n5 91\n"
    write_file(replica.disk, "t-0/leader-epoch-checkpoint", text, sync=True)
    assert replica.open().epochs == [(0, 0), (2, 90)]


def test_leftovers_of_interrupted_steps_are_removed(replica: Replica) -> None:
    stop(replica)
    for name in ("x.tmp", "00000000000000000777.index", "00000000000000000777.log.deleted"):
        write_file(replica.disk, f"t-0/{name}", b"", sync=True)
    write_file(replica.disk, "t-0/notes.txt", b"mine", sync=True)
    replica.open()
    assert len(replica.recovery.notes) == 3
    assert replica.disk.exists("t-0/notes.txt")
    assert not replica.disk.exists("t-0/x.tmp")


def test_another_topics_log_is_moved_aside_whole(replica: Replica) -> None:
    replica.log.close(clean=True)
    log, recovery = open_log(
        replica.disk, "t-0", topic_id=bytes(16), config=CONFIG, clean=True, now_ms=0
    )
    assert log.next_offset == 0
    assert "moved" in recovery.notes[0]
    stray, fresh = sorted(replica.disk.list(""), reverse=True)
    assert fresh == "t-0"
    assert parse_topic_id(replica.disk.contents(f"{stray}/partition.metadata")) == TOPIC


def test_an_error_while_opening_leaves_no_handle_open_and_is_not_forgotten(
    replica: Replica,
) -> None:
    stop(replica)
    replica.disk.faults.sync_countdown = 4
    with pytest.raises(DiskError):
        replica.open()
    assert replica.disk.open_handles == 0
    log = replica.open()
    assert 0 < log.next_offset < 90
    assert log.doubtful
    assert replica.recovery.reason == "a sync had failed"


def test_a_producer_that_skips_is_refused_after_recovery(replica: Replica) -> None:
    replica.crash()
    replica.sequence += 1
    assert replica.take(replica.batch()) == [GAP]


TOPICS = sorted(path.name for path in GOLDEN.glob("golden.*"))
ENDS = {
    "golden.rolled-0": 3000,
    "golden.log-append-time-0": 10,
    "golden.many-producers-0": 234,
    "golden.transactions-0": 36,
}


@pytest.fixture
def kafkas(tmp_path: Path) -> FileDisk:
    """A writable copy of a data directory made by Apache Kafka 4.3.1."""
    for source in GOLDEN.rglob("*"):
        target = tmp_path / source.relative_to(GOLDEN)
        if source.is_dir():
            target.mkdir()
        else:
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(source.read_bytes())
    return FileDisk(tmp_path)


@pytest.mark.parametrize("directory", TOPICS)
@pytest.mark.parametrize("clean", [True, False])
def test_a_log_of_kafka_opens_and_serves_every_byte(
    kafkas: FileDisk, directory: str, clean: bool
) -> None:
    topic_id = parse_topic_id(read_file(kafkas, f"{directory}/partition.metadata") or b"")
    log, recovery = open_log(
        kafkas, directory, topic_id=topic_id, config=LogConfig(), clean=clean, now_ms=0
    )
    assert log.next_offset == recovery.next_offset == ENDS.get(directory, 50)
    assert (recovery.cut_bytes, recovery.doubtful, log.epochs) == (0, False, [(0, 0)])
    stored = b"".join(path.read_bytes() for path in sorted((GOLDEN / directory).glob("*.log")))
    offset, served = 0, b""
    while offset < log.next_offset:
        data = bytes(log.read(offset, 100_000, ANY))
        assert data == stored[len(served) : len(served) + len(data)]
        served += data
        offset = next_offset(data)
    assert served == stored
    assert log.table.next_offset == log.next_offset
    log.close(clean=True)


# Transaction markers have a time and an offset too, but are no records.
@pytest.mark.parametrize("directory", [name for name in TOPICS if "transactions" not in name])
def test_every_record_of_kafka_is_found_by_its_time(kafkas: FileDisk, directory: str) -> None:
    topic_id = parse_topic_id(read_file(kafkas, f"{directory}/partition.metadata") or b"")
    log, _ = open_log(
        kafkas, directory, topic_id=topic_id, config=LogConfig(), clean=True, now_ms=0
    )
    stored = b"".join(path.read_bytes() for path in sorted((GOLDEN / directory).glob("*.log")))
    records = read_records(stored)
    for record in records[:: max(len(records) // 40, 1)]:
        first = next(other for other in records if other.timestamp >= record.timestamp)
        found = log.offset_for_timestamp(record.timestamp)
        assert found == (first.offset, first.timestamp)
    assert log.offset_for_timestamp(log.last_timestamp + 1) is None
    log.close(clean=True)


@pytest.mark.parametrize("clean", [True, False])
def test_log_that_ends_below_what_was_synced_is_doubtful(clean: bool) -> None:
    replica = Replica()
    replica.append(3)
    replica.sync()
    point = replica.log.recovery_point
    replica.log.close(clean=clean)
    replica.disk.remove_directory("t-0")
    log = replica.open(clean=clean, recovery_point=point)
    assert (log.next_offset, log.doubtful) == (0, True)
    assert replica.recovery.notes == (f"the log was synced to {point} and ends at 0",)
    assert replica.reopen(clean=clean).doubtful


def test_recovery_point_of_another_topic_of_that_name_casts_no_doubt() -> None:
    replica = Replica()
    replica.append(3)
    replica.log.close(clean=False)
    log, recovery = open_log(
        replica.disk, "t-0", topic_id=bytes(16), config=CONFIG, recovery_point=3, now_ms=0
    )
    assert (log.next_offset, log.doubtful) == (0, False)
    assert len(recovery.notes) == 1
