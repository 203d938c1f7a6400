"""One cluster for the tests of a module, and each client in turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.asynchronous import AIOKAFKA
from tests.interop.clients import Client
from tests.interop.confluent import CONFLUENT
from tests.interop.pure import KAFKA_PYTHON
from tests.interop.running import Brokers

HERE = Path(__file__).parent

CLIENTS: tuple[Client, ...] = (CONFLUENT, KAFKA_PYTHON, AIOKAFKA)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What the clients leave unclosed or find deprecated is theirs to mend, not ours."""
    for item in items:
        if HERE in item.path.parents:
            for kind in ("DeprecationWarning", "ResourceWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))
            item.add_marker(
                pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
            )


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Brokers]:
    with Brokers(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(params=CLIENTS, ids=lambda client: client.name)
def client(request: pytest.FixtureRequest) -> Client:
    found: Client = request.param
    return found
