"""A fuzzer of everything behind the port for Kafka's clients: `python -m tests.fuzz_listener`.

Arguments: SECONDS and a seed, both optional. Conversations of real clients with Kafka are changed
(bytes, versions, lengths, order), cut into pieces of any size and fed over several connections to
the framing and one real broker's machine on a simulated disk. Then must hold: no exception leaves;
every request that was taken got exactly one answer or its connection ended; what is refused by its
length ends its connection; nothing stays behind in the exchange; and no log grew by more records
than sound batches were asked to be produced.
"""

from __future__ import annotations

import json
import random
import struct
import sys
import time
from collections import Counter
from pathlib import Path

from _fastseq.batch import read_header
from _fastseq.crc32c import crc32c
from _fastseq.frames import REFUSED, Conversation, Exchange
from cluster.core import effects, events
from cluster.core.defaults import INTERNAL_TOPICS, TopicDefaults
from cluster.core.leader import Leader
from cluster.net.kafka import TCP
from cluster.net.strangers import looks_like
from cluster.wire import apis, codec, messages
from cluster.wire.primitives import WireError
from tests.unit.core_world import World

GOLDEN = Path(__file__).parent / "golden" / "wire"
SECONDS = 600.0
CONNECTIONS = 3
ROUNDS_PER_WORLD = 40
REPLICAS_MAX = 400  # a world with more is given up: each of its rounds would take long
PATIENCE_MS = 320_000  # longer than any request but those of a group may wait
MAY_WAIT_LONGER = (apis.JOIN_GROUP, apis.SYNC_GROUP)
FRAME_BYTES = 1 << 20
EDGES = (-(2**31), -1, 0, 1, 5, 127, 128, 32_767, 65_536, FRAME_BYTES + 1, 2**31 - 1)


class Finding(AssertionError):
    """Something that must not be."""


def conversations() -> list[list[bytes]]:
    """The requests of each connection, in order."""
    found: list[list[bytes]] = []
    for path in sorted(GOLDEN.glob("*.jsonl")):
        by_connection: dict[int, list[bytes]] = {}
        for line in path.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if entry["dir"] == "request":
                by_connection.setdefault(entry["conn"], []).append(bytes.fromhex(entry["hex"]))
        found += by_connection.values()
    return found


