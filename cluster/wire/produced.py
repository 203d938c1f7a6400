"""The answer to a produce request of one partition, as nearly all are, in a single step.

Owns templates: what the codec writes before and after the fields of a partition that are never the
same, by version, topic and verdict. They are cut out of the codec's own encoding, so the layout is
stated once, in `cluster.wire.messages.produce`.
"""

from __future__ import annotations

import struct
from functools import lru_cache

from cluster.limits import TOPIC_NAME_LENGTH_MAX
from cluster.wire import codec
from cluster.wire.apis import PRODUCE
from cluster.wire.messages import PartitionProduceResponse, ProduceResponse, TopicProduceResponse

_CORRELATION_ID = struct.Struct(">i")
_FIELDS = struct.Struct(">ihqqq")  # index, error code, base offset, append time, log start offset
_SINCE = 5  # the version from which all of these stand side by side
_TEMPLATES_MAX = 1024  # topics, times verdicts, whose answers are cut out once


def encode_produced(
    version: int, correlation_id: int, topic: str, part: PartitionProduceResponse
) -> bytes:
    """The frame that answers for `part` alone, in which nothing but numbers and verdict is set."""
    if version < _SINCE or len(topic) > TOPIC_NAME_LENGTH_MAX:
        return _encode(version, correlation_id, topic, part)
    head, tail = _template(version, topic, part.verdict)
    return _CORRELATION_ID.pack(correlation_id) + head + _fields(part) + tail


@lru_cache(maxsize=_TEMPLATES_MAX)
def _template(version: int, topic: str, verdict: int) -> tuple[bytes, bytes]:
    # Bytes that no topic name holds: 0xFF is none of UTF-8's.
    marked = PartitionProduceResponse(
        index=-2,
        error_code=-3,
        base_offset=-4,
        log_append_time_ms=-5,
        log_start_offset=-6,
        verdict=verdict,
    )
    frame = _encode(version, 0, topic, marked)
    head, found, tail = frame[_CORRELATION_ID.size :].partition(_fields(marked))
    assert found, "the fields stand side by side"
    return head, tail


def _fields(part: PartitionProduceResponse) -> bytes:
    return _FIELDS.pack(
        part.index,
        part.error_code,
        part.base_offset,
        part.log_append_time_ms,
        part.log_start_offset,
    )


def _encode(version: int, correlation_id: int, topic: str, part: PartitionProduceResponse) -> bytes:
    topics = [TopicProduceResponse(name=topic, partition_responses=[part])]
    return codec.encode_response(
        PRODUCE, version, correlation_id, ProduceResponse(responses=topics)
    )
