"""One item, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask.testing import FlaskClient

from db.queries.erasures import erase_some
from db.queries.replays import queue_replay
from db.queries.requests import note_requests
from db.queries.retention import purge_runs
from db.queries.stats import known_items
from db.queries.totals import roll_up
from etl.access.keys import hash_key
from etl.reporter import Asked
from etl.runs.messages import ExtractMessage
from etl.runs.outcome import Trigger
from etl.runs.replays import EVERYTHING
from testkit.fake_server import FakeServer, Request, Response, as_json
from testkit.runner import SourceRunner
from web.app import create_app

KEY = "k" * 40


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    runner.write("shop.csv", "id,name,price\n1,pot,1.50\n")
    runner.declare(shop(title="name"))
    runner.run("shop")
    settings = replace(runner.settings, api_keys=(hash_key(KEY),))
    with create_app(settings, runner.database).test_client() as client:
        yield client


def shop(**mapping: str) -> dict[str, Any]:
    mapping = {"external_id": "id", "amount": "price", **mapping}
    return {"name": "shop", "type": "csv", "file": "shop.csv", "map": mapping, "expect": {"amount": {"min": 0}}}


def get(client: FlaskClient, path: str, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return answer.get_json()


def test_an_item_is_shown_as_in_the_list(client: FlaskClient, runner: SourceRunner) -> None:
    (listed,) = get(client, "/data")["items"]
    assert get(client, f"/data/{listed['id']}") == listed
    assert b'"amount":1.50' in client.get(f"/data/{listed['id']}").data
    runner.sql("UPDATE unified_items SET status = 'deleted' RETURNING 1")
    assert get(client, f"/data/{listed['id']}")["status"] == "deleted"


@pytest.mark.parametrize(
    "path", ["/data/999", "/data/999/lineage", f"/data/{2**63}", f"/data/{10**30}/lineage", f"/quarantine/{2**63}"]
)
def test_what_there_is_not_is_404(client: FlaskClient, path: str) -> None:
    assert get(client, path, 404)["type"].startswith("urn:kasparro:problem:unknown_")


def test_a_lineage_leads_to_the_record_the_runs_and_the_mapping(client: FlaskClient, runner: SourceRunner) -> None:
    (listed,) = get(client, "/data")["items"]
    (fetched,) = runner.sql("SELECT run_id::text FROM etl_runs")
    runner.declare(shop(title="id"))
    replayed = str(runner.replay("shop")["run_id"])
    lineage = get(client, f"/data/{listed['id']}/lineage")
    assert lineage["item"]["title"] == "1"
    assert lineage["record"]["payload"] == {"id": "1", "name": "pot", "price": "1.50"}
    assert (lineage["fetched_by"], lineage["written_by"]) == (fetched, replayed)
    assert lineage["mapping"]["mapping_version"] == 2
    assert lineage["mapping"]["document"]["map"]["title"] == "id"
    assert lineage["mapping"]["document"]["expect"] == {"amount": {"min": 0}}
    # What is not kept any more is null, and the rest stays.
    runner.sql("DELETE FROM raw_data RETURNING 1")
    runner.sql("DELETE FROM source_versions RETURNING 1")
    lineage = get(client, f"/data/{listed['id']}/lineage")
    assert (lineage["record"]["payload"], lineage["fetched_by"], lineage["mapping"]["document"]) == (None, None, None)
    assert lineage["written_by"] == replayed


def erase(runner: SourceRunner, client: FlaskClient, title: str = "pot") -> int:
    (item_id,) = runner.sql("SELECT id FROM unified_items WHERE title = :title", title=title)
    answer = client.post(f"/data/{item_id}/erase", json={"reason": "asked to"}, headers={"X-API-Key": KEY})
    assert answer.status_code == 202, answer.text
    assert answer.get_json()["item_id"] == item_id
    return int(item_id)


def work(runner: SourceRunner) -> None:
    while runner.database.transact(erase_some):
        pass


def test_earlier_records_of_an_item_are_known(client: FlaskClient, runner: SourceRunner) -> None:
    for price in ("10.50", "12.25", "10.50"):
        runner.write("shop.csv", f"id,name,price\n1,pot,{price}\n")
        runner.run("shop")
    lineage = get(client, f"/data/{get(client, '/data')['items'][0]['id']}/lineage")
    assert lineage["record"]["payload"]["price"] == "10.50"
    assert [one["payload"]["price"] for one in lineage["earlier"]] == ["12.25", "10.50", "1.50"]
    ids = [lineage["record"]["raw_data_id"], *(one["raw_data_id"] for one in lineage["earlier"])]
    assert ids == sorted(ids, reverse=True)
    # A replay is no other record.
    runner.declare(shop(title="id"))
    runner.replay("shop")
    assert len(get(client, f"/data/{lineage['item']['id']}/lineage")["earlier"]) == 3


def test_at_most_twenty_earlier_records_are_known(client: FlaskClient, runner: SourceRunner) -> None:
    for price in range(25):
        runner.write("shop.csv", f"id,name,price\n1,pot,{price}\n")
        runner.run("shop")
    lineage = get(client, f"/data/{get(client, '/data')['items'][0]['id']}/lineage")
    assert [one["payload"]["price"] for one in lineage["earlier"]] == [str(n) for n in range(23, 3, -1)]


def test_the_requests_of_a_run_are_on_record(
    runner: SourceRunner, fake_server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "hush-hush-hush")
    answers = [Response(b"no", 503), as_json([{"id": 1}])]
    fake_server.on("/old", Response(status=302, headers={"Location": "/items?page=2"}))
    fake_server.on("/items", answers)
    auth = {"kind": "query", "name": "key", "value": "${TOKEN}"}
    runner.declare({"name": "api", "type": "api", "request": {"url": f"{fake_server.url}/old", "auth": auth}})
    run = runner.run("api")
    rows = runner.sql("SELECT method, url, status, bytes, attempt, error FROM etl_requests ORDER BY request_id")
    assert [row[2:] for row in rows] == [
        (302, 0, 1, None),
        (503, 0, 1, "http_503"),
        (302, 0, 2, None),
        (200, 10, 2, None),
    ]
    assert all(row[0] == "GET" and row[1].startswith(fake_server.url) and "hush" not in row[1] for row in rows)
    assert rows[0][1].endswith("/old")
    with create_app(runner.settings, runner.database).test_client() as client:
        (item,) = get(client, "/data?source_name=api")["items"]
        requests = get(client, f"/data/{item['id']}/lineage")["requests"]
    assert [one["status"] for one in requests] == [302, 200]
    request = requests[-1]
    assert (request["status"], request["attempt"], request["bytes"]) == (200, 2, 10)
    # They go with their run.
    assert runner.sql("SELECT count(*) FROM etl_requests WHERE run_id = :id", id=run["run_id"]) == [4]
    runner.database.transact(roll_up)
    runner.database.transact(purge_runs, timedelta(0), 100)
    assert runner.sql("SELECT count(*) FROM etl_requests") == [0]


def test_of_very_many_requests_the_first_are_kept(runner: SourceRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.queries.requests.MOST_KEPT", 5)
    runner.write("shop.csv", "id\n1\n")
    runner.declare({"name": "shop", "type": "csv", "file": "shop.csv"})
    run_id = runner.run("shop")["run_id"]
    asked = [Asked(float(n), "GET", "http://a.example", 200, 1, 0.1, 1, None) for n in range(4)]
    for _ in range(3):
        runner.database.transact(note_requests, run_id, asked)
    assert runner.sql("SELECT count(*) FROM etl_requests") == [5]
    assert runner.sql("SELECT requests FROM etl_runs WHERE run_id = :id", id=run_id) == [12]


def test_an_erased_record_is_nowhere(runner: SourceRunner, client: FlaskClient) -> None:
    rows = "id,name,price\n1,pot,{price}\n2,pan,2\n"
    for price in ("3", "x", "4"):
        runner.write("shop.csv", rows.format(price=price))
        runner.run("shop")
    item_id = erase(runner, client)
    work(runner)
    item = get(client, f"/data/{item_id}")
    assert item.pop("status") == "deleted"
    assert item.pop("metadata") == {}
    assert {name for name, value in item.items() if value is not None} == {
        *("id", "external_id", "source_name", "source_type", "created_at", "updated_at")
    }
    for table, column in (("raw_data", "raw_payload"), ("rejected_records", "errors"), ("unified_items", "title")):
        assert runner.sql(f"SELECT count(*) FROM {table} WHERE {column}::text LIKE '%pot%'") == [0]
    assert runner.sql("SELECT count(*) FROM raw_data") == [1]
    assert runner.sql("SELECT count(*) FROM rejected_records") == [0]
    lineage = get(client, f"/data/{item_id}/lineage")
    assert (lineage["record"]["payload"], lineage["earlier"]) == (None, [])
    assert lineage["erasure"]["reason"] == "asked to"
    assert lineage["erasure"]["done_at"]
    with runner.database.transaction() as connection:
        assert known_items(connection, None, "shop") == 1


def test_an_erased_record_does_not_come_back(runner: SourceRunner, client: FlaskClient) -> None:
    item_id = erase(runner, client)
    work(runner)
    for price in (5, 6):
        runner.write("shop.csv", f"id,name,price\n1,pot,{price}\n2,pan,{price}\n1,pot,0\n")
        run = runner.run("shop")
        assert (run["status"], run["records_failed"], run["records_loaded"]) == ("success", 2, 1)
    assert runner.run("shop")["status"] == "success"
    runner.declare(shop(title="id"))
    assert runner.replay("shop")["records_extracted"] == 1
    assert get(client, f"/data/{item_id}")["status"] == "deleted"
    assert runner.sql("SELECT DISTINCT source_id FROM raw_data") == ["2"]
    # To ask again changes nothing.
    before = runner.sql("SELECT * FROM erasures")
    answer = client.post(f"/data/{item_id}/erase", json={"reason": "again"}, headers={"X-API-Key": KEY})
    assert answer.status_code == 202
    assert runner.sql("SELECT * FROM erasures") == before


@pytest.mark.parametrize("steps", [1, 2])
def test_what_a_run_has_in_hand_is_erased_after_it(runner: SourceRunner, client: FlaskClient, steps: int) -> None:
    runner.write("shop.csv", "id,name,price\n1,pot,7\n2,pan,2\n")
    run_id = runner.queue("shop")
    for _ in range(steps - 1):
        runner.step()
    item_id = erase(runner, client)
    work(runner)
    if steps > 1:
        # The batch that holds the record is open.
        assert runner.sql("SELECT count(*) FROM raw_data WHERE source_id = '1'") == [1]
        assert runner.sql("SELECT done_at FROM erasures") == [None]
    runner.drain()
    assert runner.show(run_id)["status"] == "success"
    runner.sql("UPDATE erasures SET looked_at = '-infinity'")
    work(runner)
    assert runner.sql("SELECT count(*) FROM raw_data WHERE source_id = '1'") == [0]
    assert runner.sql("SELECT done_at IS NOT NULL FROM erasures") == [True]
    assert get(client, f"/data/{item_id}")["title"] is None


def test_many_records_are_looked_through_in_steps(
    runner: SourceRunner, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.queries.erasures.MOST_WALKED", 3)
    for price in range(8):
        runner.write("shop.csv", f"id,name,price\n1,pot,{price}\n2,pan,{price}\n")
        runner.run("shop")
    erase(runner, client)
    runner.sql("UPDATE unified_items SET earlier = NULL")
    work(runner)
    assert runner.sql("SELECT DISTINCT source_id FROM raw_data") == ["2"]
    assert runner.sql("SELECT records FROM erasures") == [8]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/data/999/erase", {"reason": "x"}, 404),
        (f"/data/{2**63}/erase", {"reason": "x"}, 404),
        ("/data/1/erase", {}, 422),
        ("/data/1/erase", {"reason": ""}, 422),
        ("/data/1/erase", {"reason": "x", "why": 1}, 422),
    ],
)
def test_what_cannot_be_erased_is_refused(client: FlaskClient, path: str, body: Any, status: int) -> None:
    assert client.post(path, json=body, headers={"X-API-Key": KEY}).status_code == status
    assert client.post(path, json=body).status_code == 401


def test_what_a_replay_has_in_hand_is_erased_after_it(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(shop(title="id"))
    run_id = uuid4()
    runner.database.transact(queue_replay, run_id, "shop", Trigger.REPLAY, EVERYTHING)
    runner.messages.append(ExtractMessage(run_id, low=True))
    runner.step()
    item_id = erase(runner, client)
    work(runner)
    runner.drain()
    run = runner.show(run_id)
    assert (run["status"], run["records_not_loaded"]) == ("success", 0)
    runner.sql("UPDATE erasures SET looked_at = '-infinity'")
    work(runner)
    assert runner.sql("SELECT count(*) FROM raw_data") == [0]
    assert runner.sql("SELECT done_at IS NOT NULL FROM erasures") == [True]
    assert get(client, f"/data/{item_id}")["title"] is None


def test_samples_of_an_erased_record_are_gone_too(runner: SourceRunner, client: FlaskClient) -> None:
    rows = "".join(f"{n},secretive {n},x{n}\n" for n in range(30))
    runner.write("shop.csv", f"id,name,price\n{rows}1,pot,1\n")
    runner.declare(shop(title="name"))
    runner.run("shop")
    everywhere = """
        SELECT coalesce(string_agg(t, ' '), '') FROM (
            SELECT observed::text AS t FROM etl_batches UNION ALL SELECT error_message FROM etl_runs
            UNION ALL SELECT detail::text FROM etl_run_events UNION ALL SELECT sample FROM source_fields) t"""
    assert "pot" in runner.sql(everywhere)[0] or "x0" in runner.sql(everywhere)[0]
    erase(runner, client)
    work(runner)
    assert "x0" not in runner.sql(everywhere)[0]
    assert "secretive" not in runner.sql(everywhere)[0]


def test_nothing_is_erased_beside_an_older_release(runner: SourceRunner, client: FlaskClient) -> None:
    """Its runs would store the record again."""
    item_id = erase(runner, client)
    runner.sql("INSERT INTO etl_workers (name, kind, reader) VALUES ('old', 'worker', 2)")
    work(runner)
    assert get(client, f"/data/{item_id}")["title"] == "pot"
    runner.sql("DELETE FROM etl_workers")
    work(runner)
    assert get(client, f"/data/{item_id}")["title"] is None


def test_an_address_with_odd_characters_is_on_record(runner: SourceRunner, fake_server: FakeServer) -> None:
    fake_server.on("/a", Response(status=302, headers={"Location": "/b\x01c?token=a"}))

    def odd(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.0 302 Found\r\nLocation: /b\x00c?signature=abc\r\n\r\n")

    fake_server.on("/nul", Response(raw=odd))
    for path in ("a", "nul"):
        runner.declare({"name": path, "type": "api", "request": {"url": f"{fake_server.url}/{path}"}})
        assert runner.run(path)["status"] == "failed"
    shown = runner.sql("SELECT url FROM etl_requests ORDER BY request_id")
    assert len(shown) >= 3
    assert not any("signature" in url or "token" in url for url in shown)


def test_a_record_leads_to_the_requests_that_it_came_by(runner: SourceRunner, fake_server: FakeServer) -> None:
    def page(request: Request) -> Response:
        number = int(request.query["page"])
        return as_json([{"id": f"{number}-{n}"} for n in range(40 if number < 4 else 0)])

    runner.settings = replace(runner.settings, batch_size=20)
    url = fake_server.on("/items", page)
    runner.declare(
        {"name": "api", "type": "api", "request": {"url": url}, "paginate": {"style": "page", "param": "page"}}
    )
    runner.run("api")
    with create_app(runner.settings, runner.database).test_client() as client:
        for item in get(client, "/data?source_name=api&page_size=200")["items"]:
            asked = [one["url"][-1] for one in get(client, f"/data/{item['id']}/lineage")["requests"]]
            assert asked == [item["external_id"][0]], item["external_id"]
