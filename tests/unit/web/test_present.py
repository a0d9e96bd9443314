"""Rows as the API shows them, without a database."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from etl.hosts.breaker import Circuit, State
from etl.hosts.limiter import HostState
from etl.http.address import declared_host
from web.present.health import BrokerView, DatabaseView, present_health, present_unhealthy
from web.present.hosts import present_hosts

WATCHED = ("late", "late_since", "empty", "odd_size")
ENVIRONMENT = {"HOST": "far.test"}


def source(**more: Any) -> SimpleNamespace:
    names = (
        "active_status",
        "last_status",
        "last_run_at",
        "last_success_at",
        "checkpoint",
        "next_run_at",
        "not_before",
    )
    row = dict.fromkeys((*names, "not_before_reason", "gone_reason", "set_aside", "url", "late_since", "size_flag"))
    return SimpleNamespace(**{**row, "source_name": "shop", "source_type": "api", **more})


def database(*sources: SimpleNamespace, workers: int = 1, **counts: Any) -> DatabaseView:
    row = SimpleNamespace(
        **({"total": 1, "successful": 1, "partial": 0, "failed": 0} | dict.fromkeys(("set_aside", *WATCHED)) | counts)
    )
    return DatabaseView(row, workers, [], list(sources))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "connected", "codes"),
    [
        (database(), True, []),
        (database(), False, ["broker_unreachable"]),
        (database(workers=0, failed=2), True, ["no_worker", "sources_failed"]),
        (database(set_aside=["shop"]), True, ["set_aside"]),
        (database(late=["shop"], empty=["shop"], odd_size=["shop"]), True, ["late", "empty", "odd_size"]),
        (replace(database(), drifted=["shop"]), True, ["drift"]),
    ],
)
def test_every_reason_degrades(seen: DatabaseView, connected: bool, codes: list[str]) -> None:
    shown = present_health(seen, BrokerView(connected), ENVIRONMENT)
    assert [reason["code"] for reason in shown["reasons"]] == codes
    assert shown["status"] == ("degraded" if codes else "healthy")


def test_without_a_database_it_is_unhealthy() -> None:
    shown = present_unhealthy("it is away", BrokerView(connected=True))
    assert (shown["status"], shown["reasons"][0]["message"]) == ("unhealthy", "it is away")


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (source(), "never_run"),
        (source(last_run_at="yesterday"), "skipped"),
        (source(last_status="failed", active_status="running"), "running"),
        (source(last_status="failed"), "failed"),
        (source(last_status="failed", gone_reason="410"), "gone"),
        (source(last_status="failed", gone_reason="410", set_aside=True), "set_aside"),
    ],
)
def test_the_status_of_a_source(row: SimpleNamespace, status: str) -> None:
    assert present_health(database(row), BrokerView(connected=True), ENVIRONMENT)["sources"][0]["status"] == status


@pytest.mark.parametrize(
    ("url", "states", "shown"),
    [
        ("http://${HOST}/a", {"far.test": State.OPEN}, "open"),
        ("http://${HOST}/a", {}, "closed"),
        ("http://${HOST}/a", None, None),
        (None, {}, None),
        ("http://${NOPE}/a", {}, None),
    ],
)
def test_the_breaker_of_a_source(url: str | None, states: dict[str, State] | None, shown: str | None) -> None:
    seen = present_health(database(source(url=url)), BrokerView(connected=True, breakers=states), ENVIRONMENT)
    assert seen["sources"][0]["breaker"] == shown


def test_a_declared_host_is_known_by_what_its_address_stands_for() -> None:
    assert declared_host("http://${HOST}:81/a", ENVIRONMENT) == "far.test:81"


def test_hosts_that_are_not_called_come_first() -> None:
    dead = HostState(Circuit(failures=5, opened=1, opened_at=10, open_until=70, reason="503"))
    shown = present_hosts({"a": (HostState(), 20.0), "z": (dead, 20.0), "b": (dead, 80.0)})["breakers"]
    assert [(one["host"], one["state"]) for one in shown] == [("b", "half_open"), ("z", "open"), ("a", "closed")]
