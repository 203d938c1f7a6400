"""A client's view of one cluster: links to its brokers, metadata, and requests that find their way.

Owns the links by address, the map from node id to address that metadata gives, and the refreshing
of metadata: one question at a time, shared by all who asked before it left, put to whichever
broker answers. Producer, Consumer and Admin each stand on one session.

Invariant: listeners hear of a node being up and down alternately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from cluster.client.link import Answer, Link
from cluster.client.metadata import Metadata
from cluster.errors import UNKNOWN_TOPIC_OR_PARTITION, BrokerUnavailable, RequestError, code
from cluster.limits import CLIENT_METADATA_MS, CLIENT_PATIENCE_MS, CLIENT_PAUSE_MS
from cluster.wire.apis import METADATA
from cluster.wire.messages import MetadataRequest, MetadataRequestTopic, MetadataResponse
from cluster.wire.schema import Message

_BETWEEN_BROKERS_S = 0.005  # lets the loop learn that a connection has ended


class Session:
    """Links and metadata of one client. Start it in a running loop, and close it there."""

    def __init__(
        self, bootstrap: Sequence[str] | str, client_id: str, *, patience_ms: int | None = None
    ) -> None:
        self.addresses = parse_bootstrap(bootstrap)
        self.metadata = Metadata()
        self.patience_ms = CLIENT_PATIENCE_MS if patience_ms is None else patience_ms
        """How long a request looks for a broker that can answer it."""
        self.on_up: Callable[[int], None] = _ignore
        self.on_down: Callable[[int], None] = _ignore
        self.on_metadata: Callable[[], None] = _nothing
        self._client_id = client_id
        self._links: dict[str, Link] = {}
        self._nodes_up: dict[int, Link] = {}
        self._tracked: dict[str, None] = {}
        self._lock = asyncio.Lock()
        self._rounds_begun = 0
        self._round_done = 0
        self._turn = 0
        self._changed = asyncio.Event()
        self._closed = False

    async def start(self) -> None:
        """Connects; BrokerUnavailable when no broker answers within the patience."""
        for address in self.addresses:
            self._open(address)
        try:
            await self.refresh()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends all connections; requests under way fail."""
        self._closed = True
        links, self._links = self._links, {}
        for link in links.values():
            link.close()
        self._nodes_up.clear()

    # Links

    def link(self, node: int) -> Link | None:
        """The standing connection to a node."""
        return self._nodes_up.get(node)

    async def wait_for(self, node: int, timeout_ms: int) -> Link:
        """The connection to a node once it stands; BrokerUnavailable when it does not in time."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while (link := self._nodes_up.get(node)) is None:
                    await self._change()
        except TimeoutError:
            raise BrokerUnavailable(f"broker {node} is not reachable") from None
        return link

    async def any_link(self, timeout_ms: int) -> Link:
        """Some standing connection, another one each time."""
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                while not (standing := [link for link in self._links.values() if link.up]):
                    await self._change()
        except TimeoutError:
            raise BrokerUnavailable(
                f"no broker answers at {', '.join(self._links) or 'a closed session'}"
            ) from None
        self._turn += 1
        return standing[self._turn % len(standing)]

    async def _change(self) -> None:
        if self._closed:
            raise BrokerUnavailable("the client is closed")
        await self._changed.wait()
        self._changed.clear()

    def _open(self, address: str) -> None:
        if address not in self._links:
            self._links[address] = Link(
                asyncio.get_running_loop(),
                address,
                self._client_id,
                on_up=self._link_up,
                on_down=self._link_down,
            )

    def _link_up(self, link: Link) -> None:
        for node, address in self.metadata.brokers.items():
            if address == link.address:
                self._node_up(node, link)
        self._changed.set()

    def _link_down(self, link: Link) -> None:
        for node in [node for node, up in self._nodes_up.items() if up is link]:
            del self._nodes_up[node]
            self.on_down(node)
        self._changed.set()

    def _node_up(self, node: int, link: Link) -> None:
        standing = self._nodes_up.get(node)
        if standing is link:
            return
        if standing is not None:
            del self._nodes_up[node]
            self.on_down(node)
        self._nodes_up[node] = link
        self.on_up(node)

    def _match_links(self) -> None:
        """Connects to every broker named, and drops links that lead nowhere any more."""
        named = self.metadata.brokers
        for node, link in list(self._nodes_up.items()):
            if named.get(node, link.address) != link.address:
                del self._nodes_up[node]
                self.on_down(node)
        for node, address in named.items():
            self._open(address)
            if self._links[address].up:
                self._node_up(node, self._links[address])
        kept = {*self.addresses, *named.values()}
        for address, link in list(self._links.items()):
            if address not in kept and not link.up:
                del self._links[address]
                link.close()

    # Metadata

    def track(self, topics: Iterable[str]) -> None:
        """Every refresh from now on asks for these topics too."""
        self._tracked.update(dict.fromkeys(topics))

    async def refresh(self, *topics: str, everything: bool = False) -> None:
        """Asks for the topics and all tracked so far, or for all there are.

        Callers that come while a question is under way share the next one. Raises
        BrokerUnavailable when nobody answers within the patience.
        """
        self.track(topics)
        called = self._rounds_begun
        async with self._lock:
            if self._round_done > called and not everything:
                return
            self._rounds_begun += 1
            begun = self._rounds_begun
            answer = await self._ask_metadata(None if everything else list(self._tracked))
            self._round_done = begun
        self.metadata.apply(answer, everything=everything)
        self._match_links()
        self._changed.set()
        self.on_metadata()

    async def _ask_metadata(self, topics: list[str] | None) -> MetadataResponse:
        wanted = None if topics is None else [MetadataRequestTopic(name=name) for name in topics]
        body = MetadataRequest(topics=wanted, allow_auto_topic_creation=False)
        return await self.ask_any(METADATA, body, MetadataResponse, timeout_ms=CLIENT_METADATA_MS)

    async def partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises RequestError when it does not exist (a topic just created is waited for a moment).
        """
        deadline = self.deadline(CLIENT_METADATA_MS)
        while topic not in self.metadata.topics:
            await self.refresh(topic)
            error = self.metadata.errors.get(topic, 0)
            if topic in self.metadata.topics:
                break
            if self.now() >= deadline or (error and not code(error).retriable):
                raise RequestError(code(error or UNKNOWN_TOPIC_OR_PARTITION.number), topic)
            await asyncio.sleep(CLIENT_PAUSE_MS / 1000)
        return len(self.metadata.topics[topic].partitions)

    # Requests

    def now(self) -> float:
        """Seconds of the loop's clock."""
        return asyncio.get_running_loop().time()

    def deadline(self, patience_ms: int | None = None) -> float:
        """When patience ends, in seconds of the loop's clock."""
        return self.now() + (self.patience_ms if patience_ms is None else patience_ms) / 1000

    async def pause(self, deadline: float, failure: Exception) -> None:
        """A moment before asking again; raises `failure` once patience has ended."""
        if self.now() >= deadline:
            raise failure
        await asyncio.sleep(CLIENT_PAUSE_MS / 1000)

    async def ask_any(
        self, api: int, body: Message, answer: type[Answer], *, timeout_ms: int
    ) -> Answer:
        """Asks one broker after the other until one answers."""
        deadline = self.deadline()
        while True:
            left_ms = max(1, int((deadline - self.now()) * 1000))
            link = await self.any_link(left_ms)
            try:
                return await link.request(api, body, answer, timeout_ms)
            except BrokerUnavailable:
                if self._closed or self.now() >= deadline:
                    raise
            await asyncio.sleep(_BETWEEN_BROKERS_S)

    async def ask_node(
        self, node: int, api: int, body: Message, answer: type[Answer], *, timeout_ms: int
    ) -> Answer:
        """Asks one broker once it is connected."""
        link = await self.wait_for(node, timeout_ms)
        return await link.request(api, body, answer, timeout_ms)


def parse_bootstrap(bootstrap: Sequence[str] | str) -> tuple[str, ...]:
    """The addresses of "host:port,host:port" or a sequence of them; ValueError if one is wrong."""
    listed = bootstrap.split(",") if isinstance(bootstrap, str) else bootstrap
    addresses = tuple(address.strip() for address in listed)
    for address in addresses:
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdecimal() and 0 < int(port) < 65_536):
            raise ValueError(f"bootstrap: expected host:port, not {address!r}")
    if not addresses:
        raise ValueError("bootstrap: no address given")
    return addresses


def _ignore(node: int) -> None:
    """The default listener."""


def _nothing() -> None:
    """The default listener."""
