"""Every reader of a file in a data directory, on bytes that nobody would write.

A reader answers, or raises ValueError; a log opens, with what its batches say, and never answers a
read with anything else. Snapshots and indexes may be anything at all; so may checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _fastseq.table import ProducerTable
from cluster.storage import checkpoint
from cluster.storage.damage import read_damage
from cluster.storage.disk import read_file, write_file
from cluster.storage.index import SparseIndex, StoredPoints
from cluster.storage.inspect import dump
from cluster.storage.verify import ReplicaCheck
from tests.sim.disk import SimulatedDisk
from tests.unit.log_fixture import Replica

ANY_BYTES = st.binary(max_size=300)
READERS: list[Callable[[bytes], object]] = [
    checkpoint.parse_offsets,
    checkpoint.parse_epochs,
    checkpoint.parse_topic_id,
    checkpoint.parse_meta_properties,
    lambda data: ProducerTable().load(data),
    lambda data: ProducerTable().load_kafka(data, 100),
    lambda data: SparseIndex.load(50, data, data).points,
]


def written() -> Replica:
    """A log of 60 records in several segments, closed clean."""
    replica = Replica()
    for _ in range(20):
        replica.append(3)
    replica.sync()
    replica.log.close(clean=True)
    return replica


WHOLE = written()
CONTENTS = {name: WHOLE.disk.contents(f"t-0/{name}") for name in WHOLE.disk.list("t-0")}
HELPERS = sorted(name for name in CONTENTS if not name.endswith(".log"))
BATCHES = b"".join(CONTENTS[name] for name in sorted(CONTENTS) if name.endswith(".log"))


@st.composite
def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes close to these: cut, grown, or with some of them changed."""
    grown = bytearray(data[: draw(st.integers(0, len(data)))] + draw(st.binary(max_size=20)))
    for at, value in draw(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)))):
        if at < len(grown):
            grown[at] = value
    return bytes(grown)


@st.composite
def ruined(draw: st.DrawFn) -> tuple[str, bytes]:
    """A helper file and what stands in it now."""
    name = draw(st.sampled_from(HELPERS))
    return name, draw(changed(CONTENTS[name])) if draw(st.booleans()) else draw(ANY_BYTES)


def copy_of_whole() -> Replica:
    replica = Replica.__new__(Replica)
    replica.disk, replica.now_ms, replica.config = SimulatedDisk(), 0, WHOLE.config
    replica.sequence = 60
    replica.disk.make_directory("t-0")
    for name, data in CONTENTS.items():
        write_file(replica.disk, f"t-0/{name}", data, sync=True)
    return replica


@pytest.mark.parametrize("reader", READERS)
@given(data=ANY_BYTES)
def test_a_reader_answers_or_says_that_it_is_damaged(
    reader: Callable[[bytes], object], data: bytes
) -> None:
    with suppress(ValueError):
        reader(data)


@given(data=ANY_BYTES, offset=st.integers(0, 2**40))
def test_a_stored_index_answers_whatever_stands_in_it(data: bytes, offset: int) -> None:
    StoredPoints(50, data).floor(offset)


@given(data=ANY_BYTES)
def test_markers_are_read_whatever_stands_in_them(data: bytes) -> None:
    disk = SimulatedDisk()
    disk.make_directory("t-0")
    for name in ("damaged", "failed-sync"):
        write_file(disk, f"t-0/{name}", data, sync=True)
    assert read_damage(disk, "t-0") is not None


@settings(max_examples=150)
@given(files=st.lists(ruined(), min_size=1, max_size=3), clean=st.booleans())
def test_a_log_is_what_its_batches_say_whatever_stands_beside_them(
    files: list[tuple[str, bytes]], clean: bool
) -> None:
    replica = copy_of_whole()
    for name, data in files:
        write_file(replica.disk, f"t-0/{name}", data, sync=True)
    log = replica.open(clean=clean, recovery_point=60)
    if log.next_offset == 0:  # the topic id could not be read: all of it was moved aside
        assert log.doubtful
        return
    assert replica.contents() == BATCHES
    oracle = ProducerTable()
    oracle.apply_run(BATCHES, 0, len(BATCHES))
    assert log.table.entries() == oracle.entries()
    assert log.epochs == [(0, 0)]
    for timestamp in (999, 1_000, 1_001):
        log.offset_for_timestamp(timestamp)
    replica.append(1)
    assert log.next_offset == 61


@settings(max_examples=150)
@given(data=st.data())
def test_damaged_batches_are_never_read_as_sound_ones(data: st.DataObject) -> None:
    """Whatever a log serves after an unclean stop is a beginning of what was written."""
    replica = copy_of_whole()
    names = sorted(name for name in CONTENTS if name.endswith(".log"))
    name = data.draw(st.sampled_from(names))
    at = data.draw(st.integers(0, len(CONTENTS[name]) - 1))
    bit = data.draw(st.integers(0, 7))
    if not 12 <= at % 73 < 16:  # the leader epoch lies outside of every check
        replica.disk.rot(f"t-0/{name}", at, bit)
    point = data.draw(st.sampled_from([0, 60]))
    log = replica.open(recovery_point=point)
    if point == 0:
        assert BATCHES.startswith(replica.contents())
        assert log.doubtful == (log.next_offset < 60)


@settings(max_examples=100)
@given(name=st.sampled_from(sorted(CONTENTS)), data=st.data())
def test_looking_at_ruined_files_ends_in_findings(name: str, data: st.DataObject) -> None:
    replica = copy_of_whole()
    path = f"t-0/{name}"
    write_file(replica.disk, path, data.draw(changed(CONTENTS[name])), sync=True)
    shown = [*dump(replica.disk, path, content=True)]
    assert shown or not read_file(replica.disk, path) or name.endswith("index")
    for item in ReplicaCheck(replica.disk, "t-0", deep=True, gaps=False).run():
        assert isinstance(item, int) or item.path.startswith("t-0/")
