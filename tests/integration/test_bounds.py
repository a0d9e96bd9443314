"""Answers about runs cost the same however many there were; at full size by `make bounds`."""

from __future__ import annotations

import pytest

from bench.bounds import FIXED, PATHS, PER_SOURCE, fill, pages_of
from db.session import Database
from testkit.runner import SourceRunner
from web.app import create_app

SOURCES = 100


def test_no_answer_looks_at_more_pages_for_more_runs(runner: SourceRunner, database: Database) -> None:
    with create_app(runner.settings, database).test_client() as client:
        fill(database, SOURCES, 1, 2_000)
        fewer = {path: pages_of(client, database, path) for path in PATHS}
        fill(database, SOURCES, 2_001, 40_000)
        for path in PATHS:
            pages = pages_of(client, database, path)
            assert pages <= FIXED + PER_SOURCE * SOURCES, path
            # A page of the list may lie on more pages of the table, one for each run at most.
            assert pages <= fewer[path] + 60, path


def test_the_bound_is_passed_by_an_answer_that_looks_at_all_runs(runner: SourceRunner, database: Database) -> None:
    runner.sql("DROP INDEX ix_etl_runs_status")
    try:
        with create_app(runner.settings, database).test_client() as client:
            fill(database, SOURCES, 1, 40_000)
            with pytest.raises(AssertionError):
                assert pages_of(client, database, "/runs?status=cancelled") <= FIXED
    finally:
        runner.sql("CREATE INDEX ix_etl_runs_status ON etl_runs (status, created_at, run_id)")
