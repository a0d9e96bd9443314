"""Questions that take long, and pages that are large."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from flask.testing import FlaskClient
from sqlalchemy import text

from config import settings
from db.queries import items
from db.session import Database
from etl.errors import StorageConflictError
from testkit.runner import SourceRunner
from testkit.service import Servers, make_database
from web.app import create_app

# In place of PostgreSQL's own: whoever searches waits, and is counted.
SLOW_SEARCH = """
    CREATE SCHEMA slow;
    CREATE SEQUENCE slow.asked;
    CREATE FUNCTION slow.websearch_to_tsquery(regconfig, text) RETURNS tsquery LANGUAGE sql VOLATILE AS
        $$ SELECT 'a'::tsquery FROM (SELECT nextval('slow.asked'), pg_sleep(30)) slept $$;
    ALTER DATABASE slow SET search_path = slow, pg_catalog, public;
"""
INSERT = """
    INSERT INTO unified_items (source_type, source_name, external_id, title, description, metadata, raw_data_id,
        raw_ingested_at, run_id, content_hash, mapping_version)
    SELECT 'csv', 'shop', n::text, 'thing ' || n, {description}, {metadata}, n, now(), gen_random_uuid(), '\\x00', 1
    FROM generate_series(1, {count}) n
"""
# As many bytes of text that does not shrink when it is compressed, and of JSON that shrinks to almost nothing.
TEXT = "(SELECT string_agg(md5(n || ' ' || m), '') FROM generate_series(1, {bytes} / 32) m)"
JSON = "jsonb_build_object('a', repeat('x', {bytes}))"


def fill(database: Database, count: int, *, description: str = "'small'", metadata: str = "'{}'") -> None:
    with database.transaction() as connection:
        query = INSERT.format(count=count, description=description, metadata=metadata)
        connection.execute(text(query))


@pytest.fixture
def client(runner: SourceRunner) -> Iterator[FlaskClient]:
    with create_app(runner.settings, runner.database).test_client() as client:
        yield client


@pytest.fixture
def slow(servers: Servers, migrated: str) -> Iterator[Database]:
    """A database in which every search takes half a minute, and may take a third of a second."""
    url = make_database(servers, "slow", template="migrated")
    database = Database(url, name="tests", patience=10)
    with database.transaction() as connection:
        connection.execute(text(SLOW_SEARCH))
    fill(database, 3)
    database.close()
    limited = Database(url, name="tests", patience=10, statement_limit=timedelta(seconds=0.3))
    yield limited
    limited.close()


@pytest.mark.parametrize("query", ["search=a", "search=a&source_name=shop", "search=a&sort_by=title&page=2"])
def test_a_question_that_takes_too_long_is_ended_once_and_says_what_to_narrow(
    slow: Database, runner: SourceRunner, query: str
) -> None:
    with create_app(runner.settings, slow).test_client() as client:
        answer = client.get(f"/data?{query}")
        body = json.loads(answer.data)
        assert (answer.status_code, body["type"]) == (503, "urn:kasparro:problem:too_slow")
        assert int(answer.headers["Retry-After"]) > 0
        assert ("`source_name`" in body["detail"]) == ("source_name" not in query)
        assert "fewer filters" in body["detail"]
        assert ("order" in body["detail"]) == ("sort_by" in query)
        assert client.get("/data?source_name=shop").status_code == 200
        assert client.get("/health/ready").status_code == 200
    with slow.transaction() as connection:
        assert connection.execute(text("SELECT last_value FROM slow.asked")).scalar_one() == 1


def test_the_web_takes_its_limit_from_the_settings(slow: Database, runner: SourceRunner) -> None:
    url = slow.engine.url.render_as_string(hide_password=False).replace("+psycopg2", "")
    current = replace(runner.settings, web_database_url=url, read_timeout=timedelta(seconds=0.4))
    with create_app(current).test_client() as client:
        assert client.get("/data?search=a").status_code == 503
    assert settings.read({}).read_timeout == timedelta(seconds=5)


def test_a_statement_that_a_worker_has_to_give_up_is_a_conflict(slow: Database) -> None:
    database = Database(slow.engine.url.render_as_string(hide_password=False), name="tests")
    try:
        with pytest.raises(StorageConflictError), database.transaction() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 50"))
            connection.execute(text("SELECT pg_sleep(30)"))
    finally:
        database.close()


def test_too_slow_is_described(client: FlaskClient) -> None:
    described = json.loads(client.get("/openapi.json").data)["paths"]
    assert all("503" in described[path]["get"]["responses"] for path in ("/data", "/runs", "/stats"))


# --- large pages


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pages that hold little, so that few items are too many."""
    monkeypatch.setattr(items, "QUICK_BYTES", 20_000)
    monkeypatch.setattr(items, "PAGE_BYTES", 200_000)
    return 200_000


