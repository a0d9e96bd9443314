"""What answers and pages cost, by the pages of the database that their statements look at, however many runs there are.

A database is filled with sources and ended runs, then with ten times as many runs; each path is asked by the application
itself, and every statement that it sent is explained. `python -m bench.bounds --sources 10000 --runs 1000000`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, event

from config import settings
from db.session import Database
from testkit.service import make_database, running_servers
from web.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flask.testing import FlaskClient

PATHS = (
    *("/health", "/stats", "/runs", "/runs?status=partial", "/runs?status=skipped", "/runs?source_name=s1"),
    *("/overview", "/system", "/hosts", "/errors", "/sources", "/sources?state=failing", "/sources?tags=blue"),
    *("/sources/s1", "/sources/s1/why", "/sources/s1/versions", "/sources/s1/mappings", "/sources/s1/drift"),
    *("/sources?details=true", "/runs?trigger=api", "/runs?error_code=http_500", "/runs?error=f7", "/metrics"),
    *("/ui/overview", "/ui/sources", "/ui/sources?state=failing", "/ui/sources?name=99", "/ui/runs", "/ui/errors"),
    *(
        "/ui/runs?status=failed",
        "/ui/sources/s1",
        "/ui/sources/s1/runs",
        "/ui/sources/s1/data",
        "/ui/sources/s1/rejects",
    ),
    *("/ui/rejects", "/ui/rejects/cases", "/ui/data", "/ui/replays", "/ui/hosts", "/ui/system", "/ui/new-source"),
)
# So many pages of 8 KiB each source may cost, beside a fixed number; and nothing for a run.
PER_SOURCE, FIXED = 3.0, 600
# Where the last 20 runs of each source of a page are shown, they lie anywhere: pages for each of up to 100 sources.
WITH_RUNS = {"/sources?details=true": 2500, "/ui/sources": 1250, "/ui/sources?state=failing": 1250}
ASKED = 15
_SOURCES = """
    INSERT INTO sources (name, type, config, enabled, origin, next_run_at)
    SELECT 's' || n, 'csv', jsonb_build_object('name', 's' || n, 'type', 'csv', 'schedule', jsonb_build_object('every', '30m'),
            'file', 'a.csv', 'tags', jsonb_build_array(CASE WHEN n % 3 = 0 THEN 'blue' ELSE 'red' END)),
        true, 'file', now() + interval '1 hour' FROM generate_series(1, {sources}) n;
    INSERT INTO source_versions (source_name, version, mapping_version, mapped_since, reader, made_by, document)
    SELECT name, 1, 1, 1, 1, 'file', config FROM sources;
    INSERT INTO etl_checkpoints (source_name, source_type, total_items, total_runs, last_status, last_run_at)
    SELECT name, type, 100, 10, 'success', now() FROM sources;
"""
_RUNS = """
    INSERT INTO etl_runs (run_id, source_name, source_type, trigger, status, stage, created_at, started_at, completed_at,
        rolled_up, error_code, error_message, error_fingerprint)
    SELECT gen_random_uuid(), 's' || (n % {sources} + 1), 'csv', 'schedule',
        CASE WHEN n % 1000 = 0 THEN 'partial' WHEN n % 17 = 0 THEN 'skipped' WHEN n % 50 = 1 THEN 'failed'
            ELSE 'success' END, 'done',
        now() - n * interval '1 s', now() - n * interval '1 s', now() - n * interval '1 s', true,
        CASE WHEN n % 50 = 1 THEN 'http_500' END, CASE WHEN n % 50 = 1 THEN 'answered 500' END,
        CASE WHEN n % 50 = 1 THEN 'f' || n % 20 END
    FROM generate_series({first}, {last}) n
"""
_ITEMS = """
    INSERT INTO unified_items (source_type, source_name, external_id, title, category, amount, published_at, raw_data_id,
        raw_ingested_at, run_id, content_hash, mapping_version)
    SELECT 'csv', 's' || (n % {sources} + 1), n::text, 'thing ' || n, 'c' || n % 50, n % 1000,
        now() - n * interval '1 min', n, now(), gen_random_uuid(), '\\x00', 1
    FROM generate_series(1, {items}) n
"""


def fill_items(database: Database, sources: int, items: int) -> None:
    """So many items, spread over the sources."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor = connection.connection.cursor()
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(_ITEMS.format(sources=sources, items=items))
        cursor.execute("VACUUM (ANALYZE) unified_items")


def fill(database: Database, sources: int, first: int, last: int) -> None:
    """Sources, if these are the first runs, and runs with these numbers, the higher the older."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor = connection.connection.cursor()
        cursor.execute("SET statement_timeout = 0")
        if first == 1:
            cursor.execute(_SOURCES.format(sources=sources))
        cursor.execute(_RUNS.format(sources=sources, first=first, last=last))
        cursor.execute("VACUUM (ANALYZE) etl_runs")
        cursor.execute("ANALYZE")


def pages_of(client: FlaskClient, database: Database, path: str) -> int:
    """The pages that the statements of an answer look at."""
    with _statements() as sent:
        assert client.get(path).status_code == 200, path
    asked = [one for one in sent if not one[0].lstrip().startswith("EXPLAIN")]
    return sum(_explained(database, statement, values) for statement, values in asked)


@contextmanager
def _statements() -> Iterator[list[tuple[str, Any]]]:
    sent: list[tuple[str, Any]] = []

    def note(*arguments: Any) -> None:
        sent.append((arguments[2], arguments[3]))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def _explained(database: Database, statement: str, values: Any) -> int:
    local, end, query = statement.rpartition("; ")
    explain = f"{local}{end}EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"
    with database.engine.connect() as connection:
        answer = connection.exec_driver_sql(explain, values).scalar_one()
    plan = (json.loads(answer) if isinstance(answer, str) else answer)[0]
    return sum(int(plan["Plan"][f"Shared {kind} Blocks"]) for kind in ("Hit", "Read"))


def median_ms(client: FlaskClient, database: Database, path: str) -> float:
    """The median time of an answer that was not kept from before, in ms."""
    took = []
    for _ in range(ASKED):
        with database.transaction() as connection:
            connection.exec_driver_sql("SELECT pg_current_xact_id()")
        started = time.perf_counter()
        assert client.get(path).status_code == 200, path
        took.append(1000 * (time.perf_counter() - started))
    return statistics.median(took)


def bound_of(path: str, sources: int) -> float:
    """The pages that an answer may look at, among so many sources."""
    return FIXED + PER_SOURCE * sources + WITH_RUNS.get(path, 0)


def main() -> int:
    """0 if no answer looks at more pages than its bound."""
    parser = argparse.ArgumentParser(prog="bench.bounds", description=__doc__)
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    arguments = parser.parse_args()
    over = False
    with running_servers("kasparro-bounds-") as (servers, _):
        database = Database(
            make_database(servers, "bounds", template="migrated"), name="bounds", statement_limit=timedelta(minutes=5)
        )
        with create_app(settings.load(), database).test_client() as client:
            fill(database, arguments.sources, 1, arguments.runs // 10)
            fill_items(database, arguments.sources, arguments.items)
            fewer = {path: pages_of(client, database, path) for path in PATHS}
            fill(database, arguments.sources, arguments.runs // 10 + 1, arguments.runs)
            for path in PATHS:
                pages = pages_of(client, database, path)
                over = over or pages > bound_of(path, arguments.sources)
                print(f"{path:24} {fewer[path]:8} -> {pages:8} pages, {median_ms(client, database, path):8.1f} ms")
        database.close()
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
