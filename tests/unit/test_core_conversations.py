"""What real clients asked Apache Kafka, asked of a broker here: answers of the same shape."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import structs

from _fastseq.crc32c import crc32c
from cluster import errors
from cluster.core.defaults import TopicDefaults
from cluster.wire import apis, codec, messages
from cluster.wire.schema import Message
from tests.unit.core_world import CONFIG, World

GOLDEN = Path(__file__).parent.parent / "golden" / "wire"
CONVERSATIONS = sorted(GOLDEN.glob("*.jsonl"))
WAIT_MS = 4_000
"""The first member of a group waits three seconds for others."""
PASSING = {
    code.number
    for code in (
        errors.UNKNOWN_TOPIC_OR_PARTITION,
        errors.LEADER_NOT_AVAILABLE,
        errors.COORDINATOR_LOAD_IN_PROGRESS,
        errors.COORDINATOR_NOT_AVAILABLE,
        errors.NOT_COORDINATOR,
    )
}


class Exchange(NamedTuple):
    """One request of the golden conversation and Kafka's answer."""

    key: int
    version: int
    request: Message
    answer: Message


def exchanges(path: Path) -> Iterator[Exchange]:
    """The conversation in order of its requests."""
    asked: dict[tuple[int, int], tuple[int, int, Message]] = {}
    found: dict[tuple[int, int], Exchange] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        frame = bytes.fromhex(entry["hex"])
        if entry["dir"] == "request":
            key, version, number = struct.unpack_from(">hhi", frame)
            asked[entry["conn"], number] = (key, version, codec.decode_request(frame)[1])
        else:
            (number,) = struct.unpack_from(">i", frame)
            key, version, request = asked[entry["conn"], number]
            answer = codec.decode_response(key, version, frame)[1]
            found[entry["conn"], number] = Exchange(key, version, request, answer)
    for name in asked:
        if name in found:
            yield found[name]


class Names:
    """What the two clusters call the same thing: member and producer ids, sessions."""

    def __init__(self) -> None:
        self.ours: dict[Any, Any] = {}

    def learn(self, theirs: Any, ours: Any) -> None:
        """Pair the names in two answers of one shape."""
        if isinstance(theirs, Message):
            for field in theirs.__struct_fields__:
                there, here = getattr(theirs, field), getattr(ours, field)
                if field in ("member_id", "producer_id", "leader") and there not in ("", -1):
                    self.ours[there] = here
                self.learn(there, here)
        elif isinstance(theirs, list):
            for there, here in zip(theirs, ours or (), strict=False):
                self.learn(there, here)

    def translated(self, request: Any) -> Any:
        """The request as the client would have made it here."""
        if isinstance(request, list):
            return [self.translated(item) for item in request]
        if isinstance(request, messages.PartitionProduceData):
            return structs.replace(request, records=self._batch(request.records))
        if not isinstance(request, Message):
            return self.ours.get(request, request) if isinstance(request, str) else request
        fields = {f: self.translated(getattr(request, f)) for f in request.__struct_fields__}
        return type(request)(**fields)

    def _batch(self, records: Any) -> bytes:
        batch = bytearray(records)
        (producer_id,) = struct.unpack_from(">q", batch, 43)
        struct.pack_into(">q", batch, 43, self.ours.get(producer_id, producer_id))
        struct.pack_into(">I", batch, 17, crc32c(bytes(batch[21:])))
        return bytes(batch)


def shape(value: Any, name: str = "") -> Any:
    """What a client's code could branch on: error codes, what is there and what is not."""
    if name == "aborted_transactions":
        return not value  # null and empty are the same to every client
    if isinstance(value, Message):
        return {field: shape(getattr(value, field), field) for field in value.__struct_fields__}
    if isinstance(value, list):
        return [shape(item) for item in value]
    if isinstance(value, bool) or value is None or name.endswith("error_code"):
        return value
    if isinstance(value, int):
        return "none" if value == -1 else "number"
    return f"{'some' if len(value) else 'no'} {type(value).__name__}"


def differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    """Where two shapes are not the same."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for name, there in theirs.items():
            yield from differences(there, ours[name], f"{path}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for number, (there, here) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(there, here, f"{path}[{number}]")
    elif theirs != ours:
        yield f"{path}: Kafka {theirs!r}, here {ours!r}"


def ask(world: World, request: Message, key: int, version: int) -> Message:
    """The answer as soon as it comes."""
    world.replies.clear()
    frame = codec.encode_request(key, version, 7, "test", request)
    world.send(1, frame, native=False)
    for _ in range(WAIT_MS // 10):
        if world.replies:
            break
        world.run(10)
    (answer,) = world.replies
    return codec.decode_response(key, version, answer)[1]


def comparable(exchange: Exchange) -> bool:
    """Whether a broker here is asked this as Kafka was, by a client that was told the same.

    ApiVersions alone differs. Sessions of fetches do not exist here, so no client goes on with one.
    What Kafka answered with an error that passes, its client asked again.
    """
    if exchange.key == apis.API_VERSIONS:
        return False
    if isinstance(exchange.request, messages.FetchRequest) and exchange.request.session_id:
        return False
    return PASSING.isdisjoint(error_codes(exchange.answer))


def error_codes(value: Any) -> Iterator[int]:
    """Every error code in an answer."""
    if isinstance(value, list):
        for item in value:
            yield from error_codes(item)
    elif isinstance(value, Message):
        for field in value.__struct_fields__:
            if field == "error_code":
                yield getattr(value, field)
            yield from error_codes(getattr(value, field))


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_answers_have_the_shape_of_kafkas(path: Path) -> None:
    world = World(1, defaults=TopicDefaults(1, 1, CONFIG, auto_create=True))
    world.run(1_000)
    world.ask(1, messages.FindCoordinatorRequest(coordinator_keys=["g"]))  # there were groups
    if not any(exchange.key == apis.CREATE_TOPICS for exchange in exchanges(path)):
        wish = messages.CreatableTopic("golden.orders", 2, 1)
        world.ask(1, messages.CreateTopicsRequest(topics=[wish]))
    names, compared = Names(), 0
    found: list[str] = []
    for number, exchange in enumerate(exchanges(path)):
        request = names.translated(exchange.request)
        answer = ask(world, request, exchange.key, exchange.version)
        names.learn(exchange.answer, answer)
        if comparable(exchange):
            title = f"{number}: {type(request).__name__} v{exchange.version} "
            found += differences(shape(exchange.answer), shape(answer), title)
            compared += 1
    assert not found, "\n" + "\n".join(found)
    assert compared >= 10
