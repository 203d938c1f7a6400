"""Every guarantee holds in every run of the fixed seeds, and a seed is one run."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.sim import test_scenarios
from tests.sim.run import run

FIXED = range(1, 105)
FOUND = tomllib.loads(Path(__file__).with_name("seeds.toml").read_text("utf-8"))["seed"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", sorted({*FIXED, *(entry["seed"] for entry in FOUND)}))
def test_every_guarantee_holds(seed: int) -> None:
    result = run(seed)
    again = f"python -m tests.sim --seed {seed} --trace"
    assert result.failure is None, f"{result.failure}\n{result.detail}\nagain: {again}"


def test_every_seed_that_found_something_has_its_scenario() -> None:
    for entry in FOUND:
        assert hasattr(test_scenarios, entry["scenario"]), entry


def test_a_seed_is_the_same_run_whatever_the_hash_seed() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-m", "tests.sim", "--seed", "13", "--digest"],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("0", "4242")
    }
    assert len(digests) == 1
