"""Leaders die and acks get lost under the load of each client: nothing is lost, nothing twice."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.integration.running import scraped
from tests.interop.clients import Client
from tests.interop.load import Load
from tests.interop.running import Brokers, until

PARTITIONS = 3
PAUSED_S = 1.5


@pytest.fixture
def lossy(brokers: Brokers) -> Iterator[Brokers]:
    """One acknowledgement of ten is lost after the append."""
    brokers.drop_acks(10)
    yield brokers
    brokers.drop_acks(0)


def test_killed_leader_loses_and_doubles_nothing(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic(partitions=PARTITIONS)
    with Load(client, brokers, topic, PARTITIONS) as load:
        load.more()
        killed = brokers.leader(topic)
        brokers.kill(killed)
        load.more()
        brokers.restart(killed)
        load.more()
    load.assert_exact()


def test_paused_leader_loses_and_doubles_nothing(brokers: Brokers, client: Client) -> None:
    topic = brokers.topic(partitions=PARTITIONS)
    with Load(client, brokers, topic, PARTITIONS) as load:
        load.more()
        paused = brokers.leader(topic)
        brokers.pause(paused)
        try:
            until(lambda: brokers.leader(topic) != paused, "another leader")
            time.sleep(PAUSED_S)  # the pause itself: its old leader wakes up into another epoch
        finally:
            brokers.resume(paused)
        load.more()
    load.assert_exact()
    until(lambda: paused in brokers.in_sync(topic), "the paused broker's return")


def test_lost_acks_lose_and_double_nothing(lossy: Brokers, client: Client) -> None:
    topic = lossy.topic(partitions=PARTITIONS)
    dropped = lossy.run(scraped(lossy.cluster, "oncelog_acks_dropped_total"))
    rejected = lossy.run(scraped(lossy.cluster, "oncelog_duplicates_rejected_total"))
    with Load(client, lossy, topic, PARTITIONS) as load:
        load.more(400)
    load.assert_exact()
    assert lossy.run(scraped(lossy.cluster, "oncelog_acks_dropped_total")) > dropped
    assert lossy.run(scraped(lossy.cluster, "oncelog_duplicates_rejected_total")) > rejected
