"""What a broker refuses: directories, configurations, frames and batches, and a full disk."""

import asyncio
import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from _fastseq.batch import encode_batch
from _fastseq.crc32c import crc32c
from cluster import errors
from cluster.client import Admin, Producer
from cluster.errors import RequestError
from cluster.testing.local import LocalCluster
from cluster.wire import apis, codec, messages
from tests.integration.running import (
    TOPIC,
    WITHIN_S,
    Load,
    assert_exact,
    cluster,
    create,
    leader_of,
    scraped,
    until,
    until_scraped,
)


def broker(config: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run a broker that must end by itself."""
    config.write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "cluster.broker", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_S, check=False)


def settings(node_id: int, data: Path, store: Path) -> list[str]:
    return [
        f"node_id = {node_id}",
        f"data_dir = {json.dumps(str(data))}",
        f"store_path = {json.dumps(str(store))}",
        'listen_zmq = "127.0.0.1:0"',
        'listen_kafka = "none"',  # whoever runs the tests may have a cluster at its default
        'listen_metrics = "none"',
    ]


async def test_directory_in_use_is_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path / "a", brokers=1):
        lines = settings(1, tmp_path / "a" / "broker-1" / "data", tmp_path / "other.db")
        ended = await asyncio.to_thread(broker, tmp_path / "other.toml", *lines)
    assert ended.returncode == 1
    assert "is in use by another process" in ended.stderr
    assert ended.stdout == ""


async def test_directory_of_another_node_or_cluster_is_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path / "a", brokers=1):
        pass
    async with cluster(tmp_path / "b", brokers=1):
        pass
    data, config = tmp_path / "a" / "broker-1" / "data", tmp_path / "other.toml"
    other_node = broker(config, *settings(2, data, tmp_path / "a" / "metadata.db"))
    assert other_node.returncode == 1
    assert "belongs to node 1" in other_node.stderr
    other_cluster = broker(config, *settings(1, data, tmp_path / "b" / "metadata.db"))
    assert other_cluster.returncode == 1
    assert "belongs to cluster" in other_cluster.stderr
    wanted = broker(
        config, *settings(1, data, tmp_path / "a" / "metadata.db"), f'cluster_id = "{"0" * 32}"'
    )
    assert wanted.returncode == 1
    assert "belongs to cluster" in wanted.stderr


def test_wrong_setting_names_file_key_and_what_is_allowed(tmp_path: Path) -> None:
    config = tmp_path / "broker.toml"
    ended = broker(config, *settings(1, tmp_path / "d", tmp_path / "m.db"), 'flush = "never"')
    assert ended.returncode == 2
    assert ended.stderr.strip() == f'{config}: flush: expected "batch" or "os", not \'never\''


async def test_address_in_use_is_one_clear_line(tmp_path: Path) -> None:
    async with cluster(tmp_path / "a", brokers=1) as running:
        lines = settings(7, tmp_path / "data", tmp_path / "other.db")
        lines[3] = f'listen_zmq = "{running.bootstrap[0]}"'
        ended = await asyncio.to_thread(broker, tmp_path / "other.toml", *lines)
    assert ended.returncode == 1
    assert running.brokers[1].status == 0
    assert "Traceback" not in ended.stderr
    assert "cannot listen on" in ended.stderr.splitlines()[-1]


async def test_second_process_of_a_node_ends_the_first(tmp_path: Path) -> None:
    async with cluster(tmp_path / "a", brokers=1) as running:
        lines = settings(1, tmp_path / "data", tmp_path / "a" / "metadata.db")
        config = tmp_path / "other.toml"
        config.write_text("\n".join(lines))
        usurper = subprocess.Popen(  # noqa: ASYNC220 - it only forks
            [sys.executable, "-m", "cluster.broker", "--config", str(config)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            await until(running.brokers[1].exited.is_set)
            assert running.brokers[1].status == 1
            assert "another broker registered as node 1" in running.brokers[1].reason()
        finally:
            usurper.kill()
            usurper.communicate()


async def test_fault_is_refused_unless_allowed(tmp_path: Path) -> None:
    async with cluster(tmp_path, brokers=1) as running:
        await running.brokers[1].stop(within_s=10)
        config = tmp_path / "broker-1" / "broker.toml"
        config.write_text(config.read_text().replace("allow_faults = true", ""))
        await running.restart(1)
        async with Admin(running.bootstrap) as admin:
            with pytest.raises(RequestError, match="allow_faults"):
                await admin.fault(1, "kill")
        assert running.brokers[1].running


# -- a full disk


def limit_files(running: LocalCluster, size: int) -> None:
    """No file of the brokers may grow past `size` bytes: writing fails as on a full disk."""
    for process in running.brokers.values():
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_full_disk_refuses_loses_nothing_and_resumes(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        await create(running, partitions=1)
        async with Load(running, partitions=1, size=2_000) as load:
            await load.more(100)
            limit_files(running, 600_000)
            await until_scraped(running, "oncelog_storage_errors_total", 1)
            acked = load.acked
            limit_files(running, resource.RLIM_INFINITY)
            await load.more(300)
            assert load.acked > acked
        await assert_exact(running, load)


async def test_disk_that_takes_nothing_at_all_ends_no_broker(tmp_path: Path) -> None:
    """The store, its leases, checkpoints and epochs cannot be written either, for a while."""
    async with cluster(tmp_path) as running:
        await create(running)
        pids = [process.pid for process in running.brokers.values()]
        async with Load(running) as load:
            await load.more(300)
            limit_files(running, 0)
            await until_scraped(running, "oncelog_storage_errors_total", 5)
            await asyncio.sleep(2.5)  # longer than any lease
            limit_files(running, resource.RLIM_INFINITY)
            await load.more(300)
        await assert_exact(running, load)
        assert pids == [process.pid for process in running.brokers.values()]


# -- frames and batches


class Wire:
    """A client that sends what it likes."""

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.set(zmq.LINGER, 0)
        self.socket.set(zmq.RCVTIMEO, WITHIN_S * 1000)
        self.socket.connect(f"tcp://{address}")
        self._number = 0

    def close(self) -> None:
        self.socket.close()
        self._context.term()

    def produce(self, batch: bytes) -> int:
        """The error code that one batch gets."""
        self._number += 1
        part = messages.PartitionProduceData(index=0, records=batch)
        body = messages.ProduceRequest(
            acks=-1, timeout_ms=10_000,
            topic_data=[messages.TopicProduceData(name=TOPIC, partition_data=[part])],
        )  # fmt: skip
        self.socket.send(codec.encode_request(apis.PRODUCE, 11, self._number, "t", body))
        number, answer = codec.decode_response(apis.PRODUCE, 11, self.socket.recv())
        assert number == self._number
        assert isinstance(answer, messages.ProduceResponse)
        return answer.responses[0].partition_responses[0].error_code


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    made: list[Wire] = []
    yield made
    for wire in made:
        wire.close()


def garbage() -> list[list[bytes]]:
    """Messages that are no request; each costs a counter and no answer."""
    metadata = codec.encode_request(apis.METADATA, 12, 1, "t", messages.MetadataRequest())
    return [
        [b""],
        [b"\x00"],
        [os.urandom(100)],
        [struct.pack(">hhi", 999, 0, 1) + b"\xff\xff"],
        [struct.pack(">hhi", apis.PRODUCE, 99, 1) + b"\xff\xff"],
        [metadata[:-2]],
        [metadata + b"more"],
        [b"", metadata],
        [b"a", b"b", b"c"],
    ]


async def test_garbage_is_counted_and_the_broker_goes_on(tmp_path: Path, wires: list[Wire]) -> None:
    async with cluster(tmp_path, brokers=1) as running:
        await create(running, replicas=1)
        pid = running.brokers[1].pid
        wires.append(Wire(running.bootstrap[0]))
        for frames in garbage():
            wires[0].socket.send_multipart(frames)
        pretender = Wire(running.bootstrap[0])
        wires.append(pretender)
        pretender.socket.disconnect(f"tcp://{running.bootstrap[0]}")
        pretender.socket.set(zmq.ROUTING_ID, b"\x01pretends to be a broker")
        pretender.socket.connect(f"tcp://{running.bootstrap[0]}")
        pretender.socket.send_multipart([os.urandom(40), b"data"])
        pretender.socket.send_multipart([b"more", b"than", b"two"])
        await until_scraped(running, "oncelog_requests_rejected_total", len(garbage()) + 1)
        await until_scraped(running, "oncelog_peer_messages_dropped_total", 1)
        async with Producer(running.bootstrap) as producer:
            assert (await producer.send(TOPIC, b"still here", partition=0)).offset == 0
        assert running.brokers[1].pid == pid


def batch(*, count: int = 2, producer_id: int = -1, sequence: int = -1) -> bytearray:
    records = [(None, b"value", 1_000, ())] * count
    epoch = 0 if producer_id >= 0 else -1
    return bytearray(
        encode_batch(records, producer_id=producer_id, producer_epoch=epoch, base_sequence=sequence)
    )


def changed(position: int, layout: str, value: int) -> bytes:
    """A batch with one field replaced, and its checksum made right again."""
    data = batch()
    struct.pack_into(layout, data, position, value)
    struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return bytes(data)


def bad_batches() -> list[tuple[str, bytes, errors.Code]]:
    flipped = batch()
    flipped[-1] ^= 1
    whole = bytes(batch())
    return [
        ("a flipped bit", bytes(flipped), errors.CORRUPT_MESSAGE),
        ("no batch", b"", errors.INVALID_RECORD),
        ("a batch cut short", whole[:-1], errors.INVALID_RECORD),
        ("two batches", whole * 2, errors.INVALID_RECORD),
        ("a wrong record count", changed(57, ">i", 3), errors.INVALID_RECORD),
        ("offset deltas 0 and 7", changed(73 + 3, ">B", 14), errors.INVALID_RECORD),
        ("a control batch", changed(21, ">h", 0x20), errors.INVALID_RECORD),
        ("a negative sequence", bytes(batch(producer_id=0, sequence=-1)), errors.INVALID_RECORD),
        ("too large", encode_batch([(None, bytes(1_100_000), 0, ())]), errors.MESSAGE_TOO_LARGE),
    ]


async def test_bad_batches_get_their_error_and_nothing_is_appended(
    tmp_path: Path, wires: list[Wire]
) -> None:
    async with cluster(tmp_path) as running:
        await create(running, partitions=1)
        leader = await leader_of(running)
        member = next(member for member in running.members() if member.id == leader)
        wire = Wire(member.zmq)
        wires.append(wire)

        def check() -> None:
            for what, data, code in bad_batches():
                assert (what, wire.produce(data)) == (what, code.number)
            unknown = bytes(batch(producer_id=10**9, sequence=0))
            answers = [wire.produce(unknown)]
            while answers[-1] == errors.NOT_ENOUGH_REPLICAS.number:  # the bound is read anew
                answers.append(wire.produce(unknown))
            assert len(answers) > 1
            assert answers[-1] == errors.INVALID_RECORD.number
            assert wire.produce(bytes(batch())) == errors.NONE.number

        await asyncio.to_thread(check)
        assert await scraped(running, "oncelog_records_appended_total") == 2
        assert await scraped(running, "oncelog_invalid_batches_total") >= len(bad_batches())