class Served(World):
    """One broker, and a listener's exchange in front of it."""

    def __init__(self) -> None:
        config = {"min.insync.replicas": "1"}
        super().__init__(1, config=config, defaults=TopicDefaults(1, 1, config, auto_create=True))
        self.woken = False
        self.exchange = Exchange(
            events.ClientMessage, self._wake, slab_bytes=256 * 1024, frame_bytes_max=FRAME_BYTES,
            in_flight_max=8, in_flight_bytes_max=1 << 20, share_requests=4, share_bytes=1 << 18,
            large_bytes_max=1 << 20,
        )  # fmt: skip
        self.open: dict[int, Conversation] = {}
        self.asked: dict[bytes, bytes] = {}
        self.ends: dict[tuple[str, int], int] = {}
        self.sound = 0
        """Records in sound batches that were asked to be produced since the last check."""
        self.counted: Counter[str] = Counter()
        self.run(1_000)

    def _wake(self) -> None:
        self.woken = True

    def connect(self) -> Conversation:
        made = self.exchange.open(None)
        self.open[made.number] = made
        return made

    def close(self, conversation: Conversation, why: str) -> None:
        self.counted[why] += 1
        conversation.close()
        self.open.pop(conversation.number, None)

    def _do(self, node_id: int, effect: effects.Effect) -> None:
        match effect:
            case effects.Reply(connection=address) if address[0] == TCP:
                self._ended(address)
                self.exchange.answer(address, effect.frame)
            case effects.NoReply(connection=address) if address[0] == TCP:
                self._ended(address)
                self.exchange.answer(address, None)
            case effects.Hangup(connection=address) if address[0] == TCP:
                self._ended(address)
                self.exchange.hang_up(address)
            case _:
                super()._do(node_id, effect)

    def _ended(self, address: bytes) -> None:
        if self.asked.pop(address, None) is None:
            raise Finding(f"two answers to {address.hex()}")

    def feed(self, conversation: Conversation, data: bytes, chance: random.Random) -> None:
        """Receive `data` in pieces, with turns between them, until the connection ends."""
        while data and conversation.number in self.open:
            room = conversation.get_buffer(65_536)
            size = min(len(room), len(data), chance.choice([1, 7, 100, 5_000, 1 << 20]))
            room[:size] = data[:size]
            data = data[size:]
            state = conversation.buffer_updated(size)
            if not self._proceed(conversation, state, chance):
                return

    def _proceed(self, conversation: Conversation, state: int, chance: random.Random) -> bool:
        """Take turns until the connection may be read again; False if it ended or stands still."""
        for _ in range(200):
            if state & REFUSED:
                looks_like(conversation.fault)
                self.close(conversation, "refused")
                return False
            if self.woken and (state & 3 or chance.random() < 0.5):
                self.turn()
            if conversation.ended:
                self.close(conversation, "hung up")
                return False
            if not state & 3:
                return True
            self.run(chance.choice([1, 20, 700]))
            state = conversation.go_on()
        return False

    def turn(self) -> None:
        """One turn of the broker."""
        self.woken = False
        requests = self.exchange.drain()
        for request in requests:
            key = bytes(request.frame[:2])
            self.asked[request.connection] = bytes(request.frame)
            if key == b"\0\0":
                self.sound += sound_records(bytes(request.frame))
        self.counted["requests"] += len(requests)
        self.step(1, events.ClientTurn(requests))
        for conversation in list(self.open.values()):
            check_written(conversation.outgoing())

    def settle(self) -> None:
        """Everything that was taken is answered in time; nothing stays behind."""
        for conversation in list(self.open.values()):
            self.close(conversation, "left")
        self.turn()
        waited = 0
        while self._waiting() and waited < PATIENCE_MS:
            self.run(5_000)
            waited += 5_000
        left = self._waiting()
        if left:
            raise Finding(f"never answered: {[frame[:40].hex() for frame in left]}")
        if self.exchange.in_flight or len(self.exchange) or self.exchange.unexpected:
            raise Finding(f"left in the exchange: {self.exchange.in_flight} requests")
        if len(self.nodes[1].requests.fetches):
            raise Finding("fetches are parked that nobody waits for")

    def _waiting(self) -> list[bytes]:
        keys = [struct.pack(">h", key) for key in MAY_WAIT_LONGER]
        return [frame for frame in self.asked.values() if frame[:2] not in keys]

    def check_growth(self) -> None:
        """No log grew by more than what could be produced."""
        grown = 0
        for partition in self.nodes[1].partitions:
            topic, log = partition.replica.topic, partition.replica.log
            if topic.name in INTERNAL_TOPICS or not isinstance(partition.leader, Leader):
                continue
            key = (topic.topic_id, partition.replica.index)
            grown += log.next_offset - self.ends.get(key, 0)
            self.ends[key] = log.next_offset
        if grown > self.sound:
            raise Finding(f"logs grew by {grown} records, {self.sound} could be produced")
        self.counted["records"] += grown
        self.sound = 0


def check_written(pieces: list[bytes | bytearray | memoryview]) -> None:
    """What leaves is whole responses."""
    data = b"".join(bytes(piece) for piece in pieces)
    while data:
        size = int.from_bytes(data[:4], "big")
        if size < 4 or len(data) < 4 + size:
            raise Finding(f"a response of {size} bytes, of which {len(data) - 4} are there")
        data = data[4 + size :]


def sound_records(frame: bytes) -> int:
    """Records of the batches in a produce request that pass their checksums."""
    size = max(0, int.from_bytes(frame[8:10], "big", signed=True))
    anonymous = frame[:8] + b"\xff\xff" + frame[10 + size :]  # no matter what the client is called
    try:
        _, body = codec.decode_request(anonymous)
    except WireError:
        return 0
    assert isinstance(body, messages.ProduceRequest)
    return sum(
        _records(bytes(part.records or b""))
        for topic in body.topic_data
        for part in topic.partition_data
    )


