"""The table of error codes."""

import pytest

from cluster import errors
from cluster.errors import Attempt, ConfigError, Outcome, ProduceError


def test_every_code_is_a_constant_of_its_own_name() -> None:
    for number, entry in errors.BY_NUMBER.items():
        assert getattr(errors, entry.name) is entry
        assert errors.code(number) is entry


def test_a_code_nobody_listed_is_final_and_says_nothing_of_the_attempt() -> None:
    unknown = errors.code(4242)
    assert unknown.number == 4242
    assert not unknown.retriable
    assert unknown.attempt is Attempt.POSSIBLY_STORED


@pytest.mark.parametrize("number", [-1, 6, 7, 13, 20, 56])
def test_an_answer_that_may_follow_the_append_is_possibly_stored(number: int) -> None:
    assert errors.code(number).attempt is Attempt.POSSIBLY_STORED


@pytest.mark.parametrize("number", [2, 3, 10, 19, 45, 47, 87])
def test_an_answer_given_before_the_append_is_not_stored(number: int) -> None:
    assert errors.code(number).attempt is Attempt.NOT_STORED


def test_metadata_is_refreshed_only_for_codes_that_may_be_retried() -> None:
    assert all(entry.retriable for entry in errors.BY_NUMBER.values() if entry.refresh_metadata)


def test_a_produce_error_says_whether_the_record_is_stored() -> None:
    error = ProduceError(errors.REQUEST_TIMED_OUT, Outcome.POSSIBLY_STORED)
    assert "possibly stored" in str(error)
    assert error.code is errors.REQUEST_TIMED_OUT


def test_a_config_error_names_file_key_and_allowed_values() -> None:
    assert str(ConfigError("broker.toml", "flush", '"batch" or "os"')) == (
        'broker.toml: flush: expected "batch" or "os"'
    )
