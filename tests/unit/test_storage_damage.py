"""Damage below what was synced: never cut by itself, and given up only behind a leader (rule 7)."""

from contextlib import suppress
from random import Random

import pytest

from cluster.limits import CUTS_KEPT, OFFSET_MAX
from cluster.storage.damage import Damage, Place, find_damage, mark_damage, read_damage
from cluster.storage.disk import DiskError, write_file
from cluster.storage.recover import Opening
from tests.unit.log_fixture import CONFIG, TOPIC, Replica

SEGMENT = "t-0/00000000000000000000.log"
ALL = 90


@pytest.fixture
def replica() -> Replica:
    """A log of 90 single records over several segments, synced and closed as by a crash."""
    replica = Replica()
    for _ in range(30):
        replica.append(3)
    replica.sync()
    replica.log.close(clean=False)
    return replica


def logs(replica: Replica) -> list[str]:
    return [f"t-0/{name}" for name in replica.disk.list("t-0") if name.endswith(".log")]


def kept(replica: Replica, suffix: str) -> list[str]:
    names = replica.disk.list("t-0")
    return [f"t-0/{name}" for name in names if name.startswith("cut-") and name.endswith(suffix)]


def rot(replica: Replica, path: str, batch: int, byte: int = 70) -> None:
    """One bit of a batch goes bad; every batch here has 73 bytes."""
    replica.disk.rot(path, 73 * batch + byte, 3)


def state(replica: Replica) -> dict[str, bytes]:
    return {path: replica.disk.contents(path) for path in logs(replica)}


def test_damage_below_the_recovery_point_is_left_alone_and_said(replica: Replica) -> None:
    rot(replica, logs(replica)[-1], 0)
    before = state(replica)
    log = replica.open(recovery_point=ALL)
    first = log.next_offset
    assert 0 < first < ALL
    assert log.damage == Damage(first, ALL, 0, "a checksum is wrong")
    assert replica.recovery.damage == log.damage
    assert (replica.recovery.cut_bytes, log.doubtful) == (0, False)
    assert state(replica) == before
    replica.sequence = first
    with pytest.raises(DiskError):
        replica.append()
    log.close(clean=True)
    for clean in (True, False):  # and stays so, whatever the checkpoint says by now
        assert replica.open(clean=clean, recovery_point=first).damage == log.damage
        assert state(replica) == before
        replica.log.close(clean=True)


def test_a_missing_segment_below_the_recovery_point_is_damage(replica: Replica) -> None:
    gone = logs(replica)[1]
    replica.disk.unlink(gone)
    log = replica.open(recovery_point=ALL)
    assert log.damage is None, "nothing was checked there"
    log.close(clean=False)
    mark_damage(replica.disk, "t-0", Damage(0, 1, 0, "somebody said so"))
    log = replica.open(recovery_point=ALL)
    assert log.damage is not None
    assert (log.damage.offset, log.damage.claimed_end) == (log.next_offset, ALL)
    assert log.next_offset == int(gone[4:24])


def test_a_damaged_log_is_cut_behind_a_leader_and_fetches_the_rest(replica: Replica) -> None:
    path = logs(replica)[1]
    before = state(replica)
    rot(replica, path, 2)
    mark_damage(replica.disk, "t-0", Damage(0, 1, 0, "a read"))
    log = replica.open(recovery_point=ALL)
    damaged = state(replica)
    end = log.cut_damage(0)
    log.rebuild()
    assert end == log.next_offset == log.recovery_point == log.table.next_offset
    assert (log.damage, log.doubtful, log.failed) == (None, True, False)
    assert read_damage(replica.disk, "t-0") is None
    assert logs(replica) == [SEGMENT, path]
    (tail,) = kept(replica, ".tail")
    assert replica.disk.contents(tail) == damaged[path][2 * 73 :]
    whole = [replica.disk.contents(name) for name in kept(replica, ".segment")]
    assert sorted(whole) == sorted(data for name, data in damaged.items() if name > path)
    rest = before[path][2 * 73 :] + b"".join(data for name, data in before.items() if name > path)
    log.lane.leader_epoch = 0
    assert log.apply(rest, 0, len(rest), 0) == 0
    assert replica.contents() == b"".join(before.values())
    log.clear_doubtful()
    assert (len(kept(replica, ".tail")), kept(replica, ".segment")) == (1, [])


@pytest.mark.parametrize("seed", range(4))
def test_a_crash_while_giving_up_damage_leaves_it_marked_or_the_log_doubtful(seed: int) -> None:
    countdown = 0
    while True:
        countdown += 1
        replica = Replica()
        for _ in range(30):
            replica.append(3)
        replica.sync()
        replica.log.close(clean=False)
        rot(replica, SEGMENT, 4)
        mark_damage(replica.disk, "t-0", Damage(4, ALL, 0, "a read"))
        replica.open(recovery_point=ALL)
        replica.disk.faults.name_countdown = countdown
        with suppress(DiskError):
            replica.log.cut_damage(0)
            break
        replica.disk.faults.name_countdown = 0
        log = replica.crash(seed, recovery_point=4)
        assert log.next_offset == 4
        assert log.damage is not None or log.doubtful
    assert countdown > 10


