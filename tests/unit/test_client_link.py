"""One connection: every request is answered once, or told that no answer will come."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cluster.client.link import Link
from cluster.errors import BrokerUnavailable
from cluster.net.zmq import RoutedMessage, RouterEndpoint
from cluster.wire.apis import METADATA
from cluster.wire.codec import decode_request, encode_response
from cluster.wire.messages import MetadataRequest, MetadataResponse
from cluster.wire.schema import Message


class Peer:
    """A listener that answers by `answers` (by correlation id), and a link to it."""

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, int]] = []
        self.messages = 0
        self.received = asyncio.Event()
        self.router = RouterEndpoint(
            asyncio.get_running_loop(), "127.0.0.1:0", on_turn=self._on_turn
        )
        self.changes: list[str] = []
        self.changed = asyncio.Event()
        self.link = Link(
            asyncio.get_running_loop(), self.router.endpoint, "me",
            on_up=lambda link: self._note("up"), on_down=lambda link: self._note("down"),
        )  # fmt: skip

    def _on_turn(self, turn: list[RoutedMessage]) -> None:
        for peer, frames in turn:
            self.messages += 1
            for frame in frames:
                header, _ = decode_request(frame)
                assert header.client_id == "me"
                self.requests.append((peer, header.correlation_id))
        self.received.set()

    def _note(self, change: str) -> None:
        self.changes.append(change)
        self.changed.set()

    async def wait_for(self, change: str, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while self.changes.count(change) < times:
                self.changed.clear()
                await self.changed.wait()

    async def request(self) -> tuple[bytes, int]:
        async with asyncio.timeout(10):
            while not self.requests:
                self.received.clear()
                await self.received.wait()
        return self.requests.pop(0)

    def answer(self, peer: bytes, correlation: int, controller: int) -> None:
        body = MetadataResponse(controller_id=controller)
        self.router.send(peer, [encode_response(METADATA, 12, correlation, body)])


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    await peer.wait_for("up")
    yield peer
    peer.link.close()
    peer.link.close()
    peer.router.close()


def ask(peer: Peer, timeout_ms: int = 5_000) -> asyncio.Task[MetadataResponse]:
    work = peer.link.request(METADATA, MetadataRequest(), MetadataResponse, timeout_ms)
    return asyncio.get_running_loop().create_task(work)


async def test_answers_in_any_order_reach_their_requests(peer: Peer) -> None:
    first, second = ask(peer), ask(peer)
    one, two = await peer.request(), await peer.request()
    peer.answer(*two, controller=2)
    peer.answer(*one, controller=1)
    assert [(await first).controller_id, (await second).controller_id] == [1, 2]


async def test_what_is_asked_in_one_turn_travels_as_one_message_and_may_be_answered_so(
    peer: Peer,
) -> None:
    asked = [ask(peer) for _ in range(3)]
    wanted = [await peer.request() for _ in asked]
    assert peer.messages == 1
    frames = [
        encode_response(METADATA, 12, correlation, MetadataResponse(controller_id=correlation))
        for _, correlation in wanted
    ]
    peer.router.send(wanted[0][0], frames)
    answers = [(await one).controller_id for one in asked]
    assert answers == [correlation for _, correlation in wanted]


async def test_an_answer_that_nobody_waits_for_is_dropped(peer: Peer) -> None:
    late = ask(peer, timeout_ms=1)
    request = await peer.request()
    with pytest.raises(BrokerUnavailable, match=r"no answer from .* within 1 ms"):
        await late
    peer.answer(*request, controller=9)
    after = ask(peer)
    peer.answer(*(await peer.request()), controller=1)
    assert (await after).controller_id == 1


async def test_the_end_of_the_connection_is_told_to_every_request(peer: Peer) -> None:
    told: list[Message | None] = []
    assert peer.link.post(METADATA, MetadataRequest(), told.append)
    waiting = ask(peer)
    await peer.request()
    peer.router.close()
    with pytest.raises(BrokerUnavailable, match="ended before the answer"):
        await waiting
    assert told == [None]
    assert not peer.link.up
    with pytest.raises(BrokerUnavailable, match="not connected"):
        await ask(peer)


async def test_a_peer_that_speaks_nonsense_is_disconnected_and_tried_again(peer: Peer) -> None:
    told: list[Message | None] = []
    peer.link.post(METADATA, MetadataRequest(), told.append)
    peer.link.post(METADATA, MetadataRequest(), told.append)
    identity, correlation = await peer.request()
    peer.router.send(identity, [correlation.to_bytes(4) + b"\xff\xff"])
    await peer.wait_for("up", times=2)
    assert told == [None, None]
    assert peer.changes == ["up", "down", "up"]
    assert peer.link.malformed == 1
    peer.requests.clear()
    again = ask(peer)
    peer.answer(*(await peer.request()), controller=3)
    assert (await again).controller_id == 3


async def test_closing_tells_what_is_unanswered(peer: Peer) -> None:
    told: list[Message | None] = []
    peer.link.post(METADATA, MetadataRequest(), told.append)
    peer.link.close()
    assert told == [None]
