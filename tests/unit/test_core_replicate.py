"""Where two logs part, and what a follower's acknowledgements are worth."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cluster.core.acknowledge import high_watermark
from cluster.core.replicate import Followers, common_prefix, epoch_at


def test_equal_histories_share_the_shorter_log() -> None:
    epochs = [(0, 0), (2, 10)]
    assert common_prefix(epochs, 30, epochs, 25) == 25


def test_logs_part_where_another_epoch_wrote() -> None:
    assert common_prefix([(0, 0), (3, 10)], 30, [(0, 0), (2, 10)], 40) == 10
    assert common_prefix([(0, 0), (3, 10)], 30, [(0, 0)], 40) == 10
    assert common_prefix([(1, 0)], 30, [(0, 0)], 40) == 0


def test_an_epoch_that_wrote_nothing_does_not_part_logs() -> None:
    assert common_prefix([(0, 0), (3, 12)], 12, [(0, 0)], 12) == 12


def test_an_empty_log_shares_nothing() -> None:
    assert common_prefix([(0, 0)], 12, [], 0) == 0


Log = list[int]


def _epochs(log: Log) -> list[tuple[int, int]]:
    entries: list[tuple[int, int]] = []
    for offset, epoch in enumerate(log):
        if not entries or entries[-1][0] != epoch:
            entries.append((epoch, offset))
    return entries


_logs = st.lists(st.integers(0, 3), max_size=12).map(sorted)


@given(_logs, _logs)
def test_the_prefix_is_what_comparing_every_offset_finds(mine: Log, theirs: Log) -> None:
    shared = 0
    while shared < min(len(mine), len(theirs)) and mine[shared] == theirs[shared]:
        shared += 1
    found = common_prefix(_epochs(mine), len(mine), _epochs(theirs), len(theirs))
    assert found == shared
    assert [epoch_at(_epochs(mine), offset) for offset in range(len(mine))] == mine


def test_opening_a_stream_forgets_earlier_acknowledgements() -> None:
    followers = Followers()
    stream = followers.open(2, 7, 1, agreed=10, end=10, now_ms=0)
    followers.sent(stream, 30, 100)
    assert followers.acknowledge(stream, 30, 5) == 100
    assert followers.end_of(2) == 30
    followers.open(2, 7, 2, agreed=20, end=30, now_ms=6)
    assert followers.end_of(2) == 20


def test_an_acknowledgement_of_what_was_never_sent_is_capped() -> None:
    followers = Followers()
    stream = followers.open(2, 7, 1, agreed=10, end=10, now_ms=0)
    followers.acknowledge(stream, 99, 1)
    assert followers.end_of(2) == 10


def test_bytes_in_flight_come_back_when_the_stream_closes() -> None:
    followers = Followers()
    stream = followers.open(2, 7, 1, agreed=0, end=0, now_ms=0)
    followers.sent(stream, 10, 500)
    followers.sent(stream, 20, 300)
    assert followers.acknowledge(stream, 10, 1) == 500
    assert followers.close(2) == 300
    assert followers.end_of(2) is None


def test_only_silence_with_data_waiting_is_lag() -> None:
    followers = Followers()
    stream = followers.open(2, 7, 1, agreed=10, end=10, now_ms=0)
    followers.look(10, 5_000)
    assert not followers.lagging(2, 10, 5_000, 1_000)
    assert not followers.lagging(2, 20, 5_900, 1_000)
    assert followers.lagging(2, 20, 6_100, 1_000)
    followers.sent(stream, 20, 1)
    followers.acknowledge(stream, 15, 6_100)
    assert not followers.lagging(2, 20, 6_200, 1_000)


def test_keeping_up_starts_anew_after_falling_behind() -> None:
    followers = Followers()
    stream = followers.open(2, 7, 1, agreed=10, end=10, now_ms=0)
    followers.look(10, 100)
    followers.look(50, 200)
    assert stream.keeping_up_since_ms == 100
    followers.look(60, 300)
    assert stream.keeping_up_since_ms is None


def test_the_watermark_is_the_lowest_member_and_never_falls() -> None:
    assert high_watermark(5, 20, [10, 15], enough=True) == 10
    assert high_watermark(12, 20, [10, 15], enough=True) == 12
    assert high_watermark(5, 8, [10, 15], enough=True) == 8


def test_a_member_without_a_stream_holds_the_watermark() -> None:
    assert high_watermark(5, 20, [10, None], enough=True) == 5


def test_too_few_members_hold_the_watermark() -> None:
    assert high_watermark(5, 20, [], enough=False) == 5
