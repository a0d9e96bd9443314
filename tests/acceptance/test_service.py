"""The service as its users and its operators meet it: real processes, started, killed and resumed."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import pytest
import requests

from testkit.service import PYTHON, Servers, Service, wait_until
from tests.acceptance.conftest import SHOP


def check_books(service: Service, run: dict[str, Any], count: int) -> None:
    """Nothing lost, nothing doubled, and the counts add up."""
    outcomes = ("inserted", "updated", "unchanged", "duplicate", "failed", "not_loaded")
    assert run["records_extracted"] == sum(run[f"records_{name}"] for name in outcomes), run
    assert run["records_not_loaded"] == 0
    assert service.sql("SELECT count(*), count(DISTINCT external_id) FROM unified_items") == [(count, count)]
    assert service.sql("SELECT count(DISTINCT source_id) FROM raw_data") == [count]


def await_progress(service: Service, run_id: str, records: int) -> None:
    wait_until(lambda: service.get(f"/runs/{run_id}")["records_extracted"] >= records)


def test_a_source_runs_from_request_to_data(service: Service) -> None:
    service.write_csv(3000)
    service.start_web()
    service.start_worker()
    run = service.await_end(service.run("shop"))
    assert run["status"] == "success", run
    check_books(service, run, 3000)
    assert service.get("/data?page_size=1")["pagination"]["total_items"] == 3000
    assert service.get("/stats")["total_records"] == 3000
    before = service.sql("SELECT max(change_xid::text), count(*) FROM unified_items")
    again = service.await_end(service.run("shop"))
    assert (again["status"], again["records_extracted"]) == ("success", 0)
    with (service.folder / "shop.csv").open("a") as file:
        file.write("\n")
    again = service.await_end(service.run("shop"))
    assert (again["status"], again["records_unchanged"]) == ("success", 3000)
    assert service.sql("SELECT max(change_xid::text), count(*) FROM unified_items") == before
    wait_until(lambda: service.get("/health")["workers"] == 1)
    assert service.get("/health")["status"] == "healthy"


def test_a_worker_that_is_killed_again_and_again_loses_nothing(service: Service) -> None:
    service.write_csv(20_000)
    service.start_web()
    service.start_worker()
    dice = random.Random(7)
    run_id = service.run("shop")
    await_progress(service, run_id, 500)
    for _ in range(5):
        service.kill("worker")
        service.start_worker()
        time.sleep(dice.uniform(1.5, 4))
    run = service.await_end(run_id)
    assert run["status"] == "success", run
    check_books(service, run, 20_000)


def test_a_dead_worker_is_replaced_by_a_living_one_in_time(service: Service) -> None:
    service.write_csv(20_000)
    service.start_web()
    service.start_worker("first")
    run_id = service.run("shop")
    await_progress(service, run_id, 1000)
    service.start_worker("second")
    wait_until(lambda: "ready" in service.log("second"))
    service.kill("first")
    run = service.await_end(run_id)
    check_books(service, run, 20_000)


def test_a_worker_that_is_asked_to_stop_finishes_in_order(service: Service) -> None:
    service.write_csv(20_000)
    service.start_web()
    service.start_worker()
    run_id = service.run("shop")
    await_progress(service, run_id, 1000)
    assert service.stop("worker") == 0
    assert service.sql("SELECT count(*) FROM etl_workers WHERE kind = 'worker'") == [0]
    service.start_worker()
    check_books(service, service.await_end(run_id), 20_000)


def test_a_broker_that_forgets_everything_costs_time_only(service: Service) -> None:
    service.write_csv(20_000)
    service.start_web()
    service.start_worker()
    run_id = service.run("shop")
    for _ in range(4):
        service.flush_broker()
        time.sleep(0.7)
    check_books(service, service.await_end(run_id), 20_000)


def test_without_a_broker_runs_are_taken_and_start_when_it_is_back(service: Service, servers: Servers) -> None:
    service.write_csv(1000)
    service.start_web()
    service.start_worker()
    wait_until(lambda: "ready" in service.log("worker"))
    servers.kill("valkey")
    try:
        started = time.monotonic()
        run_id = service.run("shop")
        assert time.monotonic() - started < 4
        health = service.get("/health")
        assert (health["status"], health["broker_connected"]) == ("degraded", False)
        assert any(reason["code"] == "broker_unreachable" for reason in health["reasons"])
    finally:
        servers.start("valkey")
    check_books(service, service.await_end(run_id), 1000)


def test_a_database_that_restarts_loses_nothing(service: Service, servers: Servers) -> None:
    service.write_csv(20_000)
    service.start_web()
    service.start_worker()
    run_id = service.run("shop")
    await_progress(service, run_id, 1000)
    servers.kill("postgres")
    try:
        response = requests.get(service.url + "/data", timeout=10)
        assert response.status_code == 503
        assert response.headers["Content-Type"] == "application/problem+json"
        assert service.get("/health")["status"] == "unhealthy"
    finally:
        servers.start("postgres")
    check_books(service, service.await_end(run_id), 20_000)


def test_a_run_can_be_asked_for_from_a_shell(service: Service) -> None:
    service.write_csv(10)
    service.start_web()
    service.start_worker()
    done = service.command(PYTHON, "-m", "celery", "-A", "worker", "call", "etl.run", '--args=["shop"]')
    assert done.returncode == 0, done.stderr
    run = service.await_end(done.stdout.strip())
    assert (run["status"], run["trigger"], run["source_name"]) == ("success", "cli", "shop")
    # So does Flower, which shows what tasks return.
    told = (service.folder / "worker.log").read_text()
    for task in ("etl.extract", "etl.load"):
        assert re.search(rf"Task {task}\[.*\] succeeded in .*: 'shop, run {run['run_id']}'", told), task
    unknown = service.command(PYTHON, "-m", "celery", "-A", "worker", "call", "etl.run", '--args=["nope"]')
    assert service.await_end(unknown.stdout.strip())["error"]["code"] == "unknown_source"


def test_beat_runs_what_is_due_and_two_of_them_double_nothing(service: Service) -> None:
    service.write_csv(10)
    service.declare(SHOP.replace("}", ", schedule: {every: 2s}}"))
    service.start_web()
    service.start_worker()
    for name in ("beat one", "beat two"):
        service.start(name, "celery", "-A", "worker", "beat", "--pidfile=", ENABLE_SCHEDULER="true")
    wait_until(lambda: service.sql("SELECT count(*) FROM etl_runs WHERE status = 'success'")[0] >= 4, 60)
    slots = service.sql("SELECT count(*), count(DISTINCT scheduled_for) FROM etl_runs WHERE trigger = 'schedule'")[0]
    assert slots[0] == slots[1]
    assert service.sql("SELECT count(*) FROM unified_items") == [10]


def test_without_the_scheduler_nothing_runs_by_itself(service: Service) -> None:
    service.declare(SHOP.replace("}", ", schedule: {every: 1s}}"))
    service.start("beat", "celery", "-A", "worker", "beat", "--pidfile=")
    wait_until(lambda: service.sql("SELECT count(*) FROM etl_workers WHERE kind = 'beat'") == [1])
    time.sleep(3)
    assert service.sql("SELECT count(*) FROM etl_runs") == [0]


def test_a_worker_goes_by_the_processes_that_it_has_and_not_by_its_settings(service: Service) -> None:
    service.write_csv(3000)
    service.start_web()
    service.start("worker", "celery", "-A", "worker", "worker", "--concurrency=1", WORKER_PROCESSES="64")
    run = service.await_end(service.run("shop"))
    assert run["status"] == "success", run
    assert service.sql("SELECT count(*) FROM etl_batches") == [6]
    # While the one process extracts nobody else maps: after the first batch it does so itself.
    received = [line for line in service.log("worker").splitlines() if "etl.normalize" in line and "received" in line]
    assert len(received) == 1, received
    wait_until(lambda: service.sql("SELECT processes FROM etl_workers WHERE kind = 'worker'") == [1])


def test_workers_answer_inspection(service: Service) -> None:
    service.start_worker()
    wait_until(lambda: "ready" in service.log("worker"))
    done = service.command(PYTHON, "-m", "celery", "-A", "worker", "inspect", "active_queues")
    assert all(queue in done.stdout for queue in ("extract", "load", "low")), done


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sources:\n  - {name: shop, type: csv, fiel: shop.csv}\n", ["sources.yaml", "'shop'", "`fiel`"]),
        ("sources:\n  - {name: shop, type: pdf, file: shop.csv}\n", ["sources.yaml", "'shop'", "`type`"]),
        (
            "sources:\n  - {name: ok, type: csv, file: a}\n"
            "  - {name: shop, type: rss, request: {url: 'http://x', headers: {k: '${NOPE}'}}}\n",
            ["sources.yaml", "'shop'", "NOPE"],
        ),
    ],
)
def test_a_wrong_sources_file_changes_nothing(service: Service, text: str, words: list[str]) -> None:
    done = service.declare(text)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in done.stderr
    assert service.sql("SELECT name FROM sources") == ["shop"]


def test_a_wrong_setting_stops_the_process_with_its_name(service: Service) -> None:
    service.environment["BATCH_SIZE"] = "many"
    done = service.command(PYTHON, "-m", "db", "sources")
    assert done.returncode == 2
    assert "BATCH_SIZE" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
