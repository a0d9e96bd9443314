"""Previews: a source read a little, by a process of its own, with nothing written."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from config.settings import Settings
from etl.access.keys import hash_key
from etl.hosts.breaker import Circuit
from etl.hosts.limiter import HostState
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner
from tests.conftest import TABLES
from web.app import create_app
from worker.previewing import Wanted, answer

KEY = "k" * 40
FEED = b"""<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>
<item><guid>1</guid><title>One</title><link>http://a.example/1</link></item>
<item><guid>2</guid><title>Two</title></item></channel></rss>"""


@pytest.fixture(autouse=True)
def environment(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the process that previews reads its settings from."""
    url = runner.settings.database_url
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("CSV_ROOTS", str(runner.folder))
    monkeypatch.setenv("SOURCES_FILE", str(runner.folder / "sources.yaml"))
    monkeypatch.setenv("STATE_DIR", str(runner.folder / "state"))


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    settings = replace(runner.settings, api_keys=(hash_key(KEY),))
    with create_app(settings, runner.database).test_client() as client:
        yield client


def rows(runner: SourceRunner) -> list[Any]:
    """How many rows each table has."""
    with runner.database.transaction() as connection:
        return [connection.execute(text(f"SELECT count(*) FROM {name}")).scalar() for name in TABLES.split(", ")]


def told(runner: SourceRunner, document: dict[str, Any], **more: Any) -> dict[str, Any]:
    before = rows(runner)
    found = answer(runner.settings, Wanted({"name": "shop", **document}, **more))
    assert rows(runner) == before
    return found


def post(client: FlaskClient, body: dict[str, Any], status: int = 200) -> Any:
    given = client.post("/sources/preview", json=body, headers={"X-API-Key": KEY})
    assert given.status_code == status, given.text
    return given.get_json()


def test_an_api_is_previewed(runner: SourceRunner, fake_server: FakeServer, client: FlaskClient) -> None:
    pages = {1: [{"id": 1, "name": "Pot", "price": 1.5, "extra": {"colour": "red"}}], 2: [{"id": 2, "price": "dear"}]}

    def shown(request: Request) -> Response:
        return as_json({"items": pages.get(int(request.query["page"]), []), "total": 2})

    document = {
        "name": "shop",
        "type": "api",
        "request": {"url": fake_server.on("/items", shown)},
        "records": "items",
        "paginate": {"style": "page", "param": "page"},
        "expect": {"title": {"required": True}},
    }
    before = rows(runner)
    found = post(client, {"source": document})
    assert rows(runner) == before
    assert (found["error"], found["has_more"], found["pages"]) == (None, False, 3)
    assert found["records"] == [pages[1][0], pages[2][0]]
    assert [(item["external_id"], item["title"], item["amount"]) for item in found["items"]] == [("1", "Pot", 1.5)]
    assert found["items"][0]["metadata"] == {"extra": {"colour": "red"}}
    faults = {(one["field"], one["rule"]) for one in found["rejects"][0]["errors"]}
    assert faults == {("amount", "type"), ("title", "required")}
    assert {(one["field"], one["records"]) for one in found["broken_rules"]} == {("amount", 1), ("title", 1)}
    assert [(one["method"], one["status"]) for one in found["requests"]] == [("GET", 200)] * 3
    assert found["requests"][0]["body"].startswith('{"items":')
    assert found["requests"][0]["headers"]["content-type"] == "application/json"
    assert found["filled"]["title"] == 1.0
    assert found["paging"] == {"style": "page", "pages_read": 3, "suggested": None}
    assert found["suggested_map"]["external_id"] == "id"
    assert found["warnings"] == []


