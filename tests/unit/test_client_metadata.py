"""What a client keeps of metadata answers that arrive out of order."""

from cluster.client.metadata import Metadata
from cluster.wire import messages as m

ID = bytes(15) + b"\1"


def answer(
    leader: int, epoch: int, topic_id: bytes = ID, error: int = 0, name: str = "t"
) -> m.MetadataResponse:
    partition = m.MetadataResponsePartition(
        partition_index=0, leader_id=leader, leader_epoch=epoch, replica_nodes=[1, 2], isr_nodes=[1]
    )
    topic = m.MetadataResponseTopic(
        name=name, topic_id=topic_id, error_code=error, partitions=[] if error else [partition]
    )
    broker = m.MetadataResponseBroker(node_id=1, host="h", port=5)
    return m.MetadataResponse(brokers=[broker], controller_id=1, topics=[topic])


def merged(*answers: m.MetadataResponse, everything: bool = False) -> Metadata:
    metadata = Metadata()
    for one in answers:
        metadata.apply(one, everything=everything)
    return metadata


def test_an_answer_names_brokers_leaders_and_replicas() -> None:
    metadata = merged(answer(leader=1, epoch=3))
    assert metadata.brokers == {1: "h:5"}
    assert (metadata.leader("t", 0), metadata.leader_epoch("t", 0)) == (1, 3)
    info = metadata.topics["t"].partitions[0]
    assert (info.replicas, info.in_sync) == ((1, 2), (1,))


def test_a_leader_of_an_older_epoch_never_replaces_a_newer_one() -> None:
    assert merged(answer(2, 4), answer(1, 3)).leader("t", 0) == 2
    assert merged(answer(2, 4), answer(1, 5)).leader("t", 0) == 1
    assert merged(answer(2, 4), answer(-1, 4)).leader("t", 0) == -1


def test_a_topic_created_anew_starts_its_epochs_anew() -> None:
    other = bytes(15) + b"\2"
    assert merged(answer(2, 4), answer(1, 0, other)).leader("t", 0) == 1


def test_what_is_unknown_has_no_leader() -> None:
    metadata = merged(answer(1, 0))
    assert (metadata.leader("t", 1), metadata.leader("x", 0)) == (-1, -1)
    assert (metadata.leader_epoch("t", 1), metadata.leader_epoch("x", 0)) == (-1, -1)


def test_a_topic_that_is_gone_is_forgotten_with_its_error_kept() -> None:
    metadata = merged(answer(1, 0), answer(1, 0, error=3))
    assert "t" not in metadata.topics
    assert metadata.errors == {"t": 3}
    metadata.apply(answer(1, 0), everything=False)
    assert metadata.errors == {}


def test_an_answer_for_everything_forgets_topics_it_does_not_name() -> None:
    metadata = merged(answer(1, 0), answer(1, 0, name="u"))
    assert set(metadata.topics) == {"t", "u"}
    metadata.apply(answer(1, 0, name="u"), everything=True)
    assert set(metadata.topics) == {"u"}
