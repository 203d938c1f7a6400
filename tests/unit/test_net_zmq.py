"""The ZeroMQ endpoints on loopback: bursts, bounds, lost peers, and no lost wake-up."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest
import uvloop
import zmq

from cluster.limits import GATHERED_BYTES, GATHERED_FRAMES_MAX
from cluster.net.zmq import DealerEndpoint, Frames, RoutedMessage, RouterEndpoint, gathered
from tests.unit.ports import freed


class Inbox:
    """Collects the turns of an endpoint; `until(n)` waits for n messages."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.messages: list[tuple[bytes, list[bytes]]] = []
        self.signals: list[str] = []
        self.reply: Callable[[list[RoutedMessage]], None] | None = None
        self._changed = asyncio.Event()

    def routed(self, messages: list[RoutedMessage]) -> None:
        self.turns.append(len(messages))
        self.messages += [(peer, [bytes(f) for f in frames]) for peer, frames in messages]
        if self.reply is not None:
            self.reply(messages)
        self._changed.set()

    def dealt(self, messages: list[Frames]) -> None:
        self.turns.append(len(messages))
        self.messages += [(b"", [bytes(f) for f in frames]) for frames in messages]
        self._changed.set()

    def signal(self, name: str) -> Callable[[], None]:
        def note() -> None:
            self.signals.append(name)
            self._changed.set()

        return note

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not claim():
                await self._changed.wait()
                self._changed.clear()

    async def count(self, messages: int) -> None:
        await self.until(lambda: len(self.messages) >= messages)


async def eventually(claim: Callable[[], bool]) -> None:
    """Lets the loop turn until the claim holds: for what nothing announces."""
    async with asyncio.timeout(10):
        while not claim():  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.fixture
async def closing() -> AsyncIterator[list[RouterEndpoint | DealerEndpoint]]:
    endpoints: list[RouterEndpoint | DealerEndpoint] = []
    yield endpoints
    for endpoint in endpoints:
        endpoint.close()
        endpoint.close()


Closing = list[RouterEndpoint | DealerEndpoint]


def echo(router: RouterEndpoint) -> Callable[[list[RoutedMessage]], None]:
    def reply(messages: list[RoutedMessage]) -> None:
        for peer, frames in messages:
            router.send(peer, frames)

    return reply


def listen(closing: Closing, inbox: Inbox, address: str = "127.0.0.1:0", limit: int = 1024,
           max_message_bytes: int = 1_000_000) -> RouterEndpoint:  # fmt: skip
    router = RouterEndpoint(
        asyncio.get_running_loop(), address, on_turn=inbox.routed, limit_per_turn=limit,
        max_message_bytes=max_message_bytes,
    )  # fmt: skip
    closing.append(router)
    return router


async def connect(
    closing: Closing, router: RouterEndpoint, inbox: Inbox, identity: bytes | None = b"a",
    wait: bool = True,
) -> DealerEndpoint:  # fmt: skip
    dealer = DealerEndpoint(
        asyncio.get_running_loop(), router.endpoint, identity=identity, on_turn=inbox.dealt,
        on_connected=inbox.signal("connected"), on_disconnected=inbox.signal("disconnected"),
    )  # fmt: skip
    closing.append(dealer)
    if wait:
        await inbox.until(lambda: dealer.connected)
    return dealer


