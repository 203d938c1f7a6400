"""The quick way to an answer gives the codec's bytes."""

from __future__ import annotations

import pytest

from cluster.wire.apis import APIS, PRODUCE
from cluster.wire.codec import decode_response, encode_response
from cluster.wire.messages import PartitionProduceResponse, ProduceResponse, TopicProduceResponse
from cluster.wire.produced import encode_produced

VERSIONS = range(APIS[PRODUCE].version_min, APIS[PRODUCE].version_max + 1)
TOPICS = ("t", "a-topic.with_a_name" * 8, "longer than any topic" * 20, "\u00ff")
PARTS = (
    PartitionProduceResponse(index=3, base_offset=2**40, log_start_offset=17, verdict=1),
    PartitionProduceResponse(index=2**31 - 1, error_code=45, base_offset=-1),
    PartitionProduceResponse(base_offset=9, log_append_time_ms=1_700_000_000_000, verdict=2),
    PartitionProduceResponse(index=-2, error_code=-3, base_offset=-4, log_append_time_ms=-5),
)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("part", PARTS)
def test_answer_for_one_partition_is_what_the_codec_writes(
    version: int, part: PartitionProduceResponse
) -> None:
    for topic in TOPICS:
        answer = TopicProduceResponse(name=topic, partition_responses=[part])
        body = ProduceResponse(responses=[answer])
        frame = encode_produced(version, -7, topic, part)
        assert frame == encode_response(PRODUCE, version, -7, body)
        assert decode_response(PRODUCE, version, frame)[0] == -7
