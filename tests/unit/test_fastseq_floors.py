"""Expiry, floors, fences, mark and budget; and the cases in which Kafka duplicates or loses."""

import random
import struct

import pytest

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.measure import decide_nanoseconds
from _fastseq.table import FENCED_EPOCH, Floor, ProducerTable

DAY_MS = 86_400_000
FENCED, FLOORED, GAP = (turn.FENCED, 47), (turn.FLOORED, 47), (turn.GAP, 45)
NEW, DUPLICATE = (turn.NEW, 0), (turn.DUPLICATE, 0)


def produced(first: int, count: int = 1, *, pid: int = 7, epoch: int = 0, at: int = 1) -> bytes:
    records = [(None, b"value", at + i, ()) for i in range(count)]
    return batch.encode_batch(records, producer_id=pid, producer_epoch=epoch, base_sequence=first)


def run(lane: turn.Lane, *frames: bytes, native: bool = True) -> list[tuple[int, int]]:
    made = turn.Turn()
    for slot, frame in enumerate(frames):
        if batch.read_header(frame).is_control:
            made.add_control(lane, frame, slot)
        else:
            made.add(lane, frame, 0, len(frame), slot, native)
    made.run()
    assert lane.table.digest == lane.table.recompute_digest()
    return list(zip(made.verdicts, made.errors, strict=True))


def lane_of(table: ProducerTable | None = None) -> turn.Lane:
    return turn.Lane(ProducerTable() if table is None else table, 3)


def expired(*frames: bytes) -> turn.Lane:
    """A lane whose producers have all expired."""
    lane = lane_of()
    run(lane, *frames)
    assert run(lane, batch.expire_batch(lane.next_offset)) == [NEW]
    return lane


def reloaded(table: ProducerTable) -> turn.Lane:
    loaded = ProducerTable()
    loaded.load(table.dump())
    return lane_of(loaded)


@pytest.mark.parametrize(
    ("made", "kind", "value"),
    [
        (batch.expire_batch(77, 5), batch.CONTROL_EXPIRE, struct.pack(">hq", 0, 77)),
        (batch.collapse_batch(9, 3), batch.CONTROL_COLLAPSE, struct.pack(">hqh", 0, 9, 3)),
        (batch.fence_batch(9), batch.CONTROL_FENCE, struct.pack(">hqh", 0, 9, 32_767)),
    ],
)
def test_control_batches_are_kafkas_form_with_types_of_our_own(
    made: bytes, kind: int, value: bytes
) -> None:
    header = batch.read_header(made)
    assert (header.attributes, header.producer_id, header.record_count) == (0x20, -1, 1)
    (record,) = batch.decode_batch(made)
    assert (record.key, record.value) == (struct.pack(">hh", 0, kind), value)
    assert batch.control_key(made) == kind
    assert batch.scan(made, 0, -1, 0).reason == batch.SCAN_END


def test_expiry_takes_who_lies_below_the_cutoff_and_leaves_floors() -> None:
    lane = lane_of()
    run(lane, produced(0, 3), produced(0, pid=8), produced(3, 2), produced(0, pid=9))
    assert run(lane, batch.expire_batch(6)) == [NEW]
    assert [entry.producer_id for entry in lane.table.entries()] == [9]
    assert lane.table.floors_after(-1, 9) == [Floor(7, 0, 5, True), Floor(8, 0, 1, True)]
    assert (lane.table.floor(7), lane.table.floor(9)) == (Floor(7, 0, 5, True), None)
    assert lane.table.floor_count == 2


def test_sequence_after_a_floor_revives_the_producer_and_its_count() -> None:
    lane = expired(produced(0, 5))
    assert run(lane, produced(5), produced(5), produced(6)) == [NEW, DUPLICATE, NEW]
    assert lane.table.floor_count == 0
    # Everything before the floor was accepted in this epoch: a late copy is a retry.
    assert run(lane, produced(2)) == [DUPLICATE]
    assert run(lane, produced(2), native=False) == [(turn.STALE, 7)]


