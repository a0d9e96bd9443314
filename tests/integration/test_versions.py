"""Versions of sources: what a run reads its source by, and what counts as changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from testkit.fake_server import FakeServer, Request, Response
from testkit.runner import SourceRunner
from web.app import create_app


def shop(**more: Any) -> dict[str, Any]:
    return {"name": "shop", "type": "csv", "file": "shop.csv", **more}


BY_NAME = {"external_id": "id", "title": "name", "amount": "price"}
BY_BRAND = {"external_id": "id", "title": "brand", "amount": "price"}


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


def mappings(client: FlaskClient, query: str = "") -> dict[str, Any]:
    return client.get(f"/sources/shop/mappings{query}").get_json()  # type: ignore[no-any-return]


def test_a_run_goes_on_by_the_version_that_it_began_with(runner: SourceRunner) -> None:
    runner.settings = replace(runner.settings, batch_size=2, worker_processes=99)
    runner.write("shop.csv", "id,name,brand,price\n" + "".join(f"{n},pot {n},acme,{n}\n" for n in range(6)))
    runner.declare(shop(map=BY_NAME))
    run_id = runner.queue("shop")
    runner.step()
    # Extracted, and no batch is mapped yet; what is declared from now on is for the next run.
    runner.declare(shop(map=BY_BRAND))
    runner.drain()
    assert runner.show(run_id)["records_inserted"] == 6
    assert sorted(runner.sql("SELECT title FROM unified_items")) == [f"pot {n}" for n in range(6)]
    assert set(runner.sql("SELECT mapping_version FROM unified_items")) == {1}
    assert runner.run("shop")["records_updated"] == 6
    assert set(runner.sql("SELECT title || mapping_version FROM unified_items")) == {"acme2"}


def test_what_is_served_as_before_is_not_said_to_have_changed(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,name,date\n1,pot,\n2,pan,2026-05-01 10:00:00\n")
    served = "SELECT external_id, ROW(updated_at, change_xid)::text FROM unified_items"
    runner.declare(shop())
    runner.run("shop")
    before = dict(runner.sql(served))
    runner.declare(shop(timezone="Europe/Berlin"))
    run = runner.run("shop")
    assert (run["records_unchanged"], run["records_updated"], run["records_corrected"]) == (1, 1, 1)
    after = dict(runner.sql(served))
    assert (after["1"] == before["1"], after["2"] == before["2"]) == (True, False)
    assert set(runner.sql("SELECT mapping_version FROM unified_items")) == {2}
    runner.write("shop.csv", "id,name,date\n1,pot,\n2,pan,2026-05-01 10:00:00\n3,lid,\n")
    assert runner.run("shop")["records_unchanged"] == 2
    assert runner.sql("SELECT count(*) FROM raw_data") == [5]


def test_mappings_are_told_apart(runner: SourceRunner, client: FlaskClient) -> None:
    runner.declare(shop(map=BY_NAME))
    runner.declare(shop(map=BY_NAME, max_rejected=10))
    runner.declare(shop(map=BY_BRAND, timezone="Europe/Berlin"))
    shown = mappings(client)
    assert shown["source_name"] == "shop"
    newest, first = shown["mappings"]
    assert (newest["mapping_version"], newest["made_by"]) == (2, "file")
    assert newest["differences"] == [
        {"key": "timezone", "before": None, "after": "Europe/Berlin"},
        {"key": "map.title", "before": "name", "after": "brand"},
    ]
    assert (first["mapping_version"], first["differences"]) == (1, [])
    assert runner.sql("SELECT version FROM source_versions ORDER BY 1") == [1, 2, 3]
    (only,) = mappings(client, "?limit=1")["mappings"]
    assert only == newest
    assert client.get("/sources/nobody/mappings").status_code == 404
    assert client.get("/sources/shop/mappings?limit=0").status_code == 422


def test_a_name_that_is_used_again_goes_on_counting(runner: SourceRunner) -> None:
    runner.write("shop.csv", "id,name,brand,price\n1,pot,acme,1\n")
    runner.declare(shop(map=BY_NAME))
    runner.declare(shop(map=BY_BRAND))
    runner.sql("DELETE FROM sources RETURNING 1")
    runner.declare(shop(map=BY_NAME))
    assert runner.sql("SELECT ROW(version, mapping_version)::text FROM sources") == ["(3,3)"]
    runner.run("shop")
    assert runner.sql("SELECT title || mapping_version FROM unified_items") == ["pot3"]


def test_what_the_server_of_another_request_says_is_not_noted(runner: SourceRunner, fake_server: FakeServer) -> None:
    source = {"name": "shop", "type": "api", "request": {"url": f"{fake_server.url}/a"}}
    runner.declare(source)
    run_id = runner.queue("shop")

    # Between the claim and the end of the slice it is declared otherwise.
    def answer(_: Request) -> Response:
        runner.declare({**source, "request": {"url": f"{fake_server.url}/b"}})
        return Response(status=410)

    fake_server.on("/a", answer)
    runner.drain()
    assert runner.show(run_id)["status"] == "failed"
    assert runner.sql("SELECT gone_reason FROM sources") == [None]
