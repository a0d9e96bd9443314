"""What is shipped for Prometheus and Grafana asks for metrics that there are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from config.settings import PROJECT
from testkit.runner import SourceRunner
from web.app import create_app

RULES = yaml.safe_load((PROJECT / "deploy/prometheus/rules.yml").read_text())
BOARD = json.loads((PROJECT / "deploy/grafana/kasparro.json").read_text())
NAME = re.compile(r"\bkasparro_[a-z_]+")
LABELS = re.compile(r"(kasparro_[a-z_]+)\{([a-z]+)=\"([a-z_]+)\"")
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"]]
ASKED = [rule["expr"] for rule in ALERTS] + [one["expr"] for panel in BOARD["panels"] for one in panel["targets"]]


@pytest.fixture
def offered(runner: SourceRunner) -> dict[str, set[str]]:
    """The names of the series, each with the labels it may have."""
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    runner.run("shop")
    with create_app(runner.settings, runner.database).test_client() as client:
        client.get("/stats")
        text = client.get("/metrics").text
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        # A family without a sample now is there all the same.
        found.setdefault(family.name, set())
        found.setdefault(f"{family.name}_total", set())
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(f"{key}={value}" for key, value in sample.labels.items())
    return found


def test_every_expression_names_metrics_that_there_are(offered: dict[str, set[str]]) -> None:
    asked = {name for expression in ASKED for name in NAME.findall(expression)}
    assert len(asked) > 15
    assert asked - set(offered) == set()
    for expression in ASKED:
        for name, label, value in LABELS.findall(expression):
            assert f"{label}={value}" in offered[name], expression


def test_every_metric_is_described_and_no_other(offered: dict[str, set[str]]) -> None:
    described = set(NAME.findall((PROJECT / "docs/metrics.md").read_text()))
    series = {name for name, labels in offered.items() if labels or not name.endswith("_total")}
    families = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in series}
    counters = {"kasparro_runs_total", "kasparro_records_total", "kasparro_takeovers_total", "kasparro_alerts_total"}
    # `kasparro_runs` is a gauge too.
    assert described == (families - {"kasparro_records", "kasparro_takeovers", "kasparro_alerts"}) | counters


def test_every_alert_says_what_it_is_about() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] for rule in ALERTS)
