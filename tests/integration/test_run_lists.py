"""Runs looked for by what they were and failed of, and what each consists of."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app


@pytest.fixture
def client(runner: SourceRunner, fake_server: FakeServer) -> FlaskClient:
    url = fake_server.json("/items", [{"id": 1, "title": "one"}])
    gone = fake_server.on("/gone", Response(status=404))
    runner.declare(
        {"name": "good", "type": "api", "records": "@", "request": {"url": url}},
        {"name": "bad", "type": "api", "records": "@", "request": {"url": gone}},
    )
    for name in ("good", "bad", "good"):
        runner.run(name)
    return create_app(runner.settings, runner.database).test_client()


def listed(client: FlaskClient, **query: Any) -> list[tuple[str, str]]:
    answer = client.get("/runs", query_string=query)
    assert answer.status_code == 200, answer.text
    return [(run["source_name"], run["status"]) for run in answer.get_json()["runs"]]


def test_runs_are_found_by_what_they_failed_of(client: FlaskClient) -> None:
    [group] = client.get("/errors").get_json()["groups"]
    assert listed(client, error=group["fingerprint"]) == [("bad", "failed")]
    assert listed(client, error_code=group["code"]) == [("bad", "failed")]
    assert listed(client, error_code="timeout") == []


def test_runs_are_found_by_what_began_them_and_when(client: FlaskClient) -> None:
    every = [("good", "success"), ("bad", "failed"), ("good", "success")]
    assert listed(client, trigger="api") == every
    assert listed(client, trigger="schedule") == []
    assert listed(client, lane="fetch", trigger="api", status="success", source_name="good") == every[::2]
    at = client.get("/runs").get_json()["runs"][1]["created_at"]
    assert listed(client, created_after=at) == every[:2]
    assert listed(client, created_before=at) == every[2:]


@pytest.mark.parametrize("query", ["trigger=nobody", "lane=fast", "created_after=soon", "ids=x&trigger=api"])
def test_bad_filters_are_named(client: FlaskClient, query: str) -> None:
    assert client.get(f"/runs?{query}").status_code == 422


def test_what_a_run_consists_of_and_has_asked_for(client: FlaskClient) -> None:
    run = client.get("/runs").get_json()["runs"][2]["run_id"]
    [batch] = client.get(f"/runs/{run}/batches").get_json()["batches"]
    assert (batch["state"], batch["records_extracted"], batch["records_inserted"]) == ("loaded", 1, 1)
    [asked] = client.get(f"/runs/{run}/requests").get_json()["requests"]
    assert (asked["method"], asked["status"], asked["attempt"]) == ("GET", 200, 1)
    for part in ("batches", "requests"):
        assert client.get(f"/runs/00000000-0000-0000-0000-000000000000/{part}").status_code == 404


def test_sources_with_their_last_runs_and_counts(client: FlaskClient) -> None:
    plain = client.get("/sources").get_json()
    assert "counts" not in plain
    assert "recent_runs" not in plain["sources"][0]
    found = client.get("/sources?details=true").get_json()
    assert [[run["status"] for run in one["recent_runs"]] for one in found["sources"]] == [
        ["failed"],
        ["success", "success"],
    ]
    assert [one["open_rejects"] for one in found["sources"]] == [0, 0]
    assert found["counts"]["total"] == 2
