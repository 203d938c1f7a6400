"""Turns: the decision table row by row, the arena, several lanes at once, and replicated pushes."""

import gc
import struct
import sys

import pytest

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.table import ProducerTable

MAXI = 2**31 - 1


def produced(
    first: int, count: int = 1, *, producer_id: int = 7, epoch: int = 0, at: int = 1000
) -> bytes:
    records = [(None, b"value", at + i, ()) for i in range(count)]
    return batch.encode_batch(
        records, producer_id=producer_id, producer_epoch=epoch, base_sequence=first
    )


def patched(data: bytes, code: str, position: int, value: int) -> bytes:
    out = bytearray(data)
    struct.pack_into(code, out, position, value)
    struct.pack_into(">I", out, 17, crc32c(out[21:]))
    return bytes(out)


def lane_at(next_offset: int = 0) -> turn.Lane:
    return turn.Lane(ProducerTable(next_offset), leader_epoch=3)


def run(lane: turn.Lane, *frames: bytes, native: bool = True, bound: int = 2**63 - 1) -> turn.Turn:
    made = turn.Turn()
    for slot, frame in enumerate(frames):
        made.add(lane, frame, 0, len(frame), slot, native)
    made.run(bound)
    return made


def answers(made: turn.Turn) -> list[tuple[int, int, int, int]]:
    return list(zip(made.verdicts, made.errors, made.offsets, made.ends, strict=True))


def answer(lane: turn.Lane, frame: bytes, *, native: bool = True) -> tuple[int, int, int, int]:
    (only,) = answers(run(lane, frame, native=native))
    return only


def test_new_batches_get_the_next_offsets() -> None:
    lane = lane_at(10)
    assert answers(run(lane, produced(0, 3), produced(3, 2))) == [
        (turn.NEW, 0, 10, 13),
        (turn.NEW, 0, 13, 15),
    ]
    assert lane.next_offset == lane.table.next_offset == 15
    assert (lane.batches, lane.records) == (2, 5)


def test_retry_gets_the_offset_of_the_original_and_waits_for_it() -> None:
    lane = lane_at()
    first = produced(0, 3)
    run(lane, first, produced(3))
    assert answer(lane, first) == (turn.DUPLICATE, 0, 0, 3)
    assert (lane.duplicates, lane.next_offset) == (1, 4)


def test_second_copy_in_the_same_turn_is_a_duplicate() -> None:
    frame = produced(0, 2)
    made = run(lane_at(), frame, frame, frame)
    assert answers(made) == [(turn.NEW, 0, 0, 2)] + [(turn.DUPLICATE, 0, 0, 2)] * 2
    assert len(made.arena) == len(frame)


def test_all_five_in_flight_are_recognised() -> None:
    lane = lane_at()
    frames = [produced(i) for i in range(5)]
    run(lane, *frames)
    assert answers(run(lane, *frames)) == [(turn.DUPLICATE, 0, i, i + 1) for i in range(5)]


def test_below_the_window_native_clients_get_a_duplicate_without_offset() -> None:
    lane = lane_at()
    frames = [produced(i) for i in range(7)]
    run(lane, *frames)
    assert answer(lane, frames[0]) == (turn.DUPLICATE, 0, -1, 3)
    assert answer(lane, produced(0, 2)) == (turn.DUPLICATE, 0, -1, 3)


def test_below_the_window_kafka_clients_are_told_to_keep_calm() -> None:
    lane = lane_at()
    frames = [produced(i) for i in range(7)]
    run(lane, *frames)
    assert answer(lane, frames[0], native=False) == (turn.STALE, 7, -1, -1)
    assert (lane.stale, lane.duplicates) == (1, 0)


def test_sequences_that_this_epoch_never_accepted_are_no_duplicates() -> None:
    lane = lane_at()
    run(lane, *[produced(i) for i in range(7)])
    run(lane, *[produced(i, epoch=1) for i in range(6)])
    assert answer(lane, produced(MAXI, epoch=1)) == (turn.GAP, 45, -1, -1)


