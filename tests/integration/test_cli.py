"""The commands against real broker processes, as a user types them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ENDS_WITHIN_S = 60
EXAMPLES = Path(__file__).parents[2] / "examples"


def oncelog(*arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cluster.cli", *arguments],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=ENDS_WITHIN_S,
    )


def told(*arguments: str, given: str | None = None) -> str:
    """What a command that must succeed prints to stdout."""
    ran = oncelog(*arguments, given=given)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def on_a_terminal(*arguments: str, given: bytes) -> tuple[int, list[str]]:
    """The status of a command, and what it tells somebody who watches its stderr."""
    watching, terminal = os.openpty()
    with os.fdopen(watching, "rb", buffering=0) as screen:
        command = [sys.executable, "-m", "cluster.cli", *arguments]
        try:
            ran = subprocess.run(
                command, input=given, stderr=terminal, check=False, timeout=ENDS_WITHIN_S
            )
        finally:
            os.write(terminal, b"\0")  # what was written can be read while the terminal is open
            text = b""
            while not text.endswith(b"\0"):
                text += screen.read(65_536)
            os.close(terminal)
    return ran.returncode, text[:-1].decode().splitlines()


def created(topic: str, partitions: int, at: list[str]) -> None:
    """Create a topic, once all brokers are there again after an earlier test broke one."""
    create = ("topic", "create", topic, "--partitions", str(partitions), "--if-not-exists", *at)
    eventually(lambda: oncelog(*create).returncode == 0)


def lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def members(directory: Path) -> dict[int, int]:
    """Node id to pid, as cluster.json has them."""
    found = json.loads((directory / "cluster.json").read_text())
    return {broker["id"]: broker["pid"] for broker in found["brokers"]}


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster of three brokers on free ports that may be broken."""
    path = tmp_path_factory.mktemp("cluster")
    up = told("up", "--dir", str(path), "--base-port", "0", "--allow-faults", "--detach")
    assert re.match(r"ready in \d+ ms", up)
    pids = members(path).values()
    yield path
    told("down", "--dir", str(path))
    assert not any(map(lives, pids))
    assert not (path / "cluster.json").exists()


@pytest.fixture
def at(directory: Path) -> list[str]:
    return ["--dir", str(directory)]


def test_a_topic_is_created_listed_described_and_deleted(at: list[str]) -> None:
    told("topic", "create", "orders", "--partitions", "2", "--config", "segment.bytes=65536", *at)
    assert told("topic", "list", *at).split() == ["orders"]
    described = told("topic", "describe", "orders", *at)
    assert len(re.findall(r"^ +\d+ +[123] +\d+ +\d,\d,\d +\d", described, re.MULTILINE)) == 2
    assert "segment.bytes=65536" in described
    as_json = json.loads(told("topic", "describe", "orders", "--json", *at))
    assert sorted(as_json["partitions"]["1"]["replicas"]) == [1, 2, 3]
    assert as_json["config"]["segment.bytes"] == "65536"
    again = oncelog("topic", "create", "orders", *at)
    assert again.returncode == 1
    assert "TOPIC_ALREADY_EXISTS" in again.stderr
    told("topic", "create", "orders", "--if-not-exists", *at)
    told("topic", "delete", "orders", *at)
    assert told("topic", "list", *at) == ""


def test_a_topic_is_changed_while_it_runs(at: list[str]) -> None:
    created("growing", 1, at)
    told("produce", "growing", *at, given="a\nb\nc\n")
    assert told("topic", "alter", "growing", "--set", "segment.bytes=65536", *at) == (
        "segment.bytes=65536\n"
    )
    assert "segment.bytes=65536" in told("topic", "describe", "growing", *at)
    told("topic", "alter", "growing", "--unset", "segment.bytes", *at)
    assert "segment.bytes=1073741824" in told("topic", "describe", "growing", *at)
    for wrong in ("no.such.key=1", "flush=os", "segment.bytes=many"):
        refused = oncelog("topic", "alter", "growing", "--set", wrong, *at)
        assert refused.returncode == 1
        assert wrong.partition("=")[0] in refused.stderr
    told("topic", "partitions", "growing", "--total", "3", *at)
    fewer = oncelog("topic", "partitions", "growing", "--total", "2", *at)
    assert "INVALID_PARTITIONS" in fewer.stderr
    assert told("topic", "delete-records", "growing:0", "--before", "2", *at) == (
        "growing:0 begins at offset 2\n"
    )
    assert told("consume", "growing", "--partition", "0", *at) == "c\n"
    told("topic", "delete-records", "growing", "--all", *at)
    assert told("consume", "growing", "--partition", "0", *at) == ""
    beyond = oncelog("topic", "delete-records", "growing:0", "--before", "9", *at)
    assert "OFFSET_OUT_OF_RANGE" in beyond.stderr
    assert "committed up to offset 3" in beyond.stderr


