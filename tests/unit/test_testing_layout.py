"""The directory of a local cluster: made once, found again, never run twice."""

from __future__ import annotations

import json
import os
import signal
import tomllib
from pathlib import Path

import pytest

from cluster.config import load_broker_config
from cluster.errors import ConfigError, OncelogError
from cluster.testing import layout
from cluster.testing.layout import AlreadyRunning, Member, Settings, prepare

MEMBER = Member(1, 4711, "127.0.0.1:5550", "127.0.0.1:9092", "http://127.0.0.1:9650/metrics")


def toml(home: Path) -> dict[str, object]:
    return tomllib.loads((home / "broker.toml").read_text(encoding="utf-8"))


def test_a_new_directory_gets_three_brokers_on_the_usual_ports(tmp_path: Path) -> None:
    homes = prepare(tmp_path / "new", Settings())
    configs = [load_broker_config(home / "broker.toml") for home in homes]
    assert [config.node_id for config in configs] == [1, 2, 3]
    assert [config.listen_zmq for config in configs] == [f"127.0.0.1:555{n}" for n in range(3)]
    assert [config.listen_kafka for config in configs] == [f"127.0.0.1:909{n}" for n in (2, 3, 4)]
    assert [config.listen_metrics for config in configs] == [f"127.0.0.1:965{n}" for n in range(3)]
    assert {config.store_path.resolve() for config in configs} == {tmp_path / "new" / "metadata.db"}
    assert not any(config.allow_faults for config in configs)


@pytest.mark.parametrize(("brokers", "replicas", "in_sync"), [(1, 1, 1), (2, 2, 2), (4, 3, 2)])
def test_few_brokers_cap_replicas_and_in_sync(
    tmp_path: Path, brokers: int, replicas: int, in_sync: int
) -> None:
    homes = prepare(tmp_path, Settings(brokers=brokers))
    config = load_broker_config(homes[0] / "broker.toml")
    assert len(homes) == brokers
    assert (config.default_replicas, config.min_insync_replicas) == (replicas, in_sync)


def test_a_base_port_moves_all_ports_and_zero_takes_free_ones(tmp_path: Path) -> None:
    (home,) = prepare(tmp_path / "a", Settings(brokers=1, base_port=7000))
    assert toml(home)["listen_zmq"] == "127.0.0.1:7000"
    assert toml(home)["listen_kafka"] == "127.0.0.1:7100"
    assert toml(home)["listen_metrics"] == "127.0.0.1:7200"
    (home,) = prepare(tmp_path / "b", Settings(brokers=1, base_port=0))
    keys = ("listen_zmq", "listen_kafka", "listen_metrics")
    assert {toml(home)[key] for key in keys} == {"127.0.0.1:0"}


def test_brokers_made_before_there_was_a_kafka_listener_get_a_port_each(tmp_path: Path) -> None:
    for home in prepare(tmp_path, Settings(brokers=2)):
        lines = (home / "broker.toml").read_text().splitlines()
        (home / "broker.toml").write_text(
            "\n".join(line for line in lines if not line.startswith("listen_kafka"))
        )
    homes = prepare(tmp_path, Settings())
    assert [toml(home)["listen_kafka"] for home in homes] == ["127.0.0.1:9092", "127.0.0.1:9093"]


def test_another_number_of_brokers_is_refused(tmp_path: Path) -> None:
    prepare(tmp_path, Settings(brokers=2))
    with pytest.raises(ConfigError, match="--brokers: expected 2, the number"):
        prepare(tmp_path, Settings(brokers=3))
    assert len(prepare(tmp_path, Settings(brokers=2))) == len(prepare(tmp_path, Settings())) == 2


def test_more_than_nine_brokers_keep_their_order(tmp_path: Path) -> None:
    prepare(tmp_path, Settings(brokers=11))
    homes = prepare(tmp_path, Settings())
    assert [home.name for home in homes] == [f"broker-{n}" for n in range(1, 12)]


def test_only_what_is_asked_for_changes_in_an_existing_directory(tmp_path: Path) -> None:
    (home,) = prepare(tmp_path, Settings(brokers=1, base_port=7000))
    path = home / "broker.toml"
    text = "# mine\n" + path.read_text() + "heartbeat_ms = 50\n"
    path.write_text(text)
    prepare(tmp_path, Settings())
    assert path.read_text() == text
    prepare(tmp_path, Settings(allow_faults=True, flush="os"))
    changed = toml(home)
    assert (changed["allow_faults"], changed["flush"]) == (True, "os")
    assert (changed["listen_zmq"], changed["heartbeat_ms"]) == ("127.0.0.1:7000", 50)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("flsuh = 'os'", "broker.toml: flsuh: expected a known key"),
        ("flush = 'never'", 'broker.toml: flush: expected "batch" or "os"'),
        ("flush =", "broker.toml: the file: expected TOML"),
    ],
)
def test_a_file_that_no_broker_could_use_is_named(tmp_path: Path, line: str, said: str) -> None:
    (home,) = prepare(tmp_path, Settings(brokers=1))
    path = home / "broker.toml"
    kept = [old for old in path.read_text().splitlines() if not old.startswith("flush")]
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(ConfigError) as caught:
        prepare(tmp_path, Settings())
    assert said in str(caught.value)


def test_a_wrong_flush_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='expected "batch" or "os"'):
        prepare(tmp_path, Settings(flush="sometimes"))


def test_members_are_read_as_they_were_written(tmp_path: Path) -> None:
    layout.write_members(tmp_path, [MEMBER])
    assert json.loads((tmp_path / "cluster.json").read_text()) == {
        "brokers": [
            {
                "id": 1,
                "pid": 4711,
                "zmq": "127.0.0.1:5550",
                "kafka": "127.0.0.1:9092",
                "metrics": "http://127.0.0.1:9650/metrics",
            }
        ]
    }
    assert layout.read_members(tmp_path) == [MEMBER]


def test_without_a_cluster_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(OncelogError, match=f"oncelog up --dir {tmp_path}"):
        layout.read_members(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"brokers": [{"id": 1}]}', '{"brokers": 3}'])
def test_a_damaged_file_is_one_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text)
    with pytest.raises(OncelogError, match="cannot be read"):
        layout.read_members(tmp_path)


def test_only_one_process_runs_a_directory(tmp_path: Path) -> None:
    assert layout.supervisor(tmp_path) is None
    with layout.hold(tmp_path):
        assert layout.supervisor(tmp_path) == os.getpid()
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
            layout.hold(tmp_path)
    assert layout.supervisor(tmp_path) is None
    layout.hold(tmp_path).close()


def test_a_pid_that_is_no_broker_of_the_directory_gets_no_signal(tmp_path: Path) -> None:
    mine = Member(1, os.getpid(), "127.0.0.1:1", None, None)
    layout.write_members(tmp_path, [mine])
    assert not layout.send(tmp_path, mine, signal.SIGKILL)
    assert layout.end_leftovers(tmp_path) == 0
    assert not (tmp_path / "cluster.json").exists()


def test_faults_are_allowed_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    prepare(tmp_path, Settings(brokers=1))
    assert not layout.faults_allowed(tmp_path, 1)
    prepare(tmp_path, Settings(allow_faults=True))
    assert layout.faults_allowed(tmp_path, 1)
    assert not layout.faults_allowed(tmp_path, 2)
