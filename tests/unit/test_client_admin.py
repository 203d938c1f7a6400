"""The admin client against fake brokers: changes find the controller, lost answers do no harm."""

from collections.abc import AsyncIterator

import pytest

from cluster.client import Admin, BrokerUnavailable, PartitionInfo, RequestError
from cluster.wire import messages as m
from cluster.wire.schema import Message
from tests.unit.fake_broker import FakeCluster


@pytest.fixture
async def cluster() -> AsyncIterator[FakeCluster]:
    cluster = await FakeCluster(nodes=2).start()
    yield cluster
    await cluster.close()


async def test_a_topic_is_created_listed_described_and_deleted(cluster: FakeCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("t", partitions=2, replicas=2, config={"retention.ms": "5"})
        await admin.create_topic("a")
        assert await admin.list_topics() == ["a", "t"]
        topic = await admin.describe_topic("t")
        await admin.delete_topic("t")
        assert await admin.list_topics() == ["a"]
        with pytest.raises(RequestError, match="UNKNOWN_TOPIC_OR_PARTITION"):
            await admin.describe_topic("t")
    assert topic.name == "t"
    assert topic.topic_id == cluster.topic_ids["t"]
    assert topic.partitions == {
        0: PartitionInfo(1, 0, (1, 2), (1, 2)), 1: PartitionInfo(2, 0, (1, 2), (1, 2)),
    }  # fmt: skip
    assert topic.config == {"retention.ms": "5"}


async def test_a_broker_tells_its_own_settings_or_says_why_not(cluster: FakeCluster) -> None:
    cluster.configs["2"] = {"default.replication.factor": "3", "broker.rack": None}
    async with Admin(cluster.bootstrap) as admin:
        told = await admin.describe_broker(2)
        cluster.refuse = lambda _body: 42
        with pytest.raises(RequestError, match="INVALID_REQUEST"):
            await admin.describe_broker(2)
    assert told == {"default.replication.factor": "3", "broker.rack": None}


async def test_a_topic_that_exists_is_refused_unless_that_is_fine(cluster: FakeCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("t")
        with pytest.raises(RequestError, match="TOPIC_ALREADY_EXISTS"):
            await admin.create_topic("t")
        await admin.create_topic("t", if_not_exists=True)


async def test_a_change_whose_answer_was_lost_is_no_failure(cluster: FakeCluster) -> None:
    lost = {m.CreateTopicsRequest: 1, m.DeleteTopicsRequest: 1}

    def lose(body: Message) -> bool:
        left = lost.get(type(body), 0)
        lost[type(body)] = left - 1
        return left > 0

    cluster.lose_answer = lose
    async with Admin(cluster.bootstrap, patience_ms=150) as admin:
        await admin.create_topic("t")
        await admin.delete_topic("t")
        assert await admin.list_topics() == []


async def test_deleting_what_is_not_there_is_said_at_once(cluster: FakeCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        with pytest.raises(RequestError, match="UNKNOWN_TOPIC_OR_PARTITION"):
            await admin.delete_topic("nope")


async def test_a_change_follows_the_controller(cluster: FakeCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        cluster.controller = 2
        await admin.create_topic("t")
        cluster.controller = -1
        admin._session.patience_ms = 100
        with pytest.raises((BrokerUnavailable, RequestError), match=r"controller|CONTROLLER"):
            await admin.create_topic("u")
    assert list(cluster.topics) == ["t"]


async def test_a_refused_change_tells_the_reason(cluster: FakeCluster) -> None:
    cluster.refuse = lambda body: 40
    async with Admin(cluster.bootstrap) as admin:
        with pytest.raises(RequestError, match="INVALID_CONFIG") as caught:
            await admin.create_topic("t", config={"x": "y"})
    assert caught.value.code.number == 40


async def test_the_cluster_is_described(cluster: FakeCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        description = await admin.describe_cluster()
        cluster.stop(2)
        later = await admin.describe_cluster()
    assert (description.cluster_id, description.controller) == ("fake", 1)
    assert description.brokers == cluster.addresses
    assert list(later.brokers) == [1]


async def test_a_fault_goes_to_the_node_it_is_for(cluster: FakeCluster) -> None:
    async with Admin(cluster.bootstrap) as admin:
        assert await admin.fault(2, "drop-acks", percent=5, seed=9) == "drop-acks on 2"
        admin._session.patience_ms = 50
        with pytest.raises(BrokerUnavailable, match="broker 7 is not reachable"):
            await admin.fault(7, "kill")
    assert cluster.faults == [m.FaultRequest(kind="drop-acks", percent=5, seed=9, enabled=True)]


async def test_without_a_broker_there_is_one_clear_error() -> None:
    cluster = await FakeCluster().start()
    address = cluster.addresses[1]
    await cluster.close()
    with pytest.raises(BrokerUnavailable, match=f"no broker answers at {address}"):
        async with Admin(address, patience_ms=50):
            pass


async def test_a_broker_that_has_not_heard_of_a_topic_is_asked_again(
    cluster: FakeCluster,
) -> None:
    errors = [3, 3]
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("t", config={"flush": "os"})
        cluster.refuse = lambda body: errors.pop() if errors else 0
        assert (await admin.describe_topic("t")).config == {"flush": "os"}
    assert not errors


async def test_a_change_that_was_passed_on_and_not_heard_of_is_asked_for_again(
    cluster: FakeCluster,
) -> None:
    codes = [36, 7]
    cluster.refuse = lambda body: codes.pop() if codes else 0
    async with Admin(cluster.bootstrap) as admin:
        await admin.create_topic("t")
    assert codes == []