def test_damage_met_by_a_check_of_a_running_log_is_marked_at_once(replica: Replica) -> None:
    log = replica.open(recovery_point=ALL)
    rot(replica, SEGMENT, 4)
    place = find_damage(log._segments.holding(4))
    assert place is not None
    assert (place.offset, place.position, place.reason) == (4, 4 * 73, "a checksum is wrong")
    log.mark_damaged(place)
    assert log.damage == Damage(4, ALL, 0, "a checksum is wrong")
    assert read_damage(replica.disk, "t-0") == log.damage
    assert log.next_offset == ALL, "a leader has to hand over first"
    assert log.cut_damage(0) == 4
    log.rebuild()
    assert log.table.next_offset == log.next_offset == 4


def test_what_is_not_yet_synced_is_not_damage(replica: Replica) -> None:
    log = replica.open(recovery_point=ALL)
    segment = log._segments.active
    log.mark_damaged(Place(segment, segment.size, log.recovery_point, "x"))
    assert log.damage is None


def test_a_raised_base_offset_does_not_pass_for_a_gap(replica: Replica) -> None:
    path = logs(replica)[-1]
    position = 5 * 73
    raised = int.from_bytes(replica.disk.contents(path)[position : position + 8]) + 1
    handle = replica.disk.open(path)
    replica.disk.write(handle, position, [raised.to_bytes(8)])
    replica.disk.sync(handle)
    replica.disk.close(handle)
    log = replica.open()
    assert log.next_offset == raised - 1
    assert replica.recovery.reason == "offsets are missing"
    assert log.doubtful


def test_what_recovery_cuts_is_kept_and_named(replica: Replica) -> None:
    for cut in range(1, CUTS_KEPT + 3):
        path = logs(replica)[-1]
        size = len(replica.disk.contents(path))
        rot(replica, path, size // 73 - 1)
        damaged = replica.disk.contents(path)[-73:]
        replica.open()
        (name,) = replica.recovery.kept
        assert replica.disk.contents(f"t-0/{name}") == damaged
        assert name.startswith(f"cut-{cut:04d}-")
        replica.log.close(clean=False)
    assert len(kept(replica, ".tail")) == CUTS_KEPT


def test_a_full_disk_does_not_keep_a_log_from_being_cut(replica: Replica) -> None:
    path = logs(replica)[-1]
    rot(replica, path, 1)
    replica.disk.faults.capacity_bytes = replica.disk.used_bytes + 1
    assert replica.open().next_offset < ALL
    assert (replica.recovery.kept, kept(replica, ".tail")) == ((), [])
    assert replica.log.doubtful


def test_an_end_that_cannot_be_told_outranks_everybody(replica: Replica) -> None:
    path = logs(replica)[-1]
    replica.disk.rot(path, 16, 0)  # the magic: where the batch ends is anybody's guess
    assert replica.open(recovery_point=ALL).damage == Damage(
        int(path[4:24]), OFFSET_MAX, 0, "bytes that are no batch"
    )


@pytest.mark.parametrize(
    "content", [b"", b"junk", b"0\n1\n", b"0\nx y z\n\n", b"\xff\n", b"1\n1 1 1\n"]
)
def test_an_unreadable_marker_stands_for_damage_from_the_start_on(
    replica: Replica, content: bytes
) -> None:
    write_file(replica.disk, "t-0/damaged", content, sync=True)
    found = read_damage(replica.disk, "t-0")
    assert found is not None
    assert (found.offset, found.claimed_end) == (0, OFFSET_MAX)
    log = replica.open(recovery_point=ALL)
    assert (log.damage, log.next_offset) == (None, ALL), "everything was checked, and is sound"
    assert read_damage(replica.disk, "t-0") is None


def test_a_log_opens_a_piece_at_a_time(replica: Replica) -> None:
    opening = Opening(replica.disk, "t-0", topic_id=TOPIC, config=CONFIG, now_ms=5)
    steps = 0
    while (opened := opening.go_on(1, 5 + steps)) is None:
        steps += 1
    log, recovery = opened
    assert steps > len(logs(replica)), "each segment is one piece at least"
    assert (log.next_offset, recovery.took_ms) == (ALL, steps)
    assert recovery.scanned_bytes == 73 * ALL
    assert opening.read_bytes >= recovery.scanned_bytes + recovery.replayed_bytes


def test_an_opening_that_nobody_wants_any_more_leaves_no_file_open(replica: Replica) -> None:
    opening = Opening(replica.disk, "t-0", topic_id=TOPIC, config=CONFIG, now_ms=0)
    assert opening.go_on(1, 0) is None
    assert replica.disk.open_handles > 0
    opening.abandon()
    assert replica.disk.open_handles == 0


def test_power_lost_after_damage_was_met_finds_it_again(replica: Replica) -> None:
    rot(replica, logs(replica)[-1], 3)
    first = replica.open(recovery_point=ALL).damage
    assert first is not None
    replica.disk.crash(Random(1))
    assert replica.open(recovery_point=0).damage == first


def written(misdirect: int) -> Replica:
    replica = Replica()
    replica.disk.faults.misdirect_countdown = misdirect
    for _ in range(31):
        replica.append(3)
        replica.sync()
    replica.log.close(clean=False)
    return replica


@pytest.mark.parametrize("recovery_point", [0, 93])
def test_a_misdirected_write_is_found_where_it_landed_or_where_it_is_missing(
    recovery_point: int,
) -> None:
    sound = written(0)
    for writes in range(2, 30):
        replica = written(writes)
        if state(replica) == state(sound):
            continue  # it was a write to another file
        log = replica.open(recovery_point=recovery_point)
        if recovery_point:  # nothing is checked that was synced; the scrubber does it
            places = [find_damage(segment) for segment in log._segments.since(0)]
            assert any(place is not None for place in places) or log.damage is not None
        else:
            assert log.next_offset < 93
            assert log.doubtful
