"""What an operator may set for one log.

Owns: `LogConfig` only. Defaults and key names live in `cluster.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.limits import BATCH_BYTES_MAX, DELETE_DELAY_MS, LOG_TAIL_BYTES, RETENTION_MS


@dataclass(slots=True)
class LogConfig:
    """Settings of one log; the defaults are Apache Kafka's, but for `flush`.

    A log and its segments share one object, which `take` changes while they run.
    `flush`: "batch" counts a record once its sync returned, "os" once it was written.
    `retention_ms` and `retention_bytes`: -1 keeps everything.
    """

    segment_bytes: int = 1024 * 1024 * 1024
    segment_ms: int = 7 * 24 * 3600 * 1000
    index_interval_bytes: int = 4096
    max_message_bytes: int = BATCH_BYTES_MAX
    flush: Literal["batch", "os"] = "batch"
    tail_bytes: int = LOG_TAIL_BYTES
    retention_ms: int = RETENTION_MS
    retention_bytes: int = -1
    delete_delay_ms: int = DELETE_DELAY_MS

    def take(self, other: LogConfig) -> None:
        """Have the values of another one from now on, but for what an open log must keep."""
        for name in self.__slots__:
            if name not in FIXED:
                setattr(self, name, getattr(other, name))


FIXED = frozenset({"flush", "tail_bytes"})
"""By `flush` the replicas' data is known (rule 9), and memory for the tail is there already."""
