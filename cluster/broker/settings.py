"""Settings as the machine takes them: what topics get, and what this broker tells of its own.

Owns the translation of broker.toml into Kafka's names, where a key means the same, and which
settings of a topic are fixed once it is made.
"""

from __future__ import annotations

import dataclasses

from cluster.config import BROKER_KEYS, TOPIC_CONFIGS, BrokerConfig, TopicConfig
from cluster.core.defaults import STRING, BrokerSetting, ConfigKey, TopicDefaults

FIXED = frozenset({"flush"})
"""Topic settings that say by what the replicas' data is known: they cannot change (rule 9)."""

_BROKER_NAMES = {
    "segment.bytes": "log.segment.bytes",
    "segment.ms": "log.roll.ms",
    "index.interval.bytes": "log.index.interval.bytes",
    "max.message.bytes": "message.max.bytes",
    "retention.ms": "log.retention.ms",
    "retention.bytes": "log.retention.bytes",
    "file.delete.delay.ms": "log.segment.delete.delay.ms",
    "cleanup.policy": "log.cleanup.policy",
    "message.timestamp.type": "log.message.timestamp.type",
}
"""What Kafka calls a topic's setting among the broker's, where the name differs."""

_KAFKA_NAMES = {
    "node_id": "node.id",
    "data_dir": "log.dirs",
    "auto_create_topics": "auto.create.topics.enable",
    "default_partitions": "num.partitions",
    "default_replicas": "default.replication.factor",
    "min_insync_replicas": "min.insync.replicas",
    "segment_bytes": "log.segment.bytes",
    "retention_ms": "log.retention.ms",
    "retention_bytes": "log.retention.bytes",
    "retention_check_interval_ms": "log.retention.check.interval.ms",
    "replica_lag_time_max_ms": "replica.lag.time.max.ms",
}
"""Keys of broker.toml that mean what Kafka calls so; the others keep their names, with dots."""
_HIDDEN = frozenset({"store_path"})


def topic_defaults(config: BrokerConfig) -> TopicDefaults:
    """What a topic gets where its creator names nothing, and what is known of each setting."""
    built_in, here = TopicConfig().as_strings(), config.topic_defaults.as_strings()
    return TopicDefaults(
        partitions=config.default_partitions,
        replicas=config.default_replicas,
        config=here,
        keys={
            name: ConfigKey(
                name, kind.type, kind.allowed, _BROKER_NAMES.get(name), fixed=name in FIXED
            )
            for name, kind in TOPIC_CONFIGS.items()
        },
        set_by_broker=frozenset(name for name in here if here[name] != built_in.get(name)),
        auto_create=config.auto_create_topics,
    )


def broker_settings(config: BrokerConfig, *, kafka: str | None) -> tuple[BrokerSetting, ...]:
    """What DescribeConfigs tells of this broker; `kafka` is where Kafka's clients find it."""
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    listed = [
        BrokerSetting("broker.id", str(config.node_id), BROKER_KEYS["node_id"].type, default=False),
        BrokerSetting(
            "advertised.listeners",
            "" if kafka is None else f"PLAINTEXT://{kafka}",
            default=False,
        ),
        BrokerSetting(
            "listeners",
            "" if config.listen_kafka is None else f"PLAINTEXT://{config.listen_kafka}",
            default=config.listen_kafka == defaults["listen_kafka"],
        ),
    ]
    for key, kind in BROKER_KEYS.items():
        if key in _HIDDEN:
            continue
        value = getattr(config, key)
        name = _KAFKA_NAMES.get(key, key.replace("_", "."))
        listed.append(
            BrokerSetting(name, _text(value), kind.type or STRING, value == defaults[key])
        )
    known = {setting.name for setting in listed}
    for name, value in config.topic_defaults.as_strings().items():
        broker_name = _BROKER_NAMES.get(name, name)
        if broker_name not in known:
            listed.append(BrokerSetting(broker_name, value, TOPIC_CONFIGS[name].type))
    return tuple(sorted(listed, key=lambda setting: setting.name))


def _text(value: object) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)
