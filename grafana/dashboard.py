"""The Grafana dashboard as code: `python grafana/dashboard.py > grafana/oncelog.json`.

Owns: the panels, each a title, what it means, and queries over the metrics that brokers export.
The JSON beside it is what Grafana loads; a test compares the two.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of a dashboard
ACROSS = 3  # panels in a line
HEIGHT = 8  # grid units of a panel

OURS = '{topic=~"$topic"}'


@dataclass(frozen=True)
class Query:
    """One query and the name of its series."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph."""

    title: str
    text: str
    queries: Sequence[Query]
    unit: str = "short"


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: Sequence[Panel]


def rate(metric: str) -> str:
    """Per second and topic, summed over partitions and brokers."""
    return f"sum by (topic) (rate({metric}{OURS}[$__rate_interval]))"


def broker_rate(metric: str) -> str:
    """Per second and broker."""
    return f"sum by (instance) (rate({metric}[$__rate_interval]))"


def reason_rate(metric: str) -> str:
    """Per second and reason, summed over brokers."""
    return f"sum by (reason) (rate({metric}[$__rate_interval]))"


def quantile(share: float) -> str:
    """Of the time that a sync takes, per broker."""
    buckets = "sum by (instance, le) (rate(oncelog_sync_seconds_bucket[$__rate_interval]))"
    return f"histogram_quantile({share}, {buckets})"


ROWS = (
    Row(
        "Exactly once",
        (
            Panel(
                "Records appended",
                "Records stored per second, counted once, by the leader.",
                (Query(rate("oncelog_records_appended_total"), "{{topic}}"),),
                "rps",
            ),
            Panel(
                "Duplicates rejected",
                "Batches whose first acknowledgement was lost: stored once all the same.",
                (Query(rate("oncelog_duplicates_rejected_total"), "{{topic}}"),),
            ),
            Panel(
                "Refused",
                "Batches that could not be placed: nothing of them is stored.",
                (
                    Query(rate("oncelog_sequence_gaps_total"), "{{topic}} gap"),
                    Query(rate("oncelog_fenced_epochs_total"), "{{topic}} fenced epoch"),
                    Query(rate("oncelog_unknown_producers_total"), "{{topic}} unknown producer"),
                    Query(rate("oncelog_sequence_conflicts_total"), "{{topic}} other bytes"),
                    Query(rate("oncelog_stale_batches_total"), "{{topic}} too old"),
                    Query(rate("oncelog_invalid_batches_total"), "{{topic}} malformed"),
                ),
            ),
            Panel(
                "Batches appended",
                "Batches stored per second.",
                (Query(rate("oncelog_batches_appended_total"), "{{topic}}"),),
            ),
            Panel(
                "Bytes appended",
                "Bytes of batches stored per second, before replication.",
                (Query(rate("oncelog_bytes_appended_total"), "{{topic}}"),),
                "Bps",
            ),
            Panel(
                "Producers tracked",
                "Producers whose last batches are remembered, the most on any replica.",
                (Query(f"max by (topic) (oncelog_producers_tracked{OURS})", "{{topic}}"),),
            ),
        ),
    ),
    Row(
        "Replication",
        (
            Panel(
                "In-sync replicas",
                "The smallest in-sync set of each topic.",
                (Query(f"min by (topic) (oncelog_in_sync_replicas{OURS})", "{{topic}}"),),
            ),
            Panel(
                "Partitions that refuse acks=all",
                "Leaders with fewer members present than min.insync.replicas.",
                (Query(f"sum by (topic) (oncelog_under_min_in_sync{OURS})", "{{topic}}"),),
            ),
            Panel(
                "High watermark lag",
                "Records written and not yet known to be committed, the most of any replica.",
                (Query(f"max by (topic) (oncelog_high_watermark_lag{OURS})", "{{topic}}"),),
            ),
        ),
    ),
    Row(
        "Disk",
        (
            Panel(
                "Sync time",
                "How long one fdatasync takes: what every acknowledgement waits for.",
                (
                    Query(quantile(0.5), "{{instance}} p50"),
                    Query(quantile(0.99), "{{instance}} p99"),
                ),
                "s",
            ),
            Panel(
                "Syncs",
                "Files synced per second.",
                (Query(broker_rate("oncelog_sync_seconds_count"), "{{instance}}"),),
            ),
            Panel(
                "Disk errors",
                "Appends that the disk refused, syncs that failed, replicas that cannot be opened.",
                (
                    Query(broker_rate("oncelog_storage_errors_total"), "{{instance}} append"),
                    Query(broker_rate("oncelog_sync_failures_total"), "{{instance}} sync"),
                    Query("oncelog_partitions_offline", "{{instance}} offline"),
                    Query("oncelog_partitions_damaged", "{{instance}} damaged"),
                ),
            ),
        ),
    ),
    Row(
        "Kafka clients",
        (
            Panel(
                "Connections",
                "Connections of Kafka clients that are open.",
                (Query("oncelog_kafka_connections", "{{instance}}"),),
            ),
            Panel(
                "Connections closed",
                "By why: client and stopped are ordinary, the others say what is wrong.",
                (Query(reason_rate("oncelog_kafka_connections_closed_total"), "{{reason}}"),),
            ),
            Panel(
                "Traffic",
                "Bytes per second that Kafka clients sent, and were sent.",
                (
                    Query(broker_rate("oncelog_kafka_bytes_received_total"), "{{instance}} in"),
                    Query(broker_rate("oncelog_kafka_bytes_sent_total"), "{{instance}} out"),
                ),
                "Bps",
            ),
            Panel(
                "Requests in flight",
                "Requests of Kafka clients that were taken and not answered yet.",
                (Query("oncelog_kafka_requests_in_flight", "{{instance}}"),),
            ),
        ),
    ),
    Row(
        "Cluster",
        (
            Panel(
                "Brokers alive",
                "As each broker sees it: lines that part mean that one of them is cut off.",
                (Query("oncelog_brokers_alive", "{{instance}}"),),
            ),
            Panel(
                "Elections",
                "Leaders elected per second, and terms as the controller begun.",
                (
                    Query(broker_rate("oncelog_elections_total"), "{{instance}} leaders"),
                    Query(
                        broker_rate("oncelog_controller_terms_total"),
                        "{{instance}} controller",
                    ),
                ),
            ),
            Panel(
                "Partitions led",
                "How the leaders are spread over the brokers.",
                (Query("oncelog_partitions_led", "{{instance}}"),),
            ),
            Panel(
                "Messages refused",
                "Requests that could not be read, and messages between brokers of an earlier life.",
                (
                    Query(reason_rate("oncelog_requests_rejected_total"), "client {{reason}}"),
                    Query(reason_rate("oncelog_peer_messages_dropped_total"),
                          "broker {{reason}}"),
                ),
            ),
            Panel(
                "Memory",
                "Resident memory of each broker.",
                (Query('process_resident_memory_bytes{job="oncelog"}', "{{instance}}"),),
                "bytes",
            ),
            Panel(
                "Processor",
                "Cores used by each broker.",
                (
                    Query(
                        'rate(process_cpu_seconds_total{job="oncelog"}[$__rate_interval])',
                        "{{instance}}",
                    ),
                ),
            ),
        ),
    ),
)  # fmt: skip


