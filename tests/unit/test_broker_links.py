"""Connections between brokers, and what arrives on the ROUTER told apart."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from cluster.broker.links import Links, sort
from cluster.core.effects import Peer, Send
from cluster.core.events import Event, PeerConnected, PeerDisconnected
from cluster.limits import GATHERED_FRAMES_MAX
from cluster.net.zmq import RoutedMessage, RouterEndpoint

CLIENT, BROKER = b"\x00abcd", b"\x01abcd"


def frames(*parts: bytes) -> list[memoryview]:
    return [memoryview(part) for part in parts]


def test_messages_are_told_apart_by_who_sent_them_in_order() -> None:
    peers, clients, malformed = sort([
        (CLIENT, frames(b"1")),
        (BROKER, frames(b"a", b"data")),
        (CLIENT, frames(b"2", b"3")),
        (BROKER, frames(b"b")),
    ])  # fmt: skip
    assert malformed == 0
    assert [(header, bytes(data)) for header, data in peers] == [(b"a", b"data"), (b"b", b"")]
    assert [(m.connection, bytes(m.frame)) for m in clients] == [
        (CLIENT, b"1"),
        (CLIENT, b"2"),
        (CLIENT, b"3"),
    ]


def test_messages_with_a_wrong_number_of_frames_are_counted() -> None:
    messages: list[RoutedMessage] = [
        (CLIENT, frames(*[b"request"] * (GATHERED_FRAMES_MAX + 1))),
        (BROKER, frames(b"a", b"b", b"c")),
    ]
    assert sort(messages) == ([], [], 2)


def test_client_cannot_name_itself_as_the_other_listener_names_its_connections() -> None:
    """Its answers would go there, where no such address is known."""
    assert sort([(b"\x02me", frames(b"1")), (b"\x02" + bytes(16), frames(b"2"))]) == ([], [], 2)


def test_client_that_names_itself_is_a_client() -> None:
    _, clients, malformed = sort([(b"me", frames(b"1"))])
    assert malformed == 0
    assert [m.connection for m in clients] == [b"me"]


class Listener:
    """What a broker at the other end would hear."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, list[bytes]]] = []
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        self.router = self.listen("127.0.0.1:0")

    def listen(self, address: str) -> RouterEndpoint:
        return RouterEndpoint(asyncio.get_running_loop(), address, on_turn=self._take)

    def _take(self, messages: list[RoutedMessage]) -> None:
        self.heard += [(peer, [bytes(part) for part in parts]) for peer, parts in messages]
        self.changed.set()

    def deliver(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not claim():
                await self.changed.wait()
                self.changed.clear()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    made = Listener()
    yield made
    made.router.close()


@pytest.fixture
async def links(listener: Listener) -> AsyncIterator[Links]:
    made = Links(
        asyncio.get_running_loop(),
        7,
        listener.deliver,
        heartbeat_ms=100,
        heartbeat_timeout_ms=300,
    )
    yield made
    made.close()


async def test_connection_tells_of_itself_and_carries_a_data_frame_only_with_data(
    links: Links, listener: Listener
) -> None:
    peer = Peer(2, 40, "127.0.0.1", listener.router.port)
    links.connect([peer])
    await listener.until(lambda: listener.events == [PeerConnected(2, 40)])
    links.send(Send(2, b"header", memoryview(b"data")))
    links.send(Send(2, b"header"))
    await listener.until(lambda: len(listener.heard) == 2)
    identity, first = listener.heard[0]
    assert identity[0] == 1
    assert first == [b"header", b"data"]
    assert listener.heard[1] == (identity, [b"header"])
    assert links.unsent == 0


async def test_new_incarnation_gets_a_connection_of_its_own(
    links: Links, listener: Listener
) -> None:
    port = listener.router.port
    links.connect([Peer(2, 40, "127.0.0.1", port)])
    await listener.until(lambda: PeerConnected(2, 40) in listener.events)
    links.connect([Peer(2, 41, "127.0.0.1", port)])
    await listener.until(lambda: PeerConnected(2, 41) in listener.events)
    assert PeerDisconnected(2, 40) not in listener.events
    links.send(Send(2, b"header"))
    await listener.until(lambda: len(listener.heard) == 1)


async def test_peer_that_stays_keeps_its_connection(links: Links, listener: Listener) -> None:
    peer = Peer(2, 40, "127.0.0.1", listener.router.port)
    links.connect([peer])
    await listener.until(lambda: PeerConnected(2, 40) in listener.events)
    links.connect([peer, Peer(3, 50, "127.0.0.1", listener.router.port)])
    await listener.until(lambda: PeerConnected(3, 50) in listener.events)
    assert listener.events.count(PeerConnected(2, 40)) == 1


async def test_lost_connection_is_told_and_what_cannot_leave_is_counted(
    links: Links, listener: Listener
) -> None:
    links.connect([Peer(2, 40, "127.0.0.1", listener.router.port)])
    await listener.until(lambda: PeerConnected(2, 40) in listener.events)
    listener.router.close()
    await listener.until(lambda: PeerDisconnected(2, 40) in listener.events)
    links.send(Send(2, b"header"))
    links.send(Send(9, b"to nobody"))
    assert links.unsent == 2
