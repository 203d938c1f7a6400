"""What a broker shows of itself: one table of metrics, read from the machine when it is asked for.

Owns: the names, kinds and meanings of the metrics of a broker, and the list of all there are.
Nothing is counted here and nothing costs anything between scrapes: the counters are integers of the
structures that do the work.

Invariants: every name starts with oncelog_; partitions with series of their own are bounded, the
rest goes into one series per metric with topic "other"; a name is in METRICS or does not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from _fastseq.frames import Exchange
from cluster.broker.observed import BrokerMetric, Observed, PartitionMetric
from cluster.broker.partition_metrics import PARTITION_METRICS
from cluster.core.node import SyncTimes
from cluster.core.partition import Partition
from cluster.limits import METRIC_PARTITIONS_MAX
from cluster.net.kafka import KafkaListener
from cluster.wire.apis import APIS

OTHER = "other"


def _api_name(key: int) -> str:
    api = APIS.get(key)
    return str(key) if api is None else api.request.__name__.removesuffix("Request")


def _rejected(observed: Observed) -> dict[str, int]:
    counted = dict(observed.node.requests.rejected)
    counted["FrameCount"] = observed.sockets.malformed
    counted["InFlight"] = observed.sockets.beyond_bound
    return counted


def _listened(read: Callable[[KafkaListener], int]) -> Callable[[Observed], int]:
    """Of the listener for Kafka's clients; 0 where there is none."""
    return lambda o: 0 if o.sockets.kafka is None else read(o.sockets.kafka)


def _exchanged(read: Callable[[Exchange], int]) -> Callable[[Observed], int]:
    return _listened(lambda kafka: read(kafka.exchange))


def _closed(observed: Observed) -> Mapping[str, int]:
    kafka = observed.sockets.kafka
    return {} if kafka is None else dict(kafka.closed)


KAFKA_METRICS: Sequence[BrokerMetric] = (
    BrokerMetric(
        "oncelog_kafka_connections", "gauge", "Connections of Kafka clients that are open.",
        _listened(lambda kafka: kafka.connections),
    ),
    BrokerMetric(
        "oncelog_kafka_connections_accepted_total", "counter",
        "Connections of Kafka clients that were accepted.",
        _listened(lambda kafka: kafka.accepted),
    ),
    BrokerMetric(
        "oncelog_kafka_connections_closed_total", "counter",
        "Connections of Kafka clients that ended, by why.", _closed, "reason",
    ),
    BrokerMetric(
        "oncelog_kafka_bytes_received_total", "counter", "Bytes that Kafka clients sent.",
        _exchanged(lambda exchange: exchange.bytes_received),
    ),
    BrokerMetric(
        "oncelog_kafka_bytes_sent_total", "counter", "Bytes that were sent to Kafka clients.",
        _exchanged(lambda exchange: exchange.bytes_sent),
    ),
    BrokerMetric(
        "oncelog_kafka_requests_in_flight", "gauge",
        "Requests of Kafka clients that were taken and not answered yet.",
        _exchanged(lambda exchange: exchange.in_flight),
    ),
    BrokerMetric(
        "oncelog_kafka_replies_unexpected_total", "counter",
        "Answers to requests that were not under way, which were dropped: a defect.",
        _exchanged(lambda exchange: exchange.unexpected),
    ),
)  # fmt: skip

