"""Stories of what once went wrong, each with every checker watching."""

from cluster.core import effects, events
from cluster.core.follower import Follower
from cluster.storage.budget import Budget
from cluster.wire import messages, stream
from cluster.wire.schema import Message
from tests.sim.broker import Broker
from tests.sim.committed import batches_of, bytes_between
from tests.sim.guarantees import every_checker
from tests.sim.network import Weather
from tests.sim.producer import TOPIC, Habits, Producer
from tests.sim.scheduler import MS, SECOND
from tests.sim.world import Shape, World


class Story(World):
    """A cluster whose topic has one partition, with one producer that writes when told."""

    def __init__(self, *, replicas: int = 3, flush: str = "batch") -> None:
        super().__init__(1, Shape(1, replicas=replicas, flush=flush), every_checker())
        self.open()
        self.producer: Producer = self.add_producer(Habits("p"))
        self.write(5)
        self.settle()

    def write(self, count: int) -> None:
        self.producer.write(0, count)
        self.producer.machine.flush()

    def settle(self) -> None:
        for broker in self.brokers.values():
            broker.start()
        self.run_until(lambda: not self.unsettled(), 20 * SECOND)
        assert not self.unsettled()
        self.watch.finished()

    def until_led_by(self, broker: Broker) -> None:
        assert self.run_until(lambda: self._leads(broker)), f"{broker.node_id} never led"

    def _leads(self, broker: Broker) -> bool:
        leader = self.leader(0)
        return leader is not None and self.record(0).leader == broker.node_id

    def until_in_sync(self, *brokers: Broker) -> None:
        wanted = sorted(broker.node_id for broker in brokers)
        assert self.run_until(lambda: sorted(self.record(0).isr) == wanted), self.record(0)

    def cast(self) -> tuple[Broker, Broker, Broker]:
        """The leader and its two followers."""
        record = self.record(0)
        first, second = (node for node in record.replicas if node != record.leader)
        return self.brokers[record.leader], self.brokers[first], self.brokers[second]

    def isolate(self, broker: Broker) -> None:
        for other in self.brokers:
            if other != broker.node_id:
                self.network.cut(broker.node_id, other)

    def follower(self, broker: Broker) -> Follower:
        partition = self.replica(broker.node_id, 0)
        assert partition is not None
        assert isinstance(partition.role, Follower)
        return partition.role


def test_a_leader_that_lost_its_directory_leaves_the_in_sync_set() -> None:
    story = Story()
    leader, _, _ = story.cast()
    leader.wipe()
    leader.start()
    story.run(20 * MS)
    story.write(5)
    story.settle()


def test_an_epoch_without_a_batch_does_not_part_equal_logs() -> None:
    story = Story()
    first, second, third = story.cast()
    third.kill()
    story.until_in_sync(first, second)
    story.network.cut(first.node_id, second.node_id)
    story.write(5)  # reaches the first alone
    story.run(50 * MS)
    first.kill()
    story.network.heal()
    story.until_led_by(second)
    second.kill()  # without a batch in its epoch
    first.start()
    story.until_led_by(first)
    second.start()
    story.write(5)
    assert story.run_until(lambda: not story.producer.unresolved)
    first.kill()
    story.until_led_by(second)
    first.start()  # what it holds is what the second holds: nothing may be cut
    story.write(5)
    story.settle()


def test_a_broker_that_closed_its_logs_leads_no_more() -> None:
    story = Story(flush="os")
    leader, second, third = story.cast()
    third.kill()
    story.until_in_sync(leader, second)
    second.lost_data = True
    second.lose_power()
    story.run(3 * SECOND)  # until there is nobody to hand over to
    story.store.slowest = 3600 * SECOND  # leaving takes longer than the change that follows
    leader.stop()
    story.store.hurry()
    second.start()
    story.run(1 * SECOND)
    leader.kill()
    story.settle()


def test_a_log_that_cannot_be_opened_is_opened_later() -> None:
    story = Story()
    _, follower, _ = story.cast()
    follower.kill()
    story.run(20 * MS)
    follower.frail = True
    follower.disk.faults.sync_probability = 1.0
    follower.start()
    story.run(300 * MS)
    assert follower.node is not None
    assert not follower.node.partitions
    follower.disk.mend()
    story.write(5)
    story.settle()


def test_a_cut_whose_sync_failed_is_tried_again() -> None:
    story = Story()
    leader, _, _ = story.cast()
    story.isolate(leader)
    story.write(5)  # reaches the leader alone
    story.run(50 * MS)
    leader.disk.faults.sync_countdown = 1  # the next is that of its cut
    assert story.run_until(lambda: story.record(0).leader != leader.node_id)
    story.network.heal()
    story.settle()
    assert leader.disk.faults.sync_countdown == 0


def test_a_follower_learns_that_its_stream_is_closed_though_the_greeting_was_lost() -> None:
    story = Story()
    leader, follower, _ = story.cast()
    story.network.weather = Weather(drop=1.0)
    story.network.sever(leader.node_id, follower.node_id)
    story.run(50 * MS)
    story.network.weather = Weather()
    assert story.follower(follower).following
    story.write(5)
    story.settle()


def test_a_term_whose_epoch_cannot_be_written_begins_later() -> None:
    story = Story()
    leader, second, third = story.cast()
    for broker in (second, third):
        broker.disk.faults.sync_probability = 1.0
    leader.kill()
    story.run(500 * MS)
    for broker in (second, third):
        assert broker.node is not None
        broker.disk.mend()
    story.write(5)
    story.settle()