def walk(client: FlaskClient, query: str) -> list[list[str]]:
    """The ids on each page, and nothing is larger than it may be."""
    pages, path = list[list[str]](), f"/data?{query}"
    while True:
        answer = client.get(path)
        assert answer.status_code == 200, answer.data
        body = json.loads(answer.data)
        pages.append([item["external_id"] for item in body["items"]])
        assert body["pagination"]["has_next"] == bool(body["pagination"]["next_cursor"])
        if not body["pagination"]["has_next"]:
            return pages
        path = f"/data?page_size=20&cursor={body['pagination']['next_cursor']}"


@pytest.mark.parametrize(
    ("description", "metadata"),
    [(TEXT.format(bytes=32_000), "'{}'"), ("'small'", JSON.format(bytes=32_000)), ("NULL", JSON.format(bytes=32_000))],
)
@pytest.mark.parametrize("query", ["page_size=20", "page_size=20&sort_by=title&sort_order=asc"])
def test_a_page_of_large_items_ends_early(
    client: FlaskClient, runner: SourceRunner, narrow: int, description: str, metadata: str, query: str
) -> None:
    fill(runner.database, 40, description=description, metadata=metadata)
    pages = walk(client, query)
    assert sorted(one for page in pages for one in page) == sorted(str(n) for n in range(1, 41))
    assert {len(page) for page in pages[:-1]} == {6}
    assert all(len(client.get(f"/data?{query}").data) < narrow * 1.1 for query in ("page_size=40", "page_size=1000"))


def test_an_item_that_is_larger_than_a_page_has_a_page_to_itself(
    client: FlaskClient, runner: SourceRunner, narrow: int
) -> None:
    fill(runner.database, 3, metadata=JSON.format(bytes=narrow * 2))
    assert [len(page) for page in walk(client, "page_size=20")] == [1, 1, 1]


def test_a_large_page_by_number_is_refused_by_name(client: FlaskClient, runner: SourceRunner, narrow: int) -> None:
    fill(runner.database, 40, metadata=JSON.format(bytes=32_000))
    answer = client.get("/data?page=1&page_size=20")
    body = json.loads(answer.data)
    assert (answer.status_code, body["type"]) == (422, "urn:kasparro:problem:page_too_large")
    assert [(error["location"], error["field"]) for error in body["errors"]] == [("query", "page_size")]
    assert "next_cursor" in body["detail"]
    assert client.get("/data?page=2&page_size=6").status_code == 200


@pytest.mark.parametrize("page", ["", "&page=1"])
def test_a_page_that_is_not_too_large_is_whole(
    client: FlaskClient, runner: SourceRunner, narrow: int, page: str
) -> None:
    fill(runner.database, 30, metadata=JSON.format(bytes=4_000))
    body = json.loads(client.get(f"/data?page_size=20{page}").data)
    assert (len(body["items"]), body["pagination"]["has_next"]) == (20, True)
    assert body["pagination"]["current_page"] == 1