@pytest.mark.parametrize(
    ("frame", "answer"),
    [
        (produced(4), FLOORED),
        (produced(0, 5), FLOORED),
        (produced(4, 3), FLOORED),
        (produced(7), GAP),
        (produced(0, epoch=1), NEW),
        (produced(1, epoch=1), GAP),
        (produced(0, pid=8), NEW),
    ],
)
def test_floor_decides_what_its_producer_may_send(frame: bytes, answer: tuple[int, int]) -> None:
    lane = expired(produced(0, 5))
    assert run(lane, frame) == [answer]
    assert lane.floored == (answer == FLOORED)


def test_lower_epoch_than_a_floor_is_fenced() -> None:
    assert run(expired(produced(0, epoch=2)), produced(0, epoch=1)) == [FENCED]


def test_fence_refuses_every_later_batch_of_the_producer() -> None:
    lane = expired(produced(0, 5))
    fenced = run(lane, batch.fence_batch(7), produced(5), produced(0, epoch=1), produced(4))
    assert fenced == [NEW, FENCED, FENCED, FENCED]
    assert run(lane, produced(0, epoch=FENCED_EPOCH)) == [FENCED]
    assert run(lane, batch.fence_batch(7, 3)) == [NEW]
    assert lane.table.floor(7) == Floor(7, FENCED_EPOCH, 5, False)


def test_fence_of_a_new_epoch_keeps_the_numbering() -> None:
    lane = lane_of()
    run(lane, produced(0, 5), batch.fence_batch(7, 4))
    assert run(lane, produced(5), produced(6, epoch=4)) == [FENCED, GAP]
    assert run(lane, produced(5, epoch=4)) == [NEW]


def test_collapse_refuses_unknown_ids_below_the_mark_up_to_its_epoch() -> None:
    lane = expired(produced(0, pid=5), produced(0, pid=6, epoch=9), produced(0, pid=20))
    run(lane, batch.collapse_batch(10, 2))
    assert lane.table.mark == (10, 2)
    assert [floor.producer_id for floor in lane.table.floors_after(-1, 9)] == [6, 20]
    assert run(lane, produced(1, pid=5)) == [FLOORED]
    assert run(lane, produced(0, pid=3, epoch=2)) == [FLOORED]
    assert run(lane, produced(0, pid=3, epoch=3), produced(0, pid=11)) == [NEW, NEW]
    assert run(lane, produced(1, pid=6, epoch=9)) == [NEW]
    assert reloaded(lane.table).table.mark == (10, 2)


def test_rollback_undoes_expiry_collapse_and_fence() -> None:
    lane = lane_of()
    run(lane, *[produced(i, pid=p) for p in range(9) for i in range(p)])
    states = []
    for made in (
        batch.expire_batch(20), produced(4, pid=4), batch.collapse_batch(4, 0),
        batch.fence_batch(8), batch.fence_batch(2), produced(0, pid=3, epoch=1),
        batch.expire_batch(1_000), batch.collapse_batch(100, 32_767),
    ):  # fmt: skip
        states.append((lane.next_offset, lane.table.dump(), lane.table.digest))
        assert run(lane, made) == [NEW]
    for offset, dumped, digest in reversed(states):
        assert lane.table.rollback(offset)
        assert (lane.table.dump(), lane.table.digest) == (dumped, digest)
        assert lane.table.recompute_digest() == digest


def test_collapses_are_undone_one_by_one_however_many_there_were() -> None:
    lane = expired(produced(0, pid=3), produced(0, pid=20))
    table = lane.table

    def apply(made: bytes) -> None:
        table.apply(struct.pack(">q", table.next_offset) + made[8:])

    states: list[tuple[int, bytes, int]] = []
    for number in range(32_800):
        if number in (1, 16_000, 32_764, 32_765, 32_766, 32_767, 32_799):
            apply(batch.fence_batch(20, number % 100))
            apply(batch.fence_batch(len(states), number % 90))
            states.append((table.next_offset, table.dump(), table.digest))
        apply(batch.collapse_batch(10, number % 90))
    for offset, dumped, digest in reversed(states):
        if offset < table.journal_start:
            assert not table.rollback(offset)
            continue
        assert table.rollback(offset)
        assert (table.dump(), table.digest) == (dumped, digest)
        assert table.recompute_digest() == digest


