"""What a first page needs: is it well, and what does the service consist of?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from broker.host_states import RedisHostStates
from db.queries.totals import roll_up
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app
from worker.upkeep import Upkeep


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


@pytest.fixture
def busy(runner: SourceRunner, fake_server: FakeServer) -> SourceRunner:
    """Two sources are well, one rejects records, two fail alike, one is paused, one disabled, one queued."""
    runner.write("good.csv", "id,title\n1,a\n")
    runner.write("bad.csv", "id,title,price\n1,a,1\n2,b,x\n")
    url = fake_server.on("/gone", Response(status=403))
    names = ("good", "also", "paused", "queued")
    files = [{"name": name, "type": "csv", "file": "good.csv"} for name in names]
    lost = [{"name": name, "type": "api", "request": {"url": url}} for name in ("lost", "lost_too")]
    off = {"name": "off", "type": "csv", "file": "good.csv", "enabled": False}
    runner.declare(*files, *lost, off, {"name": "bad", "type": "csv", "file": "bad.csv", "max_rejected": 100})
    for name in ("good", "also", "bad", "lost", "lost_too"):
        runner.run(name)
    runner.database.transact(roll_up)
    runner.sql("UPDATE sources SET paused_until = clock_timestamp() + interval '1 h' WHERE name = 'paused'")
    runner.queue("queued")
    return runner


def test_all_at_a_glance(busy: SourceRunner, client: FlaskClient) -> None:
    shown = client.get("/overview").get_json()
    assert shown["status"] == "degraded"
    assert shown["sources"] == {
        "total": 8,
        "ok": 2,
        "late": 0,
        "failing": 2,
        "in_part": 1,
        "paused": 1,
        "disabled": 1,
        "set_aside": 0,
        "gone": 0,
    }
    assert (shown["runs"]["queued"], shown["runs"]["running"]) == (1, 0)
    assert shown["runs"]["oldest_sent_at"]
    assert (shown["open_rejects"], shown["open_rejects_is_exact"]) == (1, True)
    assert shown["open_breakers"] is not None
    assert len(shown["hours"]) == 48
    assert shown["hours"][-1]["runs"] == {"success": 2, "partial": 1, "failed": 2}
    assert shown["hours"][0]["runs"] == {}
    (failing,) = (cause for cause in shown["attention"] if cause["error"])
    assert (failing["sources_total"], failing["sources"]) == (2, ["lost", "lost_too"])


def test_hours_count_what_is_rolled_up_and_what_is_not(busy: SourceRunner, client: FlaskClient) -> None:
    busy.run("good")
    assert client.get("/overview").get_json()["hours"][-1]["runs"]["success"] == 4
    busy.database.transact(roll_up)
    assert client.get("/overview").get_json()["hours"][-1]["runs"]["success"] == 4


def test_the_parts_of_the_service(busy: SourceRunner, client: FlaskClient) -> None:
    busy.sql("INSERT INTO etl_workers (name, kind, processes) VALUES ('w1', 'worker', 4)")
    first = client.get("/system").get_json()
    assert [(one["name"], one["alive"], one["processes"]) for one in first["processes"]] == [("w1", True, 4)]
    assert {queue["name"] for queue in first["queues"]} == {"extract", "load", "low"}
    assert next(queue for queue in first["queues"] if queue["name"] == "extract")["oldest_at"]
    tables = {table["name"]: table for table in first["tables"]}
    assert {"unified_items", "raw_data", "audit_log", "etl_run_events", "idempotency_keys", "source_versions"} <= set(
        tables
    )
    assert not any(name.startswith("raw_data_") for name in tables), "partitions count to their table"
    assert tables["etl_run_events"]["retention"] == "90 days, at most 5000 of a run"
    assert tables["unified_items"]["bytes_a_day"] is None
    assert first["versions"]["migration"]
    Upkeep(busy.settings).note_sizes(busy.database)
    busy.sql("UPDATE etl_sizes SET at = at - interval '1 day', bytes = bytes - 1000000 WHERE name = 'unified_items'")
    grown = {table["name"]: table["bytes_a_day"] for table in client.get("/system").get_json()["tables"]}
    assert grown["unified_items"] == pytest.approx(1_000_000, abs=50_000)


def test_hosts_and_how_quickly_they_answer(busy: SourceRunner, client: FlaskClient, fake_server: FakeServer) -> None:
    host = f"127.0.0.1:{fake_server.port}"
    limiter = HostLimiter(RedisHostStates(), BreakerPolicy(1, 60), "test")
    RedisHostStates().reset(host)
    limiter.admit(host, 60.0, 10.0)
    (shown,) = client.get("/hosts").get_json()["hosts"]
    assert (shown["host"], shown["state"], shown["sources"]) == (host, "closed", ["lost", "lost_too"])
    assert shown["interval"] == 60.0
    assert shown["next_at"]
    assert shown["requests"] == 2
    assert 0 < shown["p50_seconds"] <= shown["p95_seconds"] < 30
    limiter.failed(host, "it answered 500")
    assert client.get("/hosts").get_json()["hosts"][0]["state"] == "open"
