"""Mutants change what is there, are taken back, and are caught; `make mutants` runs them all."""

import pytest

from tests.mutants.__main__ import caught  # which registers them
from tests.mutants.patching import MUTANTS, Patch


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_changes_what_is_there_and_is_taken_back(name: str) -> None:
    patch = Patch()
    try:
        MUTANTS[name].apply(patch)
        assert patch.changed
    finally:
        patch.undo()
    assert not patch.changed


@pytest.mark.parametrize("name", ["7g early", "8b unsynced", "10 minimum", "11b epoch"])
def test_the_coarsest_mutants_are_caught_by_the_first_seed(name: str) -> None:
    assert caught(MUTANTS[name], seeds=1) is not None
