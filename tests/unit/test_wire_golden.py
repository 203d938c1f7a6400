"""Conversations of five real clients with Apache Kafka, byte for byte."""

import json
import struct
from pathlib import Path

import pytest

from cluster.wire.codec import decode_request, decode_response, encode_request, encode_response

CONVERSATIONS = sorted((Path(__file__).parent.parent / "golden" / "wire").glob("*.jsonl"))


@pytest.mark.parametrize("path", CONVERSATIONS, ids=lambda path: path.stem)
def test_what_real_clients_and_kafka_say_is_read_and_written_byte_for_byte(path: Path) -> None:
    versions: dict[tuple[int, int], tuple[int, int]] = {}
    read = 0
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        frame = bytes.fromhex(entry["hex"])
        if entry["dir"] == "request":
            key, version, correlation_id = struct.unpack_from(">hhi", frame)
            versions[entry["conn"], correlation_id] = (key, version)
            header, body = decode_request(frame)
            assert encode_request(key, version, correlation_id, header.client_id, body) == frame
        else:
            (correlation_id,) = struct.unpack_from(">i", frame)
            key, version = versions[entry["conn"], correlation_id]
            answered, body = decode_response(key, version, frame)
            assert answered == correlation_id
            assert encode_response(key, version, correlation_id, body) == frame
            read += 1
    assert read >= len(versions) - 2  # a client may leave before the last answers
