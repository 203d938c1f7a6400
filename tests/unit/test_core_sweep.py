"""When a leader lets producers expire: by its own clock, never early, at most a little late."""

from __future__ import annotations

import pytest

from _fastseq.batch import expire_batch
from cluster.core.sweep import SAMPLES, Sweep
from cluster.limits import FLOORS_MAX, LOOK_MS

HOUR = 3_600_000


class Table:
    """What a sweep asks of a producer table."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.floor_count = 0

    def __len__(self) -> int:
        return 1


def swept(sweep: Sweep, table: Table, now_ms: int) -> bytes | None:
    return sweep.next_batch(table, now_ms)  # type: ignore[arg-type]


def test_nothing_expires_before_the_whole_time_has_passed_in_this_term() -> None:
    table = Table()
    table.next_offset = 100
    sweep = Sweep(100, 0, HOUR)
    assert swept(sweep, table, HOUR - 1) is None
    assert swept(sweep, table, HOUR) == expire_batch(100)


def test_a_record_expires_at_most_one_sample_late() -> None:
    table = Table()
    sweep = Sweep(0, 0, HOUR)
    step = HOUR // SAMPLES
    for now_ms in range(step, HOUR + 1, step):
        table.next_offset += 10
        assert swept(sweep, table, now_ms) is None
    batch = swept(sweep, table, HOUR + step)
    assert batch == expire_batch(10)


def test_the_same_cutoff_is_written_once() -> None:
    table = Table()
    table.next_offset = 100
    sweep = Sweep(100, 0, HOUR)
    assert swept(sweep, table, HOUR) is not None
    sweep.written()
    assert swept(sweep, table, HOUR + 1) is None
    assert sweep.due_ms(100) is None


def test_a_cutoff_that_the_disk_refused_is_due_again() -> None:
    table = Table()
    table.next_offset = 100
    sweep = Sweep(100, 0, HOUR)
    assert swept(sweep, table, HOUR) == expire_batch(100)
    due = sweep.due_ms(100)
    assert due == HOUR + LOOK_MS
    assert swept(sweep, table, due) == expire_batch(100)


def test_a_collapse_does_not_pass_for_an_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.core.sweep._collapse", lambda _: b"collapse")
    table = Table()
    table.next_offset = 100
    sweep = Sweep(100, 0, HOUR)
    assert swept(sweep, table, HOUR) == expire_batch(100)
    table.floor_count = FLOORS_MAX + 1
    assert swept(sweep, table, HOUR + 1) == b"collapse"
    sweep.written()
    table.floor_count = 0
    assert swept(sweep, table, HOUR + 2) == expire_batch(100)


def test_an_idle_log_keeps_no_samples_beyond_its_bound() -> None:
    table = Table()
    sweep = Sweep(0, 0, HOUR)
    for now_ms in range(0, 50 * HOUR, HOUR // 200):
        swept(sweep, table, now_ms)
    assert len(sweep._samples) <= SAMPLES + 2
