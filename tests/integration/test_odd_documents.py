"""Documents and texts that no one means, and that must end as a refusal that names them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from config.settings import PROJECT
from db.queries.totals import roll_up
from etl.access.keys import hash_key
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app
from worker.removal import Removal

KEY = "correct horse battery staple"


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    settings = replace(runner.settings, api_keys=(hash_key(KEY),))
    with create_app(settings, runner.database).test_client() as client:
        client.environ_base["HTTP_X_API_KEY"] = KEY
        yield client


@pytest.mark.parametrize("address", ["http://[x", "http://a\u2100b.example/y", "https://u:p@h.example/z?a=1"])
def test_a_record_that_holds_an_odd_address_ends_its_run(runner: SourceRunner, address: str) -> None:
    runner.write("shop.csv", f"id,title,price\n1,a,{address}\n2,b,{address}\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv", "map": {"amount": "price", "external_id": "id"}})
    assert runner.run("shop")["status"] in {"failed", "partial"}


@pytest.mark.parametrize("url", ["http://[foo/x", "http://a\u2100b.example/", "http://h.example:99999/"])
def test_an_address_that_no_client_can_call_is_refused(client: FlaskClient, url: str) -> None:
    answer = client.put("/sources/bad", json={"type": "api", "request": {"url": url}})
    assert answer.status_code == 422
    assert "request.url" in answer.text


@pytest.mark.parametrize("url", ["http://[::1]:8000/x", "${HOST}/x", "https://h.example/${KEY}", "http://h:80"])
def test_an_address_that_can_be_called_is_taken(url: str) -> None:
    from etl.declare.request import check_address

    check_address(url, "request.url")


@pytest.mark.parametrize("text_", ["- ", "[", "? ", "{a: "])
def test_depth_ends_no_process(text_: str) -> None:
    code = f"""
from etl.declare.catalog import read_foreign_yaml
from etl.errors import ConfigError
import threading
def read():
    try:
        read_foreign_yaml({text_!r} * 500_000, "body")
    except ConfigError as error:
        print(error.message)
thread = threading.Thread(target=read); thread.start(); thread.join()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0
    assert "nested deeper than 50" in done.stdout


@pytest.mark.parametrize("value", ["1:" + "1:" * 300 + ".5", "!!bool x", ".inf", ".nan", '"\\0"'])
def test_yaml_that_means_nothing_is_refused(client: FlaskClient, value: str) -> None:
    document = f"sources:\n- name: a\n  type: csv\n  file: a.csv\n  constants: {{title: {value}}}\n"
    answer = client.post("/sources/apply", data=document, content_type="application/yaml")
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "more",
    [{"nulls": ["a\0"]}, {"map": {"title": "a\0"}}, {"constants": {"title": "\0"}}, {"tags": ["\0"]}],
)
def test_nul_is_refused_by_its_key(client: FlaskClient, more: dict[str, Any]) -> None:
    answer = client.put("/sources/a", json={"type": "csv", "file": "a.csv", **more})
    assert answer.status_code == 422
    assert next(iter(more)) in answer.text


def test_what_looks_like_nul_on_record_is_none(runner: SourceRunner, client: FlaskClient) -> None:
    for name in ("a\\u0000", "b\\\\u0000", "c\\u0000\\u0000"):
        made = client.post("/keys", json={"name": name, "role": "read"})
        assert made.status_code == 201, made.text
        entry = client.get("/audit").get_json()["entries"][0]
        assert entry["detail"]["after"]["name"] == name


def test_a_long_document_may_be_asked_for_again(client: FlaskClient) -> None:
    sources = [{"name": f"s{number}", "type": "csv", "file": "x" * 1200} for number in range(1200)]
    answers = [
        client.post("/sources/apply?dry_run=true", json={"sources": sources}, headers={"Idempotency-Key": "long"})
        for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].data == answers[1].data


def test_a_key_is_replaced_once(client: FlaskClient) -> None:
    made = client.post("/keys", json={"name": "x", "role": "read"}).get_json()
    first = client.post(f"/keys/{made['key_id']}/rotate", json={"overlap": 60})
    again = client.post(f"/keys/{made['key_id']}/rotate", json={"overlap": 60})
    assert (first.status_code, again.status_code) == (201, 409)
    assert str(first.get_json()["key_id"]) in again.get_json()["detail"]
    last = client.post(f"/keys/{first.get_json()['key_id']}/rotate", json={"overlap": 0})
    assert last.get_json()["expires_at"] is None