def test_producers_are_listed_and_shown(at: list[str]) -> None:
    created("watched", 2, at)
    for number in range(3):
        told("produce", "watched", *at, given=f"{number}\n" * 20)
    listed = [json.loads(line) for line in told(
        "producers", "list", "watched", "--json", *at
    ).splitlines()]  # fmt: skip
    ids = {entry["producer_id"] for entry in listed}
    assert len(ids) == 3
    assert {entry["partition"] for entry in listed} <= {0, 1}
    assert all(entry["window"] and entry["bytes"] > 0 for entry in listed)
    assert all(entry["idle_ms"] >= 0 for entry in listed)
    some = listed[0]["producer_id"]
    shown = told("producers", "show", str(some), *at)
    assert "epoch 0" in shown
    assert "sequences 0 to" in shown
    only = told("producers", "list", "watched", "--id", str(some), *at).splitlines()
    assert only[0].split()[:2] == ["partition", "producer"]
    assert all(line.split()[1] == str(some) for line in only[1:])
    cut = oncelog("producers", "list", "watched", "--limit", "1", *at)
    assert len(cut.stdout.splitlines()) == 2
    assert "see --limit" in cut.stderr
    unknown = oncelog("producers", "list", "no-such-topic", *at)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    nobody = oncelog("producers", "show", "987654321", *at)
    assert nobody.returncode == 1
    assert "no partition remembers" in nobody.stderr


def test_what_was_produced_is_consumed_in_order_and_then_it_stops(
    at: list[str], tmp_path: Path
) -> None:
    lines = [f"record {number}" for number in range(5_000)]
    (tmp_path / "in").write_text("\n".join(lines) + "\n")
    created("lines", 1, at)
    told("produce", "lines", "--file", str(tmp_path / "in"), *at)
    told("produce", "lines", *at, given="the last one without a newline")
    told("consume", "lines", "--file", str(tmp_path / "out"), *at)
    assert (tmp_path / "out").read_text().splitlines() == [
        *lines,
        "the last one without a newline",
    ]
    tail = told("consume", "lines", "--offset", "4999", "--show-offsets", *at)
    assert tail.splitlines() == [
        "0:4999\trecord 4999",
        "0:5000\tthe last one without a newline",
    ]


def test_keys_keep_their_records_on_one_partition(at: list[str]) -> None:
    created("keyed", 3, at)
    given = "".join(f"{number % 5}:{number}\n" for number in range(100))
    told("produce", "keyed", "--key-separator", ":", *at, given=given)
    everything = []
    for partition in range(3):
        values = [
            int(v) for v in told("consume", "keyed", "--partition", str(partition), *at).split()
        ]
        for key in {value % 5 for value in values}:
            mine = [value for value in values if value % 5 == key]
            assert mine == list(range(key, 100, 5))
        everything += values
    assert sorted(everything) == list(range(100))


def test_follow_goes_on_until_interrupted(at: list[str]) -> None:
    created("followed", 1, at)
    told("produce", "followed", *at, given="before\n")
    # A shell's background job ignores SIGINT, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    following = subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", "consume", "followed", "--follow", *at],
        stdout=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    assert following.stdout is not None
    with following.stdout as lines:
        assert lines.readline() == "before\n"
        told("produce", "followed", *at, given="after\n")
        assert lines.readline() == "after\n"
        following.send_signal(signal.SIGINT)
        assert following.wait(ENDS_WITHIN_S) == 130


