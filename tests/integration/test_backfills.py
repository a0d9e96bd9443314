"""Backfills: ranges of the past, fetched window by window beside the usual runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask.testing import FlaskClient

from db.queries.backfills import queue_backfill, start_backfills
from db.queries.runs import claim_run
from db.queries.sweep import due_runs
from db.queries.totals import roll_up
from etl.access.keys import hash_key
from etl.declare.source import parse
from etl.errors import ConfigError
from etl.runs.backfills import Existing, Span
from etl.runs.messages import ExtractMessage
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner
from web.app import create_app

KEY = "k" * 40
START = datetime(2026, 11, 1, tzinfo=UTC)
# What no run but a fetch may touch.
OF_FETCH = """
    SELECT ROW(c.value, c.version, c.run_id, c.total_runs, c.total_success, c.last_run_at, c.last_status,
               s.not_before, s.moved_to, s.gone_reason, s.misses, s.deaths, s.next_run_at, s.answered_at)::text
    FROM sources s JOIN etl_checkpoints c ON c.source_name = s.name WHERE s.name = 'shop'
"""


class Shop:
    """An API with orders of each hour, which tells those of a span, and otherwise the newest."""

    def __init__(self, server: FakeServer) -> None:
        self.price = 1
        self.newest: list[dict[str, Any]] = [{"id": "now", "price": 1}]
        self.etag: str | None = None
        self.server = server
        self.url = server.on("/orders", self._answer)
        self.fails_at: str | None = None

    def _answer(self, request: Request) -> Response:
        query = request.query
        if "start" not in query:
            if self.etag and request.headers.get("if-none-match") == self.etag:
                return Response(status=304)
            headers = {"Content-Type": "application/json"} | ({"ETag": self.etag} if self.etag else {})
            return Response(json.dumps(self.newest).encode(), headers=headers)
        if query["start"] == self.fails_at:
            return Response(b"no", 403)
        start, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        hours = range(int((end - start).total_seconds() // 3600))
        orders = [{"id": (start + timedelta(hours=n)).isoformat(), "price": self.price} for n in hours]
        page = int(query.get("page", 1))
        return as_json(orders[10 * (page - 1) : 10 * page])

    def document(self, **more: Any) -> dict[str, Any]:
        return {
            "name": "shop",
            "type": "api",
            "request": {"url": self.url},
            "map": {"external_id": "id", "amount": "price"},
            "paginate": {"style": "page", "param": "page"},
            "backfill": {"params": {"start": "{from}", "end": "{to}"}, "window": "1d"},
            **more,
        }


@pytest.fixture
def shop(fake_server: FakeServer) -> Shop:
    return Shop(fake_server)


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    settings = replace(runner.settings, api_keys=(hash_key(KEY),))
    with create_app(settings, runner.database).test_client() as client:
        yield client


def queue(runner: SourceRunner, days: float = 3, existing: Existing = Existing.UPDATE, name: str = "shop") -> UUID:
    run_id, end = uuid4(), START + timedelta(days=days)
    windows = -int(-days // 1)
    span = Span(START, end, 86_400, windows, existing)
    runner.messages += runner.database.transact(queue_backfill, run_id, name, span)
    return run_id


def backfill(runner: SourceRunner, **more: Any) -> dict[str, Any]:
    run_id = queue(runner, **more)
    runner.drain()
    return runner.show(run_id)


def windows(runner: SourceRunner, run: dict[str, Any]) -> list[Any]:
    return runner.sql(
        """SELECT (detail ->> 'number')::int, (detail ->> 'from')::timestamptz, (detail ->> 'records')::int,
                  (detail ->> 'pages')::int
           FROM etl_run_events WHERE run_id = :id AND event = 'window' ORDER BY event_id""",
        id=run["run_id"],
    )


def post(client: FlaskClient, body: dict[str, Any], status: int = 202) -> Any:
    answer = client.post("/backfills", json=body, headers={"X-API-Key": KEY})
    assert answer.status_code == status, answer.text
    return answer.get_json()


def test_a_range_is_fetched_window_by_window(runner: SourceRunner, shop: Shop) -> None:
    runner.declare(shop.document())
    runner.run("shop")
    runner.database.transact(roll_up)
    before = runner.sql(OF_FETCH)
    asked = len(shop.server.asked)
    run = backfill(runner, days=2.5)
    assert (run["status"], run["lane"], run["trigger"]) == ("success", "backfill", "backfill")
    assert (run["records_extracted"], run["records_inserted"]) == (60, 60)
    day = timedelta(days=1)
    assert windows(runner, run) == [(1, START, 24, 4), (2, START + day, 24, 4), (3, START + 2 * day, 12, 3)]
    starts = [request.query["start"] for request in shop.server.asked[asked:]]
    assert starts == sorted(starts)
    assert starts[0] == "2026-11-01T00:00:00Z"
    assert shop.server.asked[-1].query["end"] == "2026-11-03T12:00:00Z"
    runner.database.transact(roll_up)
    assert runner.sql(OF_FETCH) == before
    assert runner.sql("SELECT total_items FROM etl_checkpoints") == [61]
    # The same again has nothing to load.
    run = backfill(runner, days=2.5)
    assert (run["records_unchanged"], run["records_inserted"]) == (60, 0)
    assert runner.sql("SELECT count(*) FROM raw_data") == [61]


@pytest.mark.parametrize("batch", [7, 5000])
def test_it_goes_on_where_a_slice_ended(runner: SourceRunner, shop: Shop, batch: int) -> None:
    runner.settings = replace(runner.settings, batch_size=batch)
    runner.declare(shop.document())
    run_id = queue(runner)
    runner.slice_seconds = 0
    runner.drain()
    run = runner.show(run_id)
    assert (run["status"], run["records_inserted"], run["records_duplicate"]) == ("success", 72, 0)
    assert [row[2] for row in windows(runner, run)] == [24, 24, 24]
    # Each page was asked for once, whatever the number of slices, but for those that a batch has cut.
    if batch == 5000:
        assert len(shop.server.asked) == 3 * 4


def test_a_window_that_fails_ends_it_after_what_came_before(runner: SourceRunner, shop: Shop) -> None:
    shop.fails_at = "2026-11-02T00:00:00Z"
    runner.declare(shop.document())
    runner.run("shop")
    runner.database.transact(roll_up)
    before = runner.sql(OF_FETCH)
    run = backfill(runner)
    assert (run["status"], run["error"]["code"], run["records_inserted"]) == ("partial", "http_403", 24)
    assert [row[0] for row in windows(runner, run)] == [1]
    runner.database.transact(roll_up)
    assert runner.sql(OF_FETCH) == before


def test_what_is_there_is_kept_or_updated(runner: SourceRunner, shop: Shop) -> None:
    runner.declare(shop.document())
    backfill(runner, days=1)
    shop.price = 2
    run = backfill(runner, days=2, existing=Existing.KEEP)
    assert (run["records_inserted"], run["records_unchanged"], run["records_updated"]) == (24, 24, 0)
    assert sorted(runner.sql("SELECT amount::int FROM unified_items")) == [1] * 24 + [2] * 24
    run = backfill(runner, days=2)
    assert (run["records_updated"], run["records_unchanged"]) == (24, 24)
    assert set(runner.sql("SELECT amount::int FROM unified_items")) == {2}


def test_what_comes_meanwhile_is_kept_too(runner: SourceRunner, shop: Shop) -> None:
    """A usual run loads a record after the backfill that keeps what is there has stored its own."""
    runner.declare(shop.document())
    run_id = queue(runner, days=1, existing=Existing.KEEP)
    runner.step()
    held, runner.messages = runner.messages, []
    shop.newest = [{"id": START.isoformat(), "price": 9}]
    runner.run("shop")
    runner.messages = held
    runner.drain()
    assert runner.show(run_id)["records_inserted"] == 23
    assert runner.sql("SELECT amount::int FROM unified_items WHERE external_id = :id", id=START.isoformat()) == [9]


def test_the_live_record_stands_also_after_a_304(runner: SourceRunner, shop: Shop) -> None:
    key = START.isoformat()
    shop.newest, shop.etag = [{"id": key, "price": 5}], '"live"'
    document = shop.document(paginate={"style": "none"})
    runner.declare(document)
    runner.run("shop")
    assert runner.run("shop")["records_extracted"] == 0
    run_id = queue(runner, days=1)
    # A run that ends while the backfill goes on; it meets a 304, or has read A before B was loaded.
    runner.step()
    held, runner.messages = runner.messages, []
    runner.run("shop")
    runner.messages = held
    runner.drain()
    assert runner.show(run_id)["status"] == "success"
    assert runner.sql("SELECT amount::int FROM unified_items WHERE external_id = :key", key=key) == [1]
    assert runner.run("shop")["records_updated"] == 1
    assert runner.sql("SELECT amount::int FROM unified_items WHERE external_id = :key", key=key) == [5]
    # Of one that ended just now nobody knows whether it was before.
    runner.sql("UPDATE etl_runs SET completed_at = completed_at - interval '2 min' WHERE lane = 'backfill'")
    runner.run("shop")
    assert runner.run("shop")["records_extracted"] == 0


def test_a_run_beside_a_backfill_stores_what_is_unchanged(runner: SourceRunner, shop: Shop) -> None:
    """So that its record is the newest, whichever is loaded first."""
    key = START.isoformat()
    shop.newest = [{"id": key, "price": 5}]
    document = shop.document(paginate={"style": "none"})
    runner.declare(document)
    runner.run("shop")
    run_id = queue(runner, days=1)
    runner.step()
    held, runner.messages = runner.messages, []
    shop.newest.append({"id": "new", "price": 1})
    live = runner.run("shop")
    assert (live["records_unchanged"], live["records_inserted"]) == (1, 1)
    assert runner.sql("SELECT count(*) FROM raw_data WHERE source_id = :key", key=key) == [3]
    runner.messages = held
    runner.drain()
    assert runner.show(run_id)["records_duplicate"] + runner.show(run_id)["records_unchanged"] == 1
    assert runner.sql("SELECT amount::int FROM unified_items WHERE external_id = :key", key=key) == [5]


def test_two_go_on_at_once_and_others_wait(runner: SourceRunner, shop: Shop) -> None:
    names = ["one", "two", "three", "four"]
    runner.declare(*(shop.document(name=name) for name in names))
    ids = [queue(runner, name=name) for name in names]
    assert [message.run_id for message in runner.messages if isinstance(message, ExtractMessage)] == ids[:2]
    assert runner.database.transact(start_backfills) == []
    # No sweeper sends for those that wait, and nobody can have them.
    assert runner.database.transact(due_runs, queue_empty=True) == []
    assert runner.database.transact(claim_run, ids[2], "any", 60) is None
    runner.drain()
    assert runner.show(ids[0])["status"] == "success"
    assert runner.database.transact(start_backfills) == [ExtractMessage(one, low=True) for one in ids[2:]]
    runner.messages = [ExtractMessage(one, low=True) for one in ids[2:]]
    runner.drain()
    assert [runner.show(one)["status"] for one in ids] == ["success"] * 4


def test_a_host_that_does_not_answer_says_nothing_of_the_source(runner: SourceRunner, shop: Shop) -> None:
    runner.declare(shop.document())
    runner.run("shop")
    runner.database.transact(roll_up)
    before = runner.sql(OF_FETCH)
    shop.server.on("/orders", Response(b"gone", 410))
    assert backfill(runner)["status"] == "failed"
    shop.server.on("/orders", Response(b"slow", 429, headers={"Retry-After": "7200"}))
    assert backfill(runner)["status"] == "skipped"
    runner.database.transact(roll_up)
    assert runner.sql(OF_FETCH) == before


def test_a_backfill_is_planned_and_begun_over_the_api(runner: SourceRunner, shop: Shop, client: FlaskClient) -> None:
    runner.declare(shop.document(rate="2/s", paginate={"style": "page", "param": "page", "max_pages": 5}))
    body = {"source_name": "shop", "from": "2026-11-01", "to": "2026-11-03T12:00:00Z", "window": "12h"}
    plan = post(client, {**body, "dry_run": True})
    assert plan == {
        "run_id": None,
        "source_name": "shop",
        "windows": 5,
        "window_seconds": 43_200.0,
        "first": {"from": "2026-11-01T00:00:00+00:00", "to": "2026-11-01T12:00:00+00:00"},
        "last": {"from": "2026-11-03T00:00:00+00:00", "to": "2026-11-03T12:00:00+00:00"},
        "requests_at_least": 5,
        "requests_at_most": 25,
        "seconds_at_least": 2.5,
    }
    assert runner.sql("SELECT count(*) FROM etl_runs") == [0]
    assert shop.server.asked == []
    run_id = post(client, body)["run_id"]
    assert post(client, body, 409)["active_run_id"] == run_id
    progress = client.get(f"/runs/{run_id}").get_json()["progress"]
    assert (progress["windows_total"], progress["windows_done"]) == (5, 0)
    runner.messages.append(ExtractMessage(UUID(run_id), low=True))
    runner.drain()
    assert runner.show(UUID(run_id))["records_inserted"] == 60


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"source_name": "none", "from": "2026-01-01", "to": "2026-02-01"}, 404, "no source named"),
        ({"source_name": "plain", "from": "2026-01-01", "to": "2026-02-01"}, 422, "declares no `backfill`"),
        ({"source_name": "off", "from": "2026-01-01", "to": "2026-02-01"}, 409, "disabled"),
        ({"source_name": "shop", "from": "2026-02-01", "to": "2026-01-01"}, 422, "to: Must be later"),
        ({"source_name": "shop", "from": "2026-01-01", "to": "2026-01-01"}, 422, "to: Must be later"),
        ({"source_name": "shop", "from": "soon", "to": "2026-01-01"}, 422, "from: Not a time"),
        ({"source_name": "shop", "to": "2026-01-01"}, 422, "from: Missing"),
        ({"source_name": "shop", "from": "2026-01-01", "to": "2026-02-01", "window": "day"}, 422, "window: Must be"),
        ({"source_name": "shop", "from": "2026-01-01", "to": "2026-02-01", "window": "1s"}, 422, "more than 10000"),
        ({"source_name": "shop", "from": "2026-01-01", "to": "2026-02-01", "window": "5ms"}, 422, "at least 1s"),
        ({"source_name": "shop", "from": "2026-01-01", "to": "2026-02-01", "existing": "drop"}, 422, "existing:"),
        ({"source_name": "shop", "from": "2026-01-01", "to": "2026-02-01", "step": "1d"}, 422, "step: Unknown"),
    ],
)
def test_what_is_no_range_is_refused(
    runner: SourceRunner, shop: Shop, client: FlaskClient, body: dict[str, Any], status: int, said: str
) -> None:
    plain = {key: value for key, value in shop.document(name="plain").items() if key != "backfill"}
    runner.declare(shop.document(), plain, shop.document(name="off", enabled=False))
    assert said in post(client, body, status)["detail"]
    assert runner.sql("SELECT count(*) FROM etl_runs") == [0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backfill": {"params": {"start": "x"}}}, "{from}"),
        ({"backfill": {"params": {"start": "{from}"}, "window": "5ms"}}, "`window`"),
        ({"backfill": {"params": {"start": "{from}"}, "format": "%H"}}, "`format`"),
        ({"full_snapshot": True}, "full_snapshot"),
    ],
)
def test_a_backfill_that_cannot_work_is_refused_when_it_is_declared(change: dict[str, Any], said: str) -> None:
    document = {
        "name": "shop",
        "type": "api",
        "request": {"url": "http://a.example"},
        "backfill": {"params": {"start": "{from}"}},
    }
    with pytest.raises(ConfigError, match=said):
        parse({**document, **change})


def test_the_ends_stand_anywhere_in_a_body_and_as_the_source_writes_times(
    runner: SourceRunner, fake_server: FakeServer
) -> None:
    url = fake_server.json("/search", [{"id": 1}])
    document = {
        "name": "shop",
        "type": "api",
        "request": {"url": url, "body": {"all": True}, "params": {"since": "{since}", "lang": "en"}},
        "incremental": {"field": "at", "initial": "0"},
        "timezone": "Europe/Berlin",
        "backfill": {
            "body": {"query": {"range": [{"gte": "{from}", "lt": "{to}"}], "size": 10}},
            "params": {"day": "{from}"},
            "format": "%d.%m.%Y %H:%M",
        },
    }
    runner.declare(document)
    assert backfill(runner, days=1)["status"] == "success"
    (request,) = fake_server.asked
    assert json.loads(request.body) == {
        "query": {"range": [{"gte": "01.11.2026 01:00", "lt": "02.11.2026 01:00"}], "size": 10}
    }
    assert request.query == {"lang": "en", "day": "01.11.2026 01:00"}


def test_a_record_that_a_run_has_stored_meanwhile_is_not_overwritten(runner: SourceRunner, shop: Shop) -> None:
    """The backfill was asked before it, and stores after it; an incremental source would not meet it again."""
    key = START.isoformat()
    shop.newest = [{"id": key, "price": 1, "at": 1}]
    runner.declare(shop.document(paginate={"style": "none"}, incremental={"field": "at", "param": "since"}))
    runner.run("shop")
    run_id = queue(runner, days=1)
    runner.sql("UPDATE etl_runs SET started_at = clock_timestamp() WHERE run_id = :id", id=run_id)
    held, runner.messages = runner.messages, []
    shop.newest = [{"id": key, "price": 5, "at": 2}]
    runner.run("shop")
    runner.messages = held
    runner.drain()
    run = runner.show(run_id)
    assert (run["status"], run["records_inserted"], run["records_unchanged"]) == ("success", 9, 1)
    assert runner.sql("SELECT amount::int FROM unified_items WHERE external_id = :key", key=key) == [5]


def test_what_keeps_leaves_open_cases_alone(runner: SourceRunner, shop: Shop) -> None:
    key = START.isoformat()
    shop.newest = [{"id": key, "price": 5}]
    runner.declare(shop.document(paginate={"style": "none"}))
    runner.run("shop")
    shop.newest = [{"id": key, "price": "dear"}]
    runner.run("shop")
    backfill(runner, days=1, existing=Existing.KEEP)
    assert runner.sql("SELECT state FROM rejected_records") == ["open"]


def test_a_pause_that_usual_runs_were_asked_for_is_waited_for(runner: SourceRunner, shop: Shop) -> None:
    runner.declare(shop.document())
    runner.sql("UPDATE sources SET not_before = now() + interval '3 s', not_before_reason = 'asked'")
    run = backfill(runner, days=1)
    assert (run["status"], run["records_inserted"]) == ("success", 24)
