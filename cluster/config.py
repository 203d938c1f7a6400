"""What an operator may set: broker.toml, and the configuration of topics with Kafka's names.

Owns: every key once, as a field whose `Kind` says what is allowed and how it is read, so that the
error for a wrong value, the list for a wrong key and deploy/broker.toml's test come from one place.

Invariants: a key that is not known, or whose effect does not exist yet, is refused and never
ignored; nothing but loopback is listened on unless the operator says so (rule 15).
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from cluster.core.defaults import BOOLEAN, INT, LONG, STRING
from cluster.core.group_state import GroupSettings
from cluster.errors import ConfigError
from cluster.limits import (
    BATCH_BYTES_MAX,
    DELETE_DELAY_MS,
    FRAME_BYTES_MAX,
    LEASE_MS_MAX,
    LEASE_MS_MIN,
    PARTITIONS_PER_TOPIC_MAX,
    PRODUCER_BYTES_MAX,
    PRODUCER_EXPIRATION_MS,
    REPLICAS_MAX,
    RETENTION_CHECK_MS,
    RETENTION_MS,
    SCRUB_BYTES_PER_SECOND,
)

ZMQ_PORT, KAFKA_PORT, METRICS_PORT = 5550, 9092, 9650
PARTITIONS_DEFAULT, REPLICAS_DEFAULT, IN_SYNC_DEFAULT = 6, 3, 2
"""Of a topic that was made without saying how many."""

Flush = Literal["batch", "os"]


@dataclass(frozen=True, slots=True)
class Kind:
    """What a key takes: `read` gives the value or raises ValueError; `allowed` says it in words."""

    allowed: str
    read: Callable[[Any], object]
    type: int = STRING
    """As DescribeConfigs numbers types."""


def _integer(low: int, high: int, unit: str = "") -> Kind:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(value)
        return value

    words = f"a whole number{unit and ' of ' + unit} from {low} to {high}"
    return Kind(words, read, INT if high < 2**31 else LONG)


def _choice(*allowed: str | bool) -> Kind:
    def read(value: object) -> object:
        # True equals 1, so the type counts as well.
        if not any(value is one or (isinstance(value, str) and value == one) for one in allowed):
            raise ValueError(value)
        return value

    words = (str(one).lower() if isinstance(one, bool) else f'"{one}"' for one in allowed)
    boolean = all(isinstance(one, bool) for one in allowed)
    return Kind(" or ".join(words), read, BOOLEAN if boolean else STRING)


def _text(allowed: str, pattern: str = ".+") -> Kind:
    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            raise ValueError(value)
        return value

    return Kind(allowed, read)


def _address(*, optional: bool) -> Kind:
    def read(value: object) -> str | None:
        if optional and value == "none":
            return None
        if not isinstance(value, str):
            raise ValueError(value)
        host, separator, port = value.rpartition(":")
        if not (host and separator and re.fullmatch("[0-9]{1,5}", port) and int(port) <= 65_535):
            raise ValueError(value)
        return value

    return Kind('"HOST:PORT", port 0 for a free one' + ', or "none"' * optional, read)


def _read_path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(value)
    return Path(value)


_path = Kind("the path of a file or directory", _read_path)
_yes_or_no = _choice(True, False)
_flush = _choice("batch", "os")
_min_insync = _integer(1, REPLICAS_MAX)
_retention_ms = _integer(-1, 2**53, "milliseconds")
_retention_bytes = _integer(-1, 2**63 - 1, "bytes")
_cleanup_policy = dataclasses.replace(
    _choice("delete"), allowed='"delete", since compaction is not supported yet'
)
_compression_type = dataclasses.replace(
    _choice("producer"), allowed='"producer", since brokers keep batches as they were compressed'
)
_segment_bytes = _integer(4096, 2**31 - 1, "bytes")
_session_ms = _integer(1, 2**31 - 1, "milliseconds")


def _kinds(settings: type) -> dict[str, Kind]:
    hints = get_type_hints(settings, include_extras=True)
    return {name: hint.__metadata__[0] for name, hint in hints.items()}


@dataclass(frozen=True, slots=True)
class TopicConfig:
    """Configuration of a topic. Kafka's name of a key is the field's with dots."""

    min_insync_replicas: Annotated[int, _min_insync] = IN_SYNC_DEFAULT
    """Replicas that must hold a record before acks=all is answered; also the least the in-sync
    set may shrink to (rule 10)."""
    flush: Annotated[Flush, _flush] = "batch"
    """Ours: when a replica counts a batch, after its sync or once the system has it."""
    segment_bytes: Annotated[int, _segment_bytes] = 1024 * 1024 * 1024
    segment_ms: Annotated[int, _integer(1, 2**63 - 1, "milliseconds")] = 7 * 24 * 3600 * 1000
    index_interval_bytes: Annotated[int, _integer(0, 2**31 - 1, "bytes")] = 4096
    max_message_bytes: Annotated[int, _integer(61, FRAME_BYTES_MAX // 2, "bytes")] = BATCH_BYTES_MAX
    retention_ms: Annotated[int, _retention_ms] = RETENTION_MS
    """How old the newest record of a segment gets before the segment goes; -1 is for ever."""
    retention_bytes: Annotated[int, _retention_bytes] = -1
    """How much of a partition stays when its oldest segments go; -1 is all of it."""
    file_delete_delay_ms: Annotated[int, _integer(0, 2**53, "milliseconds")] = DELETE_DELAY_MS
    """How long the file of a deleted segment stays, for whoever still reads it."""
    cleanup_policy: Annotated[Literal["delete"], _cleanup_policy] = "delete"
    compression_type: Annotated[Literal["producer"], _compression_type] = "producer"
    message_timestamp_type: Annotated[
        Literal["CreateTime", "LogAppendTime"], _choice("CreateTime", "LogAppendTime")
    ] = "CreateTime"
    """Whose time records carry: their producer's, or that of the leader that appended them."""
    validate_records: Annotated[Literal["header", "full"], _choice("header", "full")] = "header"
    """Ours: whether leaders look into compressed batches, or believe their headers."""
    producer_id_expiration_ms: Annotated[int, _integer(1_000, 2**53, "milliseconds")] = (
        PRODUCER_EXPIRATION_MS
    )
    """How long a producer that appends nothing is remembered with its window; then a floor is."""

    def as_strings(self) -> dict[str, str]:
        """All keys under Kafka's names, as `parse_topic_config` takes them."""
        return {
            name.replace("_", "."): str(value) for name, value in dataclasses.asdict(self).items()
        }


