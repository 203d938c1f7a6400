"""The groups of one partition of the internal topic, on its leader, for one term of leadership.

Owns everything in memory about these groups: members, generations, committed offsets. All of it
is read from the log when the term begins and dropped when it ends; in between the log is written
first, and what is committed is what is answered. Reading and writing anew go in slices, so that
other partitions are served meanwhile.

The log stays bounded: once enough was appended, the whole state is written anew behind it, and
when that is committed everything before it is deleted. A key that is being written at that moment
is passed over, since its newer value follows anyway: nothing is deleted before that is committed,
nor if it is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from cluster import errors
from cluster.core.group import NEVER, Group, Stored
from cluster.core.group_state import GroupSettings, State
from cluster.core.group_writes import KeyValue, Writes
from cluster.core.hosted import Led
from cluster.limits import GROUP_LOG_BYTES, GROUP_SLICE_BYTES, LOOK_MS
from cluster.storage.disk import DiskError
from cluster.wire import group_records as stored
from cluster.wire.group_records import GroupValue, OffsetValue
from cluster.wire.primitives import WireError
from cluster.wire.records import next_offset, read_records

Place = tuple[str, int]
"""Topic and partition."""
_TOMBSTONES = 10_000


class Clock(Protocol):
    """What time it is on the wall when it is `now_ms` here."""

    def __call__(self, now_ms: int) -> int:
        """Milliseconds since 1970."""


class Shard:
    """One partition's groups in one term."""

    def __init__(self, led: Led, settings: GroupSettings, wall: Clock, now_ms: int) -> None:
        """Nothing is known before the log was read."""
        self.led = led
        self.loading = True
        self.groups: dict[str, Group] = {}
        self.offsets: dict[str, dict[Place, OffsetValue]] = {}
        self.offset_count = 0
        self.writes = Writes()
        self.unreadable = 0
        """Records of the log that make no sense."""
        self.now_ms = now_ms
        self.rebalances = 0
        """Of groups that are gone."""
        self._settings = settings
        self._wall = wall
        self._records: dict[str, bytes] = {}
        """The committed record of every group that has one."""
        self._position = led.replica.log.start_offset
        self._pause_ms = 0
        self._anew: Iterator[list[KeyValue]] | None = None
        self._anew_from = 0
        self._anew_bytes = 0
        self._anew_busy = False
        self._anew_until: int | None = None
        """All is written anew once so many writes have ended."""
        self._anew_refused = 0

    # -- loading ------------------------------------------------------------------------------

    @property
    def readable(self) -> bool:
        """Whether a slice of the log can be read now."""
        replica = self.led.replica
        if not self.loading or self.now_ms < self._pause_ms:
            return False
        return self._position < min(replica.high_watermark, self.led.epoch_start)

    def load(self, now_ms: int) -> None:
        """Read one slice. What lies below the term's beginning is loaded once it is committed."""
        self.now_ms = now_ms
        replica = self.led.replica
        self._position = max(self._position, replica.log.start_offset)
        if self.readable:
            try:
                data = replica.log.read(self._position, GROUP_SLICE_BYTES, replica.high_watermark)
            except DiskError:
                self._pause_ms = now_ms + LOOK_MS
                return
            self._take(memoryview(data))
        committed = replica.high_watermark >= self.led.epoch_start
        if committed and self._position >= self.led.epoch_start:
            self.loading = False

    def _take(self, data: memoryview) -> None:
        try:
            records = read_records(data, self._position)
            self._position = next_offset(data, self._position)
        except WireError:
            self.unreadable += 1
            self._position += 1
            return
        self.writes.bytes_written += len(data)
        for record in records:
            try:
                found = stored.decode(record.key, record.value)
            except WireError:
                found = None
            if found is None or record.key is None:
                self.unreadable += 1
            else:
                self._load_one(found, record.value)

    def _load_one(self, record: stored.GroupRecord, value: bytes | None) -> None:
        if isinstance(record.key, stored.OffsetKey):
            key = record.key
            assert not isinstance(record.value, GroupValue)
            self.put_offset(key.group, (key.topic, key.partition), record.value)
            return
        if value is None:
            self._records.pop(record.key.group, None)
            self.groups.pop(record.key.group, None)
            return
        assert isinstance(record.value, GroupValue)
        self._records[record.key.group] = bytes(value)
        self.group(record.key.group).restore(record.value, self.now_ms)

    # -- groups -------------------------------------------------------------------------------

    def group(self, group_id: str) -> Group:
        """The group of this name, made if nobody has heard of it."""
        found = self.groups.get(group_id)
        if found is None:
            found = self.groups[group_id] = Group(group_id, self._settings, self.persist)
        return found

    def persist(self, group: Group, value: GroupValue, told: Stored) -> None:
        """Store a group as it is now."""
        timed = GroupValue(
            protocol_type=value.protocol_type, generation=value.generation,
            protocol=value.protocol, leader=value.leader, members=value.members,
            current_state_timestamp=self._wall(self.now_ms),
        )  # fmt: skip
        encoded = stored.encode_group(timed)

        def apply() -> None:
            self._records[group.group_id] = encoded
            group.empty_since_ms = None if timed.members else timed.current_state_timestamp

        self.writes.add(
            [(stored.encode_group_key(group.group_id), encoded)],
            apply, lambda code: told(code, self.now_ms), self.now_ms,
        )  # fmt: skip

    def delete(self, group_id: str, told: Callable[[errors.Code], None]) -> None:
        """Delete a group without members, with its offsets."""
        group = self.group(group_id)
        assert group.state is State.EMPTY
        group.state = State.DEAD
        places = list(self.offsets.get(group_id, ()))
        while len(places) > _TOMBSTONES:  # one batch does not hold them all
            some, places = places[:_TOMBSTONES], places[_TOMBSTONES:]
            self.commit(group_id, dict.fromkeys(some), _nothing)
        records: list[KeyValue] = [
            (stored.encode_offset_key(group_id, *place), None) for place in places
        ]
        records.append((stored.encode_group_key(group_id), None))

        def ended(code: errors.Code) -> None:
            if code is not errors.NONE:
                group.state = State.EMPTY
            told(code)

        self.writes.add(records, partial(self._forget, group, places), ended, self.now_ms)

    def _forget(self, group: Group, places: Sequence[Place]) -> None:
        for place in places:
            self.put_offset(group.group_id, place, None)
        self._records.pop(group.group_id, None)
        if group.group_id in self.offsets:
            group.state = State.EMPTY  # one was committed meanwhile: it exists by that
        elif self.groups.get(group.group_id) is group:
            self.rebalances += group.rebalances
            del self.groups[group.group_id]

    # -- offsets ------------------------------------------------------------------------------

    def commit(
        self, group_id: str, values: dict[Place, OffsetValue | None],
        told: Callable[[errors.Code], None],
    ) -> None:  # fmt: skip
        """Store offsets of a group; None forgets one."""
        records: list[KeyValue] = [
            (
                stored.encode_offset_key(group_id, *place),
                None if value is None else stored.encode_offset(value),
            )
            for place, value in values.items()
        ]

        def apply() -> None:
            for place, value in values.items():
                self.put_offset(group_id, place, value)

        self.writes.add(records, apply, told, self.now_ms)

    def put_offset(self, group_id: str, place: Place, value: OffsetValue | None) -> None:
        """What the log says of one offset; a group that only commits exists by that."""
        kept = self.offsets.setdefault(group_id, {})
        before = len(kept)
        if value is None:
            kept.pop(place, None)
        else:
            kept[place] = value
            self.group(group_id)
        self.offset_count += len(kept) - before
        if not kept:
            del self.offsets[group_id]
            if group_id not in self._records:
                self._drop_unused(group_id)

    def _drop_unused(self, group_id: str) -> None:
        group = self.groups.get(group_id)
        if group is not None and group.state is State.EMPTY and not group.members.pending:
            del self.groups[group_id]

    def expire(self, now_ms: int) -> None:
        """Forget offsets that nobody has read from for the retention, and groups without any.

        One that is being committed stays: what forgets it would stand behind it in the log.
        """
        self.now_ms = now_ms
        limit_ms = self._wall(now_ms) - self._settings.offsets_retention_ms
        for group_id, group in list(self.groups.items()):
            if group.state is not State.EMPTY or group.members.pending:
                continue
            offsets = self.offsets.get(group_id, {})
            since_ms = group.empty_since_ms
            old = [
                place for place, value in offsets.items()
                if max(value.commit_timestamp, since_ms or 0) <= limit_ms
                and not self.writes.under_way[stored.encode_offset_key(group_id, *place)]
            ]  # fmt: skip
            if len(old) == len(offsets) and (old or (since_ms or 0) <= limit_ms):
                self.delete(group_id, _nothing)
            elif old:
                self.commit(group_id, dict.fromkeys(old), _nothing)

    # -- bounding the log ---------------------------------------------------------------------

    def bound(self) -> None:
        """Write the state anew once the log is several times as long, a slice a time."""
        if self._anew is None:
            long = max(GROUP_LOG_BYTES, 3 * self._anew_bytes)
            if self.loading or self.writes.bytes_written < long:
                return
            self.writes.bytes_written = self._anew_bytes = 0
            self._anew_from = self.led.replica.log.next_offset
            self._anew_until, self._anew_refused = None, self.writes.refused
            self._anew = self._slices()
        if self._anew_waits:
            return
        records = None if self._anew_until is not None else next(self._anew, None)
        if records is None:
            self._written_anew()
            return
        self._anew_busy = True
        self._anew_bytes += sum(len(key) + len(value or b"") for key, value in records)
        self.writes.add(records, _applied, self._slice_written, self.now_ms)

    @property
    def _anew_waits(self) -> bool:
        """Whether writing anew goes on by a commit only."""
        # What was written before must have taken effect, or it would be lost with the old log; and
        # so must what was passed over.
        if self._anew_busy or self.led.replica.high_watermark < self._anew_from:
            return True
        return self._anew_until is not None and self.writes.ended < self._anew_until

    def _written_anew(self) -> None:
        """Every key was written or passed over: delete the old log once that is committed."""
        if self._anew_until is None:
            self._anew_until = self.writes.begun
        if self.writes.ended < self._anew_until:
            return
        self._anew = None
        if self.writes.refused == self._anew_refused:  # else the next attempt begins anew
            self.led.delete_records(self._anew_from, _deleted, NEVER)

    def _slice_written(self, code: errors.Code) -> None:
        self._anew_busy = False
        if code is not errors.NONE:
            self._anew = None  # the next attempt begins anew

    def _slices(self) -> Iterator[list[KeyValue]]:
        """All that is in effect. Each slice is read when it is asked for, not before."""
        records: list[KeyValue] = []
        size = 0
        for key, read in self._state():
            value = None if self.writes.under_way[key] else read()
            if value is None:
                continue
            records.append((key, value))
            size += len(key) + len(value)
            if size >= GROUP_SLICE_BYTES:
                yield records
                records, size = [], 0
        if records:
            yield records

    def _state(self) -> Iterator[tuple[bytes, Callable[[], bytes | None]]]:
        """Every key, and how its value is read at that moment."""
        for group_id in sorted({*self._records, *self.offsets}):
            for place in list(self.offsets.get(group_id, ())):
                key = stored.encode_offset_key(group_id, *place)
                yield key, partial(self._offset_value, group_id, place)
            yield stored.encode_group_key(group_id), partial(self._records.get, group_id)

    def _offset_value(self, group_id: str, place: Place) -> bytes | None:
        value = self.offsets.get(group_id, {}).get(place)
        return None if value is None else stored.encode_offset(value)

    @property
    def busy(self) -> bool:
        """Whether there is work now, whatever else happens."""
        goes_on = self._anew is not None and not self._anew_waits
        return self.readable or len(self.writes) > 0 or goes_on

    @property
    def idle(self) -> bool:
        """Whether nothing is under way here."""
        return not (self.loading or self.writes.open or self._anew is not None)

    def end(self) -> None:
        """The term is over: everybody who waits asks the next coordinator."""
        self.writes.end(errors.NOT_COORDINATOR)
        for group in self.groups.values():
            group.end(errors.NOT_COORDINATOR)


def _nothing(_code: errors.Code) -> None:
    """Nobody waits."""


def _deleted(_error: int, _start: int) -> None:
    """Where it fails, the next time deletes more."""


def _applied() -> None:
    """What is written anew is in effect already."""