def _records(data: bytes) -> int:
    if len(data) < 61 or data[16] != 2:
        return 0
    size = 12 + int.from_bytes(data[8:12], "big")
    if size != len(data) or crc32c(data[21:]) != int.from_bytes(data[17:21], "big"):
        return 0
    return max(0, read_header(data).record_count)


def changed(frame: bytes, chance: random.Random) -> bytes:
    """A request with some of its bytes, its key or its version changed, cut or added to."""
    data = bytearray(frame)
    for _ in range(chance.choice([0, 0, 1, 1, 2, 5])):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(8):
            case 0:
                data[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                data[at : at + 4] = struct.pack(">i", chance.choice(EDGES))
            case 2:
                del data[at : at + chance.choice([1, 2, 8, 1_000])]
            case 3:
                data[at:at] = chance.randbytes(chance.choice([1, 4, 300]))
            case 4:
                data[2:4] = struct.pack(">h", chance.choice([-1, 0, 1, 2, 5, 9, 12, 16, 32_767]))
            case 5:
                data[0:2] = struct.pack(">h", chance.choice([*apis.APIS, -1, 7, 68, 32_767]))
            case 6:
                data[at : at + 1] = bytes([chance.choice([0, 1, 0x7F, 0x80, 0xFF])])
            case _:
                reseal(data)
    return bytes(data)


def reseal(data: bytearray) -> None:
    """Put the checksum of a batch right, so that what lies behind it is reached."""
    at = data.find(b"\x02", 61 if len(data) > 200 else 0)
    if at >= 16 and len(data) >= at + 45:
        size = int.from_bytes(data[at - 8 : at - 4], "big") + 12
        data[at + 1 : at + 5] = crc32c(bytes(data[at + 5 : at - 16 + size])).to_bytes(4, "big")


def stream(frames: list[bytes], chance: random.Random) -> bytes:
    """Frames with their lengths, a few of them wrong."""
    parts = []
    for frame in frames:
        size = len(frame)
        if chance.random() < 0.02:
            size = chance.choice([*EDGES, size - 1, size + 1])
        parts.append(struct.pack(">i", size) + frame)
    data = b"".join(parts)
    return data[: chance.randrange(len(data) + 1)] if chance.random() < 0.1 else data


def one_round(world: Served, corpus: list[list[bytes]], chance: random.Random) -> None:
    """Some connections, each with part of a conversation; then what must hold."""
    for _ in range(CONNECTIONS):
        frames = chance.choice(corpus)
        start = chance.randrange(len(frames))
        some = frames[start : start + chance.randrange(1, 25)]
        if chance.random() < 0.3:
            chance.shuffle(some)
        data = stream([changed(frame, chance) for frame in some], chance)
        world.feed(world.connect(), data, chance)
        if chance.random() < 0.3 and world.open:
            world.close(chance.choice(list(world.open.values())), "left")
    world.turn()
    world.check_growth()


def fuzz(seconds: float, seed: int) -> Counter[str]:
    """Fuzz for a while; how often what happened. Raises whatever was found."""
    chance = random.Random(seed)
    corpus = conversations()
    counted: Counter[str] = Counter()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        world = Served()
        for _ in range(ROUNDS_PER_WORLD):
            one_round(world, corpus, chance)
            counted["rounds"] += 1
            if len(world.nodes[1].partitions) > REPLICAS_MAX or time.monotonic() > until:
                break
        world.settle()
        world.check_growth()
        counted += world.counted
        counted["worlds"] += 1
    return counted


def main(arguments: list[str]) -> int:
    """Fuzz, say what was done; 1 with the seed at the first finding."""
    seconds = float(arguments[0]) if arguments else SECONDS
    seed = int(arguments[1]) if len(arguments) > 1 else random.SystemRandom().randrange(2**32)
    sys.stdout.write(f"fuzzing the listener for {seconds:g} s, seed {seed}\n")
    sys.stdout.flush()
    try:
        counted = fuzz(seconds, seed)
    except BaseException:
        sys.stdout.write(f"found with seed {seed}\n")
        raise
    sys.stdout.write(", ".join(f"{count} {what}" for what, count in counted.items()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
