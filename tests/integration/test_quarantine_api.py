"""Quarantine and replays over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from etl.runs.messages import ExtractMessage
from testkit.runner import SourceRunner
from web.app import create_app

KEY = "k" * 40
MAPPING = {"external_id": "id", "title": "name", "amount": "price", "published_at": "when"}
ROWS = "id,name,price,when\n1,pot,1,\n2,pan,n/a,\n3,lid,3,soon\n4,tin,n/a,later\n"


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", "map": MAPPING, **more}


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    runner.settings = replace(runner.settings, api_keys=(KEY,))
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


@pytest.fixture
def cases(runner: SourceRunner) -> None:
    runner.write("shop.csv", ROWS)
    runner.declare(shop())
    assert runner.run("shop")["records_failed"] == 3


def get(client: FlaskClient, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.get_json()


def post(client: FlaskClient, path: str, body: dict[str, Any], status: int = 202) -> Any:
    answer = client.post(path, json=body, headers={"X-API-Key": KEY})
    assert answer.status_code == status, answer.text
    return answer.get_json()


def finish(runner: SourceRunner, run_id: str) -> dict[str, Any]:
    runner.messages.append(ExtractMessage(UUID(run_id), low=True))
    runner.drain()
    return runner.show(UUID(run_id))


@pytest.mark.usefixtures("cases")
def test_cases_are_listed_and_filtered(client: FlaskClient) -> None:
    page = get(client, "/quarantine?limit=2")
    assert [case["external_id"] for case in page["cases"]] == ["4", "3"]
    rest = get(client, f"/quarantine?limit=2&cursor={page['next_cursor']}")
    assert ([case["external_id"] for case in rest["cases"]], rest["next_cursor"]) == (["2"], None)
    (case,) = get(client, "/quarantine?field=published_at&source_name=shop")["cases"]
    assert (case["rule"], case["value"], case["state"], case["redrivable"]) == ("type", "soon", "open", True)
    assert case["attempts"] == case["mapping_version"] == 1
    assert get(client, "/quarantine?state=discarded")["cases"] == []
    assert get(client, f"/quarantine?run_id={case['run_id']}")["next_cursor"] is None
    for wrong in ("state=odd", "limit=0", "cursor=x", "cursor=0", "run_id=1", "odd=1", "source_name=%00"):
        get(client, f"/quarantine?{wrong}", 422)


@pytest.mark.usefixtures("cases")
def test_a_case_shows_its_record_and_every_rule_that_it_broke(client: FlaskClient) -> None:
    newest = get(client, "/quarantine?limit=1")["cases"][0]["id"]
    case = get(client, f"/quarantine/{newest}")
    assert case["raw_payload"] == {"id": "4", "name": "tin", "price": "n/a", "when": "later"}
    assert [(fault["field"], fault["value"]) for fault in case["errors"]] == [
        ("amount", "n/a"),
        ("published_at", "later"),
    ]
    assert (case["raw_text"], case["raw_truncated"], case["earlier"]) == (None, False, [])
    assert "`dates`" in case["errors"][1]["message"]
    get(client, "/quarantine/999999", 404)


@pytest.mark.usefixtures("cases")
def test_causes_are_counted(client: FlaskClient) -> None:
    first, second = get(client, "/quarantine/groups")["groups"]
    assert (first["field"], first["rule"], first["count"]) == ("amount", "type", 2)
    assert first["sample"]["external_id"] == "4"
    assert (second["field"], second["count"], second["source_name"]) == ("published_at", 1, "shop")
    assert get(client, "/quarantine/groups?source_name=other")["groups"] == []


@pytest.mark.usefixtures("cases")
def test_what_is_mended_is_driven_again(client: FlaskClient, runner: SourceRunner) -> None:
    runner.declare(shop(nulls=["n/a"]))
    meant = post(client, "/quarantine/redrive", {"source_name": "shop", "field": "amount", "dry_run": True})
    assert meant == {"cases": 2, "not_redrivable": 0, "run_id": None}
    assert runner.sql("SELECT count(*) FROM etl_runs") == [1]
    queued = post(client, "/quarantine/redrive", {"source_name": "shop", "field": "amount"})
    again = post(client, "/quarantine/redrive", {"source_name": "shop"}, 409)
    assert again["active_run_id"] == queued["run_id"]
    run = finish(runner, queued["run_id"])
    assert (run["lane"], run["trigger"], run["status"]) == ("replay", "redrive", "partial")
    assert (run["records_inserted"], run["records_failed"]) == (1, 1)
    assert "still do not fit: 1 × published_at" in run["error"]["message"]
    # It stays open for what is left of it, and tells what it was before.
    (case,) = get(client, "/quarantine?field=published_at&limit=1")["cases"]
    case = get(client, f"/quarantine/{case['id']}")
    assert [fault["field"] for fault in case["errors"]] == ["published_at"]
    assert [(fault["field"], fault["mapping_version"]) for fault in case["earlier"]] == [("amount", 1)]
    assert (case["attempts"], case["mapping_version"], case["driven_by"]) == (2, 2, queued["run_id"])


@pytest.mark.usefixtures("cases")
def test_what_is_put_away_stays_away_while_it_says_the_same(client: FlaskClient, runner: SourceRunner) -> None:
    ids = [case["id"] for case in get(client, "/quarantine")["cases"]]
    wanted = {"source_name": "shop", "ids": ids, "reason": "known to be junk"}
    assert post(client, "/quarantine/discard", wanted, 200) == {"discarded": 3}
    runner.write("shop.csv", ROWS + "5,jug,5,\n")
    run = runner.run("shop")
    assert (run["status"], run["records_failed"], run["records_inserted"]) == ("success", 3, 1)
    assert get(client, "/quarantine")["cases"] == []
    assert {case["reason"] for case in get(client, "/quarantine?state=discarded")["cases"]} == {"known to be junk"}
    assert runner.sql("SELECT count(*) FROM raw_data") == [5]
    # By another mapping too; and driven again.
    runner.declare(shop(timezone="Europe/Berlin"))
    assert runner.run("shop")["status"] == "success"
    queued = post(client, "/replays", {"source_name": "shop"})
    run = finish(runner, queued["run_id"])
    assert (run["status"], run["records_extracted"], run["records_failed"]) == ("success", 2, 0)
    assert get(client, "/quarantine")["cases"] == []
    # Other content is another matter.
    runner.write("shop.csv", ROWS.replace("soon", "tomorrow"))
    run = runner.run("shop")
    assert (run["status"], run["records_failed"]) == ("partial", 3)
    (case,) = get(client, "/quarantine")["cases"]
    assert (case["external_id"], case["value"]) == ("3", "tomorrow")


@pytest.mark.usefixtures("cases")
def test_a_replay_is_asked_for_and_refused(client: FlaskClient, runner: SourceRunner) -> None:
    runner.declare(shop(map={**MAPPING, "title": "price"}))
    queued = post(client, "/replays", {"source_name": "shop", "since": "2020-01-01T00:00:00Z"})
    run = finish(runner, queued["run_id"])
    assert (run["lane"], run["trigger"], run["records_extracted"], run["records_updated"]) == ("replay", "replay", 4, 1)
    assert post(client, "/replays", {"source_name": "nobody"}, 404)["source"] == "nobody"
    post(client, "/replays", {"source_name": "shop", "run_id": str(UUID(int=7))}, 404)
    nothing = post(client, "/replays", {"source_name": "shop", "until": "2020-01-01T00:00:00Z"}, 422)
    assert nothing["type"].endswith(":nothing_to_replay")
    far = {"source_name": "shop", "until": "1070-07-26T09:18:30.20+21:53"}
    assert post(client, "/replays", far, 422)["type"].endswith("nothing_to_replay")
    upside_down = {"source_name": "shop", "since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}
    assert post(client, "/replays", upside_down, 422)["errors"][0]["field"] == "until"
    assert client.post("/replays", json={"source_name": "shop"}).status_code == 401


@pytest.mark.usefixtures("cases")
def test_nothing_is_driven_while_an_older_release_would_fetch_instead(
    client: FlaskClient, runner: SourceRunner
) -> None:
    runner.sql("INSERT INTO etl_workers (name, kind) VALUES ('worker@old', 'worker') RETURNING 1")
    for path in ("/replays", "/quarantine/redrive"):
        refused = post(client, path, {"source_name": "shop"}, 409)
        assert refused["type"].endswith(":older_release")
    runner.sql("UPDATE etl_workers SET seen_at = now() - interval '1 minute' RETURNING 1")
    post(client, "/replays", {"source_name": "shop"})


@pytest.mark.usefixtures("cases")
@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("redrive", {}, "source_name"),
        ("redrive", {"source_name": "shop", "ids": [1], "field": "x"}, "ids"),
        ("redrive", {"source_name": "shop", "ids": [0]}, "ids.0"),
        ("redrive", {"source_name": "shop", "odd": 1}, "odd"),
        ("discard", {"source_name": "shop"}, "reason"),
        ("discard", {"source_name": "shop", "reason": ""}, "reason"),
    ],
)
def test_bad_requests_name_the_field(client: FlaskClient, path: str, body: dict[str, Any], field: str) -> None:
    assert field in {error["field"] for error in post(client, f"/quarantine/{path}", body, 422)["errors"]}


def test_what_has_no_stored_record_is_said_to_have_none(client: FlaskClient, runner: SourceRunner) -> None:
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    runner.write("shop.csv", 'id,name\n1,"a\x00b"\n2,b\n')
    runner.run("shop")
    (case,) = get(client, "/quarantine")["cases"]
    assert (case["redrivable"], case["stage"]) == (False, "extract")
    shown = get(client, f"/quarantine/{case['id']}")
    assert shown["raw_payload"] is None
    assert "b" in shown["raw_text"]
    refused = post(client, "/quarantine/redrive", {"source_name": "shop"}, 422)
    assert "stored record" in refused["detail"]
    assert runner.sql("SELECT count(*) FROM etl_runs WHERE lane = 'replay'") == [0]
