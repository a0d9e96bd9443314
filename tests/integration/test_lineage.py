"""One item, and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient

from testkit.runner import SourceRunner
from web.app import create_app


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    runner.write("shop.csv", "id,name,price\n1,pot,1.50\n")
    runner.declare(shop(title="name"))
    runner.run("shop")
    with create_app(runner.settings, runner.database).test_client() as client:
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