def _targets(panel: Panel) -> list[dict[str, object]]:
    return [
        {"datasource": DATASOURCE, "expr": query.expression, "legendFormat": query.legend,
         "refId": chr(ord("A") + number)}
        for number, query in enumerate(panel.queries)
    ]  # fmt: skip


def _panels() -> Iterator[dict[str, object]]:
    number, y = 0, 0
    for row in ROWS:
        number += 1
        yield {
            "id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1},
        }  # fmt: skip
        y += 1
        for place, panel in enumerate(row.panels):
            number += 1
            width = WIDTH // ACROSS
            yield {
                "id": number, "type": "timeseries", "title": panel.title,
                "description": panel.text, "datasource": DATASOURCE, "targets": _targets(panel),
                "gridPos": {"x": place % ACROSS * width, "y": y + place // ACROSS * HEIGHT,
                            "w": width, "h": HEIGHT},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "options": {"legend": {"displayMode": "list", "placement": "bottom"},
                            "tooltip": {"mode": "multi", "sort": "desc"}},
            }  # fmt: skip
        y += -(-len(row.panels) // ACROSS) * HEIGHT


def _variables() -> list[dict[str, object]]:
    topics = "label_values(oncelog_records_appended_total, topic)"
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"},
        {
            "name": "topic", "type": "query", "label": "Topic", "datasource": DATASOURCE,
            "query": {"query": topics, "refId": "topics"}, "refresh": 2, "includeAll": True,
            "multi": True, "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]  # fmt: skip


def dashboard() -> dict[str, object]:
    """What Grafana loads."""
    return {
        "uid": "oncelog",
        "title": "oncelog",
        "description": "Exactly once, replication, disks and brokers.",
        "tags": ["oncelog"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": _variables()},
        "annotations": {"list": []},
        "panels": list(_panels()),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2) + "\n")
