"""Options and errors of the commands that no broker is needed for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cluster.cli.find import addresses, parse_place
from cluster.cli.producers import age
from cluster.cli.topic import capped, parse_config
from cluster.errors import ConfigError, OncelogError
from cluster.testing.layout import Member, write_members

KEY = "min.insync.replicas"


def oncelog(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cluster.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_addresses_come_from_the_directory_or_the_option_or_the_default(tmp_path: Path) -> None:
    write_members(tmp_path, [Member(1, 1, "127.0.0.1:7000", None, None)])
    assert addresses(tmp_path, None) == ["127.0.0.1:7000"]
    assert addresses(None, "localhost:1, [::1]:2") == ["localhost:1", "[::1]:2"]
    assert addresses(None, None) == ["127.0.0.1:5550"]


def test_a_directory_without_a_cluster_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OncelogError, match="no cluster runs in"):
        addresses(tmp_path, None)


@pytest.mark.parametrize("given", ["", "localhost", ":5550", "host:", "host:port", "a:1,,b:2"])
def test_an_address_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not HOST:PORT"):
        addresses(None, given or ",")


def test_directory_and_addresses_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="not both"):
        addresses(tmp_path, "localhost:1")


def test_settings_are_pairs() -> None:
    assert parse_config(["a=1", "b = x=y"]) == {"a": "1", "b": "x=y"}
    for wrong in ("a", "=1", "="):
        with pytest.raises(ConfigError, match="expected KEY=VALUE"):
            parse_config([wrong])


def test_few_brokers_cap_a_topic_and_say_so() -> None:
    assert capped(3, None, {}) == (3, {}, [])
    replicas, settings, told = capped(1, None, {"segment.bytes": "4096"})
    assert (replicas, settings) == (1, {"segment.bytes": "4096", KEY: "1"})
    assert [line.split(":")[0] for line in told] == ["replicas", KEY]
    assert capped(2, 3, {})[:2] == (2, {})
    assert capped(5, 1, {})[:2] == (1, {KEY: "1"})
    assert capped(3, 2, {KEY: "3"})[:2] == (2, {KEY: "2"})
    assert capped(3, 3, {KEY: "some"})[1] == {KEY: "some"}


def test_a_place_is_a_topic_or_one_of_its_partitions() -> None:
    assert parse_place("orders") == ("orders", None)
    assert parse_place("orders:7") == ("orders", 7)
    for wrong in (":7", "orders:", "orders:-1", "orders:x"):
        with pytest.raises(typer.BadParameter, match="TOPIC:PARTITION"):
            parse_place(wrong)


@pytest.mark.parametrize(
    ("idle_ms", "told"),
    [(-1, "?"), (0, "0 ms"), (999, "999 ms"), (61_000, "1 min"), (7_200_000, "2 h"),
     (200_000_000, "2 d")],
)  # fmt: skip
def test_an_age_is_told_in_its_largest_unit(idle_ms: int, told: str) -> None:
    assert age(idle_ms) == told


def test_help_names_every_command() -> None:
    told = oncelog("--help")
    assert told.returncode == 0
    for command in (
        "up",
        "down",
        "broker",
        "topic",
        "produce",
        "consume",
        "chaos",
        "demo",
        "producers",
    ):
        assert f"  {command} " in told.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["up"],
        ["up", "--dir", "x", "--brokers", "0"],
        ["chaos", "drop-acks", "--percent", "101"],
        ["topic", "list", "--bootstrap", "nowhere"],
        ["topic", "create", "t", "--config", "novalue"],
        ["topic", "alter", "t"],
        ["topic", "alter", "t", "--set", "novalue"],
        ["topic", "delete-records", "t:0"],
        ["topic", "delete-records", "t:0", "--all", "--before", "1"],
        ["topic", "delete-records", "t", "--before", "1"],
        ["topic", "delete-records", "t:x", "--all"],
        ["topic", "partitions", "t"],
        ["producers", "list"],
        ["producers", "show", "x"],
    ],
)
def test_wrong_use_ends_with_status_two(arguments: list[str]) -> None:
    told = oncelog(*arguments)
    assert told.returncode == 2
    assert told.stderr


@pytest.mark.parametrize("command", [["topic", "list"], ["consume", "t"], ["down"]])
def test_a_directory_without_a_cluster_is_one_clear_line(
    tmp_path: Path, command: list[str]
) -> None:
    told = oncelog(*command, "--dir", str(tmp_path))
    assert told.returncode == 1
    assert told.stderr.startswith(f"oncelog: no cluster runs in {tmp_path}")
    assert told.stderr.count("\n") == 1


def test_a_wrong_configuration_ends_with_status_two(tmp_path: Path) -> None:
    told = oncelog("up", "--dir", str(tmp_path), "--flush", "sometimes")
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert 'flush: expected "batch" or "os", not \'sometimes\'' in told.stderr


def test_what_the_system_refuses_is_one_clear_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    told = [
        oncelog("up", "--dir", str(file / "below"), "--detach"),
        oncelog("down", "--dir", str(file)),
    ]
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "cluster.cli", "--help"]
        told.append(
            subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        )
    for one in told:
        assert one.returncode == 1
        assert one.stderr.startswith("oncelog: ")
        assert one.stderr.count("\n") == 1


def test_a_cluster_directory_is_not_taken_for_a_log(tmp_path: Path) -> None:
    (tmp_path / "broker-1" / "data").mkdir(parents=True)
    (tmp_path / "broker-1" / "broker.log").touch()
    told = oncelog("log", "verify", str(tmp_path))
    assert told.returncode == 1
    assert "broker-*/data" in told.stderr


def test_the_version_and_short_help_are_told() -> None:
    assert oncelog("--version").stdout.startswith("oncelog")
    assert oncelog("topic", "-h").returncode == 0


def test_the_demo_refuses_a_ledger_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ledger.csv").write_text("id,amount\n")
    told = oncelog("demo", "--input", str(tmp_path / "ledger.csv"))
    assert told.returncode == 1
    assert told.stderr.startswith(f"oncelog: {tmp_path}/ledger.csv: the first line names no column")
