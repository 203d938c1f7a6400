"""The network between brokers is cut under the load of each client: nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.interop import namespaces
from tests.interop.clients import Client
from tests.interop.load import Load
from tests.interop.namespaces import Namespaced
from tests.interop.running import until

PARTITIONS = 3
CUT_S = 1.0


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespaced]:
    if not namespaces.allowed():
        pytest.skip("network namespaces need root and ip(8)")
    with Namespaced(tmp_path_factory.mktemp("cluster")) as running:
        yield running


def test_leader_cut_off_from_the_others_loses_and_doubles_nothing(
    split: Namespaced, client: Client
) -> None:
    topic = split.topic(partitions=PARTITIONS)
    with Load(client, split, topic, PARTITIONS) as load:
        load.more()
        lost = split.leader(topic)
        split.cut(lost)
        try:
            until(lambda: split.leader(topic) not in (lost, -1), "another leader")
            time.sleep(CUT_S)  # the cut itself: who is cut off still serves clients
            load.more()
        finally:
            split.heal(lost)
        load.more()
    load.assert_exact()
    until(lambda: lost in split.in_sync(topic), "the return of who was cut off")
