"""The demo's table, and the counters behind it."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.load.report import RunReport, cost_lines, money
from cluster.load.scrape import counter_sum

CLEAN: dict[str, Any] = {
    "exact": True,
    "read": 1_000_000,
    "lost": 0,
    "duplicated": 0,
    "reordered": 0,
    "altered": 0,
    "off_by_cents": 0,
    "duplicated_cents": 0,
    "picture": [],
}


def report(acked: int = 1_000_000, **found: Any) -> RunReport:
    return RunReport(
        sent=1_000_000,
        acked=acked,
        retries=512,
        duplicate_acks=480,
        duplicates_rejected=497,
        longest_gap_ms=431,
        seconds=8.0,
        findings=CLEAN | found,
    )


def test_the_table_names_every_figure_once() -> None:
    assert report().rows() == [
        ("sent", "1,000,000"),
        ("acked", "1,000,000"),
        ("stored", "1,000,000"),
        ("retries", "512 batches"),
        ("duplicates rejected", "497 batches (480 seen by the producer)"),
        ("lost", "0"),
        ("duplicated", "0"),
        ("reordered", "0"),
        ("balances off by", "0.00"),
        ("longest gap in acks", "431 ms"),
        ("records/s", "125,000"),
    ]


def test_a_run_with_a_record_not_acknowledged_is_not_exact() -> None:
    assert report().exact
    assert not report(acked=999_999).exact
    assert not report(exact=False).exact


def test_altered_records_have_a_row_of_their_own() -> None:
    assert ("altered", "2") in report(exact=False, altered=2).rows()


@pytest.mark.parametrize(
    ("cents", "text"), [(0, "0.00"), (5, "0.05"), (1_234_567, "12,345.67"), (-250, "-2.50")]
)
def test_cents_are_shown_as_an_amount(cents: int, text: str) -> None:
    assert money(cents) == text


def test_the_cost_of_duplicates_shows_where_a_transfer_landed_twice() -> None:
    picture = {"id": "0/T7", "cents": 1250, "partition": 3, "first": 100, "again": 4711}
    first, second = cost_lines(report(duplicated=40, duplicated_cents=123_456, picture=[picture]))
    assert "40 transfers are stored twice: 1,234.56 moved a second time" in first
    assert "0/T7 of 12.50: partition 3, offset 100, and again at offset 4,711" in second


def test_without_duplicates_nothing_is_claimed_to_have_cost_money() -> None:
    (line,) = cost_lines(report())
    assert "nothing was stored twice" in line


def test_a_counter_is_summed_over_the_series_of_its_topic() -> None:
    text = """\
# HELP oncelog_x_total rejected
# TYPE oncelog_x_total counter
oncelog_x_total{partition="0",topic="a"} 3.0
oncelog_x_total{partition="1",topic="a"} 1e+02 1700000000
oncelog_x_total{partition="0",topic="b"} 7.0
oncelog_x_total_more{partition="0",topic="a"} 9.0
oncelog_x_total 11.0
"""
    assert counter_sum(text, "oncelog_x_total", 'topic="a"') == 103.0
    assert counter_sum(text, "oncelog_x_total", 'topic="c"') == 0.0
