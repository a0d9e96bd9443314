"""Answers cost the same however much there is; at full size by `make bounds`, and by `make bench` for items."""

from __future__ import annotations

import json
from urllib.parse import urlencode

import pytest

from bench.bounds import FIXED, PATHS, WITH_RUNS, bound_of, fill, pages_of
from bench.speed.matrix import lines
from bench.speed.skewed import fill as fill_skewed
from db.queries.item_paths import SORTABLE
from db.session import Database
from testkit.runner import SourceRunner
from web.app import create_app

SOURCES = 100
# So many items, of which each 60th line of the matrix is asked; a page has 50 of them, and so many database pages.
ITEMS, NTH, DIRECT = 20_000, 60, 600


def test_no_answer_looks_at_more_pages_for_more_runs(runner: SourceRunner, database: Database) -> None:
    with create_app(runner.settings, database).test_client() as client:
        fill(database, SOURCES, 1, 2_000)
        fewer = {path: pages_of(client, database, path) for path in PATHS}
        fill(database, SOURCES, 2_001, 40_000)
        for path in PATHS:
            pages = pages_of(client, database, path)
            assert pages <= bound_of(path, SOURCES), path
            # A page of the list may lie on more pages of the table, one for each run at most.
            assert pages <= fewer[path] + 60 + WITH_RUNS.get(path, 0), path


def test_the_bound_is_passed_by_an_answer_that_looks_at_all_runs(runner: SourceRunner, database: Database) -> None:
    runner.sql("DROP INDEX ix_etl_runs_status")
    try:
        with create_app(runner.settings, database).test_client() as client:
            fill(database, SOURCES, 1, 40_000)
            with pytest.raises(AssertionError):
                assert pages_of(client, database, "/runs?status=cancelled") <= FIXED
    finally:
        runner.sql("CREATE INDEX ix_etl_runs_status ON etl_runs (status, created_at, run_id)")


def test_no_page_of_items_looks_at_more_than_all_of_them(runner: SourceRunner, database: Database) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        cursor = connection.connection.cursor()
        cursor.execute("SET statement_timeout = 0")
        fill_skewed(cursor.execute, ITEMS)
    with create_app(runner.settings, database).test_client() as client:
        for line in lines()[::NTH]:
            pages = pages_of(client, database, f"/data?{urlencode(line.query)}")
            assert pages <= (2 * ITEMS if line.choices else DIRECT), line
        for sort_by in SORTABLE:
            page = json.loads(client.get(f"/data?sort_by={sort_by}&page_size=1000").data)
            deep = page["pagination"]["next_cursor"]
            assert pages_of(client, database, f"/data?cursor={deep}") <= DIRECT, sort_by