async def test_messages_of_a_burst_arrive_once_in_order_and_in_few_turns(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    router = listen(closing, server)
    dealer = await connect(closing, router, client)
    for number in range(500):
        assert dealer.send([number.to_bytes(4), b"body"])
    await server.count(500)
    assert server.messages == [(b"a", [n.to_bytes(4), b"body"]) for n in range(500)]
    assert len(server.turns) < 250


async def test_a_turn_is_bounded_and_the_rest_comes_without_another_edge(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    router = listen(closing, server, limit=7)
    dealer = await connect(closing, router, client)
    for number in range(100):
        dealer.send([number.to_bytes(4)])
    await server.count(100)
    assert max(server.turns) <= 7
    assert [int.from_bytes(frames[0]) for _, frames in server.messages] == list(range(100))


async def test_sending_inside_a_turn_loses_no_wakeup(closing: Closing) -> None:
    # Ping-pong with several messages under way: a send consumes the edge of an arrival now and
    # then, and the exchange would stop if nobody looked again.
    server, client = Inbox(), Inbox()
    router = listen(closing, server)
    server.reply = echo(router)
    dealer = await connect(closing, router, client)
    sent = 0
    while len(client.messages) < 2000:
        while sent < len(client.messages) + 8:
            assert dealer.send([sent.to_bytes(4)])
            sent += 1
        await client.count(len(client.messages) + 1)
    assert [int.from_bytes(m[0]) for _, m in client.messages[:2000]] == list(range(2000))


async def test_an_exception_in_a_turn_does_not_stop_the_endpoint(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    router = listen(closing, server, limit=2)
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: failures.append(str(context["exception"]))
    )

    def fail(messages: list[RoutedMessage]) -> None:
        raise RuntimeError("broken turn")

    server.reply = fail
    dealer = await connect(closing, router, client)
    for number in range(10):
        dealer.send([number.to_bytes(4)])
    await eventually(lambda: len(server.messages) == 10)
    assert set(failures) == {"broken turn"}


async def test_a_router_says_when_the_peer_is_unknown(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    router = listen(closing, server)
    assert not router.send(b"nobody", [b"x"])
    dealer = await connect(closing, router, client)
    dealer.send([b"hello"])
    await server.count(1)
    assert router.send(b"a", [b"head", b"data"])
    await client.count(1)
    assert client.messages == [(b"", [b"head", b"data"])]
    dealer.close()
    await eventually(lambda: not router.send(b"a", [b"late"]))
    assert router.unreachable == 2


async def test_a_dealer_queues_nothing_without_a_connection(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    router = listen(closing, server)
    address = router.endpoint
    dealer = await connect(closing, router, client)
    router.close()
    await client.until(lambda: not dealer.connected)
    assert not dealer.send([b"into the void"])
    await freed(address)
    again = listen(closing, server, address)
    await client.until(lambda: dealer.connected)
    assert client.signals == ["connected", "disconnected", "connected"]
    assert dealer.send([b"after"])
    await server.count(1)
    assert server.messages == [(b"a", [b"after"])]
    assert again.endpoint == address


async def test_a_dealer_waits_for_a_listener_that_comes_later(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    first = listen(closing, server)
    address = first.endpoint
    first.close()
    dealer = await connect(closing, first, client, wait=False)
    assert not dealer.send([b"too early"])
    await freed(address)
    listen(closing, server, address)
    await client.until(lambda: dealer.connected)
    assert dealer.send([b"now"])
    await server.count(1)
    assert server.messages == [(b"a", [b"now"])]


async def test_a_mute_peer_is_tried_again_and_never_counts_as_connected(closing: Closing) -> None:
    # A stopped process: its kernel accepts connections, nobody greets.
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.setblocking(False)
        host, port = mute.getsockname()
        client = Inbox()
        loop = asyncio.get_running_loop()
        dealer = DealerEndpoint(
            loop, f"{host}:{port}", on_turn=client.dealt, on_connected=client.signal("connected")
        )
        closing.append(dealer)
        async with asyncio.timeout(10):
            for _ in range(2):
                connection, _ = await loop.sock_accept(mute)
                with connection:
                    assert not dealer.send([b"x"])
                    while await loop.sock_recv(connection, 4096):
                        pass
        assert client.signals == []


async def test_the_same_identity_reconnecting_takes_over(closing: Closing) -> None:
    server, first, second = Inbox(), Inbox(), Inbox()
    router = listen(closing, server)
    old = await connect(closing, router, first)
    old.send([b"old"])
    await server.count(1)
    new = await connect(closing, router, second)
    new.send([b"new"])
    await server.count(2)
    assert router.send(b"a", [b"for the new one"])
    await second.count(1)
    assert first.messages == []


async def test_an_oversized_message_ends_its_connection_only(closing: Closing) -> None:
    server, bad, good = Inbox(), Inbox(), Inbox()
    router = listen(closing, server, max_message_bytes=1000)
    attacker = await connect(closing, router, bad, b"bad")
    friend = await connect(closing, router, good, b"good")
    attacker.send([bytes(2000)])
    await bad.until(lambda: "disconnected" in bad.signals)
    friend.send([b"fine"])
    await server.count(1)
    assert server.messages == [(b"good", [b"fine"])]


async def test_an_address_in_use_is_an_os_error_naming_it(closing: Closing) -> None:
    router = listen(closing, Inbox())
    with pytest.raises(OSError, match=f"cannot listen on {router.endpoint}"):
        listen(closing, Inbox(), router.endpoint)


async def test_closing_inside_a_callback_is_safe(closing: Closing) -> None:
    server, client = Inbox(), Inbox()
    router = listen(closing, server, limit=1)
    server.reply = lambda messages: router.close()
    dealer = await connect(closing, router, client)
    dealer.send([b"1"])
    dealer.send([b"2"])
    await client.until(lambda: "disconnected" in client.signals)
    assert len(server.messages) == 1


async def test_what_a_client_does_not_read_is_dropped_beyond_a_bound_and_counted() -> None:
    loop, inbox = asyncio.get_running_loop(), Inbox()
    router = RouterEndpoint(loop, "127.0.0.1:0", on_turn=inbox.routed, queue_messages=10)
    client: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    client.set(zmq.RCVHWM, 1)
    client.set(zmq.LINGER, 0)
    client.connect(f"tcp://{router.endpoint}")
    client.send(b"hello")
    await inbox.count(1)
    identity = inbox.messages[0][0]
    sent = [router.send(identity, [bytes(1 << 20)]) for _ in range(200)]
    assert not all(sent)
    assert router.unreachable == sent.count(False)
    client.close()
    router.close()


def test_endpoints_work_on_uvloop() -> None:
    async def exchange() -> None:
        endpoints: Closing = []
        server, client = Inbox(), Inbox()
        router = listen(endpoints, server)
        server.reply = echo(router)
        dealer = await connect(endpoints, router, client, identity=None)
        for number in range(300):
            dealer.send([number.to_bytes(4)])
        await client.count(300)
        for endpoint in endpoints:
            endpoint.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(exchange())


async def test_peer_that_hangs_up_with_messages_waiting_ends_nobody(closing: Closing) -> None:
    """libzmq aborted the process when the queue of such a peer was full (see `_configure`)."""
    inbox = Inbox()
    router = RouterEndpoint(
        asyncio.get_running_loop(), "127.0.0.1:0", on_turn=inbox.routed, heartbeat_ivl_ms=10
    )
    closing.append(router)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    flood = context.socket(zmq.DEALER)
    flood.set(zmq.SNDHWM, 0)
    flood.connect(f"tcp://{router.endpoint}")
    messages = 20_000
    for _ in range(messages):
        flood.send(b"x" * 100)
    time.sleep(0.3)  # noqa: ASYNC251 - the loop hangs, and libzmq's thread goes on
    flood.close(0)
    time.sleep(0.3)  # noqa: ASYNC251
    await inbox.until(lambda: len(inbox.messages) > 1_000)
    context.term()


def test_frames_are_gathered_in_order_up_to_a_count_and_a_size() -> None:
    small = [b"%d" % number for number in range(2 * GATHERED_FRAMES_MAX + 1)]
    messages = list(gathered(small))
    assert [frame for message in messages for frame in message] == small
    assert [len(message) for message in messages] == [GATHERED_FRAMES_MAX, GATHERED_FRAMES_MAX, 1]
    large = bytes(GATHERED_BYTES)
    assert list(gathered([b"1", large, b"2", b"3"])) == [[b"1"], [large], [b"2", b"3"]]
    assert list(gathered([])) == []
