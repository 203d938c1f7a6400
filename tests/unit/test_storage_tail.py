"""The tail of a log in memory: a contiguous suffix, whole batches, few bytes kept alive."""

import gc
import sys

import pytest

from cluster.limits import TAIL_CHUNK_BYTES
from cluster.storage.budget import Budget
from cluster.storage.tail import SHARE_OF_OWNER, Tail
from tests.batches import make_batch, make_run

ANY = 10**9


def filled(runs: int = 4) -> tuple[Tail, list[bytes]]:
    """Runs of two batches of two records each from offset 0 on."""
    tail, written = Tail(10**6), [make_run(4 * number, [2, 2]) for number in range(runs)]
    for number, run in enumerate(written):
        tail.add(memoryview(run), 4 * number)
    return tail, written


def test_an_empty_tail_starts_nowhere() -> None:
    assert Tail(100).start_offset is None


def test_a_read_runs_over_several_appends() -> None:
    tail, written = filled()
    assert tail.start_offset == 0
    assert b"".join(tail.read(0, ANY, ANY)) == b"".join(written)
    assert b"".join(tail.read(5, ANY, ANY)) == b"".join(written[1:])
    assert b"".join(tail.read(7, ANY, ANY)) == written[1][len(written[1]) // 2 :] + b"".join(
        written[2:]
    )


def test_a_read_ends_at_size_and_limit_with_whole_batches() -> None:
    tail, written = filled()
    batch = len(written[0]) // 2
    assert b"".join(tail.read(0, 3 * batch + 10, ANY)) == written[0] + written[1][:batch]
    assert b"".join(tail.read(0, 1, ANY)) == written[0][:batch]
    assert b"".join(tail.read(1, ANY, 6)) == written[0] + written[1][:batch]
    assert b"".join(tail.read(0, ANY, 1)) == b""
    assert b"".join(tail.read(4, ANY, 4)) == b""


def test_the_oldest_runs_go_first_and_the_newest_always_fits() -> None:
    run = make_run(0, [2, 2])
    tail = Tail(2 * len(run))
    for number in range(3):
        tail.add(memoryview(make_run(4 * number, [2, 2])), 4 * number)
    assert tail.start_offset == 4
    tail.add(memoryview(make_batch(12, 1, value=bytes(1000))), 12)
    assert tail.start_offset == 12


def test_small_runs_are_gathered_in_few_buffers() -> None:
    tail, written = Tail(10**6), [make_run(4 * number, [2, 2]) for number in range(100)]
    for number, run in enumerate(written):
        tail.add(memoryview(run), 4 * number)
    parts = tail.read(0, ANY, ANY)
    assert b"".join(parts) == b"".join(written)
    assert len(parts) < 12


def test_what_was_handed_out_stays_as_it_was_while_more_is_added() -> None:
    tail, written = filled(2)
    before = tail.read(0, ANY, ANY)
    tail.add(memoryview(make_run(8, [2, 2])), 8)
    assert b"".join(before) == b"".join(written)
    with pytest.raises(TypeError):
        before[0][0] = 1


def test_tails_share_a_budget_and_the_one_longest_unused_lets_go() -> None:
    budget = Budget(3000)
    tails = [Tail(10**6, budget) for _ in range(3)]
    run = make_batch(0, 1, value=bytes(1000))
    for tail in tails[:2]:
        tail.add(memoryview(run), 0)
    tails[0].read(0, ANY, ANY)
    tails[2].add(memoryview(run), 0)
    assert [tail.start_offset for tail in tails] == [0, None, 0]
    assert budget.used <= 3000
    tails[0].clear()
    tails[2].clear()
    assert budget.used == 0


def test_a_large_run_that_is_most_of_its_buffer_is_shared_and_others_are_copied() -> None:
    run = make_batch(0, 1, value=bytes(TAIL_CHUNK_BYTES))
    arena = run + bytes((SHARE_OF_OWNER - 1) * len(run))
    turn = run + bytes(SHARE_OF_OWNER * len(run))
    tail = Tail(10**6)
    before = sys.getrefcount(arena), sys.getrefcount(turn)
    tail.add(memoryview(arena)[: len(run)], 0)
    tail.add(memoryview(turn)[: len(run)], 1)
    gc.collect()
    assert (sys.getrefcount(arena), sys.getrefcount(turn)) == (before[0] + 1, before[1])


def test_a_cleared_tail_holds_nothing() -> None:
    tail, _ = filled()
    tail.clear()
    assert tail.start_offset is None
    tail.add(memoryview(make_run(100, [1])), 100)
    assert tail.start_offset == 100
