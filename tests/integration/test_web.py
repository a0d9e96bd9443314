"""The HTTP interface on a real database."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from functools import partial
from threading import Event
from uuid import uuid4

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from broker.host_states import HostStatesWithFallback, RedisHostStates
from config.settings import SettingError
from db.queries.item_paths import Filters
from db.queries.items import Effort, RecentTotals, find_items
from db.session import Database
from etl.access.keys import hash_key
from etl.hosts.breaker import BreakerPolicy
from etl.hosts.limiter import HostLimiter
from testkit.fake_server import FakeServer, Response
from testkit.runner import SourceRunner
from web.app import create_app
from web.blueprints import data, stats

FORGED = (
    ["password", True, 1, "x"],
    ["amount", True, 5, "abc"],
    ["amount", True, 5, "NaN"],
    ["title", True, 5, "a\x00"],
    ["created_at", True, 5, "soon"],
    ["created_at", True, 5, "0001-01-01T00:00:00+15:00"],
    ["updated_at", True, 5, "2026-01-01T00:00:00"],
    ["title", True, "5", "a"],
    ["title; DROP TABLE x", True, 5, "a"],
    ["title || (SELECT pg_sleep(9)::text)", True, 5, None],
    ["amount", True, 5, "1e999999"],
    ["amount", True, 5, "0e-20000"],
    ["rating", True, 5, "0e999999999999"],
)
KEY = "correct horse battery staple"


def forged(cursor: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode().rstrip("=")


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    app = create_app(replace(runner.settings, api_keys=(hash_key(KEY),)), runner.database)
    with app.test_client() as client:
        yield client


@pytest.fixture
def shop(runner: SourceRunner) -> SourceRunner:
    runner.declare(
        {"name": "shop", "type": "csv", "file": "shop.csv"},
        {"name": "idle", "type": "csv", "file": "x.csv", "enabled": False},
    )
    lines = [f"{n},thing {n},red apple number {n},{n % 7}.{n:02},2026-01-{n % 28 + 1:02}" for n in range(1, 121)]
    lines[5] = "6,thing 6,,,"
    runner.write("shop.csv", "id,name,details,price,date\n" + "\n".join(lines) + "\n")
    runner.run("shop")
    return runner


def problem(response) -> dict:  # type: ignore[no-untyped-def,type-arg]
    assert response.content_type == "application/problem+json"
    body = json.loads(response.data)
    assert {"type", "title", "status", "detail"} <= set(body)
    assert body["status"] == response.status_code
    return body  # type: ignore[no-any-return]


# --- data


def test_items_have_exact_numbers(shop: SourceRunner, client: FlaskClient) -> None:
    body = json.loads(client.get("/data?page_size=1&sort_by=amount").data, parse_float=Decimal)
    assert body["items"][0]["amount"] == Decimal("6.111") or body["items"][0]["amount"] > 6
    assert body["pagination"]["total_items"] == 120
    assert body["pagination"]["total_is_exact"] is True
    assert body["filters_applied"] == {"status": "active"}


@pytest.mark.parametrize("sort_by", ["created_at", "updated_at", "published_at", "title", "amount", "rating"])
@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("size", [17, 40])
def test_cursors_and_pages_walk_the_same_way(
    shop: SourceRunner, client: FlaskClient, sort_by: str, order: str, size: int
) -> None:
    query = f"sort_by={sort_by}&sort_order={order}&page_size={size}"
    by_page, page, has_next = [], 0, True
    while has_next:
        page += 1
        body = client.get(f"/data?{query}&page={page}").json
        by_page += [item["id"] for item in body["items"]]
        has_next = body["pagination"]["has_next"]
    assert page == -(-120 // size)
    assert client.get(f"/data?{query}&page={page + 1}").json["items"] == []
    by_cursor, address = [], f"/data?{query}"
    while address:
        body = client.get(address).json
        by_cursor += [item["id"] for item in body["items"]]
        cursor = body["pagination"]["next_cursor"]
        address = f"/data?page_size={size}&cursor={cursor}" if cursor else ""
    assert by_cursor == by_page
    assert len(set(by_cursor)) == 120


def test_search_finds_both_forms_of_an_accent(runner: SourceRunner) -> None:
    runner.declare({"name": "food", "type": "csv", "file": "food.csv"})
    one, other = unicodedata.normalize("NFC", "crème brûlée"), unicodedata.normalize("NFD", "crème brûlée")
    runner.write("food.csv", f"id,name\n1,{one}\n2,{other}\n3,soup\n")
    runner.run("food")
    with create_app(runner.settings, runner.database).test_client() as client:
        for search in (one, other, "crème", unicodedata.normalize("NFD", "brûlée")):
            found = client.get("/data", query_string={"search": search}).json["items"]
            assert sorted(item["external_id"] for item in found) == ["1", "2"], search
            assert {item["title"] for item in found} == {one, other}
        left = client.get("/data", query_string={"search": "soup -crème"}).json["items"]
        assert [item["external_id"] for item in left] == ["3"]


def test_filters(shop: SourceRunner, client: FlaskClient) -> None:
    def total(query: str) -> int:
        response = client.get(f"/data?{query}")
        assert response.status_code == 200, response.data
        return response.json["pagination"]["total_items"]  # type: ignore[no-any-return]

    assert total("source_type=csv") == 120
    assert total("source_type=rss") == 0
    assert total("source_name=shop") == 120
    assert total("source_name=idle") == 0
    assert total("search=apple") == 119
    assert total("search=%22thing+7%22") == 1
    assert total("search=thing+-apple") == 1
    assert total("published_after=2026-01-28T00:00:00Z") == 4
    assert total("published_after=2026-01-01T00:00:00Z&published_before=2026-01-02T00:00:00Z") == 4
    assert total("updated_since=2020-01-01T00:00:00Z") == 120
    assert total("published_after=2026-01-28") == 4
    assert total("category=none") == 0
    assert total("status=deleted") == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"),
        ("page=x", "page"),
        ("page_size=1001", "page_size"),
        ("page=900&page_size=100", "page"),
        ("unknown=1", "unknown"),
        ("sort_by=password", "sort_by"),
        ("published_after=yesterday", "published_after"),
        ("cursor=junk", "cursor"),
        ("cursor=W10", "cursor"),
        *((f"cursor={forged(cursor)}", "cursor") for cursor in FORGED),
        ("source_type=xml", "source_type"),
        ("page=99999999999999999999999", "page"),
        ("source_name=shop&source_name=other", "source_name"),
    ],
)
def test_bad_queries_name_the_parameter(client: FlaskClient, query: str, field: str) -> None:
    response = client.get(f"/data?{query}")
    assert response.status_code == 422
    assert [error["field"] for error in problem(response)["errors"]] == [field]
    assert problem(response)["errors"][0]["location"] == "query"


@pytest.mark.parametrize(
    "query", ["search=%00", "source_name=%00", "category=%ff%fe", "search=%22%22", "search=%26%7C!"]
)
def test_odd_text_is_no_server_error(client: FlaskClient, query: str) -> None:
    assert client.get(f"/data?{query}").status_code in {200, 422}


def test_metadata_is_exact_too(runner: SourceRunner, client: FlaskClient, fake_server: FakeServer) -> None:
    number = b"12345678901234567890.123456789"
    url = fake_server.on("/a", Response(b'[{"id": 1, "x": ' + number + b"}]"))
    runner.declare({"name": "shop", "type": "api", "request": {"url": url}})
    runner.run("shop")
    assert b'"x": ' + number in client.get("/data").data


# --- runs


def test_a_run_is_queued_and_shown(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    response = client.post("/runs", json={"source": "shop"})
    assert response.status_code == 202
    (queued,) = response.json["runs"]
    assert (queued["source_name"], queued["status"]) == ("shop", "queued")
    assert response.headers["Location"] == f"/runs/{queued['run_id']}"
    shown = client.get(response.headers["Location"]).json
    assert (shown["status"], shown["trigger"], shown["error"]) == ("queued", "api", None)
    assert [event["event"] for event in shown["events"]] == ["queued"]
    again = client.post("/runs", json={"source": "shop"})
    assert again.status_code == 409
    assert problem(again)["active_run_id"] == queued["run_id"]
    all_sources = client.post("/runs", json={})
    assert all_sources.status_code == 409


def test_several_sources_are_queued_or_none(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(*({"name": name, "type": "csv", "file": "x.csv"} for name in ("a", "b", "c")))
    assert problem(client.post("/runs", json={"sources": ["a", "nope"]}))["status"] == 404
    assert client.get("/runs").json["runs"] == []
    assert len(client.post("/runs", json={"sources": ["a", "b", "a"]}).json["runs"]) == 2
    statuses = {run["source_name"]: run["status"] for run in client.post("/runs", json={}).json["runs"]}
    assert statuses == {"a": "already_active", "b": "already_active", "c": "queued"}


def test_disabled_sources_cannot_be_run(shop: SourceRunner, client: FlaskClient) -> None:
    assert problem(client.post("/runs", json={"source": "idle"}))["status"] == 409


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"sorce": "a"}, "sorce"),
        ({"source": 3}, "source"),
        ({"sources": "a"}, "sources"),
        ({"source": "a", "sources": ["b"]}, "sources"),
    ],
)
def test_bad_bodies_name_the_field(client: FlaskClient, body: object, field: str) -> None:
    response = client.post("/runs", json=body)
    assert response.status_code == 422
    assert field in [error["field"] for error in problem(response)["errors"]]
    assert problem(response)["errors"][0]["location"] == "body"


@pytest.mark.parametrize("body", [b"{", b"[]", b"\xff", b"null", b'{"source": NaN}', b"[" * 100_000])
def test_broken_bodies_are_refused(client: FlaskClient, body: bytes) -> None:
    response = client.post("/runs", data=body, content_type="application/json")
    assert response.status_code == 422
    problem(response)


@pytest.mark.parametrize("source", [b"\\u0000", b"\\ud800"])
def test_text_that_no_column_holds_is_refused(client: FlaskClient, source: bytes) -> None:
    response = client.post("/runs", data=b'{"source": "' + source + b'"}', content_type="application/json")
    assert problem(response)["status"] == 422


def test_a_body_that_is_not_declared_to_be_json_is_refused(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    response = client.post("/runs", data=b'{"source": "nope"}', headers={"X-API-Key": KEY})
    assert problem(response)["status"] == 415
    assert client.get("/runs").json["runs"] == []


def test_runs_are_listed_by_cursor(shop: SourceRunner, client: FlaskClient) -> None:
    for _ in range(6):
        shop.run("shop")
    found, address = [], "/runs?limit=3"
    while address:
        body = client.get(address).json
        found += [run["run_id"] for run in body["runs"]]
        address = f"/runs?limit=3&cursor={body['next_cursor']}" if body["next_cursor"] else ""
    assert len(found) == len(set(found)) == 7
    assert client.get("/runs?status=failed").json["runs"] == []
    assert len(client.get("/runs?source_name=shop").json["runs"]) == 7


def test_runs_are_cancelled_once(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    run_id = runner.queue("shop")
    headers = {"X-API-Key": KEY}
    assert client.post(f"/runs/{run_id}/cancel").status_code == 401
    assert client.post(f"/runs/{run_id}/cancel", headers=headers).json["status"] == "cancelled"
    assert problem(client.post(f"/runs/{run_id}/cancel", headers=headers))["status"] == 409
    assert problem(client.post(f"/runs/{uuid4()}/cancel", headers=headers))["status"] == 404
    assert client.post("/runs", json={"source": "shop"}).status_code == 202


def test_unknown_runs_and_paths(client: FlaskClient) -> None:
    assert problem(client.get(f"/runs/{uuid4()}"))["status"] == 404
    assert problem(client.get("/runs/not-a-uuid"))["status"] == 404
    assert problem(client.get("/nowhere"))["status"] == 404
    assert problem(client.get("/runs/1?x=1"))["status"] == 404
    response = client.delete("/runs", headers={"X-API-Key": KEY})
    assert problem(response)["status"] == 405
    assert "POST" in response.headers["Allow"]


# --- stats and health


def test_stats(shop: SourceRunner, client: FlaskClient) -> None:
    body = client.get("/stats").json
    assert body["total_records"] == 120
    assert (body["total_sources"], body["active_sources"]) == (2, 1)
    assert body["records_by_source_type"] == {"csv": 120}
    shop_statistics = next(one for one in body["source_statistics"] if one["source_name"] == "shop")
    assert (shop_statistics["success_rate"], shop_statistics["total_runs"]) == (100.0, 1)
    assert body["recent_runs"][0]["records_loaded"] == 120
    assert body["last_etl_success"]
    assert body["last_etl_failure"] is None
    assert body["avg_etl_duration_seconds"] >= 0


def test_stats_are_kept_while_nothing_is_written(
    shop: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as still:
        still.setattr(stats, "snapshot", lambda _: "10:10:")
        first = client.get("/stats").json
        shop.run("shop")
        assert client.get("/stats").json == first
        assert client.get("/stats?page=2").json["source_statistics"] == []
    assert len(client.get("/stats").json["recent_runs"]) == len(first["recent_runs"]) + 1


def test_stats_are_never_old(shop: SourceRunner, client: FlaskClient) -> None:
    first = client.get("/stats").json
    with shop.database.transaction() as connection:
        connection.execute(text("UPDATE sources SET enabled = false"))
        # One that began later is over: the end of this one is seen by its number alone.
        shop.sql("SELECT pg_current_xact_id()")
        assert client.get("/stats").json == first
    assert client.get("/stats").json["active_sources"] == first["active_sources"] - 1 == 0


def test_health_says_what_is_wrong(shop: SourceRunner, client: FlaskClient) -> None:
    body = client.get("/health").json
    assert body["status"] == "degraded"
    assert [reason["message"] for reason in body["reasons"]] == ["no worker was seen in the last 30 s"]
    assert (body["database_connected"], body["broker_connected"]) == (True, True)
    assert (body["total_sources"], body["successful_sources"], body["failed_sources"]) == (2, 1, 0)
    assert body["partial_sources"] == 0
    assert body["sources"][0]["name"] == "shop"


def test_health_without_a_database(runner: SourceRunner) -> None:
    gone = replace(runner.settings, web_database_url="postgresql://u:p@127.0.0.1:1/x")
    with create_app(gone).test_client() as client:
        response = client.get("/health")
        assert (response.status_code, response.json["status"]) == (503, "unhealthy")
        assert problem(client.get("/data"))["status"] == 503
        assert client.get("/data").headers["Retry-After"]
        assert client.get("/health/live").status_code == 200
        assert problem(client.get("/health/ready"))["status"] == 503


class HangingHosts:
    """States of hosts that are asked for, and do not come."""

    def __init__(self) -> None:
        self.asked = Event()
        self.go_on = Event()

    def all(self) -> dict[str, object]:
        self.asked.set()
        assert self.go_on.wait(30)
        return {}


def test_a_redis_that_hangs_holds_no_database_connection(runner: SourceRunner) -> None:
    app = create_app(runner.settings, runner.database)
    hosts = HangingHosts()
    app.extensions["kasparro"] = replace(app.extensions["kasparro"], hosts=hosts)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(lambda: app.test_client().get("/health"))
        try:
            assert hosts.asked.wait(30)
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tests' AND state LIKE 'idle in%'"
            assert runner.sql(query) == [0]
            assert runner.database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        finally:
            hosts.go_on.set()
        assert answer.result(30).status_code == 200


def test_runs_are_queued_without_a_broker(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    app = create_app(runner.settings, runner.database)
    app.extensions["kasparro"].producer.conf.broker_url = "redis://127.0.0.1:1/0"
    with app.test_client() as client:
        assert client.post("/runs", json={"source": "shop"}).status_code == 202
        assert client.get("/health").json["broker_connected"] is False


# --- documentation and callers


def test_the_interface_is_described(client: FlaskClient) -> None:
    body = client.get("/openapi.json").json
    assert body["openapi"].startswith("3.1")
    assert {"/data", "/stats", "/runs", "/runs/{run_id}", "/runs/{run_id}/cancel", "/health"} <= set(body["paths"])


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_need_no_internet(client: FlaskClient, page: str) -> None:
    body = client.get(page).text
    assert "http://" not in body
    assert "https://" not in body
    for asset in [part.split('"')[0] for part in body.split('"/assets/')[1:]]:
        with client.get(f"/assets/{asset}") as response:
            assert response.status_code == 200
            assert response.data


def test_a_page_of_another_site_cannot_start_runs(client: FlaskClient) -> None:
    form = client.post("/runs", data="{}", content_type="text/plain")
    assert form.status_code == 415
    assert client.get("/runs").json["runs"] == []
    rebound = client.get("/data", headers={"Host": "evil.example:8000"})
    assert rebound.status_code == 401
    assert client.get("/data", headers={"Host": "localhost:8000"}).status_code == 200


def test_an_open_address_needs_keys(runner: SourceRunner) -> None:
    with pytest.raises(SettingError, match="API_KEYS"):
        create_app(replace(runner.settings, web_host="0.0.0.0"), runner.database)
    with pytest.raises(SettingError, match="placeholder"):
        create_app(replace(runner.settings, api_keys=("changeme",)), runner.database)
    app = create_app(
        replace(runner.settings, web_host="0.0.0.0", api_keys=(hash_key(KEY), "plain-key")), runner.database
    )
    with app.test_client() as client:
        assert client.get("/data").status_code == 401
        assert problem(client.get("/stats"))["status"] == 401
        assert client.get("/health/live").status_code == 200
        assert client.get("/data", headers={"X-API-Key": "wrong"}).status_code == 401
        assert client.get("/data", headers={"X-API-Key": KEY}).status_code == 200
        assert client.get("/data", headers={"Authorization": "Bearer plain-key"}).status_code == 200


def test_breakers_are_shown_and_reset(client: FlaskClient, runner: SourceRunner) -> None:
    store = RedisHostStates()
    limiter = HostLimiter(HostStatesWithFallback(store), BreakerPolicy(1, 60), "worker")
    limiter.failed("dead.test:81", "it answered 503")
    limiter.pause("busy.test", 60, "429")
    runner.declare({"name": "far", "type": "api", "request": {"url": "http://dead.test:81/a"}})
    try:
        shown = {one["host"]: one for one in client.get("/breakers").json["breakers"]}
        assert (shown["dead.test:81"]["state"], shown["dead.test:81"]["reason"]) == ("open", "it answered 503")
        assert shown["busy.test"]["state"] == "closed"
        assert shown["busy.test"]["pause_reason"] == "429"
        assert [one["breaker"] for one in client.get("/health").json["sources"]] == ["open"]
        assert client.post("/breakers/dead.test:81/reset").status_code == 401
        answer = client.post("/breakers/dead.test:81/reset", headers={"X-API-Key": KEY})
        assert (answer.status_code, answer.json["state"]) == (200, "closed")
        assert client.post("/breakers/unknown.test/reset", headers={"X-API-Key": KEY}).status_code == 404
    finally:
        store.reset("dead.test:81")
        store.reset("busy.test")


def test_a_reset_ends_what_a_host_asked_of_its_sources(client: FlaskClient, runner: SourceRunner) -> None:
    runner.declare({"name": "far", "type": "api", "request": {"url": "http://limited.test/a"}})
    runner.sql("UPDATE sources SET not_before = now() + interval '1 day', not_before_reason = 'asked' RETURNING 1")
    assert client.get("/health").json["sources"][0]["not_before"] is not None
    assert client.post("/breakers/limited.test/reset", headers={"X-API-Key": KEY}).status_code == 200
    assert runner.sql("SELECT not_before FROM sources") == [None]


def test_a_source_that_is_gone_has_no_slots(client: FlaskClient, runner: SourceRunner) -> None:
    runner.declare({"name": "far", "type": "api", "request": {"url": "http://gone.test/a"}})
    runner.sql("UPDATE sources SET gone_reason = 'answered 410 Gone' RETURNING 1")
    (shown,) = client.get("/health").json["sources"]
    assert (shown["status"], shown["next_run_at"], shown["gone_reason"]) == ("gone", None, "answered 410 Gone")


def test_an_unchanged_list_is_not_sent_again(client: FlaskClient, shop: SourceRunner) -> None:
    first = client.get("/data?page_size=2")
    again = client.get("/data?page_size=2", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/data?page_size=3", headers={"If-None-Match": first.headers["ETag"]}).status_code == 200


def test_what_is_too_broad_is_said_with_what_to_narrow(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = Effort(counted=-1, large=-1, longest=0, uncovered_of_two=-1)
    monkeypatch.setattr(data, "find_items", partial(find_items, effort=narrow))
    response = client.get("/data?category=a&source_type=csv&sort_by=title")
    assert response.status_code == 422
    body = problem(response)
    assert body["type"].endswith(":too_broad")
    assert [error["field"] for error in body["errors"]] == ["category", "source_type"]
    assert "source_name" in body["detail"]
    assert client.get("/data?category=a&sort_by=title").status_code == 200


def test_a_total_that_one_service_has_kept_is_not_that_of_another(database: Database) -> None:
    insert = text("""
        INSERT INTO unified_items (source_type, source_name, external_id, raw_data_id, raw_ingested_at, run_id,
            content_hash, mapping_version, category)
        SELECT 'csv', 'shop', n::text, n, now(), gen_random_uuid(), '', 1, 'a' FROM generate_series(1, :count) AS n
    """)
    one, other = RecentTotals(), RecentTotals()
    filters = Filters(category="a")
    with database.transaction() as connection:
        connection.execute(insert, {"count": 10_100})
        connection.execute(text("ANALYZE unified_items"))
        before = one.count(connection, filters)
        connection.execute(text("DELETE FROM unified_items"))
        assert (before.count > 10_000, one.count(connection, filters)) == (True, before)
        assert other.count(connection, filters).count == 0
