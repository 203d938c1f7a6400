"""Batches: round trips of arbitrary records, and no byte read past the end of arbitrary bytes.

Spoilt bytes are put right before a page that may not be read, so an over-read ends the process.
"""

import contextlib
import ctypes
import mmap
import random
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from _fastseq import batch, turn
from _fastseq.crc32c import crc32c
from _fastseq.table import ProducerTable

BYTES = st.none() | st.binary(max_size=40)
HEADERS = st.lists(st.tuples(st.text(max_size=8), BYTES), max_size=3)
TIMESTAMPS = st.integers(-(2**63), 2**63 - 1)
RECORDS = st.lists(st.tuples(BYTES, BYTES, TIMESTAMPS, HEADERS), min_size=1, max_size=12)
LIBC = ctypes.CDLL(None, use_errno=True)
PAGE = mmap.PAGESIZE
ROOM = 4 * PAGE


class Guarded:
    """Memory whose last byte is followed by a page that must not be touched."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, ROOM + PAGE)
        self.room = (ctypes.c_char * (ROOM + PAGE)).from_buffer(self.memory)
        address = ctypes.addressof(self.room) + ROOM
        assert LIBC.mprotect(ctypes.c_void_p(address), PAGE, 0) == 0

    def place(self, data: bytes) -> memoryview:
        """A view of a copy of `data` that ends at the border."""
        data = data[:ROOM]
        view = memoryview(self.memory)[ROOM - len(data) : ROOM]
        view[:] = data
        return view.toreadonly()


GUARDED = Guarded()


def stamped(data: bytes, offset: int) -> bytes:
    return offset.to_bytes(8, "big") + data[8:]


@st.composite
def logs(draw: st.DrawFn) -> bytes:
    """A few batches of one producer, one after another, as a leader stored them."""
    out, offset = b"", 0
    for records in draw(st.lists(RECORDS, max_size=4)):
        sealed = batch.encode_batch(records, producer_id=7, producer_epoch=0, base_sequence=offset)
        out += stamped(sealed, offset)
        offset += len(records)
    return out


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Arbitrary bytes, or a log with bytes changed, cut out or cut off, checksums made right."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    data = bytearray(draw(logs()))
    for _ in range(draw(st.integers(0, 3))):
        if data:
            at = draw(st.integers(0, len(data) - 1))
            data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    if data and draw(st.booleans()):
        del data[draw(st.integers(0, len(data) - 1)) :]
    if len(data) >= 61:
        if draw(st.booleans()):
            data[8:12] = (len(data) - 12).to_bytes(4, "big")
        size = min(int.from_bytes(data[8:12], "big") + 12, len(data))
        data[17:21] = crc32c(data[21 : max(size, 21)]).to_bytes(4, "big")
    return bytes(data)


def never_crashes(call: Callable[[], object]) -> None:
    """Returns or raises ValueError: whatever else happens is a bug."""
    with contextlib.suppress(ValueError):
        call()


@given(RECORDS, st.integers(-1, 2**63 - 1), st.integers(-1, 32767), st.integers(0, 2**31 - 1))
def test_records_survive_the_round_trip(
    records: list[tuple[bytes | None, bytes | None, int, list[tuple[str, bytes | None]]]],
    producer_id: int,
    epoch: int,
    sequence: int,
) -> None:
    data = batch.encode_batch(
        records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence
    )
    header = batch.read_header(data)
    assert (header.producer_id, header.producer_epoch) == (producer_id, epoch)
    assert (header.base_sequence, header.record_count) == (sequence, len(records))
    assert header.max_timestamp == max(timestamp for _, _, timestamp, _ in records)
    assert batch.check_batch(data) == 0
    assert batch.decode_batch(data) == [
        (i, timestamp, key, value, tuple(headers))
        for i, (key, value, timestamp, headers) in enumerate(records)
    ]
    assert batch.decode_records(data[61:], header) == batch.decode_batch(data)


@given(logs(), st.data())
def test_every_walk_agrees_with_reading_header_by_header(log: bytes, data: st.DataObject) -> None:
    headers, at = [], 0
    while at < len(log):
        headers.append((at, batch.read_header(log, at)))
        at += headers[-1][1].size
    end = headers[-1][1].next_offset if headers else 0
    found = batch.scan(log, 0, len(log), 0)
    assert (found.end_position, found.next_offset, found.reason) == (len(log), end, 0)
    assert (found.batches, found.records) == (len(headers), end)
    offset = data.draw(st.integers(0, end + 1))
    holders = [at for at, header in headers if header.next_offset > offset]
    assert batch.batch_at(log, 0, -1, offset) == (holders[0] if holders else len(log))
    below = [(at + h.size, h.next_offset) for at, h in headers if h.next_offset <= offset]
    assert batch.whole_batches(log, 0, -1, offset) == (below[-1] if below else (0, -1))


@given(logs(), st.data())
def test_torn_log_scans_to_its_last_whole_batch(log: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(log)))
    view = GUARDED.place(log[:cut])
    found = batch.scan(view, 0, len(view), 0)
    whole = batch.scan(log, 0, found.end_position, 0)
    assert whole[:6] == found[:6]
    assert found.reason == (batch.SCAN_END if found.end_position == cut else batch.SCAN_SHORT)


@given(spoilt(), st.integers(0, 3))
def test_arbitrary_bytes_are_never_read_past_their_end(data: bytes, start: int) -> None:
    view = GUARDED.place(data)
    start = min(start, len(view))
    for call in (
        lambda: batch.scan(view, start, -1, 0),
        lambda: batch.scan(view, start, -1, 0, check_crc=False),
        lambda: batch.index_points(view, start, -1, 10, 0),
        lambda: batch.epoch_starts(view, start, -1),
        lambda: batch.batch_at(view, start, -1, 5),
        lambda: batch.whole_batches(view, start, -1, 5),
        lambda: batch.check_batch(view, start),
        lambda: batch.read_header(view, start),
        lambda: batch.control_key(view, start),
        lambda: batch.decode_batch(view, start),
        lambda: ProducerTable().apply(view, start),
        lambda: ProducerTable().apply_run(view, start, -1),
        lambda: ProducerTable().load(view[start:]),
        lambda: ProducerTable().load_kafka(view[start:], 100),
    ):
        never_crashes(call)


@given(st.binary(max_size=120), st.integers(0, 5))
def test_arbitrary_records_are_never_read_past_their_end(blob: bytes, count: int) -> None:
    sealed = batch.seal_batch(blob, record_count=max(count, 1), base_timestamp=0, max_timestamp=0)
    view = GUARDED.place(sealed)
    sound = batch.check_batch(view) == 0
    try:
        records = batch.decode_batch(view)
    except ValueError:
        assert not sound
    else:
        deltas_count_up = [record.offset for record in records] == list(range(max(count, 1)))
        assert sound == deltas_count_up
    never_crashes(lambda: batch.decode_records(view[61:], batch.read_header(view)))


@given(st.lists(spoilt(), max_size=6), logs())
def test_turn_appends_what_is_sound_and_nothing_else(frames: list[bytes], log: bytes) -> None:
    table = ProducerTable()
    lane = turn.Lane(table, 0)
    made = turn.Turn()
    frame = GUARDED.place(b"".join(frames))
    at = 0
    for slot, data in enumerate(frames):
        length = min(len(data), len(frame) - at)
        made.add(lane, frame, at, length, slot)
        at += length
    made.run()
    found = batch.scan(made.arena, 0, -1, 0)
    assert (found.reason, found.end_position) == (batch.SCAN_END, len(made.arena))
    assert found.batches == lane.batches == list(made.verdicts).count(turn.NEW)
    assert found.next_offset == lane.next_offset
    follower = turn.Lane(ProducerTable(), 0)
    assert turn.push_check(follower, made.arena, 0, -1) == 0
    assert follower.table.dump() == table.dump()


@given(spoilt())
def test_push_of_arbitrary_bytes_enters_all_of_them_or_none(data: bytes) -> None:
    follower = turn.Lane(ProducerTable(), 0)
    view = GUARDED.place(data)
    before = follower.table.dump()
    error = turn.push_check(follower, view, 0, -1)
    found = batch.scan(view, 0, -1, 0)
    if error == 0:
        assert (found.end_position, found.next_offset) == (len(view), follower.next_offset)
    else:
        assert follower.table.dump() == before


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_dump_with_any_byte_changed_is_refused(seed: int, count: int) -> None:
    chance = random.Random(seed)
    table = ProducerTable()
    for offset in range(count):
        producer = chance.randrange(50)
        known = table.get(producer)
        first = known.batches[-1].last_sequence + 1 if known else 0
        sealed = batch.encode_batch([(None, b"", 0, ())], producer_id=producer, base_sequence=first)
        table.apply(stamped(sealed, offset))
    dumped = bytearray(table.dump())
    loaded = ProducerTable()
    loaded.load(GUARDED.place(bytes(dumped)) if len(dumped) <= ROOM else dumped)
    assert loaded.dump() == dumped
    at = chance.randrange(len(dumped))
    dumped[at] ^= chance.randrange(1, 256)
    never_crashes(lambda: loaded.load(dumped))
    assert loaded.dump() != dumped
