"""What topics are made with where nobody says otherwise, and what is known of each setting.

Owns the description of settings as the core needs it: their names, types and where a value comes
from. Which values are allowed is checked by `check`, which the shell brings along.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

CheckConfig = Callable[[Mapping[str, str]], None]
"""Raises `cluster.errors.ConfigError` naming the key and the allowed values."""

INTERNAL_TOPICS = frozenset({"__consumer_offsets"})
"""Topics that brokers keep for themselves: listed as internal, and not the clients' to change."""

# Types of settings, as DescribeConfigs numbers them.
BOOLEAN, STRING, INT, LONG, LIST = 1, 2, 3, 5, 7
# Where the value of a setting comes from, likewise.
TOPIC_SOURCE, BROKER_FILE_SOURCE, DEFAULT_SOURCE = 1, 4, 5


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """One setting of topics."""

    name: str
    type: int = STRING
    allowed: str = ""
    """The values it may have, in words."""
    broker_name: str | None = None
    """The broker's setting that its default comes from, by Kafka's name."""
    fixed: bool = False
    """It keeps the value that the topic was made with."""


@dataclass(frozen=True, slots=True)
class BrokerSetting:
    """One setting of this broker, by Kafka's name where it means the same."""

    name: str
    value: str | None
    type: int = STRING
    default: bool = True
    """Nobody set it."""


@dataclass(frozen=True, slots=True)
class TopicDefaults:
    """What a topic gets where its creator names nothing."""

    partitions: int = 6
    replicas: int = 3
    config: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, ConfigKey] = field(default_factory=dict)
    """What is known of each key; one that is not here is text."""
    set_by_broker: frozenset[str] = frozenset()
    """Keys of `config` that the broker's file sets."""
    auto_create: bool = False
    """Whether a Kafka client's question about a topic makes it."""

    def key(self, name: str) -> ConfigKey:
        """What is known of a key."""
        return self.keys.get(name) or ConfigKey(name)

    def source(self, name: str) -> int:
        """Where the default of a key comes from."""
        return BROKER_FILE_SOURCE if name in self.set_by_broker else DEFAULT_SOURCE
