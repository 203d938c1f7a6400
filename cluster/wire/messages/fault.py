"""Fault (key 1000), an API of our own: break a broker on purpose, where that is allowed."""

from __future__ import annotations

from cluster.wire.schema import Int16, Int32, Int64, Message


class FaultRequest(Message):
    """`kind` is "drop-acks", "pause", "kill" or "status"; `seed` draws which acks are dropped."""

    kind: str = ""
    percent: Int32 = 0
    seed: Int64 = 0
    enabled: bool = False


class FaultResponse(Message):
    """Whether the fault was set, and which faults are on."""

    error_code: Int16 = 0
    error_message: str | None = None
    status: str = ""