@pytest.mark.parametrize(
    ("first", "count"), [(4, 1), (1, 1), (0, 2), (1, 3), (2, 2), (0, 1), (0, 4), (MAXI, 1)]
)
def test_gap_overlap_superset_and_restart_are_refused(first: int, count: int) -> None:
    lane = lane_at()
    run(lane, produced(0, 3))
    assert answer(lane, produced(first, count)) == (turn.GAP, 45, -1, -1)
    assert (lane.gaps, lane.next_offset) == (1, 3)


def test_range_across_the_border_of_the_window_is_an_overlap() -> None:
    lane = lane_at()
    run(lane, *[produced(i) for i in range(7)])
    assert answer(lane, produced(1, 2))[:2] == (turn.GAP, 45)


def test_unknown_producer_starts_at_zero_only() -> None:
    lane = lane_at()
    assert answer(lane, produced(17)) == (turn.UNKNOWN_PRODUCER, 45, -1, -1)
    assert (lane.unknown_producers, len(lane.table)) == (1, 0)
    assert answer(lane, produced(0))[0] == turn.NEW


def test_lower_epoch_is_fenced_even_for_an_old_duplicate() -> None:
    lane = lane_at()
    old = produced(0)
    run(lane, old, produced(0, epoch=2))
    assert answer(lane, old) == (turn.FENCED, 47, -1, -1)
    assert lane.fenced == 1


def test_higher_epoch_starts_at_zero_only() -> None:
    lane = lane_at()
    run(lane, produced(0))
    assert answer(lane, produced(1, epoch=4)) == (turn.GAP, 45, -1, -1)
    assert answer(lane, produced(0, epoch=4)) == (turn.NEW, 0, 1, 2)
    (entry,) = lane.table.entries()
    assert (entry.producer_epoch, entry.accepted, len(entry.batches)) == (4, 1, 1)


def test_other_bytes_under_the_same_sequence_conflict_for_native_clients() -> None:
    lane = lane_at()
    run(lane, produced(0))
    assert answer(lane, produced(0, at=2000)) == (turn.CONFLICT, 87, -1, -1)
    assert (lane.conflicts, lane.duplicates) == (1, 0)


def test_other_bytes_under_the_same_sequence_are_acked_and_counted_for_kafka_clients() -> None:
    lane = lane_at()
    run(lane, produced(0))
    assert answer(lane, produced(0, at=2000), native=False) == (turn.DUPLICATE, 0, 0, 1)
    assert (lane.conflicts, lane.duplicates) == (1, 1)


def near_the_wrap() -> turn.Lane:
    """A producer whose next sequence is MAXI - 1, as a replayed log leaves it."""
    lane = lane_at()
    lane.table.apply(produced(MAXI - 2))
    return lane


def test_sequences_wrap_from_the_largest_to_zero() -> None:
    lane = near_the_wrap()
    wrapping = produced(MAXI - 1, 3)
    assert answer(lane, wrapping) == (turn.NEW, 0, 1, 4)
    assert answer(lane, wrapping) == (turn.DUPLICATE, 0, 1, 4)
    assert lane.table.entries()[0].batches[-1][:2] == (MAXI - 1, 0)
    assert answer(lane, produced(0))[:2] == (turn.GAP, 45)
    assert answer(lane, produced(1))[:3] == (turn.NEW, 0, 4)


def test_single_records_wrap_too_and_fall_below_the_window_across_it() -> None:
    lane = near_the_wrap()
    frames = [produced((MAXI - 1 + i) % 2**31) for i in range(7)]
    assert [verdict for verdict, *_ in answers(run(lane, *frames))] == [turn.NEW] * 7
    assert answer(lane, frames[0]) == (turn.DUPLICATE, 0, -1, 4)
    assert answer(lane, frames[1]) == (turn.DUPLICATE, 0, -1, 4)
    assert answer(lane, frames[2]) == (turn.DUPLICATE, 0, 3, 4)


def test_batches_without_a_producer_are_always_new() -> None:
    lane = lane_at()
    frame = produced(-1, producer_id=-1, epoch=-1)
    assert [verdict for verdict, *_ in answers(run(lane, frame, frame))] == [turn.NEW] * 2
    assert len(lane.table) == 0


