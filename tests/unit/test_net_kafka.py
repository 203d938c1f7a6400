"""The listener for Kafka's clients on loopback: order, back-pressure, who is closed and why."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest

from cluster.net.kafka import TCP, Bounds, KafkaListener

Request = tuple[bytes, memoryview, bool]

PRODUCE, FETCH = 0, 1


class Service:
    """A listener whose turns are taken as a broker takes them; `serve` answers a turn."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.loop = asyncio.get_running_loop()
        self.turns: list[int] = []
        self.waiting: list[Request] = []
        self.serve: Callable[[list[Request]], None] = self.echo
        self._changed = asyncio.Event()
        self._woken = False
        self.listener = KafkaListener(
            self.loop, "127.0.0.1:0", make=lambda *request: request, wake=self._wake, bounds=bounds
        )

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._woken = False
        requests = self.listener.drain()
        if requests:
            self.turns.append(len(requests))
            self.serve(requests)
        self.listener.settle()
        self._changed.set()

    def echo(self, requests: list[Request]) -> None:
        for address, frame, _ in requests:
            self.listener.answer(address, bytes(frame))

    def keep(self, requests: list[Request]) -> None:
        self.waiting += requests

    def answer(self, *numbers: int) -> None:
        """Answer kept requests by their place."""
        for number in numbers:
            address, frame, _ = self.waiting[number]
            self.listener.answer(address, bytes(frame))
        self.listener.settle()

    async def until(self, claim: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not claim():  # noqa: ASYNC110 - the loop's own turns are what is waited for
                await asyncio.sleep(0)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    made = Service(Bounds(look_ms=10, frame_ms=50, unread_ms=50))
    await made.listener.serve()
    yield made
    await made.listener.close(1000)


class Client:
    """One connection that speaks frames."""

    def __init__(self, service: Service) -> None:
        self._port = service.listener.port

    async def __aenter__(self) -> Client:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()

    def send(self, *frames: bytes) -> None:
        self.writer.write(b"".join(len(one).to_bytes(4, "big") + one for one in frames))

    async def receive(self) -> bytes:
        async with asyncio.timeout(10):
            size = int.from_bytes(await self.reader.readexactly(4), "big")
            return await self.reader.readexactly(size)

    async def end(self) -> bytes:
        """Everything up to the end of the connection."""
        with suppress(ConnectionError):
            async with asyncio.timeout(10):
                return await self.reader.read()
        return b""


def frame(body: bytes = b"", key: int = PRODUCE) -> bytes:
    return struct.pack(">hhi", key, 9, 1) + body


async def test_pipelined_requests_are_answered_in_order(service: Service) -> None:
    service.serve = service.keep
    async with Client(service) as client:
        client.send(frame(b"1"), frame(b"2"), frame(b"3"))
        await service.until(lambda: len(service.waiting) == 3)
        service.answer(2, 0)
        assert await client.receive() == frame(b"1")
        service.answer(1)
        assert [await client.receive(), await client.receive()] == [frame(b"2"), frame(b"3")]
    assert {address[0] for address, _, _ in service.waiting} == {TCP}


async def test_responses_in_pieces_and_large_ones_arrive_whole(service: Service) -> None:
    blob = bytes(range(256)) * 4096

    def serve(requests: list[Request]) -> None:
        for address, _, _ in requests:
            service.listener.answer(address, (b"head", memoryview(blob), bytearray(b"tail")))

    service.serve = serve
    async with Client(service) as client:
        for _ in range(20):
            client.send(frame(b"", FETCH))
        for _ in range(20):
            assert await client.receive() == b"head" + blob + b"tail"


async def test_requests_of_many_connections_are_one_turn(service: Service) -> None:
    async with Client(service) as first, Client(service) as second:
        await service.until(lambda: service.listener.connections == 2)
        for client in (first, second):  # past the loop: both are there when it looks
            os.write(client.writer.get_extra_info("socket").fileno(), b"\0\0\0\x09" + frame(b"x"))
        await service.until(lambda: sum(service.turns) == 2)
    assert service.turns == [2]


async def test_a_client_that_floods_is_not_read_beyond_its_share() -> None:
    service = Service(Bounds(requests_per_turn=8, in_flight=16))
    await service.listener.serve()
    service.serve = service.keep
    async with Client(service) as flood, Client(service) as other:
        flood.send(*[frame(b"%d" % n) for n in range(10_000)])
        await service.until(lambda: len(service.waiting) == 16)
        other.send(frame(b"other"))
        await service.until(lambda: len(service.waiting) == 17)
        assert max(service.turns) <= 9
        service.serve = service.echo
        service.answer(*range(17))
        for number in range(10_000):
            assert await flood.receive() == frame(b"%d" % number)
    await service.listener.close(1000)


async def test_a_client_that_does_not_read_is_not_read_and_then_closed(service: Service) -> None:
    served = 0

    def serve(requests: list[Request]) -> None:
        nonlocal served
        served += len(requests)
        for address, _, _ in requests:
            service.listener.answer(address, bytes(1 << 20))

    service.serve = serve
    async with Client(service) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.send(*[frame(b"", FETCH)] * 1000)
        await service.until(lambda: service.listener.closed["unread"] == 1)
    assert served < 100
    assert service.listener.connections == 0


@pytest.mark.parametrize("part", ["00", "00000020", "00000020000000", "00100000" + 99 * "00"])
async def test_half_a_frame_is_closed_after_a_while(service: Service, part: str) -> None:
    async with Client(service) as client:
        client.send(frame(b"whole"))
        client.writer.write(bytes.fromhex(part))
        assert await client.receive() == frame(b"whole")
        assert await client.end() == b""
    assert service.listener.closed["slow"] == 1


async def test_bytes_that_trickle_in_do_not_put_off_the_end(service: Service) -> None:
    async with Client(service) as client:
        data = (64).to_bytes(4, "big") + frame(bytes(56))
        with suppress(ConnectionError):
            for byte in data:
                client.writer.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0.01)
        await client.end()
    assert service.listener.closed["slow"] == 1


