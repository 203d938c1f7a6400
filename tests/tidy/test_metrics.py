"""Dashboards, alerts and pages name only metrics that a broker exports."""

import re

from cluster.broker.metrics import METRICS
from tests.tidy import tree

_NAME = re.compile(r"\boncelog_[a-z0-9_]+")
# What the exposition format adds to the name of a histogram or summary.
_SERIES = re.compile(r"_(bucket|sum|count|created)$")


def test_every_metric_named_in_a_dashboard_alert_or_page_exists() -> None:
    exported = set(METRICS)
    unknown = [
        f"{tree.name(path)}: {name}"
        for path, text in tree.text_files()
        if tree.name(path).startswith(("grafana/", "deploy/", "docs/", "README"))
        for name in sorted(set(_NAME.findall(text)))
        if name not in exported and _SERIES.sub("", name) not in exported
    ]
    assert not unknown, "\n".join(unknown)


def test_every_metric_carries_the_prefix() -> None:
    assert all(_NAME.fullmatch(name) for name in METRICS)
