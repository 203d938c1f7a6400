"""broker.toml and topic settings: every key is checked, and every error says what is right."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from cluster.config import (
    BROKER_KEYS,
    TOPIC_CONFIGS,
    BrokerConfig,
    TopicConfig,
    broker_config,
    is_loopback,
    load_broker_config,
    parse_topic_config,
)
from cluster.errors import ConfigError

EXAMPLE = Path(__file__).parents[2] / "deploy" / "broker.toml"
LEAST: dict[str, object] = {"node_id": 1, "data_dir": "data"}


def check(**keys: object) -> BrokerConfig:
    return broker_config(LEAST | keys, "broker.toml", Path("/etc/oncelog"))


def refused(**keys: object) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        check(**keys)
    assert str(caught.value).startswith(f"broker.toml: {caught.value.key}: expected ")
    return caught.value


def test_the_example_shows_every_key_with_its_default() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    shown = re.findall(r"^(?:# )?([a-z_]+) = ", text, re.MULTILINE)
    assert sorted(shown) == sorted(BROKER_KEYS)
    here = EXAMPLE.parent
    least = broker_config(LEAST, "", here)
    assert load_broker_config(EXAMPLE) == least


def test_paths_start_at_the_directory_of_the_file() -> None:
    config = check(data_dir="d", store_path="/var/lib/metadata.db")
    assert config.data_dir == Path("/etc/oncelog/d")
    assert config.store_path == Path("/var/lib/metadata.db")


def test_an_unknown_key_is_refused_with_those_there_are() -> None:
    error = refused(nodeid=1)
    assert error.key == "nodeid"
    assert "node_id, data_dir, cluster_id" in error.allowed


@pytest.mark.parametrize("key", ["node_id", "data_dir"])
def test_a_missing_key_is_named(key: str) -> None:
    table = {name: value for name, value in LEAST.items() if name != key}
    with pytest.raises(ConfigError, match=f"{key}: expected .*must be there"):
        broker_config(table, "broker.toml", Path())


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("node_id", -1, "a whole number from 0 to 2147483647, not -1"),
        ("node_id", "1", "a whole number from 0 to 2147483647, not '1'"),
        ("node_id", True, "a whole number from 0 to 2147483647, not True"),
        ("data_dir", "", "the path of a file or directory, not ''"),
        ("data_dir", 5, "the path of a file or directory, not 5"),
        ("cluster_id", "mine", "32 hexadecimal digits, not 'mine'"),
        ("store", "etcd", "\"sqlite\", not 'etcd'"),
        ("store_wal", 1, "true or false, not 1"),
        ("allow_faults", "true", "true or false, not 'true'"),
        ("flush", "never", '"batch" or "os", not \'never\''),
        ("listen_zmq", "none", "\"HOST:PORT\", port 0 for a free one, not 'none'"),
        ("listen_zmq", "127.0.0.1:65536", '"HOST:PORT", port 0 for a free one, not'),
        ("listen_metrics", ":9650", '"HOST:PORT", port 0 for a free one, or "none", not'),
        ("listen_kafka", "9092", '"HOST:PORT", port 0 for a free one, or "none", not'),
        ("advertised_kafka", "none", "\"HOST:PORT\", port 0 for a free one, not 'none'"),
        ("listen_metrics", 9650, '"HOST:PORT", port 0 for a free one, or "none", not 9650'),
        ("sync_threads", 0, "a whole number from 1 to 64, not 0"),
        ("lease_ms", 99, "a whole number of milliseconds from 100 to 3600000, not 99"),
        ("lease_ms", 300, "more than heartbeat_timeout_ms"),
        ("heartbeat_timeout_ms", 199, "at least twice heartbeat_ms"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_allowed(
    key: str, value: object, allowed: str
) -> None:
    error = refused(**{key: value})
    assert error.key == key
    assert error.allowed.startswith(allowed)


@pytest.mark.parametrize("key", ["listen_zmq", "listen_kafka", "listen_metrics"])
@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "[::]", "example.org", "*"])
def test_nothing_but_loopback_is_listened_on_without_the_operators_word(
    key: str, host: str
) -> None:
    address = f"{host}:5550"
    error = refused(**{key: address})
    assert error.key == key
    assert "allow_unauthenticated = true" in error.allowed
    allowed = check(**{key: address, "allow_unauthenticated": True})
    assert getattr(allowed, key) == address


@pytest.mark.parametrize("address", ["127.0.0.1:1", "127.9.9.9:1", "localhost:1", "[::1]:1"])
def test_loopback_needs_no_permission(address: str) -> None:
    assert is_loopback(address)
    assert check(listen_zmq=address).listen_zmq == address


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broker.toml"
    with pytest.raises(ConfigError, match=r"broker\.toml: --config: expected a file to read: No"):
        load_broker_config(path)
    path.write_text("node_id 1", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"expected TOML: .*line 1"):
        load_broker_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="expected TOML"):
        load_broker_config(path)


def test_topic_keys_have_kafkas_names() -> None:
    assert set(TOPIC_CONFIGS) == {
        "min.insync.replicas",
        "producer.id.expiration.ms",
        "flush",
        "retention.ms",
        "retention.bytes",
        "file.delete.delay.ms",
        "cleanup.policy",
        "compression.type",
        "message.timestamp.type",
        "validate.records",
        "segment.bytes",
        "segment.ms",
        "index.interval.bytes",
        "max.message.bytes",
    }


def test_a_topic_takes_what_it_does_not_say_from_the_broker() -> None:
    broker = check(min_insync_replicas=1, flush="os", segment_bytes=8192)
    config = parse_topic_config({"flush": "batch"}, broker.topic_defaults)
    assert config == TopicConfig(min_insync_replicas=1, flush="batch", segment_bytes=8192)
    assert parse_topic_config({}) == TopicConfig()


def test_a_topics_configuration_survives_its_strings() -> None:
    config = TopicConfig(min_insync_replicas=3, flush="os", max_message_bytes=5_000)
    assert parse_topic_config(config.as_strings()) == config
    assert set(config.as_strings()) == set(TOPIC_CONFIGS)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("min.insync.replicas", "0", "a whole number from 1 to 15, not 0"),
        ("min.insync.replicas", "two", "a whole number from 1 to 15, not 'two'"),
        ("segment.bytes", "1e9", "a whole number of bytes from 4096 to 2147483647, not '1e9'"),
        ("segment.ms", "9" * 20, "a whole number of milliseconds from 1 to"),
        ("flush", "1", '"batch" or "os", not 1'),
        ("retention.ms", "-2", "a whole number of milliseconds from -1 to"),
        ("retention.bytes", "1 GB", "a whole number of bytes from -1 to"),
        ("cleanup.policy", "compact", '"delete", since compaction is not supported yet'),
        ("compression.type", "lz4", '"producer", since brokers keep batches as they were'),
        ("min_insync_replicas", "2", "a known key: min.insync.replicas, flush"),
    ],
)
def test_a_wrong_topic_setting_is_refused_with_what_is_allowed(
    key: str, value: str, allowed: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_topic_config({key: value}, source="topic orders")
    assert (caught.value.file, caught.value.key) == ("topic orders", key)
    assert caught.value.allowed.startswith(allowed)


def test_settings_cannot_be_changed_after_loading() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        check().node_id = 2  # type: ignore[misc]