async def test_an_idle_client_stays(service: Service) -> None:
    async with Client(service) as client:
        client.send(frame(b"1"))
        assert await client.receive() == frame(b"1")
        await asyncio.sleep(0.2)  # several times what half a frame may take
        client.send(frame(b"2"))
        assert await client.receive() == frame(b"2")


async def test_waiting_for_an_answer_is_not_slow(service: Service) -> None:
    service.serve = service.keep
    async with Client(service) as client:
        client.send(frame(b"1", FETCH), frame(b"2"))
        client.writer.write(b"\0\0")
        await service.until(lambda: len(service.waiting) == 1)
        await asyncio.sleep(0.2)
        service.serve = service.echo
        service.answer(0)
        assert [await client.receive(), await client.receive()] == [frame(b"1", FETCH), frame(b"2")]
    assert service.listener.closed["slow"] == 0


@pytest.mark.parametrize(
    ("data", "reason", "said"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "tls", "a TLS handshake"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "http", "an HTTP request"),
        (b"POST / HTTP/1.1\r\n\r\n", "http", "an HTTP request"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f", "zmq", "a ZeroMQ client"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "ssh", "an SSH client"),
        (b"\xff\xff\xff\xfe", "negative", "negative length"),
        (b"\0\0\0\x04\0\0\0\0", "short", "4 bytes"),
        (b"\x7f\xff\xff\xff\0\0", "large", "2147483647 bytes"),
    ],
)
async def test_what_is_no_kafka_client_is_closed_with_a_line_that_says_what_it_looks_like(
    service: Service, caplog: pytest.LogCaptureFixture, data: bytes, reason: str, said: str
) -> None:
    async with Client(service) as client:
        client.writer.write(data)
        assert await client.end() == b""
    assert service.listener.closed == {reason: 1}
    (line,) = [
        record.getMessage() for record in caplog.records if record.levelno == logging.WARNING
    ]
    assert said in line
    assert "127.0.0.1:" in line


