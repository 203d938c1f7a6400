"""When a leader lets producers expire: by its own clock, never early, at most a little late."""

from __future__ import annotations

from _fastseq.batch import expire_batch
from cluster.core.sweep import SAMPLES, Sweep

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
    assert swept(sweep, table, HOUR + 1) is None


def test_an_idle_log_keeps_no_samples_beyond_its_bound() -> None:
    table = Table()
    sweep = Sweep(0, 0, HOUR)
    for now_ms in range(0, 50 * HOUR, HOUR // 200):
        swept(sweep, table, now_ms)
    assert len(sweep._samples) <= SAMPLES + 2
