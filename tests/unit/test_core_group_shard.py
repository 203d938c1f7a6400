"""What a coordinator forgets, of its log or of a group, is nothing that was just committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from cluster import errors
from cluster.core import group_shard
from cluster.core.group_shard import Shard
from cluster.core.group_state import GroupSettings, State
from cluster.core.hosted import Led
from cluster.wire.group_records import OffsetValue

GROUP, PLACES = "g", (("t", 0), ("t", 1))


@dataclass
class Bench:
    """A shard on a log that commits what a test lets it, one batch an offset."""

    deleted: list[int] = field(default_factory=list)
    under_way: list[Callable[[int], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        log = SimpleNamespace(start_offset=0, next_offset=0)
        self.replica = SimpleNamespace(log=log, high_watermark=0)
        led = SimpleNamespace(
            replica=self.replica, epoch_start=0,
            delete_records=lambda offset, _done, _deadline: self.deleted.append(offset),
        )  # fmt: skip
        self.shard = Shard(cast("Led", led), GroupSettings(), lambda now_ms: now_ms, 0)
        self.shard.load(0)

    def commit(self, place: tuple[str, int], offset: int, at_ms: int = 0) -> None:
        value = OffsetValue(offset=offset, commit_timestamp=at_ms)
        self.shard.commit(GROUP, {place: value}, lambda _code: None)

    def append(self, error: int = 0) -> None:
        """What was asked for goes into the log, or is refused."""
        for _, done in self.shard.writes.take(0):
            if error:
                done(error)
            else:
                self.replica.log.next_offset += 1
                self.under_way.append(done)

    def committed(self) -> None:
        """The followers have everything."""
        self.replica.high_watermark = self.replica.log.next_offset
        done, self.under_way = self.under_way, []
        for each in done:
            each(0)

    def look(self) -> None:
        self.shard.bound()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Two offsets are committed, and the log is long enough to be written anew."""
    monkeypatch.setattr(group_shard, "GROUP_LOG_BYTES", 1)
    made = Bench()
    for place in PLACES:
        made.commit(place, 1)
    made.append()
    made.committed()
    return made


def test_log_is_deleted_once_what_is_in_it_is_written_anew(bench: Bench) -> None:
    bench.look()
    bench.append()
    bench.look()
    assert bench.deleted == []
    bench.committed()
    bench.look()
    assert bench.deleted == [1]


def test_log_is_not_deleted_before_what_was_passed_over_is_committed(bench: Bench) -> None:
    for place in PLACES:
        bench.commit(place, 2)
    bench.look()
    bench.append()
    bench.look()
    assert bench.deleted == []
    bench.committed()
    bench.look()
    assert bench.deleted == [1]


def test_log_is_not_deleted_when_what_was_passed_over_is_refused(bench: Bench) -> None:
    for place in PLACES:
        bench.commit(place, 2)
    bench.look()
    bench.append(errors.NOT_ENOUGH_REPLICAS.number)
    for _ in range(3):
        bench.look()
    assert bench.deleted == []


def test_offset_that_is_being_committed_does_not_expire(bench: Bench) -> None:
    """Its tombstone would stand behind it in the log."""
    now_ms = GroupSettings().offsets_retention_ms + 1
    bench.commit(PLACES[0], 2, at_ms=now_ms)
    bench.shard.expire(now_ms)
    bench.append()
    bench.committed()
    assert bench.shard.offsets == {GROUP: {PLACES[0]: OffsetValue(2, commit_timestamp=now_ms)}}
    assert GROUP in bench.shard.groups


def test_group_whose_offsets_expire_lives_on_by_one_that_is_being_committed(bench: Bench) -> None:
    now_ms = GroupSettings().offsets_retention_ms + 1
    bench.commit(("u", 0), 2, at_ms=now_ms)
    bench.shard.expire(now_ms)
    bench.append()
    bench.committed()
    assert list(bench.shard.offsets[GROUP]) == [("u", 0)]
    assert bench.shard.groups[GROUP].state is State.EMPTY
