"""The fuzzer of the listener: a short run finds nothing, and what is broken it finds."""

from __future__ import annotations

import os
import random

import pytest

from tests import fuzz_listener
from tests.fuzz_listener import Finding, Served, fuzz

SMOKE_S = 6.0


def test_a_short_run_finds_nothing() -> None:
    seed = random.SystemRandom().randrange(2**32)
    counted = fuzz(float(os.environ.get("FUZZ_SECONDS", SMOKE_S)), seed)
    assert counted["requests"] > 100, f"seed {seed}"
    assert counted["records"] > 0, f"seed {seed}"


def test_a_record_that_nobody_could_produce_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz_listener, "sound_records", lambda _frame: 0)
    with pytest.raises(Finding, match="0 could be produced"):
        fuzz(30, 1)


def test_an_answer_that_is_lost_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Served._ended
    dropped: list[bytes] = []

    def lossy(world: Served, address: bytes) -> None:
        if len(dropped) < 3 and address in world.asked:
            dropped.append(address)
        else:
            ended(world, address)

    monkeypatch.setattr(Served, "_ended", lossy)
    with pytest.raises(Finding, match="never answered"):
        fuzz(30, 2)