BROKER_METRICS: Sequence[BrokerMetric] = (
    *KAFKA_METRICS,
    BrokerMetric(
        "oncelog_requests_total", "counter", "Requests that clients sent, by API.",
        lambda o: {_api_name(key): count for key, count in o.node.requests.requests.items()},
        "api",
    ),
    BrokerMetric(
        "oncelog_requests_rejected_total", "counter",
        "Messages of clients and peers that could not be read, by what was wrong.",
        _rejected, "reason",
    ),
    BrokerMetric(
        "oncelog_hangups_total", "counter", "Requests that could not be answered at all.",
        lambda o: o.sockets.hangups,
    ),
    BrokerMetric(
        "oncelog_replies_undeliverable_total", "counter", "Replies whose client had gone.",
        lambda o: o.sockets.unreachable + _exchanged(lambda e: e.undeliverable)(o),
    ),
    BrokerMetric(
        "oncelog_peer_messages_dropped_total", "counter",
        "Messages of other brokers that were dropped, by why.",
        lambda o: o.node.peers.dropped, "reason",
    ),
    BrokerMetric(
        "oncelog_peer_messages_unsent_total", "counter",
        "Messages for another broker that was not connected.",
        lambda o: o.sockets.unsent,
    ),
    BrokerMetric(
        "oncelog_acks_dropped_total", "counter",
        "Acknowledgements withheld because a fault was ordered.",
        lambda o: o.node.faults.acks_dropped,
    ),
    BrokerMetric(
        "oncelog_elections_total", "counter",
        "Leaders that this broker elected while it was the controller.",
        lambda o: o.node.elections_held,
    ),
    BrokerMetric(
        "oncelog_controller_terms_total", "counter", "Times this broker became the controller.",
        lambda o: o.node.controllers_begun,
    ),
    BrokerMetric(
        "oncelog_is_controller", "gauge", "1 on the controller, 0 on every other broker.",
        lambda o: int(o.node.controller is not None),
    ),
    BrokerMetric(
        "oncelog_brokers_alive", "gauge", "Brokers with a session, as this one sees it.",
        lambda o: len(o.node.image.alive_nodes()),
    ),
    BrokerMetric(
        "oncelog_partitions", "gauge", "Replicas on this broker.",
        lambda o: len(o.node.partitions),
    ),
    BrokerMetric(
        "oncelog_partitions_led", "gauge", "Partitions that this broker leads.",
        lambda o: sum(p.leader is not None for p in o.node.partitions),
    ),
    BrokerMetric(
        "oncelog_partitions_doubtful", "gauge",
        "Replicas that lost something at recovery and did not catch up yet.",
        lambda o: sum(p.replica.log.doubtful for p in o.node.partitions),
    ),
    BrokerMetric(
        "oncelog_partitions_damaged", "gauge",
        "Replicas that cannot read what they had synced and found no leader yet to fetch it from.",
        lambda o: sum(p.replica.log.damage is not None for p in o.node.partitions),
    ),
    BrokerMetric(
        "oncelog_segments_deleted_total", "counter",
        "Segments that were taken away because all of their records were deleted.",
        lambda o: o.node.replicas.upkeep.segments_dropped,
    ),
    BrokerMetric(
        "oncelog_damage_found_total", "counter", "Logs that the scrubber found damaged.",
        lambda o: o.node.scrubber.found,
    ),
    BrokerMetric(
        "oncelog_scrubbed_bytes_total", "counter", "Bytes of logs that were checked again.",
        lambda o: o.node.scrubber.bytes,
    ),
    BrokerMetric(
        "oncelog_scrub_rounds_total", "counter", "Rounds of the scrubber over all logs.",
        lambda o: o.node.scrubber.rounds,
    ),
    BrokerMetric(
        "oncelog_logs_opening", "gauge", "Logs that are being opened and have no role yet.",
        lambda o: o.node.replicas.opening,
    ),
    BrokerMetric(
        "oncelog_recovery_bytes_total", "counter",
        "Bytes read to open logs: checked after a stop that was not clean, and replayed.",
        lambda o: o.node.logs.opened_bytes,
    ),
    BrokerMetric(
        "oncelog_recovery_milliseconds_total", "counter",
        "How long logs took to open, each from its first step to its last.",
        lambda o: o.node.logs.opened_ms,
    ),
    BrokerMetric(
        "oncelog_recovery_cut_bytes_total", "counter",
        "Bytes that openings cut from the ends of logs.",
        lambda o: o.node.logs.cut_bytes,
    ),
    BrokerMetric(
        "oncelog_partitions_offline", "gauge", "Replicas that the disk keeps from being opened.",
        lambda o: len(o.node.replicas.offline),
    ),
    BrokerMetric(
        "oncelog_recoveries_with_findings", "gauge",
        "Logs in which the last start found something to cut or to repair.",
        lambda o: len(o.node.logs.recoveries),
    ),
    BrokerMetric(
        "oncelog_fetches_parked", "gauge", "Fetches that wait for records.",
        lambda o: len(o.node.requests.fetches),
    ),
    BrokerMetric(
        "oncelog_producer_bytes", "gauge",
        "Memory of the producers in all partitions led here, as looked at each second.",
        lambda o: o.node.producer_budget.bytes,
    ),
    BrokerMetric(
        "oncelog_producer_bytes_max", "gauge",
        "What that may reach: new producers are refused beyond it (producer_bytes_max).",
        lambda o: o.node.producer_budget.bytes_max,
    ),
    BrokerMetric(
        "oncelog_requests_forwarded", "gauge",
        "Requests that wait for the controller, which another broker is or nobody.",
        lambda o: len(o.node.services.forwarding),
    ),
    BrokerMetric(
        "oncelog_groups", "gauge", "Consumer groups that this broker coordinates, by state.",
        lambda o: o.node.coordinator.groups.states, label="state",
    ),
    BrokerMetric(
        "oncelog_group_rebalances_total", "counter", "Join phases of groups that began here.",
        lambda o: o.node.coordinator.groups.rebalances,
    ),
    BrokerMetric(
        "oncelog_group_records_committed_total", "counter",
        "Committed offsets, generations and assignments that took effect here.",
        lambda o: o.node.coordinator.groups.records_committed,
    ),
    BrokerMetric(
        "oncelog_group_records_unreadable_total", "counter",
        "Records in the log of groups that were passed over, since they make no sense.",
        lambda o: o.node.coordinator.groups.records_unreadable,
    ),
    BrokerMetric(
        "oncelog_group_offsets", "gauge", "Committed offsets kept for the groups of this broker.",
        lambda o: o.node.coordinator.groups.offset_count,
    ),
    BrokerMetric(
        "oncelog_storage_errors_total", "counter", "Appends that the disk refused.",
        lambda o: o.node.requests.append.storage_errors,
    ),
    BrokerMetric(
        "oncelog_sync_failures_total", "counter", "Syncs that failed; each fences its partition.",
        lambda o: o.node.syncs.failed,
    ),
)  # fmt: skip