@pytest.mark.parametrize("name", ["SOURCES", "SOURCES_FILE", "ENV", "SESSION_SECRET", "API_KEYS", "API_KEYS_FILE"])
def test_what_the_service_is_set_by_is_no_secret_of_a_source(client: FlaskClient, name: str) -> None:
    request = {"url": "https://shop.example/x", "headers": {"X-Trace": f"${{{name}}}"}}
    answer = client.put("/sources/a", json={"type": "api", "request": request})
    assert answer.status_code == 422
    assert name in answer.text


def test_a_file_that_is_not_there_is_not_named(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_KEY_FILE", "/srv/hidden/shop")
    request = {"url": "https://shop.example/x", "headers": {"X-Trace": "${SHOP_KEY}"}}
    answer = client.put("/sources/a", json={"type": "api", "request": request})
    assert answer.status_code == 422
    assert "SHOP_KEY" in answer.text
    assert "/srv/hidden" not in answer.text


def test_one_made_again_knows_nothing_of_what_failed_before(
    runner: SourceRunner, client: FlaskClient, fake_server: FakeServer
) -> None:
    fake_server.on("/x", Response(status=404))
    document = {"type": "api", "request": {"url": fake_server.url + "/x"}}
    assert client.put("/sources/again", json=document).status_code == 201
    runner.run("again")
    version = client.get("/sources/again").headers["ETag"]
    assert client.delete("/sources/again", headers={"If-Match": version}).status_code == 200
    runner.database.transact(roll_up)
    assert client.put("/sources/again", json=document).status_code == 201
    runner.database.transact(roll_up)
    shown = client.get("/sources/again").get_json()
    assert shown["source"]["name"] == "again"
    health = client.get("/health").get_json()
    assert [source["status"] for source in health["sources"]] == ["never_run"]
    assert client.get("/sources/again/why").get_json()["reasons"] == []


def test_items_of_a_deleted_source_wait_for_a_run_that_may_still_load(
    runner: SourceRunner, client: FlaskClient
) -> None:
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    runner.run("shop")
    late = runner.queue("shop")
    with runner.database.transaction() as connection:
        # As if it had been queued by a transaction that still saw the source.
        connection.execute(text("DELETE FROM sources WHERE name = 'shop'"))
        connection.execute(text("INSERT INTO source_removals (source_name) VALUES ('shop')"))
    removal = Removal(replace(runner.settings, deleted_retention=timedelta(days=1)))
    removal.empty_sources(runner.database)
    emptied = "SELECT emptied_at IS NOT NULL FROM source_removals"
    with runner.database.transaction() as connection:
        assert connection.execute(text(emptied)).scalar_one() is False
        connection.execute(
            text("UPDATE etl_runs SET status = 'cancelled', completed_at = now() WHERE run_id = :id"), {"id": str(late)}
        )
    removal.empty_sources(runner.database)
    with runner.database.transaction() as connection:
        assert connection.execute(text(emptied)).scalar_one() is True
        assert connection.execute(text("SELECT count(*) FROM unified_items WHERE status = 'active'")).scalar_one() == 0


@pytest.mark.parametrize("given", ["0" * 20 + "9" * 5000, "0" * 20 + "9" * 30, "9" * 19])
def test_a_last_event_that_no_table_holds(runner: SourceRunner, client: FlaskClient, given: str) -> None:
    runner.write("shop.csv", "id,title\n1,a\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    run = runner.run("shop")
    headers = {"Accept": "text/event-stream", "Last-Event-ID": given}
    assert client.get(f"/runs/{run['run_id']}/events", headers=headers).status_code == 422


@pytest.mark.parametrize("headers", [{"Origin": "http://[x"}, {"Host": "[x"}, {"Origin": "null"}])
def test_headers_that_are_no_addresses(runner: SourceRunner, headers: dict[str, str]) -> None:
    with create_app(runner.settings, runner.database).test_client() as guest:
        assert guest.get("/data", headers=headers).status_code in {400, 401}
