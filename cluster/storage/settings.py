"""What an operator may set for one log.

Owns: `LogConfig` only. Defaults and key names live in `cluster.config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.limits import BATCH_BYTES_MAX, LOG_TAIL_BYTES


@dataclass(frozen=True, slots=True)
class LogConfig:
    """Settings of one log; the defaults are Apache Kafka's, but for `flush`.

    `flush`: "batch" counts a record once its sync returned, "os" once it was written.
    """

    segment_bytes: int = 1024 * 1024 * 1024
    segment_ms: int = 7 * 24 * 3600 * 1000
    index_interval_bytes: int = 4096
    max_message_bytes: int = BATCH_BYTES_MAX
    flush: Literal["batch", "os"] = "batch"
    tail_bytes: int = LOG_TAIL_BYTES
