"""Plans: what a replay would do, said before it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask.testing import FlaskClient

from db.queries.plans import due_plans, purge_plans
from etl.runs.messages import PlanMessage
from testkit.runner import SourceRunner
from web.app import create_app

KEY = "k" * 40
MAPPING = {"external_id": "id", "title": "name", "amount": "price", "published_at": "made"}
# Everything but the plans and the processes' own statements.
TABLES = ("sources", "source_versions", "etl_runs", "etl_batches", "etl_run_events", "etl_checkpoints", "raw_data",
          "staged_items", "unified_items", "rejected_records", "source_fields")  # fmt: skip


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", "map": MAPPING, **more}


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    runner.settings = replace(runner.settings, api_keys=(KEY,))
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


@pytest.fixture
def stored(runner: SourceRunner) -> None:
    runner.write(
        "shop.csv", "id,name,price,made\n1,pot,1.50,2026-05-01 10:00\n2,pan,n/a,\n3,lid,3,\n4,jug,?,\n5,tin,5,2026\n"
    )
    runner.declare(shop(dates=["%Y"]))
    assert runner.run("shop")["records_inserted"] == 3


def asked(client: FlaskClient, **more: Any) -> dict[str, Any]:
    answer = client.post("/replays", json={"source_name": "shop", "dry_run": True, **more}, headers={"X-API-Key": KEY})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.get_json()
    assert answer.headers["Location"] == f"/replays/{found['plan_id']}"
    return found


def plan(client: FlaskClient, runner: SourceRunner, **more: Any) -> dict[str, Any]:
    found = asked(client, **more)
    runner.messages.append(PlanMessage(UUID(found["plan_id"])))
    runner.drain()
    shown: dict[str, Any] = client.get(f"/replays/{found['plan_id']}").get_json()
    return shown


def contents(runner: SourceRunner) -> list[Any]:
    return [runner.sql(f"SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM {table} t") for table in TABLES]


@pytest.mark.usefixtures("stored")
def test_what_would_change_is_said_and_nothing_is_written(client: FlaskClient, runner: SourceRunner) -> None:
    runner.declare(shop(nulls=["n/a"], timezone="Europe/Berlin"))
    before = contents(runner)
    shown = plan(client, runner)
    assert contents(runner) == before
    assert (shown["state"], shown["mapping_version"], shown["one_in"]) == ("done", 2, 1)
    diff = shown["diff"]
    # 1: its time is another; 2: fits now; 3: as it was; 4: as it was, in quarantine; 5: its time is none any more.
    expected = {"records": 5, "added": 1, "changed": 1, "unchanged": 1, "mended": 1, "newly_rejected": 1}
    assert {name: diff[name] for name in expected} == expected
    assert diff["still_rejected"] == 1
    assert diff["fields_changed"] == {"published_at": 1}
    assert diff["causes"] == {"amount: type": 1, "published_at: type": 1}
    (changed,) = diff["samples"]["changed"]
    assert changed["external_id"] == "1"
    assert changed["before"]["published_at"].startswith("2026-05-01T10:00:00")
    assert changed["after"]["published_at"].startswith("2026-05-01T08:00:00")
    (added,) = diff["samples"]["added"]
    assert (added["external_id"], added["after"]["title"]) == ("2", "pan")
    (rejected,) = diff["samples"]["newly_rejected"]
    assert (rejected["external_id"], rejected["field"], rejected["value"]) == ("5", "published_at", "2026")
    # What was planned is what is done.
    run = runner.replay("shop")
    assert (run["records_inserted"], run["records_updated"], run["records_unchanged"], run["records_failed"]) == (
        1,
        1,
        1,
        2,
    )
    again = plan(client, runner)["diff"]
    assert (again["records"], again["unchanged"], again["still_rejected"]) == (5, 3, 2)


@pytest.mark.usefixtures("stored")
def test_a_sample_says_how_large_it_is(client: FlaskClient, runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,name,price,made\n" + "".join(f"{n},pot,{n},\n" for n in range(10, 1010)))
    runner.run("shop")
    shown = plan(client, runner, sample=100)
    assert shown["one_in"] == 10
    assert 50 < shown["diff"]["records"] < 200


@pytest.mark.usefixtures("stored")
def test_a_plan_that_gets_nowhere_is_given_up(client: FlaskClient, runner: SourceRunner, monkeypatch: Any) -> None:
    found = asked(client)
    monkeypatch.setattr("worker.planning._map_rows", lambda *_: 1 / 0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            runner.step(PlanMessage(UUID(found["plan_id"])))
    runner.step(PlanMessage(UUID(found["plan_id"])))
    shown = client.get(f"/replays/{found['plan_id']}").get_json()
    assert shown is not None
    assert (shown["state"], shown["diff"]["records"]) == ("failed", 0)
    assert shown["message"]


@pytest.mark.usefixtures("stored")
def test_a_lost_message_is_sent_again_and_old_plans_go(client: FlaskClient, runner: SourceRunner) -> None:
    found = asked(client)
    assert runner.database.transact(due_plans) == []
    runner.sql("UPDATE etl_plans SET touched_at = now() - interval '1 minute' RETURNING 1")
    assert runner.database.transact(due_plans) == [PlanMessage(UUID(found["plan_id"]))]
    assert runner.database.transact(purge_plans, timedelta(days=1)) == 0
    runner.sql("UPDATE etl_plans SET created_at = now() - interval '2 days' RETURNING 1")
    assert runner.database.transact(purge_plans, timedelta(days=1)) == 1
    assert client.get(f"/replays/{found['plan_id']}").status_code == 404


@pytest.mark.usefixtures("stored")
def test_bad_plans_are_refused(client: FlaskClient) -> None:
    for body, field in (
        ({"sample": 5}, "sample"),
        ({"dry_run": True, "sample": 0}, "sample"),
        ({"dry_run": "yes"}, "dry_run"),
    ):
        answer = client.post("/replays", json={"source_name": "shop", **body}, headers={"X-API-Key": KEY})
        assert answer.status_code == 422
        assert answer.get_json()["errors"][0]["field"] == field
    answer = client.post(
        "/replays",
        json={"source_name": "shop", "dry_run": True, "until": "2001-01-01T00:00:00Z"},
        headers={"X-API-Key": KEY},
    )
    assert answer.get_json()["type"].endswith("nothing_to_replay")