TOPIC_CONFIGS: Mapping[str, Kind] = {
    name.replace("_", "."): kind for name, kind in _kinds(TopicConfig).items()
}
"""Every key of a topic by Kafka's name."""


@dataclass(frozen=True, slots=True)
class BrokerConfig:
    """One broker.toml. Relative paths were resolved against the directory of the file."""

    node_id: Annotated[int, _integer(0, 2**31 - 1)]
    data_dir: Annotated[Path, _path]
    cluster_id: Annotated[str | None, _text("32 hexadecimal digits", "[0-9a-f]{32}")] = None
    """Only join this cluster; None takes the one that the store and the directory belong to."""
    store: Annotated[Literal["sqlite"], _choice("sqlite")] = "sqlite"
    store_path: Annotated[Path, _path] = Path("metadata.db")
    store_wal: Annotated[bool, _yes_or_no] = False
    listen_zmq: Annotated[str, _address(optional=False)] = f"127.0.0.1:{ZMQ_PORT}"
    listen_kafka: Annotated[str | None, _address(optional=True)] = f"127.0.0.1:{KAFKA_PORT}"
    advertised_kafka: Annotated[str | None, _address(optional=False)] = None
    """Where Kafka's clients are sent; None sends them where the broker listens."""
    listen_metrics: Annotated[str | None, _address(optional=True)] = f"127.0.0.1:{METRICS_PORT}"
    allow_unauthenticated: Annotated[bool, _yes_or_no] = False
    allow_faults: Annotated[bool, _yes_or_no] = False
    auto_create_topics: Annotated[bool, _yes_or_no] = True
    """A Kafka client's question about a topic makes it, as long as the client allows that."""
    default_partitions: Annotated[int, _integer(1, PARTITIONS_PER_TOPIC_MAX)] = PARTITIONS_DEFAULT
    default_replicas: Annotated[int, _integer(1, REPLICAS_MAX)] = REPLICAS_DEFAULT
    min_insync_replicas: Annotated[int, _min_insync] = IN_SYNC_DEFAULT
    flush: Annotated[Flush, _flush] = "batch"
    segment_bytes: Annotated[int, _segment_bytes] = 1024 * 1024 * 1024
    retention_ms: Annotated[int, _retention_ms] = RETENTION_MS
    retention_bytes: Annotated[int, _retention_bytes] = -1
    retention_check_interval_ms: Annotated[int, _integer(1_000, 2**53, "milliseconds")] = (
        RETENTION_CHECK_MS
    )
    """In what time every partition is looked at once for what may go."""
    scrub_bytes_per_second: Annotated[int, _integer(0, 2**40, "bytes per second")] = (
        SCRUB_BYTES_PER_SECOND
    )
    """How fast stored batches are checked again in the background; 0 is never."""
    replica_lag_time_max_ms: Annotated[int, _integer(100, 3_600_000, "milliseconds")] = 1_000
    heartbeat_ms: Annotated[int, _integer(10, 10_000, "milliseconds")] = 100
    heartbeat_timeout_ms: Annotated[int, _integer(20, 60_000, "milliseconds")] = 300
    lease_ms: Annotated[int, _integer(LEASE_MS_MIN, LEASE_MS_MAX, "milliseconds")] = 2_000
    producer_bytes_max: Annotated[int, _integer(1024 * 1024, 2**53, "bytes")] = PRODUCER_BYTES_MAX
    """Memory of the producers remembered in all partitions that this broker leads."""
    group_min_session_timeout_ms: Annotated[int, _session_ms] = 6_000
    group_max_session_timeout_ms: Annotated[int, _session_ms] = 1_800_000
    group_initial_rebalance_delay_ms: Annotated[int, _integer(0, 600_000, "milliseconds")] = 3_000
    """How long the first member of an empty group waits for others."""
    group_max_size: Annotated[int, _integer(1, 100_000)] = 1_000
    offset_metadata_max_bytes: Annotated[int, _integer(0, 65_536, "bytes")] = 4_096
    offsets_retention_minutes: Annotated[int, _integer(1, 2**31 - 1, "minutes")] = 7 * 24 * 60
    offsets_topic_num_partitions: Annotated[int, _integer(1, 1_000)] = 8
    offsets_topic_replication_factor: Annotated[int, _integer(1, REPLICAS_MAX)] = 3
    sync_threads: Annotated[int, _integer(1, 64)] = 4

    @property
    def topic_defaults(self) -> TopicConfig:
        """Configuration of a topic that was created without any."""
        return TopicConfig(
            min_insync_replicas=self.min_insync_replicas,
            flush=self.flush,
            segment_bytes=self.segment_bytes,
            retention_ms=self.retention_ms,
            retention_bytes=self.retention_bytes,
        )

    @property
    def groups(self) -> GroupSettings:
        """What the coordinator of consumer groups is told."""
        return GroupSettings(
            min_session_timeout_ms=self.group_min_session_timeout_ms,
            max_session_timeout_ms=self.group_max_session_timeout_ms,
            initial_rebalance_delay_ms=self.group_initial_rebalance_delay_ms,
            max_size=self.group_max_size,
            offset_metadata_max_bytes=self.offset_metadata_max_bytes,
            offsets_retention_ms=60_000 * self.offsets_retention_minutes,
            topic_partitions=self.offsets_topic_num_partitions,
            topic_replicas=self.offsets_topic_replication_factor,
        )