def test_memory_of_a_mass_expiry_is_given_back_and_nothing_else_changes() -> None:
    table = ProducerTable()
    decide_nanoseconds(table, 100_000, 1_024, 1)
    lane, full = turn.Lane(table, leader_epoch=1), table.reserved_bytes
    back = [produced(0, pid=p) for p in range(500)]
    for made in (batch.expire_batch(table.next_offset), *back):
        run(lane, made)
    for first in range(1, 8):
        run(lane, *[produced(first, pid=p) for p in range(0, 500, first)])
    before = (table.dump(), table.dump_kafka(), table.digest, table.entries())
    table.tidy()
    assert table.reserved_bytes == full, "the expiry may still be undone"
    table.trim(table.next_offset)
    for _ in range(300):
        table.tidy()
    assert table.reserved_bytes < full / 20
    assert (table.dump(), table.dump_kafka(), table.digest, table.entries()) == before
    assert table.recompute_digest() == table.digest
    end = table.next_offset
    assert (
        run(lane, produced(8, pid=0), produced(0, pid=500_000), batch.fence_batch(1)) == [NEW] * 3
    )
    run(lane, batch.expire_batch(end))
    assert table.rollback(end)
    assert (table.dump(), table.digest) == (before[0], before[2])
    decide_nanoseconds(table, 100_000, 1_024, 1)
    assert table.recompute_digest() == table.digest


def test_malformed_control_batch_is_refused_by_a_leader_and_changes_nothing_elsewhere() -> None:
    lane = lane_of()
    run(lane, produced(0))
    good = batch.expire_batch(10)
    short = batch.encode_batch([(b"\0\0\0\x64", b"\0\0", 0, ())], attributes=0x20)
    foreign = batch.encode_batch([(b"\0\0\0\x63", bytes(10), 0, ())], attributes=0x20)
    made = turn.Turn()
    for data in (b"", good[:-1], good[:-1] + b"!", short, foreign, produced(0)):
        made.begin()
        made.add_control(lane, data, 0)
        made.run()
        assert made.verdicts[0] == turn.INVALID
    for data in (short, foreign):
        lane.table.apply(struct.pack(">q", lane.next_offset) + data[8:])
    assert (len(lane.table), lane.next_offset) == (1, 3)


def test_new_producer_beyond_the_budget_is_refused_and_nobody_is_evicted() -> None:
    lane = lane_of()
    run(lane, produced(0))
    lane.table.budget_bytes = lane.table.bytes
    assert run(lane, produced(1), produced(0, pid=8)) == [NEW, (turn.REFUSED, 19)]
    assert (lane.refused, len(lane.table)) == (1, 1)
    lane.table.budget_bytes = 1 << 20
    assert run(lane, produced(0, pid=8)) == [NEW]


def test_producer_costs_a_cache_line_and_a_cell_for_each_further_batch() -> None:
    lane = lane_of()
    for i in range(8):
        run(lane, produced(i))
        assert lane.table.entry_bytes(7) == 64 + 24 * min(i, 4)
    assert lane.table.entry_bytes(1) == 0


def test_index_grows_and_shrinks_under_look_ups_and_rollbacks() -> None:
    chance = random.Random(7)
    lane, known = lane_of(ProducerTable(journal_entries=1 << 16)), set[int]()
    for _ in range(150):
        ids = [chance.randrange(1 << 40) for _ in range(chance.randrange(200))]
        assert run(lane, *[produced(0, pid=pid) for pid in ids]) == [NEW] * len(ids)
        known.update(ids)
        if chance.random() < 0.1:
            before, size = lane.next_offset, lane.table.bytes
            run(lane, batch.expire_batch(chance.randrange(lane.next_offset)))
            gone = {floor.producer_id for floor in lane.table.floors_after(-1, 1 << 30)}
            assert lane.table.bytes <= size + 40 * len(gone) + 1_000
            assert {entry.producer_id for entry in lane.table.entries()} == known - gone
            lane.table.rollback(before)
        assert len(lane.table) == len(known)
    assert all(lane.table.get(pid) is not None for pid in known)


def test_entries_are_walked_in_slices_that_look_at_no_more_than_asked() -> None:
    lane = lane_of()
    run(lane, *[produced(0, pid=pid) for pid in range(100)])
    run(lane, batch.expire_batch(50))
    found, cursor = [], 0
    while cursor >= 0:
        entries, cursor = lane.table.entries_after(cursor, 7)
        assert len(entries) <= 7
        found += [entry.producer_id for entry in entries]
    assert sorted(found) == list(range(50, 100))


