"""Requests that may come again: done once, answered alike."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from etl.access.keys import hash_key
from testkit.runner import SourceRunner
from web.app import create_app
from worker.removal import Removal

KEY, OTHER = "correct horse battery staple", "another key of the settings"


@pytest.fixture
def app(runner: SourceRunner) -> Flask:
    for name in ("shop", "store"):
        runner.write(f"{name}.csv", "id,title\n1,a\n")
    runner.declare(*({"name": name, "type": "csv", "file": f"{name}.csv"} for name in ("shop", "store")))
    return create_app(replace(runner.settings, api_keys=(hash_key(KEY), hash_key(OTHER))), runner.database)


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    with app.test_client() as client:
        client.environ_base["HTTP_X_API_KEY"] = KEY
        yield client


def count(runner: SourceRunner, table: str) -> int:
    with runner.database.transaction() as connection:
        return int(connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())


def test_the_same_request_is_done_once_and_answered_alike(runner: SourceRunner, client: FlaskClient) -> None:
    ask = {"json": {"source": "shop"}, "headers": {"Idempotency-Key": "a"}}
    first = client.post("/runs", **ask)
    again = client.post("/runs", **ask)
    assert first.status_code == again.status_code == 202
    assert first.data == again.data
    assert first.headers["Location"] == again.headers["Location"]
    assert (first.headers.get("Idempotency-Replayed"), again.headers["Idempotency-Replayed"]) == (None, "true")
    assert count(runner, "etl_runs") == 1
    assert count(runner, "audit_log") == 1
    assert client.post("/runs", json={"source": "shop"}).status_code == 409


def test_a_refusal_stands_too(runner: SourceRunner, client: FlaskClient) -> None:
    client.post("/runs", json={"source": "shop"})
    ask = {"json": {"source": "shop"}, "headers": {"Idempotency-Key": "b"}}
    first = client.post("/runs", **ask)
    assert first.status_code == 409
    with runner.database.transaction() as connection:
        connection.execute(text("UPDATE etl_runs SET status = 'cancelled', stage = 'done'"))
    again = client.post("/runs", **ask)
    assert (again.status_code, again.data, again.content_type) == (409, first.data, "application/problem+json")
    assert count(runner, "etl_runs") == 1
    assert count(runner, "audit_log") == 1


def test_another_request_with_the_same_key_is_a_mistake(client: FlaskClient) -> None:
    client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": "c"})
    other = client.post("/runs", json={"source": "store"}, headers={"Idempotency-Key": "c"})
    assert other.status_code == 422
    assert other.get_json()["type"] == "urn:kasparro:problem:idempotency_key_reused"


def test_a_key_stands_for_nothing_at_another_caller(runner: SourceRunner, client: FlaskClient) -> None:
    mine = client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": "d"})
    theirs = client.post("/runs", json={"source": "store"}, headers={"Idempotency-Key": "d", "X-API-Key": OTHER})
    assert (mine.status_code, theirs.status_code) == (202, 202)
    assert count(runner, "etl_runs") == 2


def test_a_day_later_it_is_another_request(runner: SourceRunner, client: FlaskClient) -> None:
    client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": "e"})
    with runner.database.transaction() as connection:
        connection.execute(text("UPDATE idempotency_keys SET created_at = created_at - interval '24 hours 1 second'"))
    assert client.post("/runs", json={"source": "store"}, headers={"Idempotency-Key": "e"}).status_code == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9"])
def test_a_key_that_cannot_be_kept_is_refused(runner: SourceRunner, client: FlaskClient, key: str) -> None:
    answer = client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.get_json()["errors"][0]["field"] == "Idempotency-Key"
    assert count(runner, "etl_runs") == 0


def test_what_is_wrong_with_a_request_itself_is_not_kept(client: FlaskClient) -> None:
    assert client.post("/runs", json={"sauce": 1}, headers={"Idempotency-Key": "f"}).status_code == 422
    assert client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": "f"}).status_code == 202


def test_fifty_at_once_make_one_run(runner: SourceRunner, app: Flask) -> None:
    def ask(_: int) -> bytes:
        answer = app.test_client().post(
            "/runs", json={"source": "shop"}, headers={"X-API-Key": KEY, "Idempotency-Key": "g"}
        )
        assert answer.status_code == 202, answer.text
        return bytes(answer.data)

    with ThreadPoolExecutor(10) as pool:
        assert len(set(pool.map(ask, range(50)))) == 1
    assert count(runner, "etl_runs") == 1


def test_what_fails_after_the_work_leaves_nothing(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no record of it")

    monkeypatch.setattr("web.writes.record_write", fail)
    assert client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": "h"}).status_code == 500
    assert (count(runner, "etl_runs"), count(runner, "idempotency_keys")) == (0, 0)
    monkeypatch.undo()
    assert client.post("/runs", json={"source": "shop"}, headers={"Idempotency-Key": "h"}).status_code == 202


def test_answers_and_records_of_writes_are_removed_when_they_are_old(runner: SourceRunner, client: FlaskClient) -> None:
    for number, name in enumerate(("shop", "store")):
        client.post("/runs", json={"source": name}, headers={"Idempotency-Key": f"old {number}"})
    with runner.database.transaction() as connection:
        connection.execute(
            text("UPDATE idempotency_keys SET created_at = created_at - interval '26 h' WHERE key = 'old 0'")
        )
        connection.execute(text("UPDATE audit_log SET at = at - interval '366 d' WHERE audit_id = 1"))
    Removal(runner.settings).forget_callers(runner.database)
    assert (count(runner, "idempotency_keys"), count(runner, "audit_log")) == (1, 1)
