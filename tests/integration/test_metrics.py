"""What Prometheus reads: in its format, and what the database says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from db.queries.sweep import take_over_batches
from db.queries.totals import roll_up
from testkit.runner import SourceRunner
from web.app import create_app


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def scraped(client: FlaskClient) -> dict[tuple[str, ...], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = text_string_to_metric_families(answer.text)
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def run_some(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,title,price\n1,a,1\n2,b,2\n2,b,2\n3,c,x\n")
    mapped = {"external_id": "id", "title": "title", "amount": "price"}
    shop = {"name": "shop", "type": "csv", "file": "shop.csv", "map": mapped, "max_rejected": 100}
    runner.declare(shop, {"name": "none", "type": "csv", "file": "none.csv"})
    for name in ("shop", "none", "shop"):
        runner.run(name)


def truth(runner: SourceRunner) -> dict[tuple[str, ...], float]:
    statuses = runner.sql("SELECT status, count(*) FROM etl_runs WHERE completed_at IS NOT NULL GROUP BY 1")
    outcomes = ("extracted", "inserted", "updated", "unchanged", "duplicate", "failed")
    (sums,) = runner.sql(f"SELECT {', '.join(f'sum(records_{one})' for one in outcomes)} FROM etl_runs")
    ended = ("success", "partial", "failed", "cancelled", "skipped")
    found: dict[tuple[str, ...], float] = {("kasparro_runs_total", status): 0.0 for status in ended}
    found |= {("kasparro_runs_total", status): float(count) for status, count in statuses}
    return found | {("kasparro_records_total", one): float(sums[n]) for n, one in enumerate(outcomes)}


def counted(client: FlaskClient) -> dict[tuple[str, ...], float]:
    names = ("kasparro_runs_total", "kasparro_records_total")
    return {key: value for key, value in scraped(client).items() if key[0] in names}


def test_counters_are_what_the_database_says_rolled_up_or_not(runner: SourceRunner, client: FlaskClient) -> None:
    # What begins with its first value does not grow by it.
    assert len(counted(client)) == 11
    assert set(counted(client).values()) == {0}
    run_some(runner)
    expected = truth(runner)
    assert expected[("kasparro_records_total", "inserted")] == 2
    assert counted(client) == expected
    runner.database.transact(roll_up)
    assert counted(client) == expected
    runner.run("shop")
    assert counted(client) == truth(runner)
    # Counters outlive what they count.
    runner.database.transact(roll_up)
    before = counted(client)
    runner.sql("DELETE FROM etl_runs")
    assert counted(client) == before


def test_gauges_say_how_it_is(runner: SourceRunner, client: FlaskClient) -> None:
    run_some(runner)
    runner.database.transact(roll_up)
    runner.sql("UPDATE sources SET late_since = now() - interval '1 h' WHERE name = 'none'")
    runner.queue("shop")
    found = scraped(client)
    expected = {
        ("kasparro_database_up",): 1,
        ("kasparro_broker_up",): 1,
        ("kasparro_sources_declared",): 2,
        ("kasparro_sources", "late"): 1,
        ("kasparro_sources", "failing"): 1,
        ("kasparro_runs", "queued"): 1,
        ("kasparro_items",): 2,
        ("kasparro_source_late", "none"): 1,
        ("kasparro_rejected_records_open",): 1,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert 0 <= found[("kasparro_source_lag_seconds", "shop")] < 60
    assert found[("kasparro_database_bytes",)] > 1_000_000
    assert ("kasparro_queue_messages", "extract") in found
    assert not any(key[0] == "kasparro_scheduler_silent_seconds" for key in found)


def test_takeovers_are_counted(runner: SourceRunner, client: FlaskClient) -> None:
    assert scraped(client)[("kasparro_takeovers_total",)] == 0
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    runner.queue("shop")
    runner.step()
    runner.sql("UPDATE etl_batches SET lease_expires_at = now() - interval '1 s'")
    assert runner.database.transact(take_over_batches) == 1
    assert scraped(client)[("kasparro_takeovers_total",)] == 1


def test_requests_are_timed_by_operation_and_no_path_makes_a_series(client: FlaskClient) -> None:
    before = scraped(client)
    for path in ("/runs", "/runs", "/no/such/path", "/nor/this"):
        client.get(path)
    client.open("/no/such/path", method="BREW")
    found = scraped(client)

    def more(*labels: str) -> float:
        key = ("kasparro_http_request_seconds_count", *labels)
        return found.get(key, 0) - before.get(key, 0)

    assert more("GET", "Runs", "200") == 2
    assert more("ANY", "none", "404") >= 2
    assert not any("such" in label for key in found for label in key)


def test_lists_have_an_end(runner: SourceRunner, client: FlaskClient) -> None:
    runner.sql("""
        INSERT INTO sources (name, type, config, enabled, origin)
        SELECT 's' || n, 'csv', '{}', true, 'file' FROM generate_series(1, 300) n
    """)
    assert sum(key[0] == "kasparro_source_lag_seconds" for key in scraped(client)) == 100


def test_without_redis_or_database_it_says_so(runner: SourceRunner) -> None:
    away = replace(
        runner.settings, web_database_url="postgresql://x:y@127.0.0.1:9/z", redis_url="redis://127.0.0.1:9/0"
    )
    with create_app(away).test_client() as client:
        found = scraped(client)
    assert found[("kasparro_database_up",)] == 0