async def test_a_scan_does_not_fill_the_log(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        async with Client(service) as client:
            client.writer.write(b"GET / HTTP/1.1\r\n\r\n")
            await client.end()
    assert service.listener.closed["http"] == 20
    assert len(caplog.records) < 20


async def test_hanging_up_sends_what_was_answered_before_and_ends(service: Service) -> None:
    def serve(requests: list[Request]) -> None:
        service.listener.answer(requests[0][0], b"first")
        service.listener.hang_up(requests[1][0])

    service.serve = serve
    async with Client(service) as client:
        client.send(frame(b"1"), frame(b"2"), frame(b"3"))
        assert await client.end() == b"\0\0\0\x05first"
    await service.until(lambda: service.listener.connections == 0)
    assert service.listener.closed == {"refused": 1}


async def test_a_connection_that_a_fault_ends_is_counted_apart(service: Service) -> None:
    def serve(requests: list[Request]) -> None:
        for address, *_ in requests:
            service.listener.hang_up(address, ordered=True)

    service.serve = serve
    for number in (1, 2):
        async with Client(service) as client:
            client.send(frame(b"x"))
            assert await client.end() == b""
        await service.until(lambda: service.listener.connections == 0)
        assert service.listener.closed == {"fault": number}
    service.serve = lambda requests: service.listener.hang_up(requests[0][0])
    async with Client(service) as client:
        client.send(frame(b"x"))
        assert await client.end() == b""
    await service.until(lambda: service.listener.connections == 0)
    assert service.listener.closed == {"fault": 2, "refused": 1}


async def test_more_connections_than_allowed_are_closed() -> None:
    service = Service(Bounds(connections=2))
    await service.listener.serve()
    async with Client(service) as first, Client(service) as second:
        await service.until(lambda: service.listener.connections == 2)
        async with Client(service) as third:
            assert await third.end() == b""
        for client in (first, second):
            client.send(frame(b"still here"))
            assert await client.receive() == frame(b"still here")
    assert service.listener.closed["limit"] == 1
    await service.listener.close(1000)


async def test_a_client_that_vanishes_with_requests_under_way_leaves_nothing(
    service: Service,
) -> None:
    service.serve = service.keep
    async with Client(service) as client:
        client.send(frame(b"1"), frame(b"2"))
        await service.until(lambda: len(service.waiting) == 2)
    await service.until(lambda: service.listener.connections == 0)
    service.answer(0, 1)
    exchange = service.listener.exchange
    assert (exchange.in_flight, exchange.undeliverable, len(exchange)) == (0, 2, 0)


async def test_closing_lets_the_last_answers_leave(service: Service) -> None:
    service.serve = service.keep
    async with Client(service) as client:
        client.send(frame(bytes(1 << 20)))
        await service.until(lambda: len(service.waiting) == 1)
        service.answer(0)
        receiving = asyncio.create_task(client.receive())
        await service.listener.close(10_000)
        assert await receiving == frame(bytes(1 << 20))
        assert await client.end() == b""
    assert service.listener.closed == {"stopped": 1}


async def test_a_taken_port_is_named(service: Service) -> None:
    taken = service.listener.endpoint
    with pytest.raises(OSError, match=f"cannot listen on {taken} for Kafka clients: Address"):
        KafkaListener(service.loop, taken, make=lambda *request: request, wake=lambda: None)


async def test_nobody_is_let_in_before_there_is_something_to_say() -> None:
    service = Service()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", service.listener.port)
    await service.listener.serve()
    async with Client(service) as client:
        client.send(frame(b"1"))
        assert await client.receive() == frame(b"1")
    await service.listener.close(0)


async def test_of_two_listeners_with_one_port_the_second_to_serve_is_refused() -> None:
    first, second = Service(), None
    address = first.listener.endpoint
    second = KafkaListener(first.loop, address, make=lambda *request: request, wake=lambda: None)
    await first.listener.serve()
    with pytest.raises(OSError, match=f"cannot listen on {address}"):
        await second.serve()
    await second.close(0)
    await first.listener.close(0)


async def test_a_host_that_is_no_address_is_named() -> None:
    with pytest.raises(OSError, match=r"cannot listen on no\.such\.host\.invalid:0"):
        KafkaListener(
            asyncio.get_running_loop(), "no.such.host.invalid:0",
            make=lambda *request: request, wake=lambda: None,
        )  # fmt: skip


async def test_many_idle_connections_are_cheap(service: Service) -> None:
    sockets = []
    for _ in range(500):
        one = socket.create_connection(("127.0.0.1", service.listener.port))
        one.setblocking(False)
        sockets.append(one)
        if len(sockets) % 50 == 0:
            await asyncio.sleep(0)
    await service.until(lambda: service.listener.connections == 500)
    turns = len(service.turns)
    async with Client(service) as client:
        client.send(frame(b"1"))
        assert await client.receive() == frame(b"1")
    assert len(service.turns) == turns + 1
    for one in sockets:
        one.close()
    await service.until(lambda: service.listener.connections == 0)
