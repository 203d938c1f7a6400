"""What goes wrong in a run, and when: drawn from the seed.

Owns the schedule. Each fault comes with its end: who is killed is started again, who is paused
goes on. A run has some of the faults and not others, so that rare combinations get runs of their
own. What the guarantees exclude is never done: no two replicas lose synced data in one run, and
with flush=os a loss of power is a loss of data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from cluster.limits import PEER_CREDIT_BYTES, PRODUCER_EXPIRATION_MS, RETENTION_MS
from cluster.wire import messages
from tests.sim.disk import Faults as DiskFaults
from tests.sim.network import Weather
from tests.sim.producer import TOPIC, Habits
from tests.sim.scheduler import MS, SECOND
from tests.sim.world import NODES, Shape, World

if TYPE_CHECKING:
    from tests.sim.broker import Broker

STOP_PATIENCE = 3 * SECOND
SETTINGS: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("segment.bytes", (4_096, 20_000, 1 << 20)),
    ("max.message.bytes", (100_000, 1_048_588)),
    ("producer.id.expiration.ms", (1_000, 5_000, PRODUCER_EXPIRATION_MS)),
)
"""What may change under load without a record being refused for it."""

Act = Callable[[], None]


def draw_shape(rng: Random) -> Shape:
    """A cluster and its producers."""
    producers = [Habits("a"), Habits("b", burst=8)]
    if rng.random() < 0.5:
        producers.append(Habits("hasty", delivery_timeout_ms=rng.choice((400, 1_000, 3_000))))
    if rng.random() < 0.5:
        producers.append(Habits("plain", idempotent=False))
    if rng.random() < 0.25:
        producers.append(Habits("leader-only", acks=1))
    return Shape(
        partitions=rng.choice((1, 2, 2, 3)),
        flush="os" if rng.random() < 0.25 else "batch",
        segment_bytes=rng.choice((1 << 20, 1 << 20, 4_000)),
        credit_bytes=rng.choice((PEER_CREDIT_BYTES, 2_000)),
        producers=tuple(producers),
        expiration_ms=rng.choice((PRODUCER_EXPIRATION_MS, PRODUCER_EXPIRATION_MS, 1_000, 200)),
        cold=rng.choice((0.0, 0.0, 0.2, 0.8)),
        retention_ms=rng.choice((RETENTION_MS, RETENTION_MS, 1_500, 300)),
    )


def draw_weather(rng: Random) -> Weather:
    """A network between brokers."""
    if rng.random() < 0.4:
        return Weather()
    return Weather(
        drop=rng.choice((0.0, 0.01, 0.05)),
        repeat=rng.choice((0.0, 0.02, 0.1)),
        reorder=rng.choice((0.0, 0.02, 0.1)),
        straggle=rng.choice((0.0, 0.02, 0.1)),
        slowest=rng.choice((2, 10, 40)) * MS,
    )


class Faults:
    """The faults of one run, from now until `end`: those named, or some that the seed chooses."""

    def __init__(self, world: World, end: int, named: Sequence[str] = ()) -> None:
        self._world = world
        self._clock = world.clock
        self._end = end
        rng = world.clock.rng
        self._victim = world.brokers[rng.choice(NODES)]
        self._victim.frail = True
        self._chosen = [getattr(self, name) for name in named]
        if not named:
            self._chosen = rng.sample(list(self._kinds()), rng.randrange(1, 6))
        self._pause = rng.choice((150, 300, 600, 1_200)) * MS
        world.network.weather = draw_weather(rng)
        world.wire.loss.request = rng.choice((0.0, 0.0, 0.02))
        world.wire.loss.answer = rng.choice((0.0, 0.02, 0.1))
        world.store.unknown = rng.choice((0.0, 0.05, 0.3))
        self._clock.trace(f"faults {[act.__name__ for act in self._chosen]}")
        self._next()

    def _kinds(self) -> tuple[Act, ...]:
        return (
            self.kill,
            self.kill,
            self.kill_leader,
            self.kill_controller,
            self.lose_power,
            self.lose_all_power,
            self.pause,
            self.pause_leader,
            self.pause_controller,
            self.wipe,
            self.damage,
            self.sever,
            self.cut,
            self.cut_one_way,
            self.isolate,
            self.stop,
            self.fail_syncs,
            self.fill_disk,
            self.fail_writes,
            self.fail_reads,
            self.slow_store,
            self.sever_client,
            self.delete_records,
        )

    def _next(self) -> None:
        rng = self._clock.rng
        delay = rng.randrange(self._pause // 4, 2 * self._pause)

        def act() -> None:
            if self._clock.now < self._end:
                rng.choice(self._chosen)()
                self._next()

        self._clock.after(delay, act)

    def _later(self, shortest: int, longest: int, act: Act) -> None:
        """Undo something, within milliseconds [shortest, longest)."""
        self._clock.after(self._clock.rng.randrange(shortest * MS, longest * MS), act)

    def _any(self) -> Broker:
        return self._world.brokers[self._clock.rng.choice(NODES)]

    def _leader(self) -> Broker:
        return self._leader_of(self._clock.rng.randrange(self._world.shape.partitions))

    def _leader_of(self, index: int) -> Broker:
        leader = self._world.record(index).leader
        return self._world.brokers[leader] if leader >= 0 else self._any()

    # -- processes ----------------------------------------------------------------------------

    def kill(self, broker: Broker | None = None) -> None:
        """A process dies and is started again."""
        broker = broker or self._any()
        broker.kill()
        self._later(5, 800, broker.start)

    def kill_leader(self) -> None:
        """Whoever leads a partition dies."""
        self.kill(self._leader())

    def _controller(self) -> Broker | None:
        controller = self._world.controller
        return None if controller is None else self._world.brokers[controller]

    def kill_controller(self) -> None:
        """The controller dies."""
        self.kill(self._controller())

    def pause_controller(self) -> None:
        """The controller stands still."""
        self.pause(self._controller())

    def pause(self, broker: Broker | None = None) -> None:
        """A process stands still, sometimes for longer than its lease."""
        broker = broker or self._any()
        broker.pause()
        self._later(20, self._clock.rng.choice((200, 700, 4_000)), broker.resume)

    def pause_leader(self) -> None:
        """Whoever leads a partition stands still."""
        self.pause(self._leader())

    def stop(self) -> None:
        """A broker is stopped in order, or killed if that takes too long."""
        broker = self._any()
        process = broker.process
        broker.stop()

        def insist() -> None:
            if broker.process == process:
                broker.kill()
                broker.start()

        self._clock.after(STOP_PATIENCE, insist)
        self._later(50, 2_500, broker.start)

    def lose_power(self, broker: Broker | None = None) -> None:
        """A machine goes dark."""
        broker = broker or self._any()
        if self._world.shape.flush == "os":
            broker = self._victim
            broker.lost_data = True
        broker.lose_power()
        self._later(20, 800, broker.start)

    def lose_all_power(self) -> None:
        """The house goes dark."""
        if self._world.shape.flush == "os":
            self.lose_power()
            return
        for broker in self._world.brokers.values():
            self.lose_power(broker)

    def wipe(self) -> None:
        """A directory is lost, always the same one's."""
        broker = self._victim
        broker.wipe()
        self._later(20, 800, broker.start)

    def damage(self) -> None:
        """A byte that was synced goes bad while the process is away, always on the same disk."""
        broker = self._victim
        broker.kill()
        broker.damage()
        self._later(20, 800, broker.start)

    # -- network ------------------------------------------------------------------------------

    def _pair(self) -> tuple[int, int]:
        left, right = self._clock.rng.sample(NODES, 2)
        return left, right

    def sever(self) -> None:
        """A connection between brokers breaks."""
        left, right = self._pair()
        self._clock.trace(f"net sever {left}->{right}")
        self._world.network.sever(left, right)

    def _block(self, *pairs: tuple[int, int]) -> None:
        blocked = self._world.network.blocked
        self._clock.trace(f"net block {pairs}")
        blocked.update(pairs)
        longest = self._clock.rng.choice((100, 600, 3_000))
        self._later(20, longest, lambda: blocked.difference_update(pairs))

    def cut(self) -> None:
        """Two brokers do not hear each other."""
        left, right = self._pair()
        self._block((left, right), (right, left))

    def cut_one_way(self) -> None:
        """One broker does not hear another."""
        self._block(self._pair())

    def isolate(self) -> None:
        """One broker hears nobody."""
        one = self._clock.rng.choice(NODES)
        others = [node for node in NODES if node != one]
        self._block(*((one, other) for other in others), *((other, one) for other in others))

    def sever_client(self) -> None:
        """A client's connection breaks."""
        client = self._clock.rng.choice(self._world.wire.clients)
        self._world.wire.sever(client, self._clock.rng.choice(NODES))

    # -- what users do ------------------------------------------------------------------------

    def delete_records(self) -> None:
        """Somebody deletes the oldest records of a partition, perhaps all."""
        index = self._clock.rng.randrange(self._world.shape.partitions)
        committed = self._world.watch.truth[index].end
        offset = self._clock.rng.choice((committed, self._clock.rng.randrange(committed + 1)))
        self._clock.trace(f"deletes partition {index} to {offset}")
        self._leader_of(index).delete_records(
            index, offset, lambda low: self._world.watch.granted(index, low)
        )

    # -- disks and store ----------------------------------------------------------------------

    def _harm_disk(self, what: str, faults: DiskFaults) -> None:
        broker = self._any()
        if self._world.shape.flush == "os":  # what is cut after an error was never synced there
            broker = self._victim
            broker.lost_data = True
        disk = broker.disk
        if faults.capacity_bytes:
            faults.capacity_bytes += disk.used_bytes
        faults.rng = self._clock.rng
        self._clock.trace(f"disk {broker.node_id} {what}")
        disk.faults = faults
        self._later(20, 700, disk.mend)

    def fail_syncs(self) -> None:
        """Syncs fail now and then."""
        self._harm_disk("fails syncs", DiskFaults(sync_probability=0.1))

    def fail_writes(self) -> None:
        """Writes fail now and then."""
        self._harm_disk("fails writes", DiskFaults(write_probability=0.05, write_errno=5))

    def fail_reads(self) -> None:
        """Reads that wait for the device fail now and then."""
        self._harm_disk("fails reads", DiskFaults(read_probability=0.3))

    def fill_disk(self) -> None:
        """A disk is nearly full."""
        room = self._clock.rng.randrange(1, 2_000)
        self._harm_disk(f"has room for {room}", DiskFaults(capacity_bytes=room))

    def slow_store(self) -> None:
        """The store takes its time."""
        store = self._world.store
        store.slowest = self._clock.rng.choice((50, 300)) * MS
        self._later(100, 600, store.hurry)

    # -- operators: named by the tests that want them -----------------------------------------

    def alter(self) -> None:
        """Somebody changes the topic's settings, by any broker."""
        rng = self._clock.rng
        key, choices = rng.choice(SETTINGS)
        change = messages.AlterableConfig(key, 0, str(rng.choice(choices)))
        resource = messages.IncrementalResource(2, TOPIC, [change])
        body = messages.IncrementalAlterConfigsRequest([resource])
        node_id = rng.choice(NODES)
        self._clock.trace(f"alter {key}={change.value} by {node_id}")
        self._world.wire.ask("admin", node_id, body, lambda _answer: None)