def test_id_above_the_bound_is_refused_unless_it_is_a_proven_retry() -> None:
    lane = lane_at()
    run(lane, produced(0))
    made = run(lane, produced(0), produced(1), produced(0, producer_id=6), bound=7)
    assert [verdict for verdict, *_ in answers(made)] == [
        turn.DUPLICATE,
        turn.ABOVE_BOUND,
        turn.NEW,
    ]
    assert list(made.errors) == [0, 19, 0]
    assert lane.above_bound == 1


@pytest.mark.parametrize(
    ("frame", "error"),
    [
        (b"", 87),
        (produced(0)[:-1], 87),
        (produced(0)[:-1] + b"x", 2),
        (produced(0) * 2, 87),
        (patched(produced(0), ">i", 57, 2), 87),
        (patched(produced(0), ">h", 21, 0x20), 87),
        (patched(produced(0), ">h", 21, 0x10), 48),
        (patched(produced(0), ">i", 53, -5), 87),
        (produced(0, 100_000), 10),
    ],
)
def test_invalid_batch_is_answered_and_never_appended(frame: bytes, error: int) -> None:
    lane = lane_at()
    made = run(lane, frame, produced(0))
    assert answers(made) == [(turn.INVALID, error, -1, -1), (turn.NEW, 0, 0, 1)]
    assert (lane.invalid, lane.next_offset) == (1, 1)
    assert made.runs == [(lane, 0, len(produced(0)), 0, 1)]


def test_stored_bytes_differ_in_offset_and_leader_epoch_only() -> None:
    frame = produced(0, 2)
    made = run(lane_at(41), frame)
    assert made.arena == struct.pack(">q", 41) + frame[8:12] + struct.pack(">i", 3) + frame[16:]


def test_false_max_timestamp_and_unknown_bits_are_corrected_with_the_checksum() -> None:
    honest = produced(0, 2)
    lying = patched(patched(honest, ">q", 35, 99_999), ">h", 21, -128)
    lane = lane_at()
    made = run(lane, lying)
    stored = batch.read_header(made.arena)
    assert (stored.attributes, stored.max_timestamp) == (0, 1001)
    assert stored.crc == batch.read_header(honest).crc
    assert batch.scan(made.arena, 0, -1, 0).reason == batch.SCAN_END
    assert answer(lane, lying)[0] == answer(lane, honest)[0] == turn.DUPLICATE


def test_lanes_of_one_turn_are_laid_out_one_after_another() -> None:
    one, two, idle = lane_at(5), lane_at(50), lane_at()
    made = turn.Turn()
    frames = [produced(0), produced(0, 2), produced(1), produced(9), produced(2)]
    for slot, (lane, frame) in enumerate(zip((two, one, two, idle, two), frames, strict=True)):
        made.add(lane, frame, 0, len(frame), 100 + slot)
    made.run()
    single, double = len(frames[0]), len(frames[1])
    assert made.runs == [
        (two, 0, 3 * single, 50, 53),
        (one, 3 * single, 3 * single + double, 5, 7),
    ]
    assert list(made.slots) == [100, 101, 102, 103, 104]
    assert batch.scan(made.arena, 0, 3 * single, 50).next_offset == 53
    assert batch.scan(made.arena, 3 * single, -1, 5).next_offset == 7


def test_entries_lie_anywhere_in_a_shared_frame() -> None:
    parts = [produced(0), produced(1), produced(2)]
    frame = bytearray(b"head" + b"--".join(parts))
    lane = lane_at()
    made = turn.Turn()
    at = 4
    for slot, part in enumerate(parts):
        made.add(lane, frame, at, len(part), slot)
        at += len(part) + 2
    made.run()
    assert [verdict for verdict, *_ in answers(made)] == [turn.NEW] * 3
    frame.clear()


def test_results_outlive_the_turn_they_came_from() -> None:
    lane = lane_at()
    made = run(lane, produced(0))
    arena, verdicts, runs = made.arena, made.verdicts, made.runs
    made.begin()
    assert (made.count, made.arena, made.runs, len(made.verdicts)) == (0, b"", [], 0)
    made.run()
    assert made.arena == b""
    assert (len(arena), list(verdicts), len(runs)) == (len(produced(0)), [turn.NEW], 1)
    assert verdicts.readonly