SYNC_SECONDS = "oncelog_sync_seconds"
SYNC_TEXT = "How long a sync of one file took."

METRICS: frozenset[str] = frozenset(
    [SYNC_SECONDS, *(f"{SYNC_SECONDS}_{part}" for part in ("bucket", "count", "sum"))]
    + [metric.name for metric in PARTITION_METRICS]
    + [metric.name for metric in BROKER_METRICS]
)
"""Every name there is; dashboards and alert rules may use no other."""


class Sample(NamedTuple):
    """One value of a series."""

    labels: tuple[str, ...]
    value: int


def partition_samples(metric: PartitionMetric, partitions: Sequence[Partition]) -> Iterator[Sample]:
    """Samples by (topic, partition), those beyond the bound as one."""
    for partition in partitions[:METRIC_PARTITIONS_MAX]:
        value = metric.read(partition)
        if value is not None:
            replica = partition.replica
            yield Sample((replica.topic.name, str(replica.index)), value)
    rest = [metric.read(partition) for partition in partitions[METRIC_PARTITIONS_MAX:]]
    known = [value for value in rest if value is not None]
    if known:
        yield Sample((OTHER, ""), metric.fold(known))


def broker_samples(metric: BrokerMetric, observed: Observed) -> Iterator[Sample]:
    """The broker's samples of one metric."""
    found = metric.read(observed)
    if isinstance(found, int):
        yield Sample((), found)
    else:
        for label, value in sorted(found.items()):
            yield Sample((label,), value)


def sync_buckets(syncs: SyncTimes) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound in seconds, as a Prometheus histogram has them."""
    buckets: list[tuple[str, float]] = []
    total = 0
    for bound in syncs.BOUNDS_NS:
        total += syncs.buckets[bound]
        buckets.append((str(bound / 1e9), total))
    return [*buckets, ("+Inf", syncs.count)]
