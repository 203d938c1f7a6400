"""Framing: bytes to requests and responses to bytes, without any socket."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import pytest

from _fastseq.frames import (
    READ_ON,
    REFUSED,
    SHARE_USED,
    UNFINISHED,
    WAITS,
    Conversation,
    Exchange,
)

PRODUCE, FETCH = 0, 1
LARGE = 64 * 1024

Request = tuple[bytes, memoryview, bool]


class World:
    """An exchange, and how often it asked for a turn."""

    def __init__(self, **bounds: int) -> None:
        self.woken = 0
        usual = {
            "slab_bytes": 256 * 1024, "frame_bytes_max": 1 << 20, "in_flight_max": 256,
            "in_flight_bytes_max": 1 << 24, "share_requests": 64, "share_bytes": 1 << 20,
            "large_bytes_max": 1 << 24,
        }  # fmt: skip
        self.exchange = Exchange(_request, self._wake, **(usual | bounds))

    def _wake(self) -> None:
        self.woken += 1

    def open(self) -> Conversation:
        return self.exchange.open(object())

    def drained(self) -> list[bytes]:
        return [bytes(frame) for _, frame, _ in self.exchange.drain()]


def _request(address: bytes, frame: memoryview, native: bool) -> Any:
    assert not native
    return address, frame, native


def frame(body: bytes = b"", key: int = PRODUCE) -> bytes:
    """A request without its length."""
    return struct.pack(">hhi", key, 9, 1) + body


def sent(*frames: bytes) -> bytes:
    return b"".join(len(one).to_bytes(4, "big") + one for one in frames)


def feed(conversation: Conversation, data: bytes) -> int:
    """Receive all of `data`, as a kernel would hand it out; the last state."""
    state = READ_ON
    while data:
        room = conversation.get_buffer(65_536)
        size = min(len(room), len(data))
        room[:size] = data[:size]
        data = data[size:]
        state = conversation.buffer_updated(size)
        if data:
            assert not state & (SHARE_USED | WAITS | REFUSED), "read although it must not be"
    return state


def written(conversation: Conversation) -> bytes:
    return b"".join(bytes(piece) for piece in conversation.outgoing())


def addresses(requests: Sequence[Request]) -> list[bytes]:
    return [address for address, _, _ in requests]


def test_frames_of_one_read_are_views_of_what_was_received() -> None:
    world = World()
    talk = world.open()
    assert feed(talk, sent(frame(b"a"), frame(b"bb"))) == READ_ON
    assert world.woken == 1
    assert world.drained() == [frame(b"a"), frame(b"bb")]
    assert talk.in_flight == world.exchange.in_flight == 2


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 11, 12, 13, 20])
def test_a_frame_in_pieces_is_one_request(size: int) -> None:
    world = World()
    talk = world.open()
    data = sent(frame(b"first"), frame(b"second"))
    for at in range(0, len(data), size):
        feed(talk, data[at : at + size])
    assert world.drained() == [frame(b"first"), frame(b"second")]
    assert talk.expected == 0


def test_a_large_frame_is_received_in_memory_of_its_size() -> None:
    world = World()
    talk = world.open()
    data = sent(frame(bytes(range(256)) * 1024), frame(b"next"))
    assert feed(talk, data[:100_000]) == UNFINISHED
    assert talk.expected == len(data) - len(sent(frame(b"next")))
    assert len(talk.get_buffer(65_536)) == talk.expected - 100_000
    assert feed(talk, data[100_000:]) == READ_ON
    assert world.drained() == [frame(bytes(range(256)) * 1024), frame(b"next")]


def test_what_a_view_is_held_of_is_not_received_into_again() -> None:
    world = World(slab_bytes=2 * LARGE)
    talk = world.open()
    held = []
    for number in range(40):
        body = bytes([number]) * 50_000
        feed(talk, sent(frame(body)))
        held += [(body, view) for _, view, _ in world.exchange.drain()]
        world.exchange.answer(struct.pack(">BQQ", 2, talk.number, number), b"")
    assert all(bytes(view) == frame(body) for body, view in held)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_responses_leave_in_the_order_of_the_requests(order: Sequence[int]) -> None:
    world = World()
    talk = world.open()
    feed(talk, sent(frame(), frame(), frame()))
    asked = addresses(world.exchange.drain())
    for number in order:
        world.exchange.answer(asked[number], b"answer %d" % number)
    assert world.exchange.settled() == [talk.owner]
    assert written(talk) == sent(b"answer 0", b"answer 1", b"answer 2")
    assert world.exchange.in_flight == 0
    assert world.exchange.settled() == []


def test_a_response_waits_for_those_before_it() -> None:
    world = World()
    talk = world.open()
    feed(talk, sent(frame(), frame(), frame()))
    first, second, third = addresses(world.exchange.drain())
    world.exchange.answer(second, b"2")
    assert world.exchange.settled() == []
    assert written(talk) == b""
    world.exchange.answer(first, b"1")
    assert written(talk) == sent(b"1", b"2")
    world.exchange.answer(third, [b"in ", memoryview(b"pieces")])
    assert written(talk) == sent(b"in pieces")


def test_no_response_lets_those_after_it_pass() -> None:
    world = World()
    talk = world.open()
    feed(talk, sent(frame(), frame()))
    first, second = addresses(world.exchange.drain())
    world.exchange.answer(second, b"2")
    world.exchange.answer(first, None)
    assert written(talk) == sent(b"2")
    assert talk.in_flight == 0


def test_hanging_up_comes_after_what_was_answered_before_and_ends_the_rest() -> None:
    world = World()
    talk = world.open()
    feed(talk, sent(frame(), frame(), frame()))
    first, second, third = addresses(world.exchange.drain())
    world.exchange.answer(third, b"3")
    world.exchange.hang_up(second)
    world.exchange.answer(first, b"1")
    assert talk.ended
    assert written(talk) == sent(b"1")
    assert world.exchange.in_flight == 0


def test_requests_other_than_produce_are_alone() -> None:
    world = World()
    talk = world.open()
    batch = [frame(b"1"), frame(b"2"), frame(b"f", FETCH), frame(b"3"), frame(b"4")]
    assert feed(talk, sent(*batch)) == WAITS
    for expected, then in ((batch[:2], WAITS), (batch[2:3], READ_ON), (batch[3:], READ_ON)):
        requests = world.exchange.drain()
        assert [bytes(view) for _, view, _ in requests] == expected
        for address in addresses(requests):
            world.exchange.answer(address, b"")
        assert talk.go_on() == then


def test_a_share_of_a_turn_is_not_exceeded() -> None:
    world = World(share_requests=2)
    flood, other = world.open(), world.open()
    assert feed(flood, sent(*[frame(b"%d" % n) for n in range(5)])) == SHARE_USED
    assert feed(other, sent(frame(b"other"))) == READ_ON
    assert world.drained() == [frame(b"0"), frame(b"1"), frame(b"other")]
    assert flood.go_on() == SHARE_USED
    assert world.drained() == [frame(b"2"), frame(b"3")]
    assert flood.go_on() == READ_ON
    assert world.drained() == [frame(b"4")]


def test_bytes_of_a_turn_are_bounded_while_a_frame_arrives() -> None:
    world = World(share_bytes=1000)
    talk = world.open()
    assert len(talk.get_buffer(65_536)) == 1000
    assert feed(talk, sent(frame(bytes(5000)))[:1000]) == SHARE_USED | UNFINISHED
    assert world.woken == 1
    assert world.drained() == []
    assert talk.go_on() == UNFINISHED
    assert len(talk.get_buffer(65_536)) == 1000


def test_requests_in_flight_are_bounded_in_number_and_bytes() -> None:
    world = World(in_flight_max=2)
    talk = world.open()
    assert feed(talk, sent(frame(b"1"), frame(b"2"), frame(b"3"))) == WAITS
    first, second = addresses(world.exchange.drain())
    world.exchange.answer(second, b"")
    assert talk.go_on() == WAITS
    world.exchange.answer(first, b"")
    assert talk.go_on() == READ_ON
    assert world.drained() == [frame(b"3")]

    world = World(in_flight_bytes_max=100)
    talk = world.open()
    assert feed(talk, sent(frame(bytes(100)), frame(b"2"))) == WAITS
    world.exchange.answer(addresses(world.exchange.drain())[0], b"")
    assert talk.go_on() == READ_ON
    assert world.drained() == [frame(b"2")]


def test_a_client_that_does_not_read_is_not_served() -> None:
    world = World()
    talk = world.open()
    talk.blocked = True
    assert feed(talk, sent(frame())) == WAITS
    assert world.drained() == []
    talk.blocked = False
    assert talk.go_on() == READ_ON
    assert world.drained() == [frame()]


def test_memory_for_large_frames_is_bounded_over_all_connections() -> None:
    world = World(large_bytes_max=300_000)
    first, second, third = world.open(), world.open(), world.open()
    data = sent(frame(bytes(200_000)))
    assert feed(first, data[:70_000]) == UNFINISHED
    assert feed(second, data[:70_000]) == WAITS | UNFINISHED
    assert feed(third, data[:70_000]) == WAITS | UNFINISHED
    feed(first, data[70_000:])
    assert world.exchange.settled() == [second.owner, third.owner]
    assert second.go_on() == UNFINISHED
    assert third.go_on() == WAITS | UNFINISHED
    second.close()
    assert world.exchange.settled() == [third.owner]
    assert third.go_on() == UNFINISHED
    feed(third, data[70_000:])
    assert world.drained() == [frame(bytes(200_000))] * 2


def test_announcing_a_large_frame_takes_no_memory_from_others() -> None:
    world = World(large_bytes_max=300_000)
    data = sent(frame(bytes(200_000)))
    for _ in range(100):
        assert feed(world.open(), data[: LARGE - 1]) == UNFINISHED
    talk = world.open()
    assert feed(talk, data[:70_000]) == UNFINISHED
    feed(talk, data[70_000:])
    assert world.drained() == [frame(bytes(200_000))]


def test_frames_of_usual_size_do_not_wait_for_larger_ones() -> None:
    sizes = (200_000, 3 << 20, 17 << 20)
    world = World(large_bytes_max=1 << 20, frame_bytes_max=1 << 25)
    for size in sizes:
        first, second = world.open(), world.open()
        announced = (size + 8).to_bytes(4, "big") + frame(bytes(70_000))
        assert feed(first, announced) == UNFINISHED
        if size > sizes[0]:
            assert feed(second, announced) == WAITS | UNFINISHED
    data = sent(frame(bytes(sizes[0])))
    talk = world.open()
    assert feed(talk, data[:70_000]) == UNFINISHED
    feed(talk, data[70_000:])
    assert world.drained() == [frame(bytes(sizes[0]))]


def test_a_frame_whose_first_bytes_trickle_in_is_whole() -> None:
    world = World()
    talk = world.open()
    body = bytes(range(256)) * 400
    data = sent(frame(body), frame(b"next"))
    for at in range(0, len(data), 999):
        feed(talk, data[at : at + 999])
    assert world.drained() == [frame(body), frame(b"next")]


@pytest.mark.parametrize("length", [-1, 0, 7, (1 << 20) + 1, 2**31 - 1, -(2**31)])
def test_a_length_that_no_request_has_ends_the_conversation(length: int) -> None:
    world = World()
    talk = world.open()
    start = struct.pack(">i", length)
    assert feed(talk, sent(frame(b"good")) + start) == REFUSED
    assert talk.fault == start
    assert talk.ended
    assert world.drained() == [frame(b"good")]


def test_answers_to_a_connection_that_has_gone_are_dropped_and_counted() -> None:
    world = World()
    talk = world.open()
    feed(talk, sent(frame(), frame()))
    first, second = addresses(world.exchange.drain())
    world.exchange.answer(second, b"2")
    talk.close()
    talk.close()
    assert world.exchange.in_flight == len(world.exchange) == 0
    world.exchange.answer(first, b"1")
    assert world.exchange.undeliverable == 1
    assert talk.outgoing() == []


def test_an_answer_that_nobody_waits_for_is_counted_and_not_sent() -> None:
    world = World()
    talk = world.open()
    feed(talk, sent(frame(), frame()))
    first, second = addresses(world.exchange.drain())
    world.exchange.answer(second, b"2")
    world.exchange.answer(second, b"2 again")
    world.exchange.answer(first, b"1")
    world.exchange.answer(first, b"1 again")
    world.exchange.answer(first[:9] + bytes(8)[:-1] + b"\x09", b"never asked")
    assert world.exchange.unexpected == 3
    assert written(talk) == sent(b"1", b"2")


@pytest.mark.parametrize("address", [b"", b"\x00abcd", b"\x02" + bytes(15), b"\x01" + bytes(16)])
def test_an_address_of_another_kind_is_refused(address: bytes) -> None:
    with pytest.raises(ValueError, match="not the address of a request"):
        World().exchange.answer(address, b"")


def test_reading_while_frames_wait_is_refused() -> None:
    world = World(in_flight_max=1)
    talk = world.open()
    assert feed(talk, sent(frame(b"1"), frame(b"2"))) == WAITS
    with pytest.raises(RuntimeError, match="frames wait"):
        talk.get_buffer(65_536)


def test_more_bytes_than_there_was_room_for_are_refused() -> None:
    talk = World().open()
    with pytest.raises(ValueError, match="cannot have been received"):
        talk.buffer_updated(1)
    room = talk.get_buffer(65_536)
    with pytest.raises(ValueError, match="cannot have been received"):
        talk.buffer_updated(len(room) + 1)


def test_sizes_in_flight_survive_the_growth_of_their_ring() -> None:
    world = World(in_flight_max=1000, share_requests=1000)
    talk = world.open()
    for _ in range(3):  # begins at another place each time
        feed(talk, sent(*[frame(bytes(n)) for n in range(37)]))
        for address in addresses(world.exchange.drain()):
            world.exchange.answer(address, b"")
    feed(talk, sent(*[frame() for _ in range(300)]))
    for address in reversed(addresses(world.exchange.drain())):
        world.exchange.answer(address, b"")
    assert talk.in_flight == 0
    assert len(written(talk)) == (3 * 37 + 300) * 4
