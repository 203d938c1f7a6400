"""The network between brokers: late, lossy, repeating, reordering, partitioned; as libzmq shows it.

Owns one link per ordered pair of brokers. A link comes up when its peer answers and goes down when
the peer dies, or has been silent for as long as the heartbeats allow. What was queued on a link
that goes down may be delivered after it came up again, to whatever process then listens there:
libzmq does that, so old messages must be harmless (rule 8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sim.scheduler import MS, Scheduler

HEARTBEAT_TIMEOUT = 300 * MS
CHECK_EVERY = 20 * MS
STRAGGLES = 2_000 * MS

Pair = tuple[int, int]


@dataclass
class Weather:
    """How bad the network is: probabilities per message, and the longest ordinary delay."""

    drop: float = 0.0
    repeat: float = 0.0
    reorder: float = 0.0
    straggle: float = 0.0
    """How often a copy arrives much later, as what a socket queued for another connection does."""
    slowest: int = 2 * MS


@dataclass
class Link:
    """One broker's connection to another, as that broker's socket has it."""

    source: int
    target: int
    incarnation: int
    up: bool = False
    silent_since: int | None = None
    last_arrival: int = 0
    reset: bool = False
    queued: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class Ends:
    """How the network reaches the processes."""

    reachable: Callable[[int], bool]
    """The process runs and is not paused."""
    connected: Callable[[int, int, int], None]
    """(source, target, incarnation): the link is up."""
    disconnected: Callable[[int, int, int], None]
    receive: Callable[[int, bytes, bytes], None]
    """(target, header, data)."""


class Network:
    """Every link of a run."""

    def __init__(self, clock: Scheduler, ends: Ends, weather: Weather) -> None:
        self.weather = weather
        self.blocked: set[Pair] = set()
        self._clock = clock
        self._ends = ends
        self._links: dict[Pair, Link] = {}
        self._check()

    def want(self, source: int, peers: dict[int, int]) -> None:
        """The broker connects to these (node: incarnation) and drops all others."""
        for pair in [pair for pair in self._links if pair[0] == source]:
            if self._links[pair].incarnation != peers.get(pair[1]):
                del self._links[pair]
        for target, incarnation in peers.items():
            self._links.setdefault((source, target), Link(source, target, incarnation))

    def forget(self, source: int) -> None:
        """The process of this broker is gone, and its sockets with it."""
        for pair in [pair for pair in self._links if pair[0] == source]:
            # What the kernel had taken may still arrive, what the process held does not.
            self._links.pop(pair).reset = self._clock.chance(0.5)

    def send(self, source: int, target: int, header: bytes, data: bytes) -> None:
        """One message; what the link cannot carry now waits in its queue."""
        link = self._links.get((source, target))
        if link is None:
            return

        def arrive() -> None:
            if link.reset:
                return
            if (source, target) in self.blocked or not link.up:
                link.queued.append(lambda: self._ends.receive(target, header, data))
            else:
                self._ends.receive(target, header, data)

        rng, weather = self._clock.rng, self.weather
        if self._clock.chance(weather.drop):
            self._clock.trace(f"net drop {source}->{target}")
            return
        arrival = self._clock.now + rng.randrange(50, weather.slowest)
        if not self._clock.chance(weather.reorder):
            arrival = max(arrival, link.last_arrival + 1)
            link.last_arrival = arrival
        self._clock.after(arrival - self._clock.now, arrive)
        if self._clock.chance(weather.repeat):
            self._clock.after(arrival - self._clock.now + rng.randrange(20 * MS), arrive)
        if self._clock.chance(weather.straggle):
            self._clock.after(rng.randrange(STRAGGLES), arrive)

    def cut(self, left: int, right: int, *, both_ways: bool = True) -> None:
        """Nothing passes between two brokers, or nothing one way."""
        self.blocked.add((left, right))
        if both_ways:
            self.blocked.add((right, left))

    def sever(self, source: int, target: int) -> None:
        """The connection breaks and is made again at the next look."""
        link = self._links.get((source, target))
        if link is not None:
            self._down(link)

    def heal(self) -> None:
        """Everything passes again, and in order."""
        self.blocked.clear()
        self.weather = Weather()

    def died(self, target: int) -> None:
        """A process ended: its peers' sockets notice at once."""
        for link in list(self._links.values()):
            if link.target == target and link.up:
                delay = self._clock.rng.randrange(200, 5 * MS)
                self._clock.after(delay, lambda link=link: self._down(link))  # type: ignore[misc]

    def _check(self) -> None:
        for link in list(self._links.values()):
            self._look(link)
        self._clock.after(CHECK_EVERY, self._check)

    def _look(self, link: Link) -> None:
        pair = (link.source, link.target)
        passes = pair not in self.blocked and pair[::-1] not in self.blocked
        answers = passes and self._ends.reachable(link.target)
        if link.up and answers:
            link.silent_since = None
        elif link.up and link.silent_since is None:
            link.silent_since = self._clock.now
        elif link.up and self._clock.now - (link.silent_since or 0) > HEARTBEAT_TIMEOUT:
            self._down(link)
        elif not link.up and answers and self._ends.reachable(link.source):
            link.up, link.silent_since = True, None
            self._ends.connected(link.source, link.target, link.incarnation)
            queued, link.queued = link.queued, []
            for act in queued:
                if self._clock.chance(0.5):
                    self._clock.after(self._clock.rng.randrange(50, 10 * MS), act)

    def _down(self, link: Link) -> None:
        if link.up and self._links.get((link.source, link.target)) is link:
            link.up, link.silent_since = False, None
            self._ends.disconnected(link.source, link.target, link.incarnation)
