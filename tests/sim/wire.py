"""Connections of clients to brokers: requests one way, answers the other, both late and lossy.

Owns one connection per client and broker. It carries each direction in order, as every carrier of
the system does; it goes down when the broker's process ends or a fault breaks it, and then what
was on the way back is lost. Requests on the way may still reach the broker, or the next one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.core import events
from cluster.wire import apis, codec
from cluster.wire.schema import Message
from tests.sim.broker import Broker
from tests.sim.scheduler import MS, Scheduler

SLOWEST = 2 * MS

Then = Callable[[Message], None]
NodeSeen = Callable[[int, bool], None]
Answered = Callable[[Broker, Message, Message], None]
"""(broker, request, response): the moment at which a broker answered."""


@dataclass
class Loss:
    """How often a client's request or its answer is lost."""

    request: float = 0.0
    answer: float = 0.0


@dataclass
class Connection:
    """One client's way to one broker."""

    seen: NodeSeen
    up: bool = False
    number: int = 0
    """Counts the times it came up: what was sent before is not answered after."""
    last_request: int = 0
    last_answer: int = 0


@dataclass
class Asked:
    """A request that was not answered yet."""

    connection: Connection
    connection_number: int
    api_key: int
    version: int
    body: Message
    then: Then


@dataclass
class Wire:
    """Every client's connections."""

    clock: Scheduler
    brokers: dict[int, Broker]
    loss: Loss
    answered: Answered
    _connections: dict[tuple[str, int], Connection] = field(default_factory=dict)
    _asked: dict[int, Asked] = field(default_factory=dict)
    _number: int = 0

    def join(self, client: str, seen: NodeSeen) -> None:
        """A client connects to every broker and is told when each connection is up or lost."""
        for node_id, broker in self.brokers.items():
            self._connections[client, node_id] = Connection(seen)
            if broker.node is not None:
                self._open(self._connections[client, node_id], node_id)

    def process_seen(self, node_id: int, up: bool) -> None:
        """A broker's process listens now, or has ended."""
        for (_, to), connection in self._connections.items():
            if to == node_id and up:
                self._open(connection, node_id)
            elif to == node_id:
                delay = self.clock.rng.randrange(100, 5 * MS)
                self.clock.after(delay, lambda c=connection: self._down(c, node_id))  # type: ignore[misc]

    def sever(self, client: str, node_id: int) -> None:
        """One connection breaks, and is made again."""
        self._down(self._connections[client, node_id], node_id)

    @property
    def clients(self) -> list[str]:
        """Who has joined."""
        return list(dict.fromkeys(client for client, _ in self._connections))

    def _open(self, connection: Connection, node_id: int) -> None:
        def up() -> None:
            if not connection.up and self.brokers[node_id].node is not None:
                connection.up = True
                connection.number += 1
                connection.seen(node_id, True)

        self.clock.after(self.clock.rng.randrange(200, 20 * MS), up)

    def _down(self, connection: Connection, node_id: int) -> None:
        if connection.up:
            connection.up = False
            connection.seen(node_id, False)
            self._open(connection, node_id)

    def ask(self, client: str, node_id: int, body: Message, then: Then) -> None:
        """Send one request; `then` gets the answer, if one ever arrives."""
        connection = self._connections[client, node_id]
        api_key = next(key for key, api in apis.APIS.items() if api.request is type(body))
        version = apis.SUPPORTED[api_key][1]
        self._number += 1
        number = self._number
        self._asked[number] = Asked(connection, connection.number, api_key, version, body, then)
        if self.clock.chance(self.loss.request):
            return
        frame = codec.encode_request(api_key, version, number, "sim", body)
        message = events.ClientMessage(number.to_bytes(8), frame)
        arrival = self.clock.now + self.clock.rng.randrange(50, SLOWEST)
        connection.last_request = max(arrival, connection.last_request + 1)
        self.clock.after(
            connection.last_request - self.clock.now, lambda: self.brokers[node_id].ask(message)
        )

    def answer(self, broker: Broker, connection: bytes, frame: bytes) -> None:
        """A broker's reply leaves."""
        asked = self._asked.pop(int.from_bytes(connection), None)
        assert asked is not None, "a request was answered twice"
        body = codec.decode_response(asked.api_key, asked.version, frame)[1]
        self.answered(broker, asked.body, body)
        if self.clock.chance(self.loss.answer):
            return
        way = asked.connection
        arrival = self.clock.now + self.clock.rng.randrange(50, SLOWEST)
        way.last_answer = max(arrival, way.last_answer + 1)

        def arrive() -> None:
            if way.up and way.number == asked.connection_number:
                asked.then(body)

        self.clock.after(way.last_answer - self.clock.now, arrive)

    def any_node(self) -> int | None:
        """A broker that may answer, by chance."""
        alive = [node_id for node_id, broker in self.brokers.items() if broker.node is not None]
        return self.clock.rng.choice(alive) if alive else None
