"""The roles that the service logs in as: what each may, and that the service needs no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import psycopg2
import pytest
from sqlalchemy import make_url, text

from config import settings
from config.settings import SettingError
from db import __main__ as command
from db.roles import Role, lacking, make_roles
from db.session import Database
from etl.access.keys import hash_key
from etl.runs.messages import ExtractMessage
from testkit.runner import SourceRunner
from testkit.service import Servers, make_database
from web.app import create_app

KEY = "correct horse battery staple"
OWNER, WEB = Role("test_owner", "owner's: secret"), Role("test_web", "web")


def url_of(admin_url: str, role: Role) -> str:
    given = make_url(admin_url).set(username=role.name, password=role.password)
    return given.render_as_string(hide_password=False)


@pytest.fixture
def admin_url(servers: Servers, migrated: str) -> Iterator[str]:
    """A database as an earlier release left it: all in it belongs to the superuser."""
    yield make_database(servers, "roles", template="migrated")
    connection = psycopg2.connect(servers.postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("DROP DATABASE roles WITH (FORCE)")
        cursor.execute("DROP ROLE IF EXISTS test_owner")
        cursor.execute("DROP ROLE IF EXISTS test_web")
    connection.close()


@pytest.fixture
def migrate(admin_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The migration has been told of a superuser, an owner and a web role."""
    given = {"ADMIN_DATABASE_URL": admin_url, "DATABASE_URL": url_of(admin_url, OWNER)}
    for name, value in {**given, "WEB_DATABASE_URL": url_of(admin_url, WEB)}.items():
        monkeypatch.setenv(name, value)
    settings.load.cache_clear()
    try:
        command.migrate()
        command.migrate()
    finally:
        settings.load.cache_clear()
    return admin_url


def refused(url: str, statement: str) -> bool:
    connection = psycopg2.connect(url)
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    except psycopg2.errors.InsufficientPrivilege:
        return True
    finally:
        connection.close()
    return False


def test_the_owner_owns_all_and_is_no_superuser(migrate: str) -> None:
    owner = url_of(migrate, OWNER)
    assert refused(owner, "COPY etl_looks FROM PROGRAM 'true'")
    assert refused(owner, "CREATE ROLE another")
    assert not refused(owner, "ALTER TABLE unified_items ADD COLUMN more text")
    assert not refused(owner, "CREATE TABLE more (id int)")
    database = Database(owner, name="test", patience=0)
    others = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> 'test_owner'::regrole"
    with database.transaction() as connection:
        assert connection.execute(text(others)).scalar() == 0
    database.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM unified_items",
        "UPDATE unified_items SET title = ''",
        "INSERT INTO raw_data (run_id, source_type, source_name, raw_payload, content_hash) VALUES (gen_random_uuid(), '', '', '{}', '')",
        "DELETE FROM etl_runs",
        "DELETE FROM audit_log",
        "UPDATE audit_log SET actor = ''",
        "UPDATE source_versions SET document = '{}'",
        "DELETE FROM api_keys",
        "CREATE TABLE more (id int)",
        "TRUNCATE etl_run_events",
    ],
)
def test_the_web_cannot_change_what_is_not_its_own(migrate: str, statement: str) -> None:
    assert refused(url_of(migrate, WEB), statement)


def test_the_web_needs_no_more_than_it_may(migrate: str, runner: SourceRunner) -> None:
    runner.database = Database(url_of(migrate, OWNER), name="owner")
    web = Database(url_of(migrate, WEB), name="web", statement_limit=timedelta(seconds=5))
    runner.declare(
        {"name": "shop", "type": "csv", "file": "shop.csv"},
        {"name": "far", "type": "api", "request": {"url": "http://far.test/"}},
    )
    runner.write("shop.csv", "id,name\n1,x\n2,y\n")
    try:
        with create_app(replace(runner.settings, api_keys=(hash_key(KEY),)), web).test_client() as client:
            client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {KEY}"
            queued = client.post("/runs", json={"source": "shop"}).get_json()["runs"][0]["run_id"]
            runner.step(ExtractMessage(UUID(queued)))
            assert client.post(f"/runs/{queued}/cancel").status_code == 202
            assert runner.run("shop")["status"] == "success"
            assert client.post("/runs", json={}).status_code == 202
            runner.sql(
                "UPDATE sources SET not_before = now() + interval '1 hour', not_before_reason = 'asked'"
                " WHERE name = 'far' RETURNING 1"
            )
            assert client.post("/breakers/far.test/reset").status_code == 200
            made = client.put("/sources/made", json={"type": "csv", "file": "shop.csv"})
            assert made.status_code == 201, made.text
            assert client.patch("/sources/made", json={"tags": ["x"]}, headers={"If-Match": "*"}).status_code == 200
            assert client.post("/sources/made/pause", json={}).status_code == 200
            assert client.post("/sources/made/resume", json={}).status_code == 200
            assert client.post("/runs", json={"source": "made"}, headers={"Idempotency-Key": "k"}).status_code == 202
            assert client.delete("/sources/made?data=true", headers={"If-Match": "*"}).status_code == 200
            assert client.post("/sources/apply?prune=true", json={"sources": []}).status_code == 200
            key = client.post("/keys", json={"name": "x", "role": "read"}).get_json()
            assert client.get("/data", headers={"Authorization": f"Bearer {key['key']}"}).status_code == 200
            assert client.delete(f"/keys/{key['key_id']}").status_code == 200
            paths = (
                "/sources",
                "/overview",
                "/system",
                "/hosts",
                "/errors",
                "/audit",
                "/data",
                "/data?search=x",
                "/stats",
                "/health",
                "/health/ready",
                "/runs",
                "/runs?status=queued",
                f"/runs/{queued}",
                "/breakers",
            )
            assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200)
        assert web.read(lacking) == []
    finally:
        web.close()
        runner.database.close()


def test_one_role_for_all_works_and_says_what_is_missing(database: Database) -> None:
    found = database.read(lacking)
    assert [line.split(":")[0] for line in found] == [
        "the role kasparro is a superuser of the database",
        "the role kasparro may change records",
    ]


def test_what_is_not_ours_stays_whose_it_is(admin_url: str) -> None:
    connection = psycopg2.connect(admin_url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE of_another (id int)")
    connection.close()
    make_roles(admin_url, OWNER, WEB)
    database = Database(admin_url, name="test", patience=0)
    with database.transaction() as connected:
        query = text("SELECT tablename, tableowner FROM pg_tables WHERE schemaname = 'public'")
        owners = {row.tablename: row.tableowner for row in connected.execute(query)}
    database.close()
    assert owners.pop("of_another") == "kasparro"
    assert set(owners.values()) == {"test_owner"}


def test_a_role_may_log_in_without_a_password(admin_url: str) -> None:
    make_roles(admin_url, OWNER, Role("test_web", None))
    make_roles(admin_url, OWNER, WEB)
    assert not refused(url_of(admin_url, WEB), "SELECT 1")


def test_a_password_that_is_changed_holds(admin_url: str) -> None:
    make_roles(admin_url, OWNER, None)
    make_roles(admin_url, Role(OWNER.name, "another"), None)
    with pytest.raises(psycopg2.OperationalError, match="password authentication failed"):
        psycopg2.connect(url_of(admin_url, OWNER))


def test_the_superuser_is_not_made_the_owner(admin_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADMIN_DATABASE_URL", admin_url)
    monkeypatch.setenv("DATABASE_URL", admin_url)
    settings.load.cache_clear()
    try:
        with pytest.raises(SettingError, match="have to name roles other than"):
            command.migrate()
    finally:
        settings.load.cache_clear()
