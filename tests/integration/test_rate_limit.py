"""How many calls a key may make: counted together, refused clearly, and never in the way while Redis is silent."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from db.queries.keys import create_key
from etl.access.roles import Role
from testkit.runner import SourceRunner
from testkit.service import Servers
from web.app import create_app


def client_of(runner: SourceRunner, servers: Servers, limit: int) -> FlaskClient:
    settings = replace(runner.settings, redis_url=servers.valkey.url, rate_limit=limit)
    return create_app(settings, runner.database).test_client()


def new_key(runner: SourceRunner) -> dict[str, str]:
    with runner.database.transaction() as connection:
        return {"X-API-Key": create_key(connection, "counted", Role.READ, "tests")[1].text}


def test_a_key_is_limited_in_all_processes_together(runner: SourceRunner, servers: Servers) -> None:
    one, other = client_of(runner, servers, 6), client_of(runner, servers, 6)
    busy, quiet = new_key(runner), new_key(runner)
    seen = [client.get(path, headers=busy).status_code for path in ("/stats", "/runs") for client in (one, other)]
    assert seen == [200] * 4
    assert one.get("/stats?wrong=1", headers=busy).status_code == 422
    assert other.get("/stats", headers=busy).status_code == 200
    refused = one.get("/data", headers=busy)
    assert refused.status_code == 429
    assert refused.content_type == "application/problem+json"
    assert refused.get_json()["type"] == "urn:kasparro:problem:too_many_calls"
    assert "6 calls" in refused.get_json()["detail"]
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert other.get("/data", headers=quiet).status_code == 200
    assert [one.get("/data").status_code for _ in range(10)] == [200] * 10


def test_no_limit_is_none(runner: SourceRunner, servers: Servers) -> None:
    client, key = client_of(runner, servers, 0), new_key(runner)
    assert {client.get("/health/ready", headers=key).status_code for _ in range(20)} == {200}
    assert {client.get("/stats", headers=key).status_code for _ in range(20)} == {200}


@pytest.fixture
def silent_redis(servers: Servers) -> Iterator[Servers]:
    yield servers
    servers.signal("valkey", signal.SIGCONT)


def test_a_silent_redis_lets_through(runner: SourceRunner, silent_redis: Servers) -> None:
    client, key = client_of(runner, silent_redis, 50), new_key(runner)
    assert client.get("/stats", headers=key).status_code == 200
    silent_redis.signal("valkey", signal.SIGSTOP)
    started = time.monotonic()
    assert [client.get("/stats", headers=key).status_code for _ in range(20)] == [200] * 20
    # Twenty calls that waited for Redis as others do would take half a minute.
    assert time.monotonic() - started < 5
    # Each process still counts for itself.
    assert 429 in [client.get("/stats", headers=key).status_code for _ in range(60)]


def test_without_redis_it_starts_and_answers(runner: SourceRunner) -> None:
    settings = replace(runner.settings, redis_url="redis://127.0.0.1:9/0", rate_limit=5)
    client, key = create_app(settings, runner.database).test_client(), new_key(runner)
    assert client.get("/stats", headers=key).status_code == 200
