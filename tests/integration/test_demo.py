"""The demo, short: exact through its faults, and nothing left behind however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUNS_WITHIN_S = 110


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The demo with its temporary directory below `tmp_path`."""
    return subprocess.Popen(
        [sys.executable, "-m", "cluster.cli", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )


def left_behind(tmp_path: Path) -> list[str]:
    """Processes that inherited the demo's temporary directory, and what lies in it."""
    found = [path.name for path in tmp_path.iterdir()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inherited = (process / "environ").read_bytes().split(b"\0")
            if f"TMPDIR={tmp_path}".encode() in inherited:
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def row(table: str, name: str) -> str:
    match = re.search(rf"[│|] {name} +[│|] +(.+?) [│|]", table)
    assert match, f"no row {name} in\n{table}"
    return match[1]


@pytest.mark.timeout(RUNS_WITHIN_S + 10)
def test_a_short_demo_is_exact_and_shows_what_duplicates_would_have_cost(tmp_path: Path) -> None:
    with start(tmp_path, "--records", "150000") as demo:
        out, err = demo.communicate(timeout=RUNS_WITHIN_S)
    assert demo.returncode == 0, out + err
    safe, _, unsafe = out.partition("idempotence off")
    for name in ("sent", "acked", "stored"):
        assert row(safe, name) == "150,000"
    for name in ("lost", "duplicated", "reordered"):
        assert row(safe, name) == "0"
    assert row(safe, "balances off by") == "0.00"
    assert int(row(safe, "duplicates rejected").split()[0].replace(",", "")) > 0
    for event in ("dropping 5 %", "paused broker", "resumed broker", "killed broker", "bringing"):
        assert event in safe
    assert row(unsafe, "sent") == "15,000"
    assert left_behind(tmp_path) == []


@pytest.mark.timeout(RUNS_WITHIN_S + 10)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with start(tmp_path, "--records", "2000000") as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "paused broker" in line:
                break
        demo.send_signal(number)
        _, err = demo.communicate(timeout=RUNS_WITHIN_S)
    assert demo.returncode == 128 + number, err
    assert left_behind(tmp_path) == []


def test_own_ledgers_are_taken(tmp_path: Path) -> None:
    ledger = tmp_path / "mine.csv"
    ledger.write_text("id,account,counter_account,amount_cents\nü/1,a,b,100\n2,b,a,-50\n")
    (tmp_path / "tmp").mkdir()
    with start(tmp_path / "tmp", "--input", str(ledger), "--records", "3001") as demo:
        out, err = demo.communicate(timeout=RUNS_WITHIN_S)
    assert demo.returncode == 0, out + err
    assert row(out, "stored") == "3,001"
