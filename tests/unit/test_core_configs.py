"""Settings of topics: described with their sources, changed for what runs, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster import errors
from cluster.broker.settings import broker_settings, topic_defaults
from cluster.config import BrokerConfig, parse_topic_config
from cluster.core.config_changes import APPEND, DELETE, SET, SUBTRACT
from cluster.core.configs import BROKER
from cluster.core.configs import TOPIC as TOPIC_RESOURCE
from cluster.core.defaults import BROKER_FILE_SOURCE, DEFAULT_SOURCE, INT, LONG, TOPIC_SOURCE
from cluster.wire import messages
from tests.unit.core_world import TOPIC, World, batch, ready

CONFIG = BrokerConfig(1, Path("data"), segment_bytes=8_192)
DEFAULTS = topic_defaults(CONFIG)


@pytest.fixture
def world() -> World:
    return ready(check_config=parse_topic_config, defaults=DEFAULTS)


def describe(
    world: World, *keys: str, name: str = TOPIC, kind: int = TOPIC_RESOURCE, node_id: int = 1
) -> messages.DescribeConfigsResult:
    resource = messages.DescribeConfigsResource(kind, name, list(keys) or None)
    request = messages.DescribeConfigsRequest([resource], True, True)
    (answer,) = world.ask(node_id, request)
    assert isinstance(answer, messages.DescribeConfigsResponse)
    return answer.results[0]


def values(world: World, *keys: str) -> dict[str, str | None]:
    return {entry.name: entry.value for entry in describe(world, *keys).configs}


def change(
    world: World, *changes: tuple[str, int, str | None], name: str = TOPIC, dry: bool = False,
    kind: int = TOPIC_RESOURCE, node_id: int = 0,
) -> tuple[int, str | None]:  # fmt: skip
    configs = [messages.AlterableConfig(*one) for one in changes]
    resource = messages.IncrementalResource(kind, name, configs)
    request = messages.IncrementalAlterConfigsRequest([resource], dry)
    (answer,) = world.ask(node_id or world.controller(), request)
    assert isinstance(answer, messages.IncrementalAlterConfigsResponse)
    return answer.responses[0].error_code, answer.responses[0].error_message


def replace(world: World, **own: str | None) -> int:
    configs = [messages.AlterableSetting(k.replace("_", "."), v) for k, v in own.items()]
    request = messages.AlterConfigsRequest(
        [messages.AlterConfigsResource(TOPIC_RESOURCE, TOPIC, configs)]
    )
    (answer,) = world.ask(1, request)
    assert isinstance(answer, messages.AlterConfigsResponse)
    return answer.responses[0].error_code


def test_a_setting_says_where_its_value_comes_from_and_what_it_may_be(world: World) -> None:
    assert change(world, ("segment.ms", SET, "60000")) == (0, None)
    entries = {entry.name: entry for entry in describe(world).configs}
    assert set(entries) >= {"segment.bytes", "segment.ms", "flush", "min.insync.replicas"}
    assert entries["segment.ms"].config_source == TOPIC_SOURCE
    assert entries["segment.bytes"].config_source == BROKER_FILE_SOURCE
    assert entries["min.insync.replicas"].config_source == DEFAULT_SOURCE
    assert (entries["segment.bytes"].config_type, entries["segment.ms"].config_type) == (INT, LONG)
    allowed = "a whole number of bytes from 4096 to 2147483647"
    assert entries["segment.bytes"].documentation == allowed
    assert entries["flush"].read_only
    assert not entries["segment.ms"].read_only
    known_as = [(one.name, one.value, one.source) for one in entries["segment.ms"].synonyms]
    week = str(7 * 24 * 3600 * 1000)
    assert known_as == [
        ("segment.ms", "60000", TOPIC_SOURCE), ("log.roll.ms", week, DEFAULT_SOURCE)
    ]  # fmt: skip


def test_only_the_settings_asked_for_are_described(world: World) -> None:
    assert values(world, "flush", "no.such.key") == {"flush": "batch"}


def test_a_broker_describes_itself_and_nobody_else(world: World) -> None:
    mine = describe(world, kind=BROKER, name="2", node_id=2)
    assert [(c.name, c.value, c.read_only) for c in mine.configs] == [("broker.id", "2", True)]
    others = describe(world, kind=BROKER, name="2", node_id=1)
    assert others.error_code == errors.INVALID_REQUEST.number
    assert describe(world, kind=3, name="x").error_code == errors.INVALID_REQUEST.number


def test_what_a_broker_tells_has_kafkas_names_where_it_means_the_same() -> None:
    told = {s.name: s for s in broker_settings(CONFIG, kafka="127.0.0.1:9092")}
    assert told["advertised.listeners"].value == "PLAINTEXT://127.0.0.1:9092"
    assert told["auto.create.topics.enable"].value == "true"
    assert (told["num.partitions"].value, told["num.partitions"].default) == ("6", True)
    assert (told["log.segment.bytes"].value, told["log.segment.bytes"].default) == ("8192", False)
    assert told["message.max.bytes"].value == "1048588"
    assert told["heartbeat.ms"].value == "100"


def test_changes_are_in_the_store_and_in_what_runs(world: World) -> None:
    other = next(node_id for node_id in world.nodes if node_id != world.controller())
    changes = (
        ("segment.bytes", SET, "4096"),
        ("max.message.bytes", SET, "100"),
        ("min.insync.replicas", SET, "3"),
        ("producer.id.expiration.ms", SET, "5000"),
        ("retention.bytes", SET, "10000"),
    )
    assert change(world, *changes, node_id=other) == (0, None)
    for node_id in world.nodes:
        log = world.partition(node_id).replica.log
        assert (log.config.segment_bytes, log.config.max_message_bytes) == (4_096, 100)
        assert log.config.retention_bytes == 10_000
    leader = world.partition(world.leader()).leader
    assert leader is not None
    assert leader.sweep.expiration_ms == 5_000
    assert world.produce(batch(-1, -1, b"x" * 200)) == (errors.MESSAGE_TOO_LARGE.number, 0)
    assert world.produce(batch(-1, -1, b"x")) == (0, 1)
    for node_id in [n for n in world.nodes if n != world.leader()][:1]:
        world.blocked.update({(node_id, world.leader()), (world.leader(), node_id)})
    assert world.produce(batch(-1, -1, b"x"), wait_ms=2_000) == (
        errors.REQUEST_TIMED_OUT.number, 0
    )  # fmt: skip
    assert world.produce(batch(-1, -1, b"x")) == (errors.NOT_ENOUGH_REPLICAS.number, 0)
    assert change(world, ("min.insync.replicas", DELETE, None)) == (0, None)
    assert world.produce(batch(-1, -1, b"x")) == (0, 1)


def test_whose_time_records_carry_may_change_while_they_come(world: World) -> None:
    def stamped() -> int:
        part = messages.PartitionProduceData(index=0, records=batch(-1, -1))
        topics = [messages.TopicProduceData(name=TOPIC, partition_data=[part])]
        (answer,) = world.ask(world.leader(), messages.ProduceRequest(None, -1, 1_000, topics))
        assert isinstance(answer, messages.ProduceResponse)
        return answer.responses[0].partition_responses[0].log_append_time_ms

    assert stamped() == -1
    assert change(world, ("message.timestamp.type", SET, "LogAppendTime")) == (0, None)
    assert stamped() > 0
    assert change(world, ("message.timestamp.type", DELETE, None)) == (0, None)
    assert stamped() == -1


def test_a_broker_that_was_away_has_the_new_settings_when_it_is_back(world: World) -> None:
    away = next(n for n in world.nodes if n not in (world.controller(), world.leader()))
    world.kill(away)
    world.run(1_500)
    assert change(world, ("segment.bytes", SET, "5000")) == (0, None)
    world.start(away)
    world.run(3_000)
    assert world.partition(away).replica.log.config.segment_bytes == 5_000


def test_replacing_takes_back_what_is_not_named(world: World) -> None:
    assert change(world, ("segment.ms", SET, "60000"), ("segment.bytes", SET, "5000")) == (0, None)
    assert replace(world, segment_bytes="6000") == 0
    week = str(7 * 24 * 3600 * 1000)
    assert values(world, "segment.ms", "segment.bytes") == {
        "segment.ms": week, "segment.bytes": "6000"
    }  # fmt: skip


def test_all_settings_read_and_written_again_change_nothing(world: World) -> None:
    before = values(world)
    assert replace(world, **{key.replace(".", "_"): value for key, value in before.items()}) == 0
    assert values(world) == before


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (("no.such.key", SET, "1"), "no.such.key"),
        (("no.such.key", DELETE, None), "no.such.key"),
        (("segment.bytes", SET, "many"), "segment.bytes: expected a whole number"),
        (("segment.bytes", SET, None), "not null"),
        (("segment.bytes", APPEND, "1"), "expected a list"),
        (("segment.bytes", SUBTRACT, "1"), "expected a list"),
        (("segment.bytes", 7, "1"), "an operation from 0 to 3"),
        (("flush", SET, "os"), "fixed"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    world: World, wish: tuple[str, int, str | None], told: str
) -> None:
    before = values(world)
    for dry in (True, False):
        error, text = change(world, ("segment.ms", SET, "1"), wish, dry=dry)
        assert error == errors.INVALID_CONFIG.number
        assert text is not None
        assert told in text
    assert values(world) == before


def test_a_fixed_setting_may_be_named_with_the_value_it_has(world: World) -> None:
    assert change(world, ("flush", SET, "batch")) == (0, None)
    assert values(world, "flush") == {"flush": "batch"}


def test_what_is_only_tried_changes_nothing(world: World) -> None:
    before = world.store.revision
    assert change(world, ("segment.ms", SET, "60000"), dry=True) == (0, None)
    assert world.store.revision == before


@pytest.mark.parametrize(
    ("kind", "name", "code"),
    [
        (TOPIC_RESOURCE, "nobody", errors.UNKNOWN_TOPIC_OR_PARTITION),
        (TOPIC_RESOURCE, "__consumer_offsets", errors.INVALID_REQUEST),
        (BROKER, "1", errors.INVALID_REQUEST),
        (8, "1", errors.INVALID_REQUEST),
    ],
)
def test_what_has_no_settings_to_change_is_refused(
    world: World, kind: int, name: str, code: errors.Code
) -> None:
    assert change(world, ("segment.ms", SET, "1"), kind=kind, name=name)[0] == code.number


def test_a_change_that_lost_a_race_is_made_on_what_won(world: World) -> None:
    controller, other = world.controller(), next(n for n in world.nodes if n != world.controller())
    requests = []
    for key in ("segment.bytes", "max.message.bytes"):
        configs = [messages.AlterableConfig(key, SET, "7000")]
        resource = messages.IncrementalResource(TOPIC_RESOURCE, TOPIC, configs)
        requests.append(messages.IncrementalAlterConfigsRequest([resource]))
    world.ask(controller, requests[0], wait_ms=0)
    assert len(world.ask(other, requests[1])) == 1
    world.run(100)
    assert set(values(world, "segment.bytes", "max.message.bytes").values()) == {"7000"}
