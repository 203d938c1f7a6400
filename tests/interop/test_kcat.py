"""kcat, whose librdkafka is an older one, where it is installed."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.interop.clients import CODECS, WITHIN_S
from tests.interop.running import Brokers

KCAT = shutil.which("kcat")

pytestmark = pytest.mark.skipif(KCAT is None, reason="kcat is not installed")


def kcat(brokers: Brokers, *arguments: str, given: str = "") -> str:
    command = [str(KCAT), "-b", brokers.kafka, *arguments]
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, check=False, timeout=WITHIN_S
    )
    assert done.returncode == 0, done.stderr
    assert "not support" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("codec", CODECS)
def test_lines_are_stored_in_order_and_read_back(brokers: Brokers, codec: str) -> None:
    topic = brokers.topic()
    lines = [f"{number} {'x' * 50}" for number in range(500)]
    sending = ["-P", "-t", topic, "-z", codec, "-X", "enable.idempotence=true"]
    kcat(brokers, *sending, given="\n".join(lines))
    assert [one.value for one in brokers.stored(topic)[0]] == [line.encode() for line in lines]
    assert kcat(brokers, "-C", "-e", "-q", "-t", topic).splitlines() == lines


def test_metadata_and_offsets_are_told(brokers: Brokers) -> None:
    topic = brokers.topic(partitions=4)
    kcat(brokers, "-P", "-t", topic, "-p", "2", given="a\nb\nc")
    listed = kcat(brokers, "-L")
    assert "3 brokers" in listed
    assert f'topic "{topic}" with 4 partitions' in listed
    assert kcat(brokers, "-Q", "-t", f"{topic}:2:-1").split() == [topic, "[2]", "offset", "3"]


def test_group_reads_every_partition(brokers: Brokers) -> None:
    topic = brokers.topic(partitions=3)
    kcat(brokers, "-P", "-t", topic, "-p", "-1", given="\n".join(map(str, range(90))))
    beginning = ["-X", "auto.offset.reset=earliest"]
    read = kcat(brokers, "-G", "kcat", *beginning, "-e", "-q", topic)
    assert sorted(map(int, read.split())) == list(range(90))
