"""Sources at run time: declared, changed, paused and deleted over HTTP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from flask.testing import FlaskClient
from sqlalchemy import text

from db.queries.declaring import apply_sources
from db.queries.slots import claim_slots
from db.queries.sweep import take_over_batches
from etl.access.keys import hash_key
from etl.declare.catalog import read_catalog
from etl.declare.revision import Author, Origin
from etl.errors import ConfigError
from testkit.runner import SourceRunner
from web.app import create_app
from worker.removal import Removal
from worker.sweeper import end_orphan

KEY = "correct horse battery staple"


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    for name in ("shop", "store"):
        runner.write(f"{name}.csv", "id,title,price\n1,a,10\n2,b,20\n3,c,30\n")
    runner.declare({"name": "filed", "type": "csv", "file": "shop.csv", "tags": ["daily"]})
    environment = {**runner.settings.environment, "SHOP_TOKEN": "s3cr3t-value"}
    app = create_app(replace(runner.settings, api_keys=(hash_key(KEY),), environment=environment), runner.database)
    with app.test_client() as client:
        client.environ_base["HTTP_X_API_KEY"] = KEY
        yield client


SHOP = {"type": "csv", "file": "shop.csv", "schedule": {"every": "1h"}}
API = {"type": "api", "request": {"url": "https://a.example/items"}}


def put(client: FlaskClient, name: str, document: dict[str, Any], version: int | None = None) -> Any:
    headers = {} if version is None else {"If-Match": f'"{version}"'}
    return client.put(f"/sources/{name}", json=document, headers=headers)


def one(runner: SourceRunner, query: str) -> Any:
    with runner.database.transaction() as connection:
        return connection.execute(text(query)).scalar()


def test_a_source_is_made_shown_changed_and_deleted(runner: SourceRunner, client: FlaskClient) -> None:
    made = put(client, "shop", SHOP)
    assert (made.status_code, made.headers["ETag"]) == (201, '"1"')
    shown = client.get("/sources/shop")
    assert shown.get_json() == made.get_json()
    assert shown.get_json()["source"] == {"name": "shop", **SHOP}
    assert (shown.get_json()["origin"], shown.get_json()["status"]) == ("api", "never_run")
    changed = client.patch("/sources/shop", json={"tags": ["finance"]}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.headers["ETag"], changed.get_json()["tags"]) == (200, '"2"', ["finance"])
    without = client.patch("/sources/shop", json={"tags": None}, headers={"If-Match": "*"})
    assert without.get_json()["tags"] == []
    assert "tags" not in without.get_json()["source"]
    versions = client.get("/sources/shop/versions").get_json()["versions"]
    assert [(v["version"], v["made_by"]) for v in versions] == [(3, "API_KEYS"), (2, "API_KEYS"), (1, "API_KEYS")]
    assert versions[1]["differences"] == [{"key": "tags", "before": None, "after": ["finance"]}]
    assert client.delete("/sources/shop", headers={"If-Match": '"3"'}).status_code == 200
    assert client.get("/sources/shop").status_code == 404
    assert len(client.get("/sources/shop/versions").get_json()["versions"]) == 3
    actions = [entry["action"] for entry in client.get("/audit?target=shop").get_json()["entries"]]
    assert actions == ["delete_source", "patch_source", "patch_source", "put_source"]


def test_a_change_names_the_version_that_it_changes(client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    calls: tuple[tuple[str, dict[str, Any]], ...] = (("put", {"json": SHOP}), ("patch", {"json": {}}), ("delete", {}))
    for method, body in calls:
        ask = getattr(client, method)
        assert ask("/sources/shop", **body).status_code == 428
        assert ask("/sources/shop", headers={"If-Match": '"7"'}, **body).status_code == 412
        assert ask("/sources/shop", headers={"If-Match": "1"}, **body).status_code in {200, 412}
    assert put(client, "nowhere", SHOP, version=1).status_code == 412


def test_of_two_editors_one_is_late(client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    mine = client.patch("/sources/shop", json={"timeout": "10s"}, headers={"If-Match": '"1"'})
    theirs = client.patch("/sources/shop", json={"timeout": "20s"}, headers={"If-Match": '"1"'})
    assert (mine.status_code, theirs.status_code) == (200, 412)
    assert theirs.get_json()["type"] == "urn:kasparro:problem:stale_version"


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({**SHOP, "fil": "x"}, "fil"),
        ({**SHOP, "timeout": "soon"}, "timeout"),
        ({**SHOP, "name": "other"}, "name"),
        ({**SHOP, "tags": ["A b"]}, "tags[0]"),
        ({**SHOP, "file": "/etc/passwd"}, "file"),
        (
            {**API, "request": {"url": "https://a.example/", "auth": {"kind": "bearer", "token": "abc"}}},
            "request.auth.token",
        ),
        (
            {**API, "request": {"url": "https://a.example/", "auth": {"kind": "bearer", "token": "${NO_SUCH}"}}},
            "request.auth.token",
        ),
        ({**API, "request": {"url": "https://a.example/", "params": {"x": "${DATABASE_URL}"}}}, "request.params.x"),
        ({**API, "request": {"url": "https://a.example/", "headers": {"Cookie": "a=b"}}}, "request.headers.Cookie"),
        ({"type": "csv", "file": "shop.csv", "map": {"title": "[?"}, "where": "[?"}, "where"),
    ],
)
def test_what_cannot_be_declared_names_the_key(
    runner: SourceRunner, client: FlaskClient, document: dict[str, Any], field: str
) -> None:
    answer = put(client, "shop", document)
    assert answer.status_code == 422, answer.text
    assert answer.get_json()["errors"][0]["field"] == field
    assert one(runner, "SELECT count(*) FROM sources") == 1


def test_secrets_are_named_and_never_shown(client: FlaskClient) -> None:
    document = {**API, "request": {"url": "https://a.example/", "auth": {"kind": "bearer", "token": "${SHOP_TOKEN}"}}}
    assert put(client, "secretive", document).status_code == 201
    for path in ("/sources/secretive", "/sources?format=yaml", "/sources/secretive/versions", "/audit"):
        answer = client.get(path).text
        assert "${SHOP_TOKEN}" in answer
        assert "s3cr3t-value" not in answer


def test_a_credential_in_the_file_is_masked_and_warned_of_and_comes_back_as_it_was(
    runner: SourceRunner, client: FlaskClient
) -> None:
    request = {"url": "https://a.example/", "headers": {"Authorization": "Bearer abc123"}}
    runner.declare({"name": "filed", "type": "api", "request": request})
    shown = client.get("/sources/filed").get_json()
    assert shown["source"]["request"]["headers"] == {"Authorization": "${MISSING_AUTHORIZATION}"}
    assert "request.headers.Authorization" in shown["warnings"][0]
    exported = client.get("/sources?format=yaml").text
    assert "abc123" not in exported + client.get("/sources/filed/versions").text
    again = client.post("/sources/apply", data=exported, content_type="application/yaml")
    assert again.status_code == 200, again.text
    assert again.get_json()["unchanged_total"] == 1
    copied = yaml.safe_load(exported)["sources"][0] | {"name": "copied"}
    assert put(client, "copied", copied).status_code == 422


@pytest.mark.parametrize("method", ["put", "patch", "delete"])
def test_what_stands_in_the_file_is_changed_there(client: FlaskClient, method: str) -> None:
    body = {} if method == "delete" else {"json": SHOP}
    answer = getattr(client, method)("/sources/filed", headers={"If-Match": '"1"'}, **body)
    assert answer.status_code == 409
    assert answer.get_json()["type"] == "urn:kasparro:problem:owned_by_file"


def test_pausing_works_whoever_owns_it_and_survives_the_file(runner: SourceRunner, client: FlaskClient) -> None:
    paused = client.post("/sources/filed/pause", json={}).get_json()
    assert (paused["paused"], paused["paused_until"]) == (True, None)
    runner.declare({"name": "filed", "type": "csv", "file": "shop.csv"})
    assert client.get("/sources/filed").get_json()["paused"] is True
    assert client.post("/runs", json={"source": "filed"}).status_code == 409
    assert client.post("/sources/filed/resume", json={}).get_json()["paused"] is False
    until = client.post("/sources/filed/pause", json={"until": "2100-01-01"}).get_json()
    assert until["paused_until"] == "2100-01-01T00:00:00+00:00"
    assert client.post("/sources/nowhere/pause", json={}).status_code == 404


def test_a_document_is_applied_as_a_whole_or_not_at_all(runner: SourceRunner, client: FlaskClient) -> None:
    good = {"name": "shop", **SHOP}
    bad = {"name": "store", **SHOP, "timeout": "soon"}
    refused = client.post("/sources/apply", json={"sources": [good, bad]})
    assert refused.status_code == 422
    assert "'store'" in refused.get_json()["detail"]
    assert one(runner, "SELECT count(*) FROM sources") == 1
    dry = client.post("/sources/apply?dry_run=true", json={"sources": [good]}).get_json()
    assert (dry["created"], dry["dry_run"]) == (["shop"], True)
    assert one(runner, "SELECT count(*) FROM sources") == 1
    assert client.post("/sources/apply", json={"sources": [good]}).get_json()["created"] == ["shop"]
    other = {**good, "timeout": "5s", "tags": ["x"]}
    diff = client.post("/sources/apply?dry_run=true", json={"sources": [other]}).get_json()["changed"]
    assert diff == [
        {
            "name": "shop",
            "differences": [
                {"key": "tags", "before": None, "after": ["x"]},
                {"key": "timeout", "before": None, "after": "5s"},
            ],
        }
    ] or {d["key"] for d in diff[0]["differences"]} == {"tags", "timeout"}


def test_pruning_touches_only_what_was_declared_over_the_api(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    put(client, "store", SHOP)
    kept = client.post("/sources/apply", json={"sources": [{"name": "shop", **SHOP}]}).get_json()
    assert (kept["missing"], kept["disabled"]) == (["store"], [])
    pruned = client.post("/sources/apply?prune=true", json={"sources": [{"name": "shop", **SHOP}]}).get_json()
    assert (pruned["missing"], pruned["disabled"]) == ([], ["store"])
    assert client.get("/sources/filed").get_json()["enabled"] is True
    assert client.get("/sources/store").get_json()["enabled"] is False


def test_what_is_written_out_applies_back_unchanged(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", {**SHOP, "map": {"title": "name"}, "dates": ["%d.%m.%Y"], "tags": ["no", "1e3", "2026-01-01"]})
    put(client, "feed", {"type": "rss", "request": {"url": "https://a.example/feed"}})
    put(client, "store", SHOP)
    client.post("/sources/apply?prune=true", json={"sources": [{"name": "shop", **SHOP}]})
    before = one(runner, "SELECT jsonb_agg(to_jsonb(s) ORDER BY name) FROM sources s")
    document = client.get("/sources?format=yaml").text
    applied = client.post("/sources/apply", data=document, content_type="application/yaml")
    assert applied.get_json()["unchanged_total"] == 4, applied.text
    assert one(runner, "SELECT jsonb_agg(to_jsonb(s) ORDER BY name) FROM sources s") == before
    as_json = client.post("/sources/apply", json=yaml.safe_load(document))
    assert as_json.get_json()["unchanged_total"] == 4


def test_no_sources_are_a_document_too(client: FlaskClient) -> None:
    assert yaml.safe_load(client.get("/sources?format=yaml&tags=none").text) == {"sources": []}


BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nsources: [*b, *b]\n"


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (BOMB, "application/yaml", 422),
        ("sources: !!python/object:os.system []", "application/yaml", 422),
        ("sources: !!set {}", "application/yaml", 422),
        ("sources: " + "[" * 5000, "application/yaml", 422),
        ("sources: " + "[" * 60 + "]" * 60, "application/yaml", 422),
        ("sources: [1e99999999, " + "9" * 5000 + "]", "application/yaml", 422),
        ("{", "application/yaml", 422),
        ("\x00", "application/yaml", 422),
        ("sources: []\nsources: []", "application/yaml", 422),
        ('{"sources": ' + "[" * 60 + "]" * 60 + "}", "application/json", 422),
        ('{"sources": ' + "[" * 100_000, "application/json", 422),
        ("[]", "application/json", 422),
        ('{"sources": [1]}', "application/json", 422),
        ('{"sources": [{"name": "a\\u0000", "type": "csv"}]}', "application/json", 422),
        ('{"sources": []}', "text/plain", 415),
        ("sources: [2026-01-01, ~, {? [a, b] : c}]", "application/yaml", 422),
    ],
)
def test_a_hostile_document_is_refused(client: FlaskClient, body: str, kind: str, status: int) -> None:
    answer = client.post("/sources/apply", data=body, content_type=kind)
    assert answer.status_code == status, answer.text[:500]
    assert answer.content_type == "application/problem+json"


def test_the_file_takes_over_only_what_it_is_told_to(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    catalog = read_catalog({"sources": [{"name": "shop", **SHOP}]}, "sources.yaml", "30m", lambda _: None)
    with pytest.raises(ConfigError, match="ADOPT=1"):
        runner.database.transact(apply_sources, catalog, Author(Origin.FILE, "file"))
    runner.database.transact(apply_sources, catalog, Author(Origin.FILE, "file", adopts=True))
    assert client.get("/sources/shop").get_json()["origin"] == "file"


def test_many_are_found_and_acted_on(runner: SourceRunner, client: FlaskClient) -> None:
    for name, tags in (("a", ["x"]), ("b", ["x", "y"]), ("c", ["y"]), ("d_e", [])):
        put(client, name, {**SHOP, "tags": tags})

    def names(query: str) -> list[str]:
        return [source["name"] for source in client.get(f"/sources?{query}").get_json()["sources"]]

    assert names("tags=x") == ["a", "b"]
    assert names("tags=x,y") == ["b"]
    assert names("origin=api&name=_") == ["d_e"]
    assert names("state=paused") == []
    assert client.get("/sources?limit=2").get_json()["next_cursor"] == "b"
    assert names("limit=2&cursor=b") == ["c", "d_e"]

    def bulk(**body: Any) -> Any:
        return client.post("/sources/bulk", json=body).get_json()

    dry = bulk(action="pause", filter={"tags": ["x"]}, dry_run=True)
    assert (dry["matched"], dry["done"], names("state=paused")) == (2, 2, [])
    assert bulk(action="pause", filter={"tags": ["x"]})["done"] == 2
    assert names("state=paused") == ["a", "b"]
    run = bulk(action="run", filter={"origin": "api"})
    assert (run["matched"], run["done"], run["left_out"]) == (4, 2, 2)
    assert one(runner, "SELECT count(*) FROM etl_runs") == 2
    assert bulk(action="run", filter={"origin": "api"})["done"] == 0
    assert bulk(action="resume", names=["a"])["done"] == 1
    assert client.post("/sources/bulk", json={"action": "run", "names": ["a", "nowhere"]}).status_code == 404
    assert client.post("/sources/bulk", json={"action": "run"}).status_code == 422
    assert bulk(action="retry", filter={})["done"] == 0


def test_an_edit_moves_the_next_slot_at_once(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", {**SHOP, "schedule": {"every": "7d"}})
    far = one(runner, "SELECT next_run_at - now() > interval '10 s' FROM sources WHERE name = 'shop'")
    client.patch("/sources/shop", json={"schedule": {"every": "1s"}}, headers={"If-Match": "*"})
    near = one(runner, "SELECT next_run_at - now() <= interval '1 s' FROM sources WHERE name = 'shop'")
    assert (far, near) == (True, True)


def test_a_run_ends_on_the_document_that_it_began_with(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", {**SHOP, "map": {"external_id": "id", "title": "title"}})
    runner.queue("shop")
    runner.step()
    client.patch("/sources/shop", json={"map": {"title": "price"}}, headers={"If-Match": "*"})
    runner.drain()
    titles = "SELECT array_agg(title ORDER BY external_id) FROM unified_items WHERE source_name = 'shop'"
    assert one(runner, titles) == ["a", "b", "c"]
    runner.run("shop")
    assert one(runner, titles) == ["10", "20", "30"]


def test_a_run_that_is_taken_over_ends_on_the_document_that_it_began_with(
    runner: SourceRunner, client: FlaskClient
) -> None:
    put(client, "shop", {**SHOP, "map": {"external_id": "id", "title": "title"}})
    run_id = runner.queue("shop")
    runner.step()
    client.patch("/sources/shop", json={"map": {"title": "price"}}, headers={"If-Match": "*"})
    # Whoever had the batch in hand dies.
    claim = "UPDATE etl_batches SET claimed_at = now(), token = token + 1, lease_expires_at = now() - interval '1 s'"
    runner.sql(f"{claim} WHERE run_id = '{run_id}'")
    assert runner.database.transact(take_over_batches) == 1
    runner.sql("UPDATE etl_batches SET not_before = NULL")
    runner.drain()
    titles = "SELECT array_agg(title ORDER BY external_id) FROM unified_items WHERE source_name = 'shop'"
    assert one(runner, titles) == ["a", "b", "c"]
    assert one(runner, "SELECT status FROM etl_runs") == "success"


def test_one_that_is_deleted_and_made_again_starts_afresh(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", {**SHOP, "map": {"external_id": "id", "title": "title"}})
    runner.run("shop")
    client.delete("/sources/shop", headers={"If-Match": "*"})
    assert client.get("/data?source_name=shop").get_json()["pagination"]["total_items"] == 3
    assert client.get("/runs?source_name=shop").status_code == 200
    again = put(client, "shop", {**SHOP, "map": {"external_id": "id", "title": "price"}})
    assert again.get_json()["version"] == 2
    assert again.get_json()["status"] == "never_run"
    run = runner.run("shop")
    assert (run["records_updated"], run["records_unchanged"]) == (3, 0)
    assert client.get("/data?source_name=shop").get_json()["pagination"]["total_items"] == 3


def test_what_identifies_its_records_stays_with_the_name(client: FlaskClient, runner: SourceRunner) -> None:
    put(client, "shop", SHOP)
    runner.run("shop")
    client.delete("/sources/shop", headers={"If-Match": "*"})
    assert put(client, "shop", {**SHOP, "identity": "content"}).status_code == 422
    assert put(client, "shop", {**SHOP, "identity": "content", "identity_change": True}).status_code == 201


def test_its_runs_end_with_it(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    run_id = client.post("/runs", json={"source": "shop"}).get_json()["runs"][0]["run_id"]
    gone = client.delete("/sources/shop", headers={"If-Match": "*"}).get_json()
    assert gone["cancelled_runs"] == [run_id]
    run = client.get(f"/runs/{run_id}").get_json()
    assert (run["status"], run["error"]["code"]) == ("cancelled", "source_deleted")


def test_a_run_that_was_queued_just_then_ends_too(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    run_id = client.post("/runs", json={"source": "shop"}).get_json()["runs"][0]["run_id"]
    with runner.database.transaction() as connection:
        connection.execute(text("DELETE FROM sources WHERE name = 'shop'"))
    assert end_orphan(runner.database, run_id)
    assert not end_orphan(runner.database, run_id)
    assert client.get(f"/runs/{run_id}").get_json()["status"] == "cancelled"


def test_its_items_go_too_if_that_is_asked_for_and_the_counters_know(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", SHOP)
    runner.run("shop")
    client.delete("/sources/shop?data=true", headers={"If-Match": "*"})
    assert put(client, "shop", SHOP).status_code == 409
    removal = Removal(runner.settings)
    removal.empty_sources(runner.database)
    assert client.get("/data?source_name=shop").get_json()["pagination"]["total_items"] == 0
    assert client.get("/data?source_name=shop&status=deleted").get_json()["pagination"]["total_items"] == 3
    assert client.get("/stats").get_json()["total_records"] == 0
    assert put(client, "shop", SHOP).status_code == 201
    revived = runner.run("shop")
    assert revived["records_unchanged"] == 0
    assert client.get("/data?source_name=shop").get_json()["pagination"]["total_items"] == 3
    client.delete("/sources/shop?data=true", headers={"If-Match": "*"})
    removal.empty_sources(runner.database)
    Removal(replace(runner.settings, deleted_retention=timedelta(microseconds=1))).empty_sources(runner.database)
    assert one(runner, "SELECT count(*) FROM unified_items") == 0
    assert one(runner, "SELECT count(*) FROM source_removals") == 0


def test_a_deleted_source_has_no_slots(runner: SourceRunner, client: FlaskClient) -> None:
    put(client, "shop", {**SHOP, "schedule": {"every": "1s"}})
    client.delete("/sources/shop", headers={"If-Match": "*"})
    runs, _ = runner.database.transact(claim_slots)
    assert runs == []


def test_what_its_records_look_like_is_shown(runner: SourceRunner, client: FlaskClient) -> None:
    lines = "\n".join(f"{n},thing {n},{n}.5" for n in range(50))
    runner.write("shop.csv", f"id,title,price\n{lines}\n")
    put(client, "shop", SHOP)
    runner.run("shop")
    shown = json.loads(client.get("/sources/shop/drift").data)
    assert shown["drifted"] == 0
    assert {"title", "price"} <= {field["field"] for field in shown["fields"] if field["scope"] == "record"}
    assert client.get("/sources/nowhere/drift").status_code == 404