def test_a_feed_is_previewed(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/feed", Response(FEED, headers={"Content-Type": "application/rss+xml"}))
    found = told(runner, {"type": "rss", "request": {"url": f"{fake_server.url}/feed"}})
    assert found["error"] is None
    assert len(found["items"]) == 2
    assert b"One" in bytes(found["items"][0]) + bytes(found["items"][1])


@pytest.mark.parametrize("by_url", [True, False])
def test_a_file_is_previewed(runner: SourceRunner, fake_server: FakeServer, *, by_url: bool) -> None:
    body = "Nr;Preis\n" + "".join(f"{n};{n},50\n" for n in range(100))
    where = {"request": {"url": fake_server.on("/a.csv", Response(body.encode()))}} if by_url else {"file": "a.csv"}
    runner.write("a.csv", body)
    document = {"type": "csv", **where, "map": {"external_id": "Nr", "amount": "Preis"}, "numbers": {"decimal": ","}}
    found = told(runner, document, records=10)
    assert (len(found["items"]), found["has_more"], found["error"]) == (10, True, None)
    assert (found["dialect"]["delimiter"], found["dialect"]["columns"]) == (";", ["Nr", "Preis"])
    assert bool(found["requests"]) == by_url


def test_a_mapping_and_a_way_to_more_pages_are_suggested(runner: SourceRunner, fake_server: FakeServer) -> None:
    record = {"Sku": "x1", "headline": "Pot", "price": {"amount": "1.50"}, "updatedAt": "2026-11-01T00:00:00Z"}
    other = {**record, "Sku": "x2", "headline": "Pan"}
    url = fake_server.json("/items", {"data": [record, other], "meta": {"next_cursor": "abc"}})
    found = told(runner, {"type": "api", "request": {"url": url}, "records": "data"})
    assert found["suggested_map"] == {
        "external_id": "Sku",
        "title": "headline",
        "amount": "price.amount",
        "published_at": "updatedAt",
    }
    assert found["paging"]["suggested"] == {"style": "cursor", "param": "cursor", "next": "meta.next_cursor"}
    assert found["ids"] == {"records": 2, "without_id": 2, "repeated": 0}


def test_where_the_records_are_is_suggested(runner: SourceRunner, fake_server: FakeServer) -> None:
    url = fake_server.json("/items", {"data": {"items": [{"id": 1}, {"id": 2}], "links": []}})
    found = told(runner, {"type": "api", "request": {"url": url}, "records": "data.rows"})
    assert (found["error"]["code"], found["suggested_records"]) == ("no_records", "data.items")


def test_what_the_database_would_refuse_is_told(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing that mapping lets through is refused today; so a table is made to.
    with runner.database.transaction() as connection:
        connection.execute(text("ALTER TABLE unified_items ADD CONSTRAINT picky CHECK (title <> 'bad')"))
    try:
        url = fake_server.json("/items", [{"id": 1, "title": "good"}, {"id": 2, "title": "bad"}])
        found = told(runner, {"type": "api", "request": {"url": url}})
    finally:
        with runner.database.transaction() as connection:
            connection.execute(text("ALTER TABLE unified_items DROP CONSTRAINT picky"))
    assert [(one["record"], "picky" in one["message"]) for one in found["refused"]] == [(1, True)]
    assert len(found["items"]) == 1


def test_a_secret_that_a_server_echoes_is_shown_in_no_value(
    client: FlaskClient, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush-hush")

    def echo(request: Request) -> Response:
        said = request.headers["authorization"]
        return as_json([{"id": 1, "title": said}, {"id": 2, "price": said}])

    auth = {"kind": "bearer", "token": "${TOKEN}"}
    url = fake_server.on("/items", echo)
    found = post(client, {"source": {"name": "shop", "type": "api", "request": {"url": url, "auth": auth}}})
    assert found["rejects"]
    assert "hush" not in str(found)


def test_a_defect_of_ours_is_not_blamed_on_the_source(client: FlaskClient) -> None:
    said = post(client, {"source": {"name": "a", "type": "csv", "file": "\x00"}}, 422)["detail"]
    assert "a run of it would end so too" not in said


def test_secrets_are_not_shown(runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush-hush")

    def echo(request: Request) -> Response:
        body = f'[{{"id": 1, "title": "{request.headers["authorization"]}"}}]'
        return Response(body.encode(), headers={"Content-Type": "application/json", "Link": "hush-hush-hush"})

    url = fake_server.on("/items", echo)
    document = {"type": "api", "request": {"url": url, "auth": {"kind": "bearer", "token": "${TOKEN}"}}}
    found = told(runner, document)
    assert found["error"] is None
    assert "hush" not in str(found["requests"])


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "refused": ({"type": "api", "request": {"url": "{url}/403"}}, "http_403"),
    "not there": ({"type": "api", "request": {"url": "{url}/404"}}, "http_404"),
    "down": ({"type": "api", "request": {"url": "{url}/500"}}, "http_500"),
    "no json": ({"type": "api", "request": {"url": "{url}/html"}}, "bad_json"),
    "no list": ({"type": "api", "request": {"url": "{url}/object"}, "records": "items"}, "no_records"),
    "private": ({"type": "api", "request": {"url": "http://10.0.0.1/"}}, "private_address"),
    "no such host": ({"type": "api", "request": {"url": "http://nowhere.invalid/"}}, "dns_failed"),
    "nobody listens": ({"type": "rss", "request": {"url": "http://127.0.0.1:9/"}}, "connection_failed"),
    "no feed": ({"type": "rss", "request": {"url": "{url}/html"}}, "not_a_feed"),
    "no file": ({"type": "csv", "file": "none.csv"}, "file_not_found"),
    "outside": ({"type": "csv", "file": "/etc/passwd"}, "file_not_allowed"),
    "web page": ({"type": "csv", "request": {"url": "{url}/html"}}, "not_csv"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_says_why(runner: SourceRunner, fake_server: FakeServer, name: str) -> None:
    for status in (403, 404, 500):
        fake_server.on(f"/{status}", Response(b"no", status))
    fake_server.on("/html", Response(b"<html><body>Log in</body></html>", headers={"Content-Type": "text/html"}))
    fake_server.json("/object", {"nothing": 1})
    document, code = BROKEN[name]
    if "request" in document:
        document = {**document, "request": {"url": document["request"]["url"].replace("{url}", fake_server.url)}}
    found = told(runner, document)
    assert found["error"]["code"] == code, found["error"]
    assert found["items"] == []


def test_an_open_breaker_is_left_alone(runner: SourceRunner, fake_server: FakeServer) -> None:
    """The states are in Redis; a preview reads and spends, and a failing one says nothing of the host."""
    from broker.host_states import RedisHostStates
    from broker.messaging import make_producer

    states, host = RedisHostStates(make_producer()), f"127.0.0.1:{fake_server.port}"
    fake_server.on("/500", Response(b"no", 500))
    document = {"type": "api", "request": {"url": f"{fake_server.url}/500"}}
    for _ in range(10):
        assert told(runner, document)["error"]["code"] == "http_500"
    assert states.update(host, lambda state, _: (state, state.circuit)) == Circuit()
    until = time.time() + 600
    broken = HostState(Circuit(failures=5, opened=1, opened_at=time.time(), open_until=until, reason="it was down"))
    states.update(host, lambda state, _: (broken, None))
    asked = len(fake_server.asked)
    error = told(runner, document)["error"]
    assert error["code"] == "breaker_open"
    assert "it was down" in error["message"]
    assert len(fake_server.asked) == asked
    assert states.update(host, lambda state, _: (state, state.circuit)) == broken.circuit
    states.reset(host)


def hostile(kind: str) -> Response:
    if kind == "digits":
        return Response(b'[{"a":' + b"1" * 2_000_000 + b"}]", headers={"Content-Type": "application/json"})
    if kind == "link":
        return Response(b"[]", headers={"Content-Type": "application/json", "Link": "<" * 60_000})
    if kind == "large":
        return Response(b'[{"id": 1, "a": "' + b"x" * 40_000_000 + b'"}]', headers={"Content-Type": "application/json"})
    names = ",".join("n" * 1000 + str(n) for n in range(9000))
    return Response((names + "\n").encode() + b"1,2\n" * 100_000)


@pytest.mark.parametrize("kind", ["digits", "link", "large", "names"])
def test_a_hostile_source_is_answered_in_time(
    runner: SourceRunner, fake_server: FakeServer, client: FlaskClient, kind: str
) -> None:
    url = fake_server.on("/items", hostile(kind))
    document = {"name": "shop", "type": "csv" if kind == "names" else "api", "request": {"url": url}}
    started = time.monotonic()
    found = post(client, {"source": document, "seconds": 5})
    assert time.monotonic() - started < 20
    assert found["error"] or found["unstorable"] or found["records"] == []
    assert client.get("/health/ready").status_code == 200


def test_a_slow_source_is_ended(runner: SourceRunner, fake_server: FakeServer, client: FlaskClient) -> None:
    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b"[")
            handler.wfile.flush()
            time.sleep(0.2)

    url = fake_server.on("/items", Response(raw=drip))
    started = time.monotonic()
    found = post(client, {"source": {"name": "shop", "type": "api", "request": {"url": url}}, "seconds": 2})
    assert time.monotonic() - started < 15
    assert found["error"]["code"] in {"too_slow", "slow", "slice_over", "timeout", "fetch_failed"}, found


def test_two_go_on_at_once(runner: SourceRunner, fake_server: FakeServer, client: FlaskClient) -> None:
    arrived, go_on = threading.Semaphore(0), threading.Event()

    def wait(_: Request) -> Response:
        arrived.release()
        go_on.wait(20)
        return as_json([{"id": 1}])

    document = {"name": "shop", "type": "api", "request": {"url": fake_server.on("/items", wait)}}
    found: list[dict[str, Any]] = []
    threads = [
        threading.Thread(target=lambda: found.append(answer(runner.settings, Wanted(document)))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert arrived.acquire(timeout=10)
    assert post(client, {"source": document}, 429)["type"].endswith("too_many_previews")
    go_on.set()
    for thread in threads:
        thread.join()
    assert [one["error"] for one in found] == [None, None]
    assert post(client, {"source": document})["error"] is None


def test_a_saved_source_is_previewed_by_its_name(runner: SourceRunner, client: FlaskClient) -> None:
    runner.write("shop.csv", "id,title\n1,Pot\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    found = post(client, {"source_name": "shop", "records": 1})
    assert [item["title"] for item in found["items"]] == ["Pot"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 422, "either"),
        ({"source_name": "none"}, 404, "no source named"),
        ({"source": {"name": "a"}}, 422, "type"),
        ({"source": {"name": "a", "type": "api", "request": {"url": "http://a.example"}, "colour": 1}}, 422, "colour"),
        ({"source": {"name": "a", "type": "csv", "file": "a.csv"}, "records": 1000}, 422, "records"),
        ({"source": {"name": "a", "type": "csv", "file": "a.csv"}, "seconds": 1000}, 422, "seconds"),
        (
            {"source": {"name": "a", "type": "api", "request": {"url": "http://a.example/${NOT_SET_ANYWHERE}"}}},
            422,
            "NOT_SET_ANYWHERE",
        ),
        (
            {"source": {"name": "a", "type": "api", "request": {"url": "http://a.example/${DATABASE_URL}"}}},
            422,
            "DATABASE_URL",
        ),
    ],
)
def test_what_is_no_source_is_refused(client: FlaskClient, body: dict[str, Any], status: int, said: str) -> None:
    assert said in post(client, body, status)["detail"]


def test_it_needs_a_key(client: FlaskClient) -> None:
    body = {"source": {"name": "a", "type": "csv", "file": "a.csv"}}
    assert client.post("/sources/preview", json=body).status_code == 401


def test_without_a_database_all_but_its_word_is_told(
    runner: SourceRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    del tmp_path
    runner.write("shop.csv", "id,title\n1,Pot\n")
    away: Settings = replace(runner.settings, web_database_url="postgresql://a:b@127.0.0.1:9/c")
    found = answer(away, Wanted({"name": "shop", "type": "csv", "file": "shop.csv"}))
    assert [one["code"] for one in found["warnings"]] == ["not_checked"]
    assert len(found["items"]) == 1