def test_frames_are_kept_until_the_turn_has_run_and_no_longer() -> None:
    frame = bytearray(produced(0))
    made = turn.Turn()
    made.add(lane_at(), frame, 0, len(frame), 0)
    with pytest.raises(BufferError):
        frame.append(0)
    made.run()
    frame.append(0)
    again = bytes(frame)
    count = sys.getrefcount(again)
    made.begin()
    made.add(lane_at(), again, 0, len(again), 0)
    del made
    gc.collect()
    assert sys.getrefcount(again) == count


def test_rollback_after_a_failed_write_makes_the_retry_new_again() -> None:
    lane = lane_at()
    run(lane, produced(0))
    before = lane.table.dump()
    made = run(lane, produced(1), produced(2))
    ((_, _, _, base_offset, _),) = made.runs
    assert lane.table.rollback(base_offset)
    assert lane.table.dump() == before
    assert answer(lane, produced(1)) == (turn.NEW, 0, 1, 2)


def test_journal_bound_holds_within_a_turn() -> None:
    lane = turn.Lane(ProducerTable(journal_entries=4), 0)
    run(lane, *[produced(i) for i in range(100)])
    assert lane.table.journal_start == 96
    assert lane.table.rollback(96)
    assert answer(lane, produced(96))[0] == turn.NEW


def test_pushed_batches_give_the_follower_the_leaders_state() -> None:
    leader, follower = lane_at(), lane_at()
    made = run(leader, produced(0, 3), produced(3), produced(0, producer_id=-1), produced(4))
    assert turn.push_check(follower, made.arena, 0, len(made.arena)) == 0
    assert follower.table.dump() == leader.table.dump()
    assert answer(follower, produced(3)) == (turn.DUPLICATE, 0, 3, 4)


def test_bad_push_changes_nothing() -> None:
    arena = run(lane_at(), produced(0), produced(1), produced(2)).arena
    size = len(arena) // 3
    flipped, epoch, magic = bytearray(arena), bytearray(arena), bytearray(arena)
    flipped[-1] ^= 1
    epoch[2 * size + 15] = 4
    magic[2 * size + 16] = 1
    follower = lane_at()
    before = follower.table.dump()
    damaged: list[tuple[bytes | bytearray, int]] = [
        (flipped, 2),
        (arena[:-1], 2),
        (arena + b"\0", 2),
        (epoch, 75),
        (magic, 87),
        (arena[:size] + arena[2 * size :], 1),
        (arena[size:], 1),
        (arena + arena, 1),
    ]
    for data, error in damaged:
        assert turn.push_check(follower, data, 0, len(data)) == error
        assert follower.table.dump() == before
        assert follower.next_offset == 0
    assert turn.push_check(follower, arena, 0, 0) == 0
    assert turn.push_check(follower, arena, 0, len(arena)) == 0


def test_misuse_is_named() -> None:
    lane, made = lane_at(), turn.Turn()
    with pytest.raises(TypeError, match="frame"):
        made.add(lane, "x", 0, 1, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="lane"):
        made.add(None, b"", 0, 0, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="length 2 reaches past the end of frame"):
        made.add(lane, b"x", 0, 2, 0)
    with pytest.raises(ValueError, match="start 2"):
        made.add(lane, b"x", 2, 0, 0)
    with pytest.raises(ValueError, match="slot"):
        made.add(lane, b"x", 0, 1, 2**31)
    assert made.count == 0
    made.add(lane, b"x", 0, 1, 0)
    with pytest.raises(ValueError, match="shares its table"):
        made.add(turn.Lane(lane.table), b"x", 0, 1, 0)
    with pytest.raises(ValueError, match="producer_id_bound"):
        made.run(-1)
    made.run()
    with pytest.raises(ValueError, match="begin"):
        made.run()
    with pytest.raises(ValueError, match="begin"):
        made.add(lane, b"x", 0, 1, 0)
    with pytest.raises(ValueError, match="leader_epoch"):
        lane.leader_epoch = -2
    with pytest.raises(TypeError, match="max_batch_bytes"):
        lane.max_batch_bytes = "1"  # type: ignore[assignment]
