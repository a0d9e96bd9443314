"""Failed runs by what they failed of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from db.queries.totals import roll_up
from etl.access.keys import hash_key
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app

KEY = "correct horse battery staple"


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(replace(runner.settings, api_keys=(hash_key(KEY),)), runner.database).test_client() as client:
        client.environ_base["HTTP_X_API_KEY"] = KEY
        yield client


@pytest.fixture
def failing(runner: SourceRunner, fake_server: FakeServer) -> SourceRunner:
    """Three causes over six sources: 404 twice, 403 three times, a missing file once; one source is well."""
    sources = []
    for number, status in enumerate((404, 404, 403, 403, 403, 200)):
        body = b'[{"id": 1, "title": "a"}]'
        url = fake_server.on(f"/{number}", Response(body, status, {"Content-Type": "application/json"}))
        sources.append({"name": f"s{number}", "type": "api", "request": {"url": url}})
    runner.declare(*sources, {"name": "s6", "type": "csv", "file": "nowhere.csv"})
    for number in range(7):
        runner.run(f"s{number}")
    return runner


def test_runs_are_grouped_by_their_cause(failing: SourceRunner, client: FlaskClient) -> None:
    failing.run("s0")
    found = client.get("/errors").get_json()
    assert (found["runs_total"], found["is_complete"]) == (7, True)
    assert [(group["runs"], group["sources"]) for group in found["groups"]] == [
        (3, ["s0", "s1"]),
        (3, ["s2", "s3", "s4"]),
        (1, ["s6"]),
    ]
    first = found["groups"][0]
    assert first["sample_source"] == "s0"
    assert "404" in first["code"] + first["message"]
    assert first["first_seen_at"] < first["last_seen_at"]


def test_a_window_is_kept_to(failing: SourceRunner, client: FlaskClient) -> None:
    failing.sql("UPDATE etl_runs SET completed_at = completed_at - interval '2 h' WHERE source_name <> 's6'")
    assert [group["sources"] for group in client.get("/errors?hours=1").get_json()["groups"]] == [["s6"]]
    assert len(client.get("/errors").get_json()["groups"]) == 3


def test_a_group_is_tried_again_and_nothing_else(failing: SourceRunner, client: FlaskClient) -> None:
    groups = client.get("/errors").get_json()["groups"]
    (refused,) = (group for group in groups if group["sources"] == ["s2", "s3", "s4"])
    # One of them is well since, another may not run.
    failing.sql("UPDATE etl_runs SET status = 'success', error_fingerprint = NULL WHERE source_name = 's3'")
    failing.sql("UPDATE sources SET enabled = false WHERE name = 's4'")
    queued = client.post("/runs", json={"error": refused["fingerprint"]})
    assert queued.status_code == 202
    assert [run["source_name"] for run in queued.get_json()["runs"]] == ["s2"]
    assert client.post("/runs", json={"error": refused["fingerprint"]}).status_code == 409
    assert client.post("/runs", json={"error": "0" * 16}).status_code == 404
    assert client.post("/runs", json={"error": "x"}).status_code == 422
    assert client.post("/runs", json={"error": "0" * 16, "source": "s0"}).status_code == 422


def test_runs_are_counted_by_the_hour_in_which_they_ended(failing: SourceRunner) -> None:
    failing.database.transact(roll_up)
    failing.run("s5")
    failing.database.transact(roll_up)
    rows = failing.sql("SELECT status, sum(runs)::int FROM etl_hours GROUP BY status ORDER BY status")
    assert rows == [("failed", 6), ("success", 2)]
