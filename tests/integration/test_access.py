"""Who may call what: every route, with every kind of caller, from every place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text

from config.settings import PROJECT
from db.queries.keys import create_key, revoke_key
from db.session import Database
from etl.access.keys import hash_key
from etl.access.roles import Role
from etl.errors import StorageTroubleError
from testkit.runner import SourceRunner
from web.app import create_app

OPEN, READ, START, OPERATE, ADMIN, ACT, FORM = "open", "read", "start", "operate", "admin", "act", "form"
# By hand, from what is promised: a new route belongs here. `open` needs nothing; `start` is operate, but open on
# loopback too. `act` needs any key, also on loopback; `form` is open to forms that our own pages send.
NEEDED = {
    "GET /": OPEN,
    "GET /docs": OPEN,
    "GET /redoc": OPEN,
    "GET /openapi.json": OPEN,
    "GET /assets/start-swagger.js": OPEN,
    "GET /assets/<name>": OPEN,
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /health": READ,
    "GET /data": READ,
    "GET /data/changes": READ,
    "GET /data/export": READ,
    "GET /data/export/<uuid:export_id>": READ,
    "GET /data/<int:item_id>": READ,
    "GET /data/<int:item_id>/lineage": READ,
    "GET /stats": READ,
    "GET /runs": READ,
    "GET /runs/<uuid:run_id>": READ,
    "GET /runs/<uuid:run_id>/events": READ,
    "GET /runs/<uuid:run_id>/batches": READ,
    "GET /runs/<uuid:run_id>/requests": READ,
    "GET /sources": READ,
    "GET /errors": READ,
    "GET /overview": READ,
    "GET /system": READ,
    "GET /hosts": READ,
    "GET /alerts": OPERATE,
    "GET /alerts/<uuid:alert_id>": OPERATE,
    "POST /alerts/test": ADMIN,
    "POST /alerts/mute": OPERATE,
    "GET /sources/<source_name>": READ,
    "PUT /sources/<source_name>": ADMIN,
    "PATCH /sources/<source_name>": ADMIN,
    "DELETE /sources/<source_name>": ADMIN,
    "POST /sources/<source_name>/pause": OPERATE,
    "POST /sources/<source_name>/resume": OPERATE,
    "GET /sources/<source_name>/versions": READ,
    "GET /sources/<source_name>/mappings": READ,
    "GET /sources/<source_name>/drift": READ,
    "GET /sources/<source_name>/why": READ,
    "POST /sources/apply": ADMIN,
    "POST /sources/bulk": OPERATE,
    "GET /quarantine": READ,
    "GET /quarantine/groups": READ,
    "GET /quarantine/<int:case_id>": READ,
    "GET /replays/<uuid:plan_id>": READ,
    "GET /breakers": READ,
    "POST /runs": START,
    "POST /runs/<uuid:run_id>/cancel": OPERATE,
    "POST /quarantine/redrive": OPERATE,
    "POST /quarantine/discard": OPERATE,
    "POST /replays": OPERATE,
    "POST /backfills": OPERATE,
    "POST /breakers/<host>/reset": OPERATE,
    "POST /data/<int:item_id>/erase": ADMIN,
    "POST /sources/preview": ADMIN,
    "GET /keys": ADMIN,
    "POST /keys": ADMIN,
    "DELETE /keys/<int:key_id>": ADMIN,
    "POST /keys/<int:key_id>/rotate": ADMIN,
    "GET /audit": ADMIN,
    "GET /metrics": READ,
    "GET /ui": READ,
    "GET /ui/": READ,
    "GET /ui/<path:name>": READ,
    "GET /ui/static/<path:name>": OPEN,
    "GET /ui/sign-in": OPEN,
    "POST /ui/sign-in": FORM,
    "POST /ui/sign-out": ACT,
    "GET /ui/account": READ,
    "GET /ui/theme": READ,
    "GET /ui/overview": READ,
    "POST /ui/retry": OPERATE,
    "GET /ui/sources": READ,
    "POST /ui/sources": OPERATE,
    "GET /ui/sources/<name>": READ,
    "GET /ui/sources/<name>/<tab>": READ,
    "GET /ui/sources/<name>/edit": ADMIN,
    "POST /ui/sources/<name>/run": OPERATE,
    "POST /ui/sources/<name>/pause": OPERATE,
    "POST /ui/sources/<name>/resume": OPERATE,
    "POST /ui/sources/<name>/delete": ADMIN,
    "GET /ui/new-source": READ,
    "POST /ui/new-source/preview": ADMIN,
    "POST /ui/new-source/save": ADMIN,
    "GET /ui/runs": READ,
    "GET /ui/errors": READ,
    "GET /ui/runs/<uuid:run_id>": READ,
    "POST /ui/runs/<uuid:run_id>/cancel": OPERATE,
    "GET /ui/rejects": READ,
    "GET /ui/rejects/cases": READ,
    "GET /ui/rejects/<int:case_id>": READ,
    "POST /ui/rejects/redrive": OPERATE,
    "POST /ui/rejects/discard": OPERATE,
    "GET /ui/data": READ,
    "GET /ui/data/export": READ,
    "GET /ui/data/<int:item_id>": READ,
    "POST /ui/data/<int:item_id>/erase": ADMIN,
    "GET /ui/replays": READ,
    "GET /ui/replays/<uuid:plan_id>": READ,
    "POST /ui/replays": OPERATE,
    "POST /ui/backfills": OPERATE,
    "GET /ui/hosts": READ,
    "POST /ui/hosts/reset": OPERATE,
    "GET /ui/system": READ,
    "GET /ui/alerts": OPERATE,
    "POST /ui/alerts/test": ADMIN,
    "POST /ui/alerts/mute": OPERATE,
    "GET /ui/access": ADMIN,
    "POST /ui/access/keys": ADMIN,
    "POST /ui/access/keys/<int:key_id>/revoke": ADMIN,
}
GOOD = ("read", "operate", "admin")
CALLERS = ("none", *GOOD, "bad", "expired", "revoked", "forged")
PLACES = ("loopback", "forwarded", "public")
SETTINGS_KEY = "correct horse battery staple"


@pytest.fixture
def keys(runner: SourceRunner) -> dict[str, str]:
    """A key of each kind, by what it is."""
    made = {"bad": "kas_0123456789_" + "a" * 43}
    with runner.database.transaction() as connection:
        for role in Role:
            made[role] = create_key(connection, f"tests {role}", role, "tests")[1].text
        past = datetime.now(UTC) - timedelta(seconds=1)
        made["expired"] = create_key(connection, "gone by", Role.ADMIN, "tests", past)[1].text
        row, taken = create_key(connection, "taken back", Role.ADMIN, "tests")
        revoke_key(connection, row.key_id)
        made["revoked"] = taken.text
    # The prefix of a good one, with another secret.
    made["forged"] = made["admin"][:15] + made["read"][15:]
    return made


def app_at(runner: SourceRunner, place: str) -> Flask:
    host = "0.0.0.0" if place == "public" else "127.0.0.1"
    return create_app(replace(runner.settings, web_host=host, api_keys=(hash_key(SETTINGS_KEY),)), runner.database)


def routes(app: Flask) -> Iterator[tuple[str, str]]:
    for rule in app.url_map.iter_rules():
        yield from ((method, rule.rule) for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}))


def test_every_route_says_who_may_call_it(runner: SourceRunner) -> None:
    assert sorted(f"{method} {rule}" for method, rule in routes(app_at(runner, "loopback"))) == sorted(NEEDED)


def expected(needed: str, who: str, place: str) -> int | None:
    """The status of a refusal, None for a call that goes through."""
    if needed in {OPEN, FORM}:
        return None if needed == OPEN else 403
    if who == "none":
        return None if place == "loopback" and needed in {READ, START} else 401
    if who not in GOOD:
        return 401
    least = {READ: 0, ACT: 0, START: 1, OPERATE: 1, ADMIN: 2}[needed]
    return None if GOOD.index(who) >= least else 403


@pytest.mark.parametrize("place", PLACES)
def test_each_call_from_each_place_by_each_caller(runner: SourceRunner, keys: dict[str, str], place: str) -> None:
    client = app_at(runner, place).test_client()
    wrong = []
    for route, needed in NEEDED.items():
        method, rule = route.split()
        path = fill(rule)
        for who in CALLERS:
            headers = {"Authorization": f"Bearer {keys[who]}"} if who in keys else {}
            headers |= {"X-Forwarded-For": "203.0.113.9"} if place == "forwarded" else {}
            # A body that no call takes: none of them does anything.
            body = None if method in {"GET", "DELETE"} else {"no such field": 1}
            answer = client.open(path, method=method, json=body, headers=headers)
            status = expected(needed, who, place)
            if answer.status_code == 303 and answer.location.startswith("/ui/sign-in"):
                refused: int | None = 401
                assert path.startswith("/ui")
            else:
                refused = answer.status_code if answer.status_code in {401, 403} else None
            if refused != status or answer.status_code >= 500:
                wrong.append((route, who, answer.status_code, status))
            if refused == 401 and not path.startswith("/ui"):
                assert answer.headers["WWW-Authenticate"] == "Bearer"
            if refused == 403 and not path.startswith("/ui"):
                assert answer.get_json()["type"] == "urn:kasparro:problem:role_needed"
    assert wrong == []


def fill(rule: str) -> str:
    values = {
        "uuid:run_id": str(uuid4()),
        "uuid:plan_id": str(uuid4()),
        "uuid:alert_id": str(uuid4()),
        "int:key_id": "999999",
        "host": "a.example",
        "source_name": "nothing",
    }
    for part in rule.split("/"):
        if part.startswith("<"):
            rule = rule.replace(part, values.get(part[1:-1], "1"))
    return rule


def test_a_key_may_come_in_either_header_and_its_use_is_noted(runner: SourceRunner, keys: dict[str, str]) -> None:
    client = app_at(runner, "public").test_client()
    assert client.get("/data", headers={"X-API-Key": keys["read"]}).status_code == 200
    assert client.get("/data", headers={"Authorization": f"bearer  {keys['read']}"}).status_code == 200
    assert client.get("/data", headers={"X-API-Key": SETTINGS_KEY}).status_code == 200
    shown = client.get("/keys", headers={"X-API-Key": keys["admin"]}).get_json()["keys"]
    assert [key["name"] for key in shown if key["last_used_at"]] == ["tests read", "tests admin"]
    assert not any("hash" in key or "key" in key for key in shown)


@pytest.fixture
def admin(runner: SourceRunner) -> FlaskClient:
    client = app_at(runner, "loopback").test_client()
    client.environ_base["HTTP_X_API_KEY"] = SETTINGS_KEY
    return client


def test_a_key_lives_from_its_making_to_its_end(runner: SourceRunner, admin: FlaskClient) -> None:
    made = admin.post("/keys", json={"name": "grafana", "role": "read"})
    assert made.status_code == 201
    key, number = made.get_json()["key"], made.get_json()["key_id"]
    assert key.startswith(made.get_json()["prefix"] + "_")
    guest = app_at(runner, "public").test_client()
    assert guest.get("/stats", headers={"X-API-Key": key}).status_code == 200
    other = admin.post(f"/keys/{number}/rotate", json={"overlap": 0}).get_json()
    assert guest.get("/stats", headers={"X-API-Key": key}).status_code == 401
    assert guest.get("/stats", headers={"X-API-Key": other["key"]}).status_code == 200
    assert admin.delete(f"/keys/{other['key_id']}").get_json()["revoked_at"]
    assert guest.get("/stats", headers={"X-API-Key": other["key"]}).status_code == 401
    assert admin.delete(f"/keys/{other['key_id']}").status_code == 404
    entries = admin.get("/audit").get_json()["entries"]
    assert [(entry["action"], entry["target"], entry["actor"]) for entry in entries] == [
        ("revoke_key", f"key {other['key_id']}", "API_KEYS"),
        ("rotate_key", f"key {other['key_id']}", "API_KEYS"),
        ("create_key", f"key {number}", "API_KEYS"),
    ]
    assert entries[2]["detail"]["after"]["name"] == "grafana"
    assert entries[1]["detail"]["replaces"] == number
    with runner.database.transaction() as connection:
        kept = str(connection.execute(text("SELECT to_jsonb(k) FROM api_keys k")).all())
        kept += str(connection.execute(text("SELECT to_jsonb(a) FROM audit_log a")).all())
    assert key not in kept
    assert other["key"] not in kept


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"role": "read"}, "name"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "", "role": "read"}, "name"),
        ({"name": "x", "role": "read", "expires_at": "2020-01-01"}, "expires_at"),
        ({"name": "x", "role": "read", "more": 1}, "more"),
    ],
)
def test_a_key_that_cannot_be_made_names_the_field(admin: FlaskClient, body: dict[str, object], field: str) -> None:
    answer = admin.post("/keys", json=body)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_the_making_of_a_key_that_is_asked_for_again_shows_no_secret(admin: FlaskClient) -> None:
    ask = {"json": {"name": "twice", "role": "read"}, "headers": {"Idempotency-Key": "k1"}}
    first, second = admin.post("/keys", **ask), admin.post("/keys", **ask)
    assert (first.status_code, second.status_code) == (201, 409)
    assert first.get_json()["key"] not in second.text
    assert len(admin.get("/keys").get_json()["keys"]) == 1


def test_while_the_database_is_away_a_key_of_the_settings_is_known_and_others_cannot_be(runner: SourceRunner) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none", name="away", pool_size=1, patience=0)
    app = create_app(replace(runner.settings, api_keys=(hash_key(SETTINGS_KEY),)), away)
    client = app.test_client()
    assert client.get("/docs").status_code == 200
    assert client.get("/health", headers={"X-API-Key": SETTINGS_KEY}).get_json()["status"] == "unhealthy"
    assert client.get("/health", headers={"X-API-Key": "kas_0123456789_" + "a" * 43}).status_code == 503
    assert client.get("/health", headers={"X-API-Key": "nothing like a key"}).status_code == 401


def command(runner: SourceRunner, *words: str) -> subprocess.CompletedProcess[str]:
    url = runner.database.engine.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    environment = {
        "PATH": "",
        "DATABASE_URL": url,
        "ENV_FILE": "/dev/null",
        "STATE_DIR": str(runner.settings.state_dir),
    }
    return subprocess.run(
        [sys.executable, "-m", "web", "keys", *words],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_keys_are_made_and_taken_back_from_a_shell(runner: SourceRunner, admin: FlaskClient) -> None:
    made = command(runner, "create", "nightly", "--role", "operate", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    guest = app_at(runner, "public").test_client()
    assert guest.get("/data", headers={"X-API-Key": key}).status_code == 200
    rotated = command(runner, "rotate", "1", "--overlap", "0s")
    assert guest.get("/data", headers={"X-API-Key": key}).status_code == 401
    assert guest.get("/data", headers={"X-API-Key": rotated.stdout.strip()}).status_code == 200
    assert command(runner, "revoke", "2").returncode == 0
    listed = command(runner, "list").stdout
    assert listed.count("nightly") == 2
    assert "expired" in listed
    assert "revoked" in listed
    assert key not in listed
    assert command(runner, "revoke", "2").returncode == 1
    assert command(runner, "create", "x", "--role", "root").returncode == 2
    assert [entry["actor"] for entry in admin.get("/audit?action=create_key").get_json()["entries"]] == ["cli"]


def test_where_the_use_of_a_key_cannot_be_noted_reading_goes_on(
    runner: SourceRunner, keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageTroubleError("no room", state="53100")

    monkeypatch.setattr("web.callers.note_use", full)
    client = app_at(runner, "public").test_client()
    assert client.get("/sources", headers={"X-API-Key": keys["read"]}).status_code == 200