def test_digest_sees_every_single_difference() -> None:
    base = [(7, 0, 0, 2, 1), (7, 0, 2, 1, 1), (9, 3, 0, 1, 1)]
    digests, states = set(), set()
    for place in range(len(base)):
        for field in range(5):
            changed = [list(each) for each in base]
            changed[place][field] += 1
            table, offset = ProducerTable(), 0
            for pid, epoch, first, count, at in changed:
                data = produced(first, count, pid=pid, epoch=epoch, at=at)
                offset = table.apply(struct.pack(">q", offset) + data[8:])
            states.add(repr([entry._replace(last_timestamp=0) for entry in table.entries()]))
            digests.add(table.digest)
    assert len(digests) == len(states) == 14  # two of them leave one batch of 7 behind


def test_restart_with_five_unacknowledged_batches_duplicates_none() -> None:
    lane = lane_of()
    frames = [produced(i, 2) for i in range(0, 10, 2)]
    run(lane, *frames)
    assert run(reloaded(lane.table), *frames) == [DUPLICATE] * 5


def test_log_deleted_to_its_end_keeps_the_state_of_its_producers() -> None:
    lane = lane_of()
    run(lane, produced(0, 3))
    again = reloaded(lane.table)
    assert again.next_offset == 3
    assert run(again, produced(0, 3), produced(3)) == [DUPLICATE, NEW]


def test_event_time_of_two_days_ago_expires_nobody() -> None:
    lane = lane_of()
    frame = produced(0, at=1_700_000_000_000 - 2 * DAY_MS)
    run(lane, frame)
    lane = reloaded(lane.table)
    run(lane, batch.expire_batch(0, 1_700_000_000_000))
    assert run(lane, frame) == [DUPLICATE]


def test_sequence_seventeen_before_zero_loses_nothing() -> None:
    lane = lane_of()
    assert run(lane, produced(17)) == [(turn.UNKNOWN_PRODUCER, 45)]
    assert run(lane, *[produced(i) for i in range(18)]) == [NEW] * 18


def test_follower_that_restarted_and_leads_recognises_all_five() -> None:
    leader, follower, made = lane_of(), lane_of(), turn.Turn()
    frames = [produced(i) for i in range(8)]
    for slot, frame in enumerate(frames):
        made.add(leader, frame, 0, len(frame), slot)
    made.add_control(leader, batch.expire_batch(1), 9)
    made.run()
    assert turn.push_check(follower, made.arena, 0, -1) == 0
    assert follower.table.digest == leader.table.digest
    assert run(reloaded(follower.table), *frames[3:]) == [DUPLICATE] * 5


def test_last_epoch_is_served_to_its_end_and_fences_when_it_expires() -> None:
    lane = lane_of()
    run(lane, produced(0, epoch=FENCED_EPOCH - 1))
    last = [produced(i, epoch=FENCED_EPOCH) for i in range(2)]
    assert run(lane, *last, last[1]) == [NEW, NEW, DUPLICATE]
    run(lane, batch.expire_batch(lane.next_offset))
    assert run(lane, produced(2, epoch=FENCED_EPOCH)) == [FENCED]


def test_million_producers_expire_in_one_batch_and_come_back_with_it() -> None:
    table = ProducerTable()
    decide_nanoseconds(table, 1_000_000, 1_024, 1)
    digest, end = table.digest, table.next_offset
    for cutoff, left in ((1, 1_000_000), (end, 0)):
        table.apply(struct.pack(">q", table.next_offset) + batch.expire_batch(cutoff)[8:])
        assert len(table) == left
    assert (table.floor_count, table.digest) == (1_000_000, table.recompute_digest())
    assert table.rollback(end)
    assert (len(table), table.floor_count, table.digest) == (1_000_000, 0, digest)


def test_wrong_inner_offset_deltas_are_refused_on_append() -> None:
    data = bytearray(produced(0, 2))
    second = data.rindex(b"value") - 3
    assert data[second] == 2
    data[second] = 4
    struct.pack_into(">I", data, 17, crc32c(data[21:]))
    lane = lane_of()
    assert run(lane, bytes(data)) == [(turn.INVALID, 87)]
    assert lane.next_offset == 0
