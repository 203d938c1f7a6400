"""Read buffers: used again once nobody looks at them, and never before."""

from cluster.broker.buffers import CLASS, SMALL, Buffers


def test_a_buffer_is_used_again_when_its_view_is_gone() -> None:
    buffers = Buffers(10 * CLASS)
    first = buffers.take(CLASS)
    first[:5] = b"first"
    del first
    assert bytes(buffers.take(CLASS - 100)[:5]) == b"first"
    assert buffers.held == CLASS


def test_a_buffer_that_somebody_looks_at_is_not_touched() -> None:
    buffers = Buffers(10 * CLASS)
    part = buffers.take(CLASS)[100:200].toreadonly()
    other = buffers.take(CLASS)
    other[:] = b"x" * CLASS
    assert bytes(part) == bytes(100)
    assert buffers.held == 2 * CLASS


def test_beyond_the_bound_buffers_are_made_and_forgotten() -> None:
    buffers = Buffers(2 * CLASS)
    taken = [buffers.take(CLASS) for _ in range(5)]
    assert len({id(view.obj) for view in taken}) == 5
    assert buffers.held == 2 * CLASS


def test_what_is_unused_makes_room_for_another_size() -> None:
    buffers = Buffers(3 * CLASS)
    buffers.take(CLASS)
    buffers.take(CLASS)
    assert buffers.held == CLASS
    kept = buffers.take(3 * CLASS)
    assert buffers.held == 3 * CLASS
    del kept
    buffers.take(3 * CLASS)
    assert buffers.held == 3 * CLASS


def test_small_buffers_are_left_to_the_allocator() -> None:
    buffers = Buffers()
    assert len(buffers.take(SMALL)) == SMALL
    assert buffers.held == 0