BROKER_KEYS: Mapping[str, Kind] = _kinds(BrokerConfig)
"""Every key of broker.toml."""

_REQUIRED = tuple(
    field.name for field in dataclasses.fields(BrokerConfig) if field.default is MISSING
)


def load_broker_config(path: Path) -> BrokerConfig:
    """Read broker.toml. Raises ConfigError naming the file, the key and what it may be."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(str(path), "--config", f"a file to read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), "the file", f"TOML: {error}") from None
    return broker_config(table, str(path), path.parent)


def broker_config(table: Mapping[str, object], file: str, directory: Path) -> BrokerConfig:
    """Check a broker's keys; `file` is what errors name, `directory` where paths start."""
    values = {key: _read(file, key, value, BROKER_KEYS) for key, value in table.items()}
    for key in _REQUIRED:
        if key not in values:
            raise ConfigError(file, key, f"{BROKER_KEYS[key].allowed}; the key must be there")
    config = BrokerConfig(**values)
    _check_listeners(file, config)
    _check_times(file, config)
    return dataclasses.replace(
        config,
        data_dir=directory / config.data_dir,
        store_path=directory / config.store_path,
    )


def parse_topic_config(
    values: Mapping[str, str], defaults: TopicConfig | None = None, source: str = "topic"
) -> TopicConfig:
    """A topic's configuration from Kafka's keys and values; what is absent comes from `defaults`.

    Raises ConfigError naming `source`, the key and what it may be.
    """
    read = {
        key.replace(".", "_"): _read(source, key, _typed(value), TOPIC_CONFIGS)
        for key, value in values.items()
    }
    changed: TopicConfig = dataclasses.replace(defaults or TopicConfig(), **read)
    return changed


