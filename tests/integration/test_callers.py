"""Who may call without a key, what every answer carries, and what the document says of the calls."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient

from etl.access.keys import hash_key
from testkit.runner import SourceRunner
from web.app import create_app

KEY = "correct horse battery staple"
LOCAL = {"Host": "127.0.0.1:8000"}
# Which page called, as browsers tell it, and what proxies add.
FROM_ELSEWHERE = (
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-Host": "data.example.com"},
    {"X-Forwarded-Proto": "https"},
    {"Forwarded": "for=203.0.113.9"},
    {"X-Real-IP": "203.0.113.9"},
    {"Via": "1.1 proxy"},
    {"Origin": "https://evil.example"},
    {"Origin": "http://127.0.0.1:9999"},
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Host": "evil.example"},
)
FROM_HERE: tuple[dict[str, str], ...] = (
    {},
    {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "none"},
)


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    runner.declare({"name": "shop", "type": "csv", "file": runner.write("shop.csv", "id,title\n1,a\n")})
    app = create_app(replace(runner.settings, api_keys=(hash_key(KEY),)), runner.database)
    with app.test_client() as client:
        yield client


@pytest.mark.parametrize("headers", FROM_ELSEWHERE, ids=str)
def test_what_comes_from_elsewhere_needs_a_key(client: FlaskClient, headers: dict[str, str]) -> None:
    sent = {**LOCAL, **headers}
    assert client.get("/data", headers=sent).status_code == 401
    assert client.post("/runs", json={"source": "shop"}, headers=sent).status_code == 401
    assert client.get("/health/ready", headers=sent).status_code == 200
    assert client.get("/data", headers={**sent, "Authorization": f"Bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize("headers", FROM_HERE, ids=str)
def test_what_comes_from_here_does_not(client: FlaskClient, headers: dict[str, str]) -> None:
    assert client.get("/data", headers={**LOCAL, **headers}).status_code == 200
    assert client.post("/runs", json={"source": "shop"}, headers={**LOCAL, **headers}).status_code == 202


@pytest.mark.parametrize(
    "path", ["/data", "/health", "/stats", "/runs", "/docs", "/nowhere", "/openapi.json", "/data?page=x"]
)
def test_every_answer_says_how_it_may_be_kept_and_shown(client: FlaskClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "private, no-cache"
    assert {name.strip() for name in headers["Vary"].split(",")} == {"Authorization", "X-API-Key", "Accept-Encoding"}


def test_answers_are_packed_for_those_who_take_it(client: FlaskClient) -> None:
    plain = client.get("/openapi.json")
    packed = client.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert int(packed.headers["Content-Length"]) == len(packed.data) < len(plain.data) / 2
    assert "Content-Encoding" not in client.get("/openapi.json", headers={"Accept-Encoding": "gzip;q=0"}).headers
    assert "Content-Encoding" not in client.get("/health/ready", headers={"Accept-Encoding": "gzip"}).headers


def test_a_page_that_has_not_changed_is_not_sent_again_packed_or_not(client: FlaskClient) -> None:
    etag = client.get("/data", headers={"Accept-Encoding": "gzip"}).headers["ETag"]
    assert client.get("/data", headers={"If-None-Match": etag}).status_code == 304


@pytest.mark.parametrize(
    "path", ["/data?source_name=shopp", "/runs?source_name=shopp", "/data?source_name=shopp&page=2"]
)
def test_an_unknown_source_is_a_mistake(client: FlaskClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert answer.get_json()["errors"] == [
        {"location": "query", "field": "source_name", "message": "there is no source named 'shopp'"}
    ]


@pytest.mark.parametrize("path", ["/data?source_name=shop", "/runs?source_name=shop"])
def test_a_source_of_which_there_is_nothing_is_none(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 200


@pytest.fixture
def document(client: FlaskClient) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.get("/openapi.json").data)
    return found


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from (
            operation for method, operation in path.items() if method in {"get", "post", "put", "patch", "delete"}
        )


def test_every_call_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for operation in operations(document)]
    assert sorted(names) == sorted(set(names))
    assert all(
        re.fullmatch(
            "(get|list|group|start|cancel|reset|redrive|discard|erase|preview|create|revoke|rotate|put|patch|delete|pause|resume|apply)_[a-z]+",
            name,
        )
        for name in names
    )


def test_every_error_comes_as_a_problem_with_a_schema(document: dict[str, Any]) -> None:
    shared = document["components"]["responses"]
    for operation in operations(document):
        assert "default" in operation["responses"]
        for status, given in operation["responses"].items():
            response = shared[given["$ref"].rpartition("/")[2]] if "$ref" in given else given
            if status == "503" and operation["operationId"] == "get_health":
                assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Health"}
            elif status == "default" or int(status) >= 400:
                assert response["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }, (operation["operationId"], status)


@pytest.mark.parametrize(
    ("path", "cursor", "status"),
    [
        ("/data", ["created_at", True, 5, "2026-01-01T00:00:00+23:59"], 200),
        ("/data", ["published_at", True, 5, "2026-01-01T00:00:00-18:00"], 200),
        ("/runs", ["2026-01-01T00:00:00+23:59", "6f2a2f0e-0000-4000-8000-000000000000"], 200),
        ("/runs", ["0001-01-01T00:00:00+01:00", "6f2a2f0e-0000-4000-8000-000000000000"], 422),
        ("/runs", ["2026-01-01T00:00:00", "6f2a2f0e-0000-4000-8000-000000000000"], 422),
    ],
)
def test_a_zone_that_postgresql_does_not_take_is_no_defect(
    client: FlaskClient, path: str, cursor: list[Any], status: int
) -> None:
    text = base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode().rstrip("=")
    assert client.get(f"{path}?cursor={text}").status_code == status
