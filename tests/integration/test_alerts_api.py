"""Alerts over the API: what was told, a test, and mutes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient

from etl.alerts.destination import parse_destinations
from testkit.runner import SourceRunner
from web.app import create_app
from worker.alerting import Alerting

LATER = (datetime.now(UTC) + timedelta(hours=1)).isoformat()


@pytest.fixture
def alerted(runner: SourceRunner) -> SourceRunner:
    found = parse_destinations("money=https://ops.example/s3cret", ())
    runner.settings = replace(runner.settings, alert_urls=found, alert_secret=b"k" * 32)
    runner.declare({"name": "rows", "type": "csv", "file": "rows.csv", "tags": ["money"]})
    return runner


@pytest.fixture
def asking(alerted: SourceRunner) -> FlaskClient:
    return admin(alerted)


def admin(runner: SourceRunner) -> FlaskClient:
    from etl.access.keys import hash_key

    client = create_app(replace(runner.settings, api_keys=(hash_key("k" * 32),)), runner.database).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {'k' * 32}"
    return client


def fail(runner: SourceRunner) -> None:
    runner.run("rows")
    Alerting(runner.settings).judge_runs(runner.database)


def test_what_stands_and_what_was_told(alerted: SourceRunner, asking: FlaskClient) -> None:
    fail(alerted)
    body: dict[str, Any] = asking.get("/alerts").get_json()
    assert "s3cret" not in str(body)
    [standing] = body["standing"]
    assert (standing["sources"], standing["sources_total"], standing["told"]) == (["rows"], 1, "firing")
    assert "rows.csv" in standing["message"]
    [alert] = body["alerts"]
    assert (alert["event"], alert["kind"], alert["title"]) == ("firing", "failing", "rows fails")
    assert alert["causes"][0]["cause"] == standing["cause"]
    assert alert["causes"][0]["incident"] == standing["incident"]
    assert [(one["state"], one["attempts"]) for one in alert["deliveries"]] == [("pending", 0)]
    assert body["destinations"] == [{"name": alert["deliveries"][0]["destination"], "tags": ["money"]}]
    assert asking.get(f"/alerts/{alert['alert_id']}").get_json() == alert


def test_messages_are_paged(alerted: SourceRunner, asking: FlaskClient) -> None:
    made = [asking.post("/alerts/test", json={}).get_json()["alert_id"] for _ in range(5)]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        page = asking.get("/alerts", query_string=query).get_json()
        seen += [alert["alert_id"] for alert in page["alerts"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == made[::-1]


def test_a_test_goes_to_every_address(alerted: SourceRunner, asking: FlaskClient) -> None:
    answer = asking.post("/alerts/test", json={})
    assert answer.status_code == 202
    shown = asking.get(answer.headers["Location"]).get_json()
    assert (shown["event"], len(shown["deliveries"])) == ("test", 1)
    assert alerted.sql("SELECT action FROM audit_log") == ["create_alert"]


def test_a_test_without_an_address_is_refused(runner: SourceRunner) -> None:
    answer = admin(runner).post("/alerts/test", json={})
    assert (answer.status_code, answer.get_json()["type"]) == (409, "urn:kasparro:problem:no_destination")


@pytest.mark.parametrize("scope", [{"all": True}, {"source": "rows"}, {"tag": "money"}])
def test_what_is_muted_is_not_told_until_then(
    alerted: SourceRunner, asking: FlaskClient, scope: dict[str, Any]
) -> None:
    answer = asking.post("/alerts/mute", json={**scope, "until": LATER, "reason": "a move"})
    assert answer.status_code == 200
    [mute] = answer.get_json()["mutes"]
    assert (mute["reason"], mute["made_by"]) == ("a move", "API_KEYS")
    fail(alerted)
    assert asking.get("/alerts").get_json()["alerts"] == []
    assert len(asking.get("/alerts").get_json()["standing"]) == 1
    assert asking.post("/alerts/mute", json={**scope, "until": None}).get_json() == {"mutes": []}
    alerting = Alerting(alerted.settings)
    alerting.look_around(alerted.database)
    assert len(asking.get("/alerts").get_json()["alerts"]) == 1


def test_a_cause_is_muted_by_its_name(alerted: SourceRunner, asking: FlaskClient) -> None:
    fail(alerted)
    cause = asking.get("/alerts").get_json()["standing"][0]["cause"]
    mutes = asking.post("/alerts/mute", json={"cause": cause, "until": LATER}).get_json()["mutes"]
    assert [(mute["scope"], mute["subject"]) for mute in mutes] == [("cause", cause)]
    alerted.write("rows.csv", "id,title\n1,one\n")
    fail(alerted)
    assert [alert["event"] for alert in asking.get("/alerts").get_json()["alerts"]] == ["firing"]


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"until": LATER}, 422, ""),
        ({"all": True, "source": "rows", "until": LATER}, 422, ""),
        ({"all": False, "until": LATER}, 422, "all"),
        ({"source": "rows"}, 422, "until"),
        ({"source": "rows", "until": "2020-01-01"}, 422, "until"),
        ({"source": "rows", "until": "tomorrow"}, 422, "until"),
        ({"cause": "nonsense:x", "until": LATER}, 422, "cause"),
        ({"source": "nobody", "until": LATER}, 404, None),
        ({"tag": "a\u0000b", "until": LATER}, 422, "tag"),
        ({"source": "rows", "until": LATER, "more": 1}, 422, "more"),
    ],
)
def test_bad_mutes_name_the_field(asking: FlaskClient, body: dict[str, Any], status: int, field: str | None) -> None:
    answer = asking.post("/alerts/mute", json=body)
    assert answer.status_code == status
    if field is not None:
        assert [error["field"] for error in answer.get_json()["errors"]] == [field]


@pytest.mark.parametrize("query", ["cursor=nonsense", "limit=0", "limit=201", "state=all"])
def test_bad_questions_are_refused(asking: FlaskClient, query: str) -> None:
    assert asking.get(f"/alerts?{query}").status_code == 422


def test_an_alert_that_there_is_not(asking: FlaskClient) -> None:
    assert asking.get("/alerts/00000000-0000-0000-0000-000000000000").status_code == 404