def _typed(value: str) -> int | str:
    """A topic's values are all text; a number as Kafka writes it is one."""
    return int(value) if re.fullmatch("-?[0-9]{1,19}", value) else value


def _read(file: str, key: str, value: object, kinds: Mapping[str, Kind]) -> Any:
    kind = kinds.get(key)
    if kind is None:
        raise ConfigError(file, key, _one_of(kinds))
    try:
        return kind.read(value)
    except ValueError:
        raise ConfigError(file, key, f"{kind.allowed}, not {value!r}") from None


def _one_of(keys: Iterable[str]) -> str:
    return "a known key: " + ", ".join(keys)


def _check_listeners(file: str, config: BrokerConfig) -> None:
    """Rule 15: what is not loopback needs the operator's word, as long as nobody must log in."""
    if config.allow_unauthenticated:
        return
    for key in ("listen_zmq", "listen_kafka", "listen_metrics"):
        address = getattr(config, key)
        if address is not None and not is_loopback(address):
            raise ConfigError(
                file,
                key,
                f"a loopback address, not {address!r}: whoever reaches it could read and write"
                " everything (allow_unauthenticated = true permits that)",
            )


def _check_times(file: str, config: BrokerConfig) -> None:
    if config.heartbeat_timeout_ms < 2 * config.heartbeat_ms:
        raise ConfigError(file, "heartbeat_timeout_ms", "at least twice heartbeat_ms")
    if config.group_max_session_timeout_ms < config.group_min_session_timeout_ms:
        allowed = "at least group_min_session_timeout_ms"
        raise ConfigError(file, "group_max_session_timeout_ms", allowed)
    if config.lease_ms <= config.heartbeat_timeout_ms:
        allowed = "more than heartbeat_timeout_ms: the lease is the backstop"
        raise ConfigError(file, "lease_ms", allowed)


def is_loopback(address: str) -> bool:
    """True if "host:port" is reached from this machine only. Names other than localhost are not."""
    host = address.rpartition(":")[0].removeprefix("[").removesuffix("]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