def test_a_change_that_vouches_for_a_past_start_is_given_up() -> None:
    story = Story()
    leader, follower, other = story.cast()
    follower.kill()
    story.until_in_sync(leader, other)
    follower.start()
    story.store.slowest = 200 * MS
    led = story.leader(0)
    assert led is not None
    while not led.changing:
        story.run(1 * MS)
    follower.kill()
    follower.start()
    story.store.hurry()
    story.settle()


def test_the_only_replica_leads_again_after_a_failed_sync() -> None:
    story = Story(replicas=1)
    leader = story.brokers[story.record(0).leader]
    leader.disk.faults.sync_countdown = 1
    story.write(5)
    story.settle()
    assert story.record(0).leader_epoch == 1


def test_an_answer_that_is_repeated_does_not_open_a_stream_again() -> None:
    story = Story()
    leader, follower, _ = story.cast()
    answers: list[bytes] = []
    send = story.network.send

    def listen(source: int, target: int, header: bytes, data: bytes) -> None:
        control = stream.read_envelope(header).kind == stream.CONTROL
        if target == follower.node_id and control:
            answers.extend(
                [header] if isinstance(stream.read_control(header), stream.StreamOpened) else []
            )
        send(source, target, header, data)

    story.network.send = listen  # type: ignore[method-assign]
    story.network.sever(leader.node_id, follower.node_id)
    story.write(5)
    story.settle()
    end = story.log(follower.node_id, 0).next_offset
    follower.disk.faults.write_countdown = 1
    story.write(1)
    story.run_until(lambda: not story.follower(follower).following, 200 * MS)
    follower.receive(answers[-1], b"")
    story.run(5 * MS)
    assert story.log(follower.node_id, 0).next_offset >= end
    story.settle()


def test_a_request_that_waited_in_an_earlier_term_is_not_acknowledged_in_a_later_one() -> None:
    story = Story()
    first, second, third = story.cast()
    other = story.add_producer(Habits("q"))
    third.kill()
    story.until_in_sync(first, second)
    story.network.cut(first.node_id, second.node_id)
    story.write(5)  # waits at the first, at the offset of what follows
    story.run(50 * MS)
    first.pause()
    story.until_led_by(second)
    other.write(0, 5)
    story.run(100 * MS)
    story.network.heal()
    first.resume()
    assert story.run_until(lambda: not other.unresolved)
    second.kill()
    story.until_led_by(first)
    story.settle()


def test_what_a_follower_acknowledged_before_it_lost_its_disk_counts_no_more() -> None:
    story = Story()
    leader, follower, third = story.cast()
    third.kill()
    story.until_in_sync(leader, follower)
    story.write(5)
    assert story.run_until(lambda: not story.producer.unresolved)
    send = story.network.send

    def keep_back(source: int, target: int, header: bytes, data: bytes) -> None:
        if stream.read_envelope(header).kind != stream.PUSH:
            send(source, target, header, data)

    story.network.send = keep_back  # type: ignore[method-assign]
    follower.wipe()
    follower.start()
    story.run(1 * SECOND)
    leader.kill()  # while the other one has its streams, and nothing else
    story.run(1 * SECOND)
    del story.network.send
    story.settle()


def test_what_a_read_brings_after_a_cut_is_not_handed_out() -> None:
    story = Story()
    first, second, third = story.cast()
    story.wire.join("reader", lambda _node_id, _up: None)
    story.run(50 * MS)
    story.isolate(first)
    story.write(5)  # reaches the first alone
    story.run(20 * MS)
    waiting: list[tuple[effects.Read, bytes]] = []

    def hold(effect: effects.Read, process: int) -> None:
        data = first.disk.read(effect.handle, effect.position, effect.length)
        waiting.append((effect, data))

    forget_what_is_in_memory(first)
    first._read = hold  # type: ignore[method-assign]
    part = messages.FetchPartition(partition=0, fetch_offset=3, partition_max_bytes=4_096)
    topics = [messages.FetchTopic(topic=TOPIC, partitions=[part])]
    read: list[Message] = []
    story.wire.ask("reader", first.node_id, messages.FetchRequest(topics=topics), read.append)
    assert story.run_until(lambda: bool(waiting))
    assert story.run_until(lambda: story.record(0).leader != first.node_id)
    story.network.heal()
    assert story.run_until(lambda: not story.producer.unresolved)
    story.until_in_sync(first, second, third)
    story.brokers[story.record(0).leader].kill()
    if story.record(0).leader != first.node_id:
        next(b for b in (second, third) if b.node is not None).kill()
    story.until_led_by(first)
    del first._read
    first.disk.cold = 0.0
    for asked, data in waiting:
        first.step(events.ReadsDone((events.ReadDone(asked.number, data, 0, 1),)))
    assert story.run_until(lambda: bool(read))
    log = story.log(first.node_id, 0)
    answer = read[0]
    assert isinstance(answer, messages.FetchResponse)
    records = bytes(answer.responses[0].partitions[0].records or b"")
    end = batches_of(records)[-1].next_offset if records else 3
    assert records == bytes_between(log, 3, end)
    story.settle()


def forget_what_is_in_memory(broker: Broker) -> None:
    """From now on every read of this broker's logs waits for the device."""
    broker.disk.cold = 1.0
    for partition in broker.running.partitions:
        partition.replica.log.share(Budget(0))
