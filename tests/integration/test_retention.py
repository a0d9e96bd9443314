"""Old runs go, beside the work, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from db.queries import retention
from etl.errors import StorageConflictError
from testkit.runner import SourceRunner
from worker import removal
from worker.removal import Removal

COUNTS = (
    "SELECT (SELECT count(*) FROM etl_runs), (SELECT count(*) FROM etl_batches), (SELECT count(*) FROM etl_run_events)"
)


def old_runs(runner: SourceRunner, count: int, *, days: int = 100, batches: int = 2) -> None:
    """Runs that ended so many days ago and are in the totals."""
    runner.sql(
        f"""INSERT INTO etl_runs (run_id, source_name, trigger, status, stage, created_at, rolled_up)
        SELECT gen_random_uuid(), 'shop', 'api', 'success', 'done', now() - interval '{days} days', true
        FROM generate_series(1, {count})"""
    )
    runner.sql(
        f"""INSERT INTO etl_batches (run_id, source_name, number, state, rolled_up)
        SELECT run_id, 'shop', n, 'loaded', true FROM etl_runs, generate_series(1, {batches}) n
        WHERE NOT EXISTS (SELECT 1 FROM etl_batches b WHERE b.run_id = etl_runs.run_id)"""
    )
    runner.sql("INSERT INTO etl_run_events (run_id, event) SELECT run_id, 'queued' FROM etl_runs")


@pytest.fixture
def purging(runner: SourceRunner) -> Removal:
    return Removal(replace(runner.settings, runs_retention=timedelta(days=90)))


def test_a_pass_removes_thousands(runner: SourceRunner, purging: Removal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PURGE_SECONDS", 60)
    old_runs(runner, 3100)
    old_runs(runner, 7, days=10, batches=1)
    purging.purge(runner.database)
    assert runner.sql(COUNTS)[0][:2] == (7, 7)


def test_a_pass_ends_and_the_next_goes_on_at_once(
    runner: SourceRunner, purging: Removal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "PURGE_SECONDS", 0.0)
    old_runs(runner, 20, batches=1)
    purging.purge(runner.database)
    assert runner.sql(COUNTS)[0][0] == 20
    monkeypatch.setattr(removal, "PURGE_SECONDS", 60)
    purging.purge(runner.database)
    assert runner.sql(COUNTS)[0] == (0, 0, 0)


def test_what_is_not_in_the_totals_stays(runner: SourceRunner, purging: Removal) -> None:
    old_runs(runner, 3)
    runner.sql("UPDATE etl_runs SET rolled_up = false WHERE run_id = (SELECT min(run_id::text)::uuid FROM etl_runs)")
    runner.sql("UPDATE etl_batches SET rolled_up = false WHERE run_id = (SELECT max(run_id::text)::uuid FROM etl_runs)")
    purging.purge(runner.database)
    assert runner.sql(COUNTS)[0][:2] == (2, 4)


def test_runs_too_large_for_one_step_are_removed_in_smaller_ones(
    runner: SourceRunner, purging: Removal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand runs with ten thousand batches each no step of five hundred ends in time."""
    monkeypatch.setattr(removal, "PURGE_SECONDS", 60)
    asked: list[int] = []
    real = retention.purge_runs

    def slow(connection: object, age: timedelta, limit: int) -> int:
        asked.append(limit)
        if limit > 10:
            raise StorageConflictError("the statement took too long")
        return real(connection, age, limit)  # type: ignore[arg-type]

    monkeypatch.setattr(retention, "purge_runs", slow)
    database = runner.database
    monkeypatch.setattr(database, "_patience", 0.0)
    old_runs(runner, 8)
    for _ in range(6):
        try:
            purging.purge(database)
        except StorageConflictError:
            continue
    assert asked[0] == 1000
    assert runner.sql(COUNTS)[0] == (0, 0, 0)