def test_a_reader_that_has_had_enough_is_no_error(at: list[str]) -> None:
    created("cut", 1, at)
    told("produce", "cut", *at, given="a line of some length\n" * 20_000)
    consume = [sys.executable, "-m", "cluster.cli", "consume", "cut", *at]
    with subprocess.Popen(consume, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        reading.stdout.readline()
        reading.stdout.close()
        assert reading.stderr.read() == b""
        assert reading.wait(ENDS_WITHIN_S) == 0


def test_the_examples_run_as_they_stand(at: list[str], directory: Path, tmp_path: Path) -> None:
    eventually(lambda: len(members(directory)) == 3)
    brokers = json.loads((directory / "cluster.json").read_text())["brokers"]
    bootstrap = [broker["zmq"] for broker in brokers]
    ledger = tmp_path / "ledger.csv"
    lines = (EXAMPLES / "transfers.csv").read_text().splitlines(keepends=True)
    ledger.write_text("".join(lines[:500]))
    for command in (["produce_consume.py"], ["exactly_once_transfer.py", str(ledger)]):
        ran = subprocess.run(
            [sys.executable, str(EXAMPLES / command[0]), *command[1:], *bootstrap],
            capture_output=True,
            text=True,
            check=False,
            timeout=ENDS_WITHIN_S,
            env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        )
        assert ran.returncode == 0, ran.stderr
        assert "stored" in ran.stdout
    assert len(told("consume", "transfers", *at).splitlines()) == 499


def test_an_unknown_topic_is_one_clear_line(at: list[str]) -> None:
    for command in (["consume", "nothing"], ["topic", "describe", "nothing"]):
        ran = oncelog(*command, *at)
        assert ran.returncode == 1
        assert ran.stderr.startswith("oncelog: ")
        assert ran.stderr.count("\n") == 1


def test_records_that_every_broker_refuses_end_with_why_and_after_how_long(at: list[str]) -> None:
    create = ("topic", "create", "alone", "--replicas", "2", "--config", "min.insync.replicas=2")
    told(*create, "--partitions", "1", *at)
    described = told("topic", "describe", "alone", "--json", *at)
    (follower,) = (
        node for node in json.loads(described)["partitions"]["0"]["replicas"]
        if node != json.loads(described)["partitions"]["0"]["leader"]
    )  # fmt: skip
    told("chaos", "pause", "--broker", str(follower), *at)
    began = time.monotonic()
    status, lines = on_a_terminal("produce", "alone", "--timeout", "3", *at, given=b"one\ntwo\n")
    lasted = time.monotonic() - began
    told("chaos", "resume", "--broker", str(follower), *at)
    assert status == 1
    meanwhile, counted, why = lines
    assert meanwhile.startswith("2 not acknowledged yet")
    assert counted == "0 records acknowledged"
    assert why.startswith("oncelog: 2 records failed after 3 s (--timeout), no more were sent: ")
    assert lasted < 15


def test_a_record_that_failed_ends_the_command_though_its_input_goes_on(at: list[str]) -> None:
    created("endless", 1, at)
    command = [sys.executable, "-m", "cluster.cli", "produce", "endless", *at]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as producing:
        assert producing.stdin is not None
        assert producing.stderr is not None
        producing.stdin.write(b"x" * 2_000_000 + b"\n")
        producing.stdin.flush()
        assert producing.wait(ENDS_WITHIN_S) == 1
        assert b"MESSAGE_TOO_LARGE" in producing.stderr.read()


def test_an_offset_past_the_end_is_told(at: list[str]) -> None:
    created("short", 1, at)
    told("produce", "short", *at, given="one\n")
    ran = oncelog("consume", "short", "--offset", "9", *at)
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr == "short:0 ends at offset 1, before 9\n"


def test_a_group_that_does_not_exist_is_an_error_to_every_question(at: list[str]) -> None:
    for command in ("describe", "offsets"):
        ran = oncelog("group", command, "nobody", *at)
        assert ran.returncode == 1
        assert "GROUP_ID_NOT_FOUND" in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_without_a_broker_every_command_says_so_in_one_line() -> None:
    for command in (["topic", "list"], ["consume", "t"], ["produce", "t"]):
        ran = oncelog(*command, "--bootstrap", "127.0.0.1:9", given="x\n")
        assert ran.returncode == 1
        assert ran.stderr.startswith("oncelog: ")
        assert "127.0.0.1:9" in ran.stderr
        assert ran.stderr.count("\n") == 1


def test_a_group_is_told_to_programs_too(at: list[str]) -> None:
    created("grouped", 1, at)
    told("produce", "grouped", *at, given="a\nb\n")
    move = ("--topic", "grouped", "--to", "earliest")
    assert told("group", "offsets", "readers", *move, *at) == (
        "grouped-0  committed 0  end 2  lag 2\n"
    )
    offsets = json.loads(told("group", "offsets", "readers", "--json", *at))
    assert offsets == {"topic": "grouped", "partition": 0, "committed": 0, "end": 2, "lag": 2}
    assert json.loads(told("group", "list", "--json", *at))["group"] == "readers"
    assert json.loads(told("group", "describe", "readers", "--json", *at))["members"] == []
    assert told("group", "delete", "readers", *at) == "group readers deleted\n"


def test_a_second_cluster_is_told_which_port_is_taken_and_what_to_do(
    directory: Path, tmp_path: Path
) -> None:
    told("up", "--dir", str(tmp_path), "--brokers", "1", "--base-port", "0", "--detach")
    told("down", "--dir", str(tmp_path))
    taken = json.loads((directory / "cluster.json").read_text())["brokers"][0]
    config = tmp_path / "broker-1" / "broker.toml"
    free = config.read_text()
    for key, address in (
        ("listen_metrics", taken["metrics"].removeprefix("http://").removesuffix("/metrics")),
        ("listen_kafka", taken["kafka"]),
        ("listen_zmq", taken["zmq"]),
    ):
        config.write_text(re.sub(f'{key} = ".*"', f'{key} = "{address}"', free))
        ran = oncelog("up", "--dir", str(tmp_path), "--detach")
        assert ran.returncode == 1
        assert f"cannot listen on {address}" in ran.stderr
        assert "--base-port" in ran.stderr
        assert "Errno" not in ran.stderr


def test_the_cluster_is_not_started_twice(at: list[str]) -> None:
    for detach in ([], ["--detach"]):
        ran = oncelog("up", *at, *detach)
        assert ran.returncode == 1
        assert "runs already" in ran.stderr
        assert "oncelog down" in ran.stderr


def test_dropped_acks_duplicate_nothing(at: list[str]) -> None:
    created("unacked", 1, at)
    assert "of brokers 1, 2, 3" in told("chaos", "drop-acks", "--percent", "30", *at)
    for number in range(5):
        told("produce", "unacked", *at, given=f"{number}\n")
    told("chaos", "drop-acks", "--percent", "0", *at)
    assert told("consume", "unacked", *at).split() == ["0", "1", "2", "3", "4"]


def test_a_killed_broker_is_brought_back_with_everything_acked(
    at: list[str], directory: Path
) -> None:
    created("kept", 3, at)
    told("produce", "kept", *at, given="".join(f"{n}\n" for n in range(1_000)))
    before = members(directory)
    told("chaos", "kill", "--broker", "2", *at)
    eventually(lambda: members(directory).get(2, before[2]) != before[2])
    assert not lives(before[2])
    assert sorted(map(int, told("consume", "kept", *at).split())) == list(range(1_000))


def test_a_paused_broker_stops_nothing_and_goes_on(at: list[str], directory: Path) -> None:
    created("paused", 3, at)
    told("chaos", "pause", "--broker", "3", *at)
    told("produce", "paused", *at, given="one\ntwo\n")
    told("chaos", "resume", "--broker", "3", *at)
    assert sorted(told("consume", "paused", *at).split()) == ["one", "two"]
    assert lives(members(directory)[3])


def test_a_cluster_that_allows_no_faults_takes_none(tmp_path: Path) -> None:
    at = ["--dir", str(tmp_path)]
    told("up", *at, "--brokers", "1", "--base-port", "0", "--detach")
    try:
        for command in (["pause", "--broker", "1"], ["drop-acks", "--percent", "5"]):
            ran = oncelog("chaos", *command, *at)
            assert ran.returncode == 1
            assert "allow_faults = true" in ran.stderr
            assert "oncelog up --allow-faults" in ran.stderr
    finally:
        told("down", *at)


def test_one_broker_is_a_cluster_with_capped_replicas(tmp_path: Path) -> None:
    at = ["--dir", str(tmp_path)]
    up = told("up", *at, "--brokers", "1", "--base-port", "0", "--detach")
    try:
        assert "fewer than 3 brokers: topics get 1 replica, min in-sync 1" in up
        small = oncelog("topic", "create", "small", *at)
        assert small.returncode == 0
        assert "replicas: 1 instead of 3" in small.stderr
        told("produce", "small", *at, given="kept\n")
    finally:
        told("down", *at)
    refused = oncelog("up", *at, "--brokers", "3")
    assert refused.returncode == 2
    assert "--brokers: expected 1" in refused.stderr
    told("up", *at, "--detach")
    try:
        assert told("consume", "small", *at) == "kept\n"
    finally:
        told("down", *at)


def test_a_supervisor_that_is_killed_leaves_no_broker(tmp_path: Path) -> None:
    at = ["--dir", str(tmp_path)]
    told("up", *at, "--base-port", "0", "--brokers", "2", "--allow-faults", "--detach")
    pids = members(tmp_path)
    os.kill(pids[1], signal.SIGSTOP)
    os.kill(int((tmp_path / "supervisor.lock").read_text()), signal.SIGKILL)
    eventually(lambda: not lives(pids[2]))
    told("down", *at)  # a stopped process cannot hear that its supervisor is gone
    eventually(lambda: not lives(pids[1]))


def test_ctrl_c_ends_a_cluster_in_the_foreground(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", "up", "--dir", str(tmp_path), "--base-port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as up:
        assert up.stdout is not None
        assert up.stdout.readline().startswith("ready in ")
        pids = members(tmp_path).values()
        up.send_signal(signal.SIGINT)
        assert up.wait(ENDS_WITHIN_S) == 0
    assert not any(map(lives, pids))
