"""What one broker's machine is told at start, all of it plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cluster.core.defaults import BrokerSetting, CheckConfig, TopicDefaults
from cluster.core.group_state import GroupSettings
from cluster.core.logs import Logs, NewIds
from cluster.core.membership import Introduction
from cluster.core.records import Registration
from cluster.limits import PRODUCER_BYTES_MAX, RETENTION_CHECK_MS, SCRUB_BYTES_PER_SECOND


def accept_any(_config: Mapping[str, str]) -> None:
    """No setting of a topic is refused; for machines whose shell checks elsewhere."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """One broker's settings. `boot_id` names the machine's boot, `new_ids` what may be new."""

    node_id: int
    host: str
    port: int
    boot_id: str
    new_ids: NewIds
    cluster_id: str | None = None
    """Join no other cluster; None takes the one that the store and the directory belong to."""
    kafka: str | None = None
    metrics: str | None = None
    lag_ms: int = 1_000
    scrub_bytes_per_second: int = SCRUB_BYTES_PER_SECOND
    retention_check_ms: int = RETENTION_CHECK_MS
    allow_faults: bool = False
    topics: TopicDefaults = field(default_factory=TopicDefaults)
    check_config: CheckConfig = accept_any
    producer_bytes_max: int = PRODUCER_BYTES_MAX
    groups: GroupSettings = field(default_factory=GroupSettings)
    wall_offset_ms: int = 0
    """What the clock on the wall is ahead of the one that counts here."""
    chance: int = 0
    """A random number: what is new in this start is named after it."""
    broker: Sequence[BrokerSetting] = ()
    """This broker's own settings, for whoever asks."""

    def introduction(self, logs: Logs, epoch: int, producer_id: int) -> Introduction:
        """What the broker registers with, now that its logs are open."""
        registration = Registration(
            node_id=self.node_id,
            directory_id=logs.directory_id,
            durability_id=logs.durability_id,
            host=self.host,
            port=self.port,
            clean=logs.clean_start,
            highest_epoch=epoch,
            highest_producer_id=producer_id,
            kafka=self.kafka,
            metrics=self.metrics,
        )
        known = logs.cluster_id or self.cluster_id
        return Introduction(registration, self.new_ids.cluster, known)
