"""What computes for ever, dies or swells does not keep a worker process from other sources."""

from __future__ import annotations

import time

import pytest
import requests

from config.settings import PROJECT
from testkit.fake_server import FakeServer, Response
from testkit.service import PYTHON, Service, wait_until

LAUNCHER = PROJECT / "bench" / "neighbours" / "launcher.py"
DEFECTS = ("calls_c_for_ever", "dies_by_signal", "grows")
KEY = "of-the-watchdog-tests"  # pragma: allowlist secret


@pytest.fixture
def shop(service: Service, fake_server: FakeServer) -> Service:
    """A service with one worker process whose sources named after defects have them, and one good source."""
    service.environment |= {"API_KEYS": KEY, "WORKER_PROCESSES": "1", "WORKER_MEMORY": "256MiB", "LEASE_SECONDS": "60"}
    lines = ["sources:", f"  - {{name: good, type: api, request: {{url: '{fake_server.json('/good', [{'id': 1}])}'}}}}"]
    for name in DEFECTS:
        fake_server.on(f"/{name}", Response(b"[]"))
        lines.append(f"  - {{name: {name}, type: api, request: {{url: '{fake_server.url}/{name}'}}}}")
    assert service.declare("\n".join(lines)).returncode == 0
    service.start_web()
    _start_worker(service)
    assert service.await_end(service.run("good"))["status"] == "success"
    return service


def _start_worker(service: Service) -> None:
    arguments = (str(LAUNCHER), "-A", "worker", "worker", "--concurrency=1", "--hostname=worker@test")
    service.launch("worker", *arguments, PYTHONPATH=str(PROJECT))


def _ask(service: Service, path: str, body: object = None) -> requests.Response:
    return requests.post(service.url + path, json=body, headers={"X-API-Key": KEY}, timeout=10)


def _run(service: Service, name: str) -> str:
    answer = _ask(service, "/runs", {"source": name})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["runs"][0]["run_id"])


def _await_slice(service: Service, run_id: str) -> None:
    wait_until(lambda: service.get(f"/runs/{run_id}")["stage"] == "extracting", 20)
    time.sleep(1)


def test_a_cancelled_run_that_computes_gives_its_process_back(shop: Service) -> None:
    endless = _run(shop, "calls_c_for_ever")
    _await_slice(shop, endless)
    good = _run(shop, "good")
    started = time.monotonic()
    assert _ask(shop, f"/runs/{endless}/cancel").status_code == 202
    assert shop.await_end(good, 30)["status"] == "success"
    assert time.monotonic() - started < 20
    assert shop.sql("SELECT deaths FROM sources WHERE name = 'calls_c_for_ever'") == [0], "a cancel blames nobody"


def test_a_source_that_processes_die_of_is_set_aside(shop: Service) -> None:
    run_id = _run(shop, "dies_by_signal")
    wait_until(lambda: shop.get(f"/runs/{run_id}")["status"] == "failed", 60)
    run = shop.get(f"/runs/{run_id}")
    assert run["error"]["code"] == "process_died"
    assert [event["event"] for event in run["events"]].count("process_died") == 3
    health = shop.get("/health")
    assert [reason["code"] for reason in health["reasons"] if reason["code"] == "set_aside"] == ["set_aside"]
    shown = health["sources"][0]
    assert (shown["name"], shown["status"], shown["not_before_reason"]) == ("dies_by_signal", "set_aside", "set_aside")
    refused = _ask(shop, "/runs", {"source": "dies_by_signal"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:kasparro:problem:set_aside")
    assert refused.json()["not_before"]
    assert shop.await_end(_run(shop, "good"))["status"] == "success"
    resumed = shop.command(PYTHON, "-m", "worker", "resume", "dies_by_signal")
    assert resumed.returncode == 0, resumed.stderr
    assert _ask(shop, "/runs", {"source": "dies_by_signal"}).status_code == 202


def test_memory_that_grows_fails_its_run_and_nothing_else(shop: Service) -> None:
    run = shop.await_end(_run(shop, "grows"), 60)
    assert (run["status"], run["error"]["code"]) == ("failed", "out_of_memory")
    assert shop.await_end(_run(shop, "good"))["status"] == "success"
    assert shop.sql("SELECT deaths FROM sources WHERE name = 'grows'") == [1]


def test_resuming_an_unknown_source_says_so(service: Service) -> None:
    refused = service.command(PYTHON, "-m", "worker", "resume", "nobody")
    assert refused.returncode == 1
    assert "there is no source named 'nobody'" in refused.stderr
